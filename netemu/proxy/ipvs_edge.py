"""ipvs mode, the edge: the compiler's words to and from IPVS, ipset and rtnetlink, in one namespace and one family.

Calls block shortly; the programmer makes them in a worker thread. Removing what is not there any more is success: the
kernel drops a real server with its virtual server, an address with its link, and somebody else may have been there.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from netemu.kernel import ipset, ipvs
from netemu.kernel.ipset import Ipset
from netemu.kernel.ipvs import Destination, Ipvs, ServerFlag, ServerKey, VirtualServer
from netemu.kernel.netlink import Rtnetlink
from netemu.kernel.rtnetlink import AddAddress, AddDummy, DelAddress
from netemu.model.errors import KernelError, KernelExists, KernelNotFound
from netemu.proxy.ipvs import DUMMY_LINK, Balancing, Front
from netemu.proxy.ipvs_plan import Entry, Real
from netemu.proxy.ipvs_sets import IpSet
from netemu.proxy.services import Family, family_of

_PROBE = ServerKey("tcp", "198.51.100.0", 20000)
"""An address for documentation: no Service has it. Upstream probes with the same one."""


@dataclass(frozen=True, slots=True)
class Actual:
    """What is there."""

    servers: Mapping[Front, tuple[Balancing, Mapping[str, int]]] = field(default_factory=dict)
    """Virtual servers with their real servers' weights by `ip:port`."""
    entries: frozenset[Entry] = frozenset()
    bound: frozenset[str] = frozenset()
    """Addresses of kube-ipvs0."""
    own_addresses: tuple[str, ...] = ()
    """All others of this machine, in order."""


class IpvsEdge:
    """See the module. `excluded` are networks whose virtual servers are not ours (excludeCIDRs)."""

    def __init__(
        self, balancer: Ipvs, sets: Ipset, links: Rtnetlink, family: Family, excluded: Sequence[str] = ()
    ) -> None:
        self.balancer, self.sets, self.links, self.family = balancer, sets, links, family
        self._excluded = [ipaddress.ip_network(network) for network in excluded]
        self._names = {of.named(family): of for of in IpSet}

    def close(self) -> None:
        """Give the sockets back."""
        for each in (self.balancer, self.sets, self.links):
            each.close()

    # --- what is there

    def prove(self, scheduler: str) -> None:
        """Make sure that this kernel can do what the mode needs. Raises KernelError naming what it cannot."""
        if all(server.scheduler != scheduler for server in self.balancer.servers()):
            _without(KernelExists, self.balancer.attempt([ipvs.AddServer(VirtualServer(_PROBE, scheduler))]))
            self.balancer.apply(ipvs.DelServer(_PROBE))
        self._ensure()

    def read(self) -> Actual:
        """Everything of this family, after the sets and the link have been made where they were missing."""
        self._ensure()
        link = self.link_index()
        bound: set[str] = set()
        own: set[str] = set()
        for each in self.links.addresses():
            text = each.address.partition("/")[0]
            if family_of(text) is self.family and not (self.family is Family.IPV6 and each.scope == "link"):
                (bound if each.index == link else own).add(text)
        entries = {(of, str(entry)) for name, of in self._names.items() for entry in self.sets.get(name).entries}
        return Actual(self._servers(), frozenset(entries), frozenset(bound), tuple(sorted(own)))

    def busy(self, reals: Iterable[Real]) -> set[Real]:
        """Those of the real servers that have connections, open or just closed."""
        by_front: dict[Front, set[str]] = {}
        for front, target in reals:
            by_front.setdefault(front, set()).add(target)
        found = set()
        for front, targets in by_front.items():
            for each in self.destinations(ServerKey(*front)):
                if each.target in targets and (each.active or each.inactive):
                    found.add((front, each.target))
        return found

    def keys(self, *, both: bool = False) -> list[ServerKey]:
        """The virtual servers of this family, or of both, but for the excluded ones and those of firewall marks."""
        return [server.key for server in self.balancer.servers() if self._is_ours(server.key, both=both)]

    def destinations(self, key: ServerKey) -> list[Destination]:
        """The real servers of a virtual server; none where it is gone."""
        try:
            return self.balancer.destinations(key)
        except KernelNotFound:
            return []

    def link_index(self) -> int:
        """The index of kube-ipvs0, 0 where it is not."""
        return next((each.index for each in self.links.links() if each.name == DUMMY_LINK), 0)

    def has_sets(self) -> bool:
        """Whether a set of either family is there."""
        ours = {of.named(family) for of in IpSet for family in Family}
        return not ours.isdisjoint(self.sets.names())

    def _ensure(self) -> None:
        # The link is first to come and last to go: without it nothing of this mode is here.
        if not self.link_index():
            with suppress(KernelExists):  # the other family's programmer was faster
                self.links.apply(AddDummy(DUMMY_LINK))
        inet = "inet6" if self.family is Family.IPV6 else "inet"
        missing = self._names.keys() - set(self.sets.names())
        wanted = [(name, of) for name, of in self._names.items() if name in missing]
        self.sets.apply(*(ipset.Create(ipset.SetSpec(name, of.type, inet)) for name, of in wanted))

    def _servers(self) -> dict[Front, tuple[Balancing, Mapping[str, int]]]:
        servers: dict[Front, tuple[Balancing, Mapping[str, int]]] = {}
        for server in self.balancer.servers():
            if self._is_ours(server.key):
                weights = {each.target: each.weight for each in self.destinations(server.key)}
                balancing = Balancing(server.scheduler, server.persistence)
                # Settings that this mode never makes must not look like ones that it does.
                if _virtual(front_of(server.key), balancing) != server:
                    balancing = Balancing("", server.persistence)
                servers[front_of(server.key)] = balancing, weights
        return servers

    def _is_ours(self, key: ServerKey, *, both: bool = False) -> bool:
        if key.fwmark or not (both or key.ipv6 is (self.family is Family.IPV6)):
            return False
        address = ipaddress.ip_address(key.address)
        return not any(address in network for network in self._excluded)

    # --- changes

    def add_entries(self, entries: Iterable[Entry]) -> None:
        """Put entries into sets."""
        self.sets.apply(*(ipset.Add(of.named(self.family), ipset.Entry.parse(text)) for of, text in entries))

    def delete_entries(self, entries: Iterable[Entry]) -> None:
        """Take entries out of sets."""
        self.sets.apply(*(ipset.Del(of.named(self.family), ipset.Entry.parse(text)) for of, text in entries))

    def add_servers(self, servers: Iterable[tuple[Front, Balancing]]) -> None:
        """Make virtual servers."""
        self.balancer.apply(*(ipvs.AddServer(_virtual(front, how)) for front, how in servers))

    def edit_servers(self, servers: Iterable[tuple[Front, Balancing]]) -> None:
        """Give virtual servers other settings; connections stay."""
        self.balancer.apply(*(ipvs.EditServer(_virtual(front, how)) for front, how in servers))

    def delete_servers(self, fronts: Iterable[Front]) -> None:
        """Remove virtual servers with their real servers."""
        _without(KernelNotFound, self.balancer.attempt(ipvs.DelServer(ServerKey(*front)) for front in fronts))

    def add_reals(self, reals: Iterable[Real]) -> None:
        """Put real servers behind virtual servers."""
        self.balancer.apply(*(ipvs.AddDestination(ServerKey(*f), _destination(target)) for f, target in reals))

    def weigh(self, reals: Iterable[Real], weight: int) -> None:
        """Give real servers another weight."""
        requests = [ipvs.EditDestination(ServerKey(*f), _destination(target, weight)) for f, target in reals]
        self.balancer.apply(*requests)

    def delete_reals(self, reals: Iterable[Real]) -> None:
        """Remove real servers."""
        requests = [ipvs.DelDestination(ServerKey(*front), _destination(target)) for front, target in reals]
        _without(KernelNotFound, self.balancer.attempt(requests))

    def bind(self, addresses: Iterable[str]) -> None:
        """Put addresses on kube-ipvs0."""
        bits = self.family.bits
        self.links.apply(*(AddAddress(DUMMY_LINK, f"{address}/{bits}", replace=True) for address in addresses))

    def unbind(self, addresses: Iterable[str]) -> None:
        """Take addresses off kube-ipvs0."""
        bits = self.family.bits
        try:
            self.links.apply(*(DelAddress(DUMMY_LINK, f"{address}/{bits}") for address in addresses))
        except KernelError as error:
            if error.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise

    def destroy_sets(self) -> None:
        """Destroy this family's sets; no rule may refer to them any more."""
        there = self._names.keys() & set(self.sets.names())
        self.sets.apply(*(ipset.Destroy(name, exist=True) for name in sorted(there)))


def front_of(key: ServerKey) -> Front:
    """The same name in the compiler's words."""
    return Front(key.protocol, key.address, key.port)


def _virtual(front: Front, how: Balancing) -> VirtualServer:
    flags = ServerFlag.SCHED_2 if how.source_port_hash else ServerFlag.NONE
    return VirtualServer(ServerKey(*front), how.scheduler, how.persistence, flags=flags)


def _destination(target: str, weight: int = 1) -> Destination:
    address, _, port = target.rpartition(":")
    return Destination(address.strip("[]"), int(port), weight)


def _without(harmless: type[KernelError], refused: Iterable[tuple[object, KernelError]]) -> None:
    """Raise the first refusal that is not of the harmless kind."""
    for _, error in refused:
        if not isinstance(error, harmless):
            raise error
