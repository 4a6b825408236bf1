"""When the proxy works and how much: pacing, partial and full syncs, retries, status, stale flows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.kernel.conntrack import Flow
from netemu.kernel.iptables import edits
from netemu.model.errors import KernelError
from netemu.proxy.facts import NodeFacts
from netemu.proxy.flows import forget_stale, stale_flows
from netemu.proxy.loop import Programmed, SyncLoop, together
from netemu.proxy.runner import BoundedRunner
from netemu.proxy.tracker import Changes, Table
from netemu.testing.conntrack import FakeConntrack
from tests.unit.proxy_world import NODE, Proxy, endpoint_slice, service, world

HERE = ("10.180.0.1", "test-node")
THERE = ("10.180.1.1", "node-b")


@contextlib.asynccontextmanager
async def running(*runners: BoundedRunner | SyncLoop) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Runs:
    """Notes when it was called."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def __call__(self) -> None:
        self.at.append(asyncio.get_running_loop().time())


def runner(runs: Runs, min_interval: float = 1.0, max_interval: float = 3600.0) -> BoundedRunner:
    return BoundedRunner(runs, min_interval=min_interval, max_interval=max_interval)


@pytest.mark.looptime
async def test_two_runs_at_once_then_one_per_interval() -> None:
    runs = Runs()
    paced = runner(runs)
    async with running(paced):
        for _ in range(100):
            paced.ask()
            await asyncio.sleep(0.05)

    start = runs.at[0]
    assert [round(at - start, 2) for at in runs.at[:5]] == [0, 0.05, 1, 2, 3]


@pytest.mark.looptime
async def test_many_requests_before_a_run_make_one() -> None:
    runs = Runs()
    paced = runner(runs)
    for _ in range(100):
        paced.ask()
    async with running(paced):
        await asyncio.sleep(10)

    assert len(runs.at) == 1


@pytest.mark.looptime
async def test_without_requests_it_runs_once_per_longest_interval() -> None:
    runs = Runs()
    async with running(runner(runs)):
        await asyncio.sleep(7300)

    assert len(runs.at) == 2


@pytest.mark.looptime
async def test_retry_comes_when_it_was_asked_for() -> None:
    runs = Runs()
    paced = runner(runs)
    async with running(paced):
        start = asyncio.get_running_loop().time()
        paced.ask_after(30)
        await asyncio.sleep(100)

    assert [round(at - start) for at in runs.at] == [30]


class Bed(Proxy):
    """A sync loop over the fake; `revision` stands for both informers."""

    def __init__(self) -> None:
        super().__init__()
        self.revision: int | None = 1
        self.now = 0.0
        self.cleaned: list[Changes] = []
        self.loop = SyncLoop(
            self.tracker,
            self.programmer,
            sync_period=30,
            min_sync_period=0.001,
            revisions=lambda: (str(self.revision), str(self.revision)) if self.revision else None,
            clean_flows=self._clean,
            addresses=self._read_addresses,
            clock=lambda: self.now,
        )

    async def _read_addresses(self, node: NodeFacts) -> NodeFacts:
        self.now += 1
        return node

    async def _clean(self, table: Table, changes: Changes) -> int:
        self.now += 2
        self.cleaned.append(changes)
        return 0

    def put(self, *at: tuple[str, str], name: str = "default/web") -> str:
        self.revision = (self.revision or 0) + 1
        self.loop.slice_changed(None, endpoint_slice(name, at))
        return str(self.revision)

    def start(self) -> None:
        self.loop.service_changed(None, service())
        self.loop.slice_changed(None, endpoint_slice("default/web", [HERE]))
        self.loop.node_changed(NODE)


@pytest.mark.looptime
async def test_nothing_is_programmed_before_the_caches_are_synced() -> None:
    bed = Bed()
    bed.revision = None
    async with running(bed.loop):
        bed.start()
        await asyncio.sleep(5)
        early = list(bed.fake.restores)
        bed.revision = 1
        bed.loop.ask()
        await bed.loop.until("1", "1")

    assert (early, len(bed.fake.restores)) == ([], 1)


@pytest.mark.looptime
async def test_endpoint_change_writes_only_chains_that_differ() -> None:
    bed = Bed()
    async with running(bed.loop):
        bed.start()
        bed.loop.service_changed(None, service("default/other", "172.30.0.11"))
        bed.loop.slice_changed(None, endpoint_slice("default/other", [HERE]))
        await bed.loop.until("1", "1")
        await bed.loop.until(endpoint_slices=bed.put(HERE, THERE))

    declared = [line.split()[0] for line in bed.fake.restores[-1].splitlines() if line.startswith(":")]
    assert sorted(name[:10] for name in declared) == [":KUBE-SEP-", ":KUBE-SVC-"]


@pytest.mark.looptime
async def test_failed_sync_is_told_and_retried_in_full_after_the_sync_period() -> None:
    bed = Bed()
    async with running(bed.loop):
        bed.start()
        await bed.loop.until("1", "1")
        bed.fake.fail_next = "line 7 failed"
        revision = bed.put(HERE, THERE)
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        failed = bed.loop.programmed
        await bed.loop.until(endpoint_slices=revision)
        took = asyncio.get_running_loop().time() - started

    assert "line 7 failed" in failed.error
    assert failed.endpoint_slices == "1"
    assert round(took) == 30
    assert bed.loop.programmed.error == ""


@pytest.mark.looptime
async def test_changes_of_a_failed_sync_still_clean_their_flows_later() -> None:
    bed = Bed()
    async with running(bed.loop):
        bed.loop.service_changed(None, service(ports={"dns": "53/UDP"}))
        bed.loop.node_changed(NODE)
        await bed.loop.until("1", "1")
        bed.cleaned.clear()
        bed.fake.fail_next = "no"
        bed.loop.service_changed(service(ports={"dns": "53/UDP"}), None)
        await asyncio.sleep(40)

    assert [port.cluster_ip for port in bed.cleaned[0].udp_removed] == ["172.30.0.10"]


@pytest.mark.looptime
async def test_a_sync_takes_until_flows_are_cleaned_and_one_that_failed_counts_too() -> None:
    bed = Bed()
    async with running(bed.loop):
        bed.fake.fail_next = "no"
        bed.loop.service_changed(None, service(ports={"dns": "53/UDP"}))
        bed.loop.node_changed(NODE)
        await bed.loop.attempt()
        failed = list(bed.loop.metrics.sync.lines("sync", ""))[-2:]
        await bed.loop.until("1", "1")

    assert failed == ["sync_sum{} 1", "sync_count{} 1"]
    assert list(bed.loop.metrics.full.lines("full", ""))[-2:] == ["full_sum{} 4", "full_count{} 2"]


def test_of_two_families_the_slower_one_counts_and_the_error_of_either() -> None:
    ahead = Programmed("12", "30", "", at=2.0, syncs=4)
    behind = Programmed("12", "9", "refused", at=1.0, syncs=3)

    for order in ([ahead, behind], [behind, ahead]):
        assert together(order) == behind
    assert together([ahead, Programmed()]) == Programmed()


def test_revisions_that_are_no_numbers_are_reached_by_a_first_sync() -> None:
    assert together([Programmed("a1", "b2", syncs=1)]).reached("", "")
    assert not Programmed("a1", "b2").reached("", "")


@pytest.mark.looptime
async def test_event_without_effect_counts_as_programmed_at_once() -> None:
    bed = Bed()
    async with running(bed.loop):
        bed.start()
        await bed.loop.until("1", "1")
        syncs = len(bed.fake.restores)
        bed.revision = 7
        bed.loop.service_changed(service(), service(labels={"a": "b"}))
        await bed.loop.until("7", "7")

    assert len(bed.fake.restores) == syncs


@pytest.mark.looptime
async def test_flushed_tables_are_repaired_within_a_sync_period() -> None:
    bed = Bed()
    async with running(bed.loop):
        bed.start()
        await bed.loop.until("1", "1")
        before = await bed.fake.save()
        bed.fake.tables = type(bed.fake)().tables
        await asyncio.sleep(31)

    assert await bed.fake.save() == before


@pytest.mark.looptime
async def test_once_an_hour_everything_is_compared() -> None:
    bed = Bed()
    async with running(bed.loop):
        bed.start()
        await bed.loop.until("1", "1")
        before = await bed.fake.save()
        bed.fake.tables["nat"]["KUBE-SERVICES"].clear()
        await asyncio.sleep(3700)

    assert await bed.fake.save() == before


async def test_full_sync_over_its_own_tables_restores_nothing() -> None:
    proxy = Proxy()
    services, slices = world()
    proxy.add(*services, *slices)
    await proxy.sync()

    assert await proxy.sync() == []


async def test_refused_restore_leaves_the_next_full_sync_to_mend_it() -> None:
    proxy = Proxy()
    proxy.add(service(), endpoint_slice("default/web", [HERE]))
    proxy.fake.fail_next = "busy"
    with pytest.raises(KernelError, match="busy"):
        await proxy.sync()

    await proxy.sync()

    assert any("10.180.0.1:8080" in r for rules in proxy.fake.tables["nat"].values() for r in rules)


async def test_comments_per_endpoint_go_above_a_thousand_endpoints() -> None:
    proxy = Proxy()
    many = [(f"10.180.{i // 250}.{i % 250 + 1}", "b") for i in range(1001)]
    proxy.add(service(), endpoint_slice("default/web", many))
    await proxy.sync()

    rules = [r for c, lines in proxy.fake.tables["nat"].items() if c.startswith("KUBE-SEP") for r in lines]
    assert len(rules) == 2002
    assert not any("--comment" in rule for rule in rules)


# --- stale flows

OWN = frozenset({"192.168.0.2"})


def flow(to: str, port: int, answered_by: str, protocol: str = "udp") -> Flow:
    return Flow(protocol, "203.0.113.9", 4444, to, port, answered_by, 8080)


async def udp_bed(*at: tuple[str, ...]) -> tuple[Proxy, Changes]:
    proxy = Proxy()
    proxy.add(
        service(ports={"http": "80/UDP"}, type="NodePort", node_ports={"http": 30053}),
        endpoint_slice("default/web", at, {"http": "8080/UDP"}),
    )
    return proxy, proxy.tracker.take()


@pytest.mark.parametrize(
    ("at", "entry", "stale"),
    [
        pytest.param([HERE], flow("172.30.0.10", 80, "10.180.0.1"), False, id="serving endpoint keeps its flows"),
        pytest.param([(*HERE, "ending")], flow("172.30.0.10", 80, "10.180.0.1"), False, id="terminating but serving"),
        pytest.param([(*HERE, "ended")], flow("172.30.0.10", 80, "10.180.0.1"), True, id="no longer serving"),
        pytest.param([THERE], flow("172.30.0.10", 80, "10.180.0.1"), True, id="endpoint gone"),
        pytest.param([], flow("172.30.0.10", 80, "10.180.0.1"), True, id="last endpoint gone"),
        pytest.param([HERE], flow("172.30.0.10", 80, "172.30.0.10"), True, id="never translated"),
        pytest.param([THERE], flow("192.168.0.2", 30053, "10.180.0.1"), True, id="node port"),
        pytest.param([THERE], flow("127.0.0.2", 30053, "10.180.0.1"), True, id="node port on loopback"),
        pytest.param([], flow("192.168.0.2", 30053, "192.168.0.2"), True, id="node port, never translated"),
        pytest.param([THERE], flow("198.51.100.1", 30053, "198.51.100.1"), False, id="a node port's number elsewhere"),
        pytest.param([THERE], flow("172.30.0.10", 81, "10.180.0.1"), False, id="other port"),
        pytest.param([THERE], flow("198.51.100.1", 80, "198.51.100.1"), False, id="other destination"),
        pytest.param([THERE], flow("172.30.0.10", 80, "10.180.0.1", "tcp"), False, id="tcp is never touched"),
    ],
)
async def test_which_flows_are_stale(at: list[tuple[str, ...]], entry: Flow, stale: bool) -> None:
    proxy, changes = await udp_bed(*at)

    assert bool(stale_flows([entry], proxy.tracker.table, changes, OWN)) == stale


async def test_flows_of_untouched_ports_are_not_judged() -> None:
    proxy, _ = await udp_bed(THERE)

    assert stale_flows([flow("172.30.0.10", 80, "10.180.0.1")], proxy.tracker.table, Changes(), OWN) == []


async def test_flows_of_a_deleted_service_are_stale() -> None:
    proxy, _ = await udp_bed(HERE)
    proxy.remove(service())
    changes = proxy.tracker.take()

    assert len(stale_flows([flow("172.30.0.10", 80, "10.180.0.1")], proxy.tracker.table, changes, OWN)) == 1


async def test_flows_go_with_the_last_endpoint_and_the_ones_that_found_none_with_the_first() -> None:
    proxy, _ = await udp_bed(HERE)
    conntrack, sender, to = FakeConntrack(), ("203.0.113.9", 4444), ("172.30.0.10", 80)
    others = [("udp", ("198.51.100.1", 53)), ("tcp", to)]
    for protocol, other in others:
        conntrack.send(protocol, sender, other)

    def reached(*at: tuple[str, str]) -> tuple[str, int]:
        conntrack.rules = {("udp", *to): (at[0][0], 8080)} if at else {}
        proxy.add(endpoint_slice("default/web", at, {"http": "8080/UDP"}))
        changes = proxy.tracker.take()
        forget_stale(conntrack, proxy.tracker.table, changes, OWN)
        return conntrack.send("udp", sender, to)

    ends = [reached(HERE), reached(THERE), reached(), reached(HERE), reached(HERE, THERE)]

    assert ends == [(HERE[0], 8080), (THERE[0], 8080), to, (HERE[0], 8080), (HERE[0], 8080)]
    assert len(conntrack.flows("udp")) == 2
    assert len(conntrack.flows("tcp")) == 1


_rules = st.lists(st.sampled_from("abcdefgh"), max_size=8)


@given(old=_rules, new=_rules)
def test_edits_turn_one_chain_into_the_other_or_say_they_cannot(old: list[str], new: list[str]) -> None:
    commands = edits("X", old, new)
    if commands is None:
        return
    rules = list(old)
    for verb, _, *rest in (command.split(" ") for command in commands):
        if verb == "-D":
            rules.remove(rest[0])
        else:
            rules.insert(int(rest[0]) - 1, rest[1])

    assert rules == new


def test_edits_leave_what_stays_alone() -> None:
    assert edits("X", ["a", "b", "c"], ["a", "d", "c"]) == ("-D X b", "-I X 2 d")


async def test_one_service_among_many_is_one_rule_in_each_shared_chain() -> None:
    proxy = Proxy()
    for number in range(50):
        proxy.add(service(f"default/s{number:02}", f"172.30.1.{number}"))
        proxy.add(endpoint_slice(f"default/s{number:02}", [HERE]))
    await proxy.sync()
    proxy.add(service(), endpoint_slice("default/web", [HERE]))

    (text,) = await proxy.sync(full=False)

    assert sum("KUBE-SERVICES" in line for line in text.splitlines()) == 1


@pytest.mark.looptime
@pytest.mark.parametrize("chain", ["KUBE-SERVICES", "KUBE-POSTROUTING", "PREROUTING"])
async def test_a_rule_that_somebody_deleted_comes_back(chain: str) -> None:
    bed = Bed()
    bed.add(service(), endpoint_slice("default/web", [HERE]))
    bed.loop.node_changed(NODE)
    async with running(bed.loop):
        await bed.loop.until()
        wanted = await bed.fake.save()
        bed.fake.tables["nat"][chain].pop()
        await asyncio.sleep(31)

    assert await bed.fake.save() == wanted
