"""iptables mode, the programmer: what is wanted, what is there, and the one restore between the two.

Theory of operation: the programmer remembers what it wrote. A *partial* sync compiles the touched service ports again
and writes only chains whose rules differ, and in long shared chains only the rules, so its cost follows the change. A
*full* sync compiles all ports, reads the tables back and writes what differs from them: after a restart with nothing
changed that is nothing. Upstream writes all chains of touched ports and all shared chains each time; the tables that
result are the same.

Whether the rules are still there is read back when somebody else has changed something, or where the kernel does not
tell, and then only as far as that takes a small share of the time.

Foreign rules are never touched: ours are the chains of `rules/iptables`, the per-port chains, and the jumps.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from netemu.kernel.iptables import Iptables, Tables, edits, parse_save, restore_text
from netemu.model.errors import KernelError
from netemu.proxy.facts import NodeFacts
from netemu.proxy.iptables import LARGE_CLUSTER, PORT_CHAIN_PREFIXES, Compiled, assemble, compile_port, node_port_tail
from netemu.proxy.programmer import Written
from netemu.proxy.rulefiles import Base, Place, removal
from netemu.proxy.services import PortKey
from netemu.proxy.tracker import Table

CANARIES: tuple[Place, ...] = tuple((table, "KUBE-PROXY-CANARY") for table in ("mangle", "nat", "filter"))
_SHORT_CHAIN, _MOST_EDITS = 8, 16
_BREATH = 100
"""Ports compiled in one go; in between, health checks are answered."""
_REST = 20
"""After reading all rules back, that many times as long passes before it is done again: 5,000 Services take seconds."""
PIECE = 50
"""Ports whose chains go into one restore of a long load."""
_KEPT_AT_CLEANUP = ("KUBE-MARK-MASQ", "KUBE-FIREWALL", "KUBE-PROXY-CANARY")
"""Shared with the kubelet; upstream leaves them too."""


class IptablesProgrammer:
    """One family's rules of one node. Not reentrant: one sync at a time."""

    def __init__(
        self, tool: Iptables, base: Base, clock: Callable[[], float] = time.monotonic, *, piece: int = PIECE
    ) -> None:
        self.tool, self._base, self._clock, self._piece = tool, base, clock, piece
        self._ports: dict[PortKey, Compiled] = {}
        self._shared: dict[Place, tuple[str, ...]] = {}
        self._totals: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._others: int | None = None
        """What `foreign_changes` said when all was as it should be; None: it has to be read back."""
        self._next_look = 0.0

    async def program(self, table: Table, node: NodeFacts, touched: Iterable[PortKey] | None) -> Written:
        """Bring the kernel to `table`. `touched` names the ports that may differ; None means anything may.

        Raises KernelError; then the next call must be with None.
        """
        names = table.ports.keys() if touched is None else frozenset(touched)
        there = [key for key in names if key in table.ports]
        others = 0 if touched is None else self._sums["endpoints"] - self._sum(names)["endpoints"]
        many = others + sum(len(table.endpoints.get(key, ())) for key in there) > LARGE_CLUSTER
        fresh: dict[PortKey, Compiled] = {}
        for number, key in enumerate(there, 1):
            if number % _BREATH == 0:
                await asyncio.sleep(0)
            fresh[key] = compile_port(table.ports[key], table.endpoints.get(key, ()), node, comments=not many)
        if touched is None:
            written = await self._full(fresh, node)
        else:
            written = await self._partial(fresh, frozenset(touched), node)
        return Written(
            touched is None,
            len(written),
            _per_table(written),
            dict(self._totals),
            (self._sums["no local internal"], self._sums["no local external"]),
        )

    async def intact(self) -> bool:
        """Whether all is there. Where that takes long and was asked a moment ago: whether the canary of table mangle
        still sings, as upstream asks."""
        others = await self.tool.foreign_changes()
        if others is not None and others == self._others:
            return True
        started = self._clock()
        if started < self._next_look:
            return await self.tool.has_chain(*CANARIES[0])
        text = await self.tool.save()
        same = await asyncio.to_thread(self._holds, text)
        self._next_look = self._clock() + _REST * (self._clock() - started)
        self._others = others if same else None
        return same

    def _holds(self, text: str) -> bool:
        """Whether what was saved has all that was programmed."""
        actual = parse_save(text)
        own = {("nat", chain): rules for one in self._ports.values() for chain, rules in one.chains.items()}
        jumps = all(rule in (_rules_at(actual, place) or ()) for place, rule in self._base.jumps)
        return jumps and all(_rules_at(actual, place) == rules for place, rules in {**self._shared, **own}.items())

    async def flushed(self) -> bool:
        """Whether all canaries are gone, so that whoever flushes is through, or none is, because nobody flushes."""
        try:
            tables = parse_save(await self.tool.save())
        except KernelError:
            return False
        return len({chain in tables.get(table, {}) for table, chain in CANARIES}) == 1

    async def cleanup(self, successor: Base | None = None) -> None:
        """Remove everything of ours but what the kubelet shares, and the mode `successor`. Absent is success."""
        tables = parse_save(await self.tool.save())
        own = [("nat", chain) for chain in tables.get("nat", {}) if chain.startswith(PORT_CHAIN_PREFIXES)]
        if text := removal(self._base, tables, also=own, spared=_KEPT_AT_CLEANUP, successor=successor):
            await self.tool.restore(text)
        self._ports, self._shared = {}, {}

    def close(self) -> None:
        """See Programmer."""
        self.tool.close()

    # --- one sync

    async def _full(self, fresh: dict[PortKey, Compiled], node: NodeFacts) -> dict[Place, tuple[str, ...]]:
        self._others, others = None, await self.tool.foreign_changes()
        actual = parse_save(await self.tool.save())
        shared = self._wanted_shared(fresh, node)
        own = {("nat", chain): rules for c in fresh.values() for chain, rules in c.chains.items()}
        wanted = {**shared, **own}
        changed = {p: rules for p, rules in wanted.items() if _rules_at(actual, p) != rules}
        jumps = tuple(j for j in self._base.jumps if j[1] not in (_rules_at(actual, j[0]) or ()))
        stale = tuple(
            ("nat", c) for c in actual.get("nat", {}) if c.startswith(PORT_CHAIN_PREFIXES) and ("nat", c) not in own
        )
        ahead = await self._load_ahead(fresh, actual)
        rest = {place: rules for place, rules in changed.items() if place not in ahead}
        await self._apply(restore_text(rest, insert=jumps, delete=stale))
        self._ports, self._shared, self._others = fresh, shared, others
        self._sums = self._sum(fresh)
        self._totals = Counter(_per_table(wanted)) + Counter(table for (table, _), _ in self._base.jumps)
        return changed

    async def _load_ahead(self, fresh: Mapping[PortKey, Compiled], actual: Tables) -> set[Place]:
        """Send new chains of many ports ahead, in pieces, while nothing leads to them yet; returns those.

        The tool over nf_tables takes time that grows with the square of its input: a thousand ports with ten endpoints
        each take 8 s in one piece, 1 s in pieces.
        """
        there = actual.get("nat", {})
        new = [{c: r for c, r in one.chains.items() if c not in there} for one in fresh.values()]
        if len(new := [chains for chains in new if chains]) <= self._piece:
            return set()
        fixed = {place: rules for place, rules in self._base.chains.items() if _rules_at(actual, place) is None}
        await self._apply(restore_text(fixed))
        for start in range(0, len(new), self._piece):
            piece = {("nat", c): rules for chains in new[start : start + self._piece] for c, rules in chains.items()}
            await self._apply(restore_text(piece))
        return {("nat", c) for chains in new for c in chains}

    async def _partial(
        self, fresh: dict[PortKey, Compiled], touched: frozenset[PortKey], node: NodeFacts
    ) -> dict[Place, tuple[str, ...]]:
        before = {("nat", c): r for k in touched if k in self._ports for c, r in self._ports[k].chains.items()}
        after = {("nat", c): r for one in fresh.values() for c, r in one.chains.items()}
        changed = {p: rules for p, rules in after.items() if before.get(p) != rules}
        shared = self._shared
        if node.node_port_networks or any(_shared(self._ports, k) != _shared(fresh, k) for k in touched):
            ports = {k: v for k, v in self._ports.items() if k not in touched} | fresh
            shared = self._wanted_shared(ports, node)
        new_shared = {p: rules for p, rules in shared.items() if self._shared.get(p) != rules}
        gone = tuple(p for p in before if p not in after)
        few = {p: c for p, rules in new_shared.items() if (c := _few_edits(p, self._shared.get(p, ()), rules))}
        whole = {p: rules for p, rules in new_shared.items() if p not in few}
        await self._apply(restore_text(whole | changed, edit=few, delete=gone))
        self._totals.update(_per_table(after) + _per_table(new_shared))
        self._totals.subtract(_per_table(before) + _per_table({p: self._shared[p] for p in new_shared}))
        self._sums.subtract(self._sum(touched))
        for key in touched:
            self._ports.pop(key, None)
        self._ports |= fresh
        self._shared = shared
        self._sums.update(self._sum(fresh))
        return new_shared | changed

    def _sum(self, keys: Iterable[PortKey]) -> Counter[str]:
        """What is told of all ports, as it stands for these."""
        found = [self._ports[key] for key in keys if key in self._ports]
        return Counter(
            {
                "endpoints": sum(c.endpoints for c in found),
                "no local internal": sum(c.no_local_internal for c in found),
                "no local external": sum(c.no_local_external for c in found),
            }
        )

    def _wanted_shared(self, ports: Mapping[PortKey, Compiled], node: NodeFacts) -> dict[Place, tuple[str, ...]]:
        """All chains that are not a port's own, fixed rules first."""
        # Which service comes first has no meaning; sorting makes equal tables equal text.
        added = assemble((ports[key] for key in sorted(ports)), node_port_tail(node))
        return {place: rules + added.get(place, ()) for place, rules in self._base.chains.items()}

    async def _apply(self, text: str) -> None:
        if text:
            await self.tool.restore(text)


def _few_edits(place: Place, old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...] | None:
    """Edits of a long chain, where they are cheaper than writing it again."""
    commands = edits(place[1], old, new) if len(new) > _SHORT_CHAIN else None
    return commands if commands and len(commands) <= _MOST_EDITS else None


def _shared(ports: Mapping[PortKey, Compiled], key: PortKey) -> Mapping[Place, tuple[str, ...]]:
    return ports[key].shared if key in ports else {}


def _rules_at(tables: Tables, place: Place) -> tuple[str, ...] | None:
    rules = tables.get(place[0], {}).get(place[1])
    return None if rules is None else tuple(rules)


def _per_table(chains: Mapping[Place, tuple[str, ...]]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for (table, _), rules in chains.items():
        counted[table] += len(rules)
    return counted
