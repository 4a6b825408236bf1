"""nftables mode, the programmer: keeps what it programmed, and sends the difference in one transaction.

Theory of operation: for each service port the values it was compiled from are kept, not the rules: compiling is pure,
so the old rules are there again when needed, at a fraction of the memory. A *partial* sync compiles the touched
ports twice, as they were and as they are, and sends what differs: its cost follows the change. A *full* sync reads the
table and sends what differs from it: after a restart with nothing changed that is nothing.

The kernel needs time that grows with the square of a transaction's size, so a long first load goes in pieces: chains
that nothing leads to yet, some at a time, then one transaction that switches them on. Chains that are there and differ,
as all of them do in a table of another version, are exchanged some at a time, too; each works before and after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from netemu.kernel.nftables import Nft
from netemu.model import nft
from netemu.model.nft import Add, Delete, Element
from netemu.proxy.endpoints import Endpoint
from netemu.proxy.facts import NodeFacts
from netemu.proxy.nftables import DEFAULT_MARK, HAIRPIN_CONNECTIONS, Compiled, compile_port, node_port_elements
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
_Compiled = tuple[PortKey, Compiled]


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
            again=_STALE_SECONDS if self._stale else 0.0,
        )

    async def intact(self) -> bool:
        """See Programmer. Only where somebody changed something in the namespace is the table read and compared."""
        generation = await self._kernel.generation()
        if generation == self._generation:
            return True
        there, elements = Held.of(await self._kernel.dump(self._table)), Owners()
        change = _base_change(self._base_for(self._node), there)
        _note_elements((), node_port_elements(self._node), change, there, elements)
        async for key, compiled in self._compile(dict(self._ports), self._node):
            _note_chains(compiled, change, there)
            _note_elements(key, compiled.elements, change, there, elements)
        if change or there.elements:
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
        _note_elements((), node_port_elements(node), change, there, self._elements)
        sources = {key: (port, table.endpoints.get(key, ())) for key, port in table.ports.items()}
        async for key, compiled in self._compile(sources, node):
            self._keep(key, sources[key], compiled)
            _note_chains(compiled, change, there)
            _note_elements(key, compiled.elements, change, there, self._elements)
            chains.update(compiled.chains)
            sets.update(compiled.sets)
            if len(change.new) >= self._piece:
                written += len(change.new)
                await self._load_ahead(change)
        change.gone_sets += [s for name, s in there.sets.items() if name not in sets]
        change.emptied = [name for name in there.chains if name not in chains]
        gone = {s.name for s in change.gone_sets}
        change.gone_elements += [e for e in there.elements.values() if e.set not in gone]
        written += change.written
        await self._switch(change)
        return written

    async def _load_ahead(self, change: Change) -> None:
        """Send new chains that nothing leads to yet, their sets, and endpoints that may reach themselves, which changes
        nothing for others; what takes effect at once stays in `change`."""
        remade = {s.name for s in change.gone_sets}
        hooked = {name: made for name, made in change.new.items() if made[0].hook}
        harmless = () if HAIRPIN_CONNECTIONS in remade else (HAIRPIN_CONNECTIONS,)
        ahead = Change(
            new={name: made for name, made in change.new.items() if name not in hooked},
            new_sets=[s for s in change.new_sets if s.name not in remade],
            elements=[e for e in change.elements if e.set in harmless],
        )
        await self._kernel.run(nft.Transaction(self._table, ahead.operations()))
        change.new, change.new_sets = hooked, [s for s in change.new_sets if s.name in remade]
        change.elements = [e for e in change.elements if e.set not in harmless]

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
            source = table.ports[key], table.endpoints.get(key, ())
            compiled = compile_port(*source, node, self._mark)
            self._keep(key, source, compiled)
            _note_chains(compiled, change, there)
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

    async def _compile(self, sources: Mapping[PortKey, _Source], node: NodeFacts) -> AsyncIterator[_Compiled]:
        """Ports in order."""
        for number, key in enumerate(sorted(sources), 1):
            if number % _BREATH == 0:
                await asyncio.sleep(0)
            yield key, compile_port(*sources[key], node, self._mark)

    def _keep(self, key: PortKey, source: _Source, compiled: Compiled) -> None:
        self._ports[key] = source
        if compiled.no_local_internal or compiled.no_local_external:
            self._lonely[key] = compiled.no_local_internal, compiled.no_local_external

    async def _switch(self, change: Change) -> None:
        """Send a change; chains that an earlier one emptied go with it."""
        now = self._clock()
        for name in (*change.new, *change.filled):
            self._stale.pop(name, None)
        change.removed = [name for name, since in self._stale.items() if now - since >= _STALE_SECONDS]
        for portion in filter(None, change.portions(self._piece)):
            await self._kernel.run(nft.Transaction(self._table, portion.operations()))
        for name in change.removed:
            del self._stale[name]
        self._stale.update(dict.fromkeys(change.emptied, now))


def _base_change(base: Base, there: Held) -> Change:
    change = Change()
    for wanted in base.sets.values():
        change.add_set(wanted, there)
    for name, chain in base.chains.items():
        change.add_chain(chain, base.rules[name], there)
    for key in [key for key in there.elements if key[0] in {s.name for s in change.gone_sets}]:
        del there.elements[key]
    return change


def _note_chains(compiled: Compiled, change: Change, there: Held) -> None:
    for wanted in compiled.sets.values():
        change.add_set(wanted, there)
    remade = compiled.sets.keys() & {s.name for s in change.gone_sets} if compiled.sets else ()
    for name, lines in compiled.chains.items():
        change.add_chain(nft.Chain(name), lines, there, remade)


def _note_elements(owner: Owner, wanted: Iterable[Element], change: Change, there: Held, elements: Owners) -> None:
    """What is wanted first stands, so owners come in order; of `there` is left what nobody has wanted."""
    for element in elements.put(owner, wanted):
        change.take_element(element, there.elements)
