"""hostPort: a port of the node that leads to a Pod, as CNI's portmap plugin does it with nftables.

One table per IP family of the node, made when the first Pod asks for a port. What is asked for are elements of two
maps: one for ports of any address of the node, one for ports of a single address (`hostIP`), which goes first. So three
Pods may have one port number on a node as long as address or protocol differ. A Pod that reaches itself this way is
masqueraded, and so is what the node sends to itself by loopback. What is programmed is read back from the kernel.

    prerouting, output:  dnat ip to ip daddr . meta l4proto . th dport map @hostip_hostports
                         fib daddr type local dnat ip to meta l4proto . th dport map @hostports
    postrouting:         ct status dnat ip saddr . ip daddr @hairpin masquerade

Source: `containernetworking/plugins/plugins/meta/portmap/portmap_nftables.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from netemu.kernel.nftables import Nft
from netemu.model import nft
from netemu.model.errors import KernelExists

_TABLE = "cni_hostport"
_ANY, _ONE, _HAIRPIN = "hostports", "hostip_hostports", "hairpin"
_CHAINS = {
    "prerouting": nft.Chain("prerouting", "nat", "prerouting", -100),
    "output": nft.Chain("output", "nat", "output", -100),
    "postrouting": nft.Chain("postrouting", "nat", "postrouting", 100),
}
_LOOPBACK: dict[nft.Family, str] = {"ip": "127.0.0.0/8", "ip6": "::1"}


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port that a container asks for: `tcp`, `udp` or `sctp`; an empty address means every address of the node."""

    address: str
    protocol: str
    port: int
    container_port: int


def base(family: nft.Family) -> tuple[nft.Operation, ...]:
    """The table without any port. `Create` refuses where it is there already."""
    table = nft.Table(family, _TABLE, "hostPort of Pods")
    address = nft.DataType.IPV4_ADDR if family == "ip" else nft.DataType.IPV6_ADDR
    port = (nft.DataType.INET_PROTO, nft.DataType.INET_SERVICE)
    to = (address, nft.DataType.INET_SERVICE)
    where, source = nft.daddr(family), nft.saddr(family)
    by_port = (nft.Field.L4PROTO, nft.Field.TH_DPORT)
    translated = nft.Match(nft.Field.CT_STATUS, ("dnat",))
    one = nft.DnatMap(family, (where, *by_port), _ONE)
    every = (nft.Match(nft.Field.FIB_DADDR_TYPE, ("local",)), nft.DnatMap(family, by_port, _ANY))
    held: tuple[nft.Set | nft.Map, ...] = (
        nft.Map(_ONE, (address, *port), to), nft.Map(_ANY, port, to), nft.Set(_HAIRPIN, (address, address)),
    )  # fmt: skip
    rules = [nft.Rule(chain, each) for chain in ("prerouting", "output") for each in ((one,), every)]
    rules.append(nft.Rule("postrouting", (translated, nft.Lookup((source, where), _HAIRPIN), nft.Masquerade())))
    loopback = nft.Match(source, (_LOOPBACK[family],))
    rules.append(nft.Rule("postrouting", (translated, loopback, nft.Masquerade())))
    return (
        nft.Create(table), *map(nft.Add, held), *map(nft.Add, _CHAINS.values()), *map(nft.Add, rules),
    )  # fmt: skip


def elements(ports: Sequence[HostPort], pod: str) -> list[nft.Element]:
    """What the maps of the Pod's family hold for it."""
    found = [
        nft.Element(_ONE, (one.address, one.protocol, one.port), (pod, one.container_port))
        if one.address
        else nft.Element(_ANY, (one.protocol, one.port), (pod, one.container_port))
        for one in ports
    ]
    return [*found, nft.Element(_HAIRPIN, (pod, pod))] if found else []


class HostPorts:
    """The host ports of one node. `nft` opens its nf_tables; nothing is opened before the first Pod asks for one."""

    def __init__(self, open_nft: Callable[[], Nft]) -> None:
        self._open = open_nft
        self._nft: Nft | None = None
        self._there: dict[nft.Family, bool] = {}
        """Whether the table of a family is there, once somebody has looked."""

    async def add(self, ports: Sequence[HostPort], addresses: Sequence[str]) -> None:
        """Lead the ports to the Pod with these addresses, wherever they lead now. Raises KernelError."""
        for family, pod, wanted in _by_family(ports, addresses):
            await self._ensure(family)
            there = await self._elements(family)
            taken = {(each.set, each.key) for each in elements(wanted, pod)}
            gone = [each for each in there if (each.set, each.key) in taken]
            operations: tuple[nft.Operation, ...] = (
                *map(nft.Delete, gone), *map(nft.Add, elements(wanted, pod)),
            )  # fmt: skip
            await self._link().run(nft.Transaction(nft.Table(family, _TABLE), operations))

    async def delete(self, addresses: Sequence[str]) -> None:
        """No port leads to the Pod any more; none is success. Raises KernelError."""
        for address in addresses:
            family: nft.Family = "ip6" if ":" in address else "ip"
            gone = [
                each
                for each in await self._elements(family)
                if (isinstance(each.data, tuple) and each.data[0] == address) or each.key == (address, address)
            ]
            if gone:
                await self._link().run(nft.Transaction(nft.Table(family, _TABLE), tuple(map(nft.Delete, gone))))

    def close(self) -> None:
        """Give the socket back; the rules stay."""
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _link(self) -> Nft:
        if self._nft is None:
            self._nft = self._open()
        return self._nft

    async def _ensure(self, family: nft.Family) -> None:
        with suppress(KernelExists):
            await self._link().run(nft.Transaction(nft.Table(family, _TABLE), base(family)))
        self._there[family] = True

    async def _elements(self, family: nft.Family) -> Sequence[nft.Element]:
        if self._there.get(family) is False:
            return ()
        found = await self._link().dump(nft.Table(family, _TABLE))
        self._there[family] = found is not None
        return found.elements if found else ()


def _by_family(ports: Sequence[HostPort], addresses: Sequence[str]) -> Iterator[tuple[nft.Family, str, list[HostPort]]]:
    """Each address of the Pod with the ports that can lead to it."""
    for pod in addresses:
        six = ":" in pod
        wanted = [one for one in ports if not one.address or (":" in one.address) == six]
        if wanted:
            yield ("ip6" if six else "ip"), pod, wanted
