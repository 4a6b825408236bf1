"""ipvs mode: what all service ports want together, and the difference between two states. Pure.

Several service ports may want the same thing: two ports share a ClusterIP, two Services share an endpoint. So wishes
are counted, and something goes when the last wish for it goes. Where two Services claim the same address and port the
first in order of names has it (upstream: whichever comes last in a random order).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from netemu.proxy.ipvs import Balancing, Compiled, Front, Server
from netemu.proxy.ipvs_sets import IpSet
from netemu.proxy.services import PortKey

_T = TypeVar("_T")

Entry = tuple[IpSet, str]
Real = tuple[Front, str]
"""A real server: which virtual server it is behind, and its `ip:port`."""


@dataclass(frozen=True, slots=True)
class State:
    """What is, or shall be, in the kernel: everything, or the part that a change may have touched."""

    servers: Mapping[Front, Server] = field(default_factory=dict)
    entries: AbstractSet[Entry] = frozenset()
    addresses: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What leads from one state to another; each part in order."""

    add_entries: tuple[Entry, ...] = ()
    delete_entries: tuple[Entry, ...] = ()
    add_servers: tuple[tuple[Front, Balancing], ...] = ()
    edit_servers: tuple[tuple[Front, Balancing], ...] = ()
    delete_servers: tuple[Front, ...] = ()
    add_reals: tuple[Real, ...] = ()
    delete_reals: tuple[Real, ...] = ()
    """Of virtual servers that stay; with a virtual server that goes its real servers go."""
    bind: tuple[str, ...] = ()
    unbind: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many things it changes."""
        return sum(len(getattr(self, name)) for name in self.__slots__)


def difference(before: State, after: State) -> Plan:
    """The plan that turns `before` into `after`."""
    old, new = before.servers, after.servers
    stay = [front for front in sorted(old.keys() & new.keys()) if old[front] != new[front]]
    come, gone = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    added = [(front, target) for front in come for target in new[front].targets]
    deleted: list[Real] = []
    for front in stay:
        was, shall = set(old[front].targets), set(new[front].targets)
        added += ((front, target) for target in shall - was)
        deleted += ((front, target) for target in was - shall)
    return Plan(
        tuple(sorted(after.entries - before.entries)),
        tuple(sorted(before.entries - after.entries)),
        tuple((front, new[front].balancing) for front in come),
        tuple((front, new[front].balancing) for front in stay if old[front].balancing != new[front].balancing),
        tuple(gone),
        tuple(sorted(added)),
        tuple(sorted(deleted)),
        tuple(sorted(after.addresses - before.addresses)),
        tuple(sorted(before.addresses - after.addresses)),
    )


class Wishes:
    """The compiled service ports of one family, and what they come to."""

    def __init__(self, compiled: Iterable[Compiled] = ()) -> None:
        self.ports: dict[PortKey, Compiled] = {}
        self._entries: Counter[Entry] = Counter()
        self._addresses: Counter[str] = Counter()
        self._barred: Counter[Front] = Counter()
        self._claims: dict[Front, set[PortKey]] = {}
        self._fill: Counter[IpSet] = Counter()
        self._lonely: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        self.replace((), compiled)

    def replace(self, gone: Iterable[PortKey], compiled: Iterable[Compiled]) -> tuple[State, State]:
        """Forget ports and take others, or new values of them; before and after, as far as these reach."""
        new = tuple(compiled)
        names = {*gone, *(one.key for one in new)}
        old = tuple(self.ports[key] for key in names if key in self.ports)
        about = (*old, *new)
        before = self._part(about)
        for one in old:
            self._count(one, -1)
            del self.ports[one.key]
        for one in new:
            self.ports[one.key] = one
            self._count(one, 1)
        return before, self._part(about)

    @property
    def everything(self) -> State:
        """All that is wanted."""
        servers = {front: self._server(front) for front in self._claims}
        return State(servers, self._entries.keys(), self._addresses.keys())

    @property
    def filled(self) -> frozenset[IpSet]:
        """The sets that have entries."""
        return frozenset(self._fill)

    @property
    def barred(self) -> frozenset[Front]:
        """What this node itself must not use."""
        return frozenset(self._barred)

    @property
    def lonely(self) -> tuple[int, int]:
        """Services, not ports as in other modes, whose internal / external Local policy finds no endpoint here."""
        internal, external = self._lonely
        return len(internal), len(external)

    def _server(self, front: Front) -> Server:
        return self.ports[min(self._claims[front])].servers[front]

    def _part(self, about: Iterable[Compiled]) -> State:
        servers: dict[Front, Server] = {}
        entries: set[Entry] = set()
        addresses: set[str] = set()
        for one in about:
            servers.update((front, self._server(front)) for front in one.servers if front in self._claims)
            entries.update(entry for entry in one.entries if entry in self._entries)
            addresses.update(address for address in one.addresses if address in self._addresses)
        return State(servers, entries, addresses)

    def _count(self, one: Compiled, step: int) -> None:
        for front in one.servers:
            claims = self._claims.setdefault(front, set())
            (claims.add if step > 0 else claims.discard)(one.key)
            if not claims:
                del self._claims[front]
        for entry in one.entries:
            if _tally(self._entries, entry, step):
                _tally(self._fill, entry[0], step)
        for address in one.addresses:
            _tally(self._addresses, address, step)
        for front in one.barred:
            _tally(self._barred, front, step)
        for counter, is_lonely in zip(self._lonely, (one.no_local_internal, one.no_local_external), strict=True):
            if is_lonely:
                _tally(counter, one.key.service, step)


def _tally(counter: Counter[_T], item: _T, step: int) -> bool:
    """Count up or down; whether the item appeared or disappeared."""
    counter[item] += step
    if counter[item] == 0:
        del counter[item]
        return True
    return step > 0 and counter[item] == 1
