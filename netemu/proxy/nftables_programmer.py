"""nftables mode, the programmer: keeps what it programmed, and sends the difference in one transaction.

Theory of operation: for each service port the values it was compiled from are kept, not the rules: compiling is pure,
so the old rules are there again when needed, at a fraction of the memory. A *partial* sync compiles the touched
ports twice, as they were and as they are, and sends what differs: its cost follows the change. A *full* sync reads the
table and sends what differs from it: after a restart with nothing changed that is nothing.

The kernel needs time that grows with the square of a transaction's size, so a long first load goes in pieces: chains
that nothing leads to yet, a few thousand at a time, then one transaction that switches them on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from netemu.kernel.nftables import Nft
from netemu.model import nft
from netemu.model.nft import Add, Delete, Element
from netemu.proxy.endpoints import Endpoint
from netemu.proxy.facts import NodeFacts
from netemu.proxy.nftables import DEFAULT_MARK, Compiled, compile_port, node_port_elements
from netemu.proxy.nftables_base import Base
from netemu.proxy.nftables_changes import Change, Held, Owner, Owners
from netemu.proxy.programmer import Written
from netemu.proxy.services import PortKey, ServicePort
from netemu.proxy.tracker import Table

_PIECE = 1500
"""Chains in one transaction of a long load."""
_STALE_SECONDS = 1.0
_BREATH = 100
"""Ports compiled in one go; in between, health checks are answered."""

_Source = tuple[ServicePort, tuple[Endpoint, ...]]


class NftablesProgrammer:
    """One family's table of one node. Not reentrant: one sync at a time."""

    def __init__(
        self,
        kernel: Nft,
        base: Callable[[NodeFacts], Base],
        *,
        clock: Callable[[], float] = time.monotonic,
        mark: int = DEFAULT_MARK,
        piece: int = _PIECE,
    ) -> None:
        self._kernel, self._base_for, self._clock, self._mark, self._piece = kernel, base, clock, mark, piece
        self._ports: dict[PortKey, _Source] = {}
        self._node = NodeFacts()
        self._table = nft.Table("ip", "")
        self._elements = Owners()
        self._lonely: dict[PortKey, tuple[bool, bool]] = {}
        self._stale: dict[str, float] = {}
        self._generation = -1

    async def program(self, table: Table, node: NodeFacts, touched: Iterable[PortKey] | None) -> Written:
        """See Programmer."""
        started = self._clock()
        if touched is None:
            chains = await self._full(table, node)
        else:
            chains = await self._partial(table, node, frozenset(touched))
        self._node = node
        self._generation = await self._kernel.generation()
        lonely = self._lonely.values()
        return Written(
            touched is None,
            chains,
            no_local=(sum(internal for internal, _ in lonely), sum(external for _, external in lonely)),
            seconds=self._clock() - started,
            again=_STALE_SECONDS if self._stale else 0.0,
        )

    async def intact(self) -> bool:
        """See Programmer. Only where somebody changed something in the namespace is the table read and compared."""
        generation = await self._kernel.generation()
        if generation == self._generation:
            return True
        there = Held.of(await self._kernel.dump(self._table))
        change = _base_change(self._base_for(self._node), there)
        for source in self._ports.values():
            self._note(compile_port(*source, self._node, self._mark), change, there)
        change.add_elements(self._elements.chosen(), there.elements)
        if change:
            return False
        self._generation = generation
        return True

    async def flushed(self) -> bool:
        """See Programmer. A table is removed in one go."""
        return True

    async def cleanup(self) -> None:
        """See Programmer."""
        table = self._base_for(self._node).table
        await self._kernel.run(nft.Transaction(table, (Add(table), Delete(table))))
        self._ports, self._elements, self._stale = {}, Owners(), {}

    def close(self) -> None:
        """See Programmer."""
        self._kernel.close()

    # --- full

    async def _full(self, table: Table, node: NodeFacts) -> int:
        base = self._base_for(node)
        self._table = base.table
        there = Held.of(await self._kernel.dump(base.table))
        self._ports, self._elements, self._lonely, self._stale = {}, Owners(), {}, {}
        change, chains, sets, written = _base_change(base, there), set(base.chains), set(base.sets), 0
        if not there.chains:
            await self._kernel.run(nft.Transaction(base.table, (Add(base.table),)))
        for number, key in enumerate(sorted(table.ports), 1):
            if number % _BREATH == 0:
                await asyncio.sleep(0)
            compiled = self._take(key, (table.ports[key], table.endpoints.get(key, ())), node)
            self._elements.put(key, compiled.elements)
            self._note(compiled, change, there)
            chains.update(compiled.chains)
            sets.update(compiled.sets)
            if len(change.new) >= self._piece:
                written += len(change.new)
                await self._load_ahead(change)
        self._elements.put((), node_port_elements(node))
        change.gone_sets += [s for name, s in there.sets.items() if name not in sets]
        change.emptied = [name for name in there.chains if name not in chains]
        remade = {s.name for s in change.gone_sets}
        change.add_elements(self._elements.chosen(), {k: e for k, e in there.elements.items() if k[0] not in remade})
        written += change.written
        await self._switch(change)
        return written

    async def _load_ahead(self, change: Change) -> None:
        """Send new chains that nothing leads to yet, and their sets; what takes effect at once stays in `change`."""
        remade = {s.name for s in change.gone_sets}
        hooked = {name: made for name, made in change.new.items() if made[0].hook}
        ahead = Change(
            new={name: made for name, made in change.new.items() if name not in hooked},
            new_sets=[s for s in change.new_sets if s.name not in remade],
        )
        await self._kernel.run(nft.Transaction(self._table, ahead.operations()))
        change.new, change.new_sets = hooked, [s for s in change.new_sets if s.name in remade]

    # --- partial

    async def _partial(self, table: Table, node: NodeFacts, touched: frozenset[PortKey]) -> int:
        change, there = Change(), Held()
        before: dict[Owner, tuple[Element, ...]] = {(): node_port_elements(self._node)}
        after: dict[Owner, tuple[Element, ...]] = {(): node_port_elements(node)}
        for key in touched & self._ports.keys():
            was = compile_port(*self._ports.pop(key), self._node, self._mark)
            there.rules.update(was.chains)
            there.sets.update(was.sets)
            before[key] = was.elements
            self._lonely.pop(key, None)
        there.chains = {name: nft.Chain(name) for name in there.rules}
        gone_chains, gone_sets = set(there.chains), set(there.sets)
        for key in touched & table.ports.keys():
            compiled = self._take(key, (table.ports[key], table.endpoints.get(key, ())), node)
            self._note(compiled, change, there)
            after[key] = compiled.elements
            gone_chains -= compiled.chains.keys()
            gone_sets -= compiled.sets.keys()
        change.add_elements(*self._elements.exchange(before, after))
        change.gone_sets += [there.sets[name] for name in gone_sets]
        change.emptied = sorted(gone_chains)
        written = change.written
        await self._switch(change)
        return written

    # --- both

    def _take(self, key: PortKey, source: _Source, node: NodeFacts) -> Compiled:
        compiled = compile_port(*source, node, self._mark)
        self._ports[key] = source
        if compiled.no_local_internal or compiled.no_local_external:
            self._lonely[key] = compiled.no_local_internal, compiled.no_local_external
        return compiled

    def _note(self, compiled: Compiled, change: Change, there: Held) -> None:
        for wanted in compiled.sets.values():
            change.add_set(wanted, there)
        remade = compiled.sets.keys() & {s.name for s in change.gone_sets}
        for name, lines in compiled.chains.items():
            change.add_chain(nft.Chain(name), lines, there, remade)

    async def _switch(self, change: Change) -> None:
        """Send a change; chains that an earlier one emptied go with it."""
        now = self._clock()
        for name in (*change.new, *change.filled):
            self._stale.pop(name, None)
        change.removed = [name for name, since in self._stale.items() if now - since >= _STALE_SECONDS]
        if change:
            await self._kernel.run(nft.Transaction(self._table, change.operations()))
        for name in change.removed:
            del self._stale[name]
        self._stale.update(dict.fromkeys(change.emptied, now))


def _base_change(base: Base, there: Held) -> Change:
    change = Change()
    for wanted in base.sets.values():
        change.add_set(wanted, there)
    for name, chain in base.chains.items():
        change.add_chain(chain, base.rules[name], there)
    return change
