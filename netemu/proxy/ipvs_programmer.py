"""ipvs mode, the programmer: what is wanted, what is there, and the steps between the two.

Theory of operation: the programmer remembers what it wrote. A *partial* sync compiles the touched service ports again
and does what differs; a *full* sync, at the start and then each sync period, reads back what is there, so that it also
adopts what an earlier run left and repairs what somebody removed. It compiles only ports that changed, too: reading
trusts nothing that is in the kernel, but wishes depend on nothing there. There is no transaction over sets, rules,
virtual servers and addresses, so order makes up for it: what prepares a Service (set entries, rules, virtual server,
real servers) comes before its address, which lets packets in; what goes, goes the other way round.

A real server that is no longer wanted and has TCP connections gets weight 0: it keeps them and gets no new one. It is
deleted when it is seen without any, which is looked at once a minute (`pkg/proxy/ipvs/graceful_termination.go`). One
that is wanted again meanwhile gets its weight back and keeps its connections (upstream deletes it and adds it again,
which can cut them). UDP and SCTP real servers go at once.

All that takes long happens in worker threads, so that health checks are answered meanwhile.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial

from netemu.kernel.iptables import Iptables, parse_save, restore_text
from netemu.proxy import ipvs_leaving, rulefiles
from netemu.proxy.endpoints import Endpoint
from netemu.proxy.facts import NodeFacts
from netemu.proxy.ipvs import DEFAULT_SCHEDULER, Front, Server, compile_port
from netemu.proxy.ipvs_edge import Actual, IpvsEdge
from netemu.proxy.ipvs_plan import Plan, Real, State, Wishes, difference
from netemu.proxy.ipvs_rules import files, rules
from netemu.proxy.ipvs_sets import IpSet
from netemu.proxy.programmer import Written
from netemu.proxy.rulefiles import Base, Place
from netemu.proxy.services import PortKey, ServicePort
from netemu.proxy.tracker import Table
from netemu.proxy.worker import in_thread, opened

SWEEP_SECONDS = 60.0
"""How often real servers without weight are looked at."""


class IpvsProgrammer:
    """One family's virtual servers, sets, addresses and rules of one node. Not reentrant: one call at a time."""

    def __init__(
        self,
        reach: Callable[[], IpvsEdge],
        iptables: Iptables,
        *,
        scheduler: str = DEFAULT_SCHEDULER,
        mark: str = rulefiles.DEFAULT_MARK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Its sockets are open during a sync only, so a programmer that is thrown away holds nothing.
        self._reach = reach
        self._iptables, self._scheduler, self._mark, self._clock = iptables, scheduler, mark, clock
        self._wishes = Wishes()
        self._compiled: dict[PortKey, tuple[ServicePort, tuple[Endpoint, ...]]] = {}
        """What the wishes were compiled from."""
        self._base, self._node = Base({}, ()), NodeFacts()
        self._rules: dict[Place, tuple[str, ...]] = {}
        self._draining: set[Real] = set()
        self._swept = 0.0

    async def program(self, table: Table, node: NodeFacts, touched: Iterable[PortKey] | None) -> Written:
        """See Programmer. `node.addresses` is not looked at: this mode reads them itself."""
        async with opened(self._reach) as edge:
            plan, lines = await self._sync(edge, table, node, touched)
        return Written(
            touched is None,
            plan.size,
            lines,
            _per_table(self._rules) + Counter(of for (of, _), _ in self._base.jumps),
            self._wishes.lonely,
            again=SWEEP_SECONDS if self._draining else 0.0,
        )

    async def intact(self) -> bool:
        """Always: a full sync comes each sync period anyway, and repairs without asking."""
        return True

    async def flushed(self) -> bool:
        """See Programmer."""
        return True

    def close(self) -> None:
        """See Programmer. Sockets live for one sync."""

    async def cleanup(self, successor: Base | None = None) -> None:
        """Remove virtual servers, chains, jumps and sets of this family, and kube-ipvs0. Absent is success.

        What the mode `successor`, in force by now, has too stays; so does what open connections need (`ipvs_leaving`).
        """
        tables = parse_save(await self._iptables.save())
        base = rulefiles.load("ipvs", files(self._node), mark=self._mark)
        async with opened(self._reach) as edge:
            await in_thread(partial(ipvs_leaving.remove_servers, edge, linger=successor is not None))
            if text := rulefiles.removal(base, tables, successor=successor):
                await self._iptables.restore(text)
            await in_thread(edge.destroy_sets)
            await in_thread(ipvs_leaving.remove_link, edge)
        self._forget()

    # --- one sync

    async def _sync(
        self, edge: IpvsEdge, table: Table, node: NodeFacts, touched: Iterable[PortKey] | None
    ) -> tuple[Plan, Mapping[str, int]]:
        """What was done, and the rules written by table."""
        if touched is None:
            plan, filled, jumps = await self._look(edge, table, node)
        else:
            jumps, filled = (), self._wishes.filled
            plan = await in_thread(lambda: difference(*self._compile(table, tuple(touched))))
        lines = await self._apply(edge, plan, filled, jumps)
        if self._draining and (touched is None or self._clock() - self._swept >= SWEEP_SECONDS):
            await in_thread(self._sweep, edge)
        return plan, lines

    def _compile(self, table: Table, names: Iterable[PortKey]) -> tuple[State, State]:
        """Bring the wishes of these ports up to date; before and after, as far as they reach."""
        new = []
        for key in names:
            self._compiled.pop(key, None)
            if (port := table.ports.get(key)) is not None:
                ends = table.endpoints.get(key, ())
                self._compiled[key] = port, ends
                new.append(compile_port(port, ends, self._node, self._scheduler))
        return self._wishes.replace(names, new)

    def _compile_all(self, table: Table, node: NodeFacts) -> None:
        """Bring all wishes up to date."""
        if node != self._node:
            self._forget()
            self._node = node
        current = {key: (port, table.endpoints.get(key, ())) for key, port in table.ports.items()}
        names = self._compiled.keys() | current.keys()
        self._compile(table, [key for key in names if self._compiled.get(key) != current.get(key)])

    def _forget(self) -> None:
        self._wishes, self._compiled, self._rules, self._draining = Wishes(), {}, {}, set()

    async def _look(
        self, edge: IpvsEdge, table: Table, node: NodeFacts
    ) -> tuple[Plan, AbstractSet[IpSet], tuple[tuple[Place, str], ...]]:
        """What differs from what is there, the sets that have entries, the jumps that are missing."""
        actual = await in_thread(edge.read)
        tables = parse_save(await self._iptables.save())
        plan = await in_thread(self._plan, table, replace(node, addresses=actual.own_addresses), actual)
        self._base = rulefiles.load("ipvs", files(node), mark=self._mark)
        self._rules = {
            (of, chain): tuple(tables[of][chain]) for of, chain in self._base.chains if chain in tables.get(of, {})
        }
        jumps = tuple(
            jump for jump in self._base.jumps if jump[1] not in tables.get(jump[0][0], {}).get(jump[0][1], ())
        )
        return plan, frozenset(of for of, _ in actual.entries), jumps

    def _plan(self, table: Table, node: NodeFacts, actual: Actual) -> Plan:
        self._compile_all(table, node)
        wanted = self._wishes.everything
        before, self._draining = adopt(actual, wanted)
        return difference(before, wanted)

    async def _apply(
        self, edge: IpvsEdge, plan: Plan, filled: AbstractSet[IpSet], jumps: tuple[tuple[Place, str], ...]
    ) -> Mapping[str, int]:
        """Do what the plan says; rules written, by table."""
        if plan.add_entries:
            await in_thread(edge.add_entries, plan.add_entries)
        lines = await self._write_rules(filled | self._wishes.filled, jumps)
        await in_thread(self._serve, edge, plan)
        lines += await self._write_rules(self._wishes.filled, ())
        if plan.delete_entries:
            await in_thread(edge.delete_entries, plan.delete_entries)
        return lines

    def _serve(self, edge: IpvsEdge, plan: Plan) -> None:
        """Virtual servers, their real servers, then the addresses that let packets in; and the other way round."""
        edge.add_servers(plan.add_servers)
        edge.edit_servers(plan.edit_servers)
        back = self._draining.intersection(plan.add_reals)
        edge.weigh(sorted(back), 1)
        self._draining.difference_update(back)
        edge.add_reals([real for real in plan.add_reals if real not in back])
        self._terminate(edge, plan.delete_reals)
        edge.bind(plan.bind)
        edge.unbind(plan.unbind)
        edge.delete_servers(plan.delete_servers)
        gone = set(plan.delete_servers)
        self._draining = {real for real in self._draining if real[0] not in gone}

    def _terminate(self, edge: IpvsEdge, reals: Iterable[Real]) -> None:
        """Real servers that are no longer wanted: those with TCP connections stay until these end."""
        leaving = tuple(reals)
        busy = edge.busy(real for real in leaving if real[0].protocol == "tcp")
        edge.weigh(sorted(busy), 0)
        self._draining |= busy
        edge.delete_reals([real for real in leaving if real not in busy])

    def _sweep(self, edge: IpvsEdge) -> None:
        self._swept = self._clock()
        busy = edge.busy(self._draining)
        edge.delete_reals(sorted(self._draining - busy))
        self._draining = busy

    async def _write_rules(self, filled: AbstractSet[IpSet], jumps: tuple[tuple[Place, str], ...]) -> Counter[str]:
        wanted = rules(self._base, self._node, filled, self._wishes.barred)
        changed = {place: lines for place, lines in wanted.items() if self._rules.get(place) != lines}
        if text := restore_text(changed, insert=jumps):
            await self._iptables.restore(text)
        self._rules = wanted
        return _per_table(changed)


def adopt(actual: Actual, wanted: State) -> tuple[State, set[Real]]:
    """What an earlier run, or this one, left: as the state it amounts to, and the real servers on their way out.

    A real server that is wanted and has another weight than 1 counts as on its way out too: it is given its weight
    back. One that is not wanted and still has weight counts as programmed: it is yet to be sent on its way.
    """
    servers: dict[Front, Server] = {}
    draining: set[Real] = set()
    for front, (balancing, weights) in actual.servers.items():
        asked = wanted.servers[front].targets if front in wanted.servers else ()
        current = {t for t, weight in weights.items() if (weight == 1 if t in asked else weight)}
        servers[front] = Server(balancing, tuple(sorted(current)))
        draining.update((front, target) for target in weights.keys() - current)
    return State(servers, actual.entries, actual.bound), draining


def _per_table(chains: Mapping[Place, tuple[str, ...]]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for (table, _), rules_of in chains.items():
        counted[table] += len(rules_of)
    return counted
