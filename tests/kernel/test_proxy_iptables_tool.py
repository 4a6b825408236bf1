"""The contract of `Iptables`, on both kinds of the real tool; and what only they can show."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from netemu.kernel import netns
from netemu.kernel.iptables import Iptables, IptablesTool, choose, parse_save
from netemu.kernel.iptables_resident import ResidentIptables
from netemu.model.errors import KernelError
from netemu.proxy import rulefiles
from netemu.proxy.facts import NodeFacts
from netemu.proxy.iptables_programmer import IptablesProgrammer
from netemu.proxy.services import Family
from tests.unit.golden_worlds import NAMES, Golden
from tests.unit.iptables_contract import BEHAVIOUR, REFUSED, check_refusal
from tests.unit.proxy_world import BASE, DATA, NODE, Proxy, endpoint_slice, service, world

NAMESPACE = "t-proxy-tool"
KINDS = ("nft", "legacy")


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    netns.delete(NAMESPACE)
    netns.create(NAMESPACE)
    try:
        yield
    finally:
        netns.delete(NAMESPACE)


@pytest.fixture(params=[*KINDS, *(f"{kind} resident" for kind in KINDS)])
async def tool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Iptables]:
    kind, _, resident = request.param.partition(" ")
    tool = IptablesTool(f"iptables-{kind}", NAMESPACE, tmp_path / "xtables.lock")
    used: Iptables = ResidentIptables(tool) if resident else tool
    yield used
    used.close()


@pytest.mark.parametrize("text", REFUSED)
async def test_refuses(tool: Iptables, text: str) -> None:
    await check_refusal(tool, text)


async def test_a_refusal_says_what_is_wrong_in_which_line(tool: Iptables) -> None:
    await tool.restore("*filter\n:X - [0:0]\nCOMMIT\n")  # a tool that stays counts on from here

    with pytest.raises(KernelError, match=r"`10\.0\.0\.999' not found, line 2 \(status 2\): -A X -d 10\.0\.0\.999$"):
        await tool.restore("*filter\n-A X -d 10.0.0.999\nCOMMIT\n")


@pytest.mark.parametrize("check", BEHAVIOUR)
async def test_behaves(tool: Iptables, check: Callable[[Iptables], Awaitable[None]]) -> None:
    await check(tool)


def over(tool: Iptables) -> Proxy:
    """The world of the golden dump, over a real tool."""
    proxy = Proxy()
    services, slices = world()
    proxy.add(*services, *slices)
    proxy.programmer = IptablesProgrammer(tool, rulefiles.load("iptables", BASE))
    return proxy


async def test_kernel_prints_the_golden_world_as_it_was_written(tool: Iptables) -> None:
    await over(tool).sync()
    printed, wanted = parse_save(await tool.save()), parse_save((DATA / "iptables-world.save").read_text())

    for table in ("filter", "nat"):
        assert {c: sorted(r) for c, r in printed[table].items()} == {c: sorted(r) for c, r in wanted[table].items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
async def test_other_golden_worlds_load_and_are_printed_as_they_stand(kind: str, name: str, tmp_path: Path) -> None:
    golden = Golden(name, "iptables")
    command = "ip6tables" if golden.family is Family.IPV6 else "iptables"
    tool = IptablesTool(f"{command}-{kind}", NAMESPACE, tmp_path / "xtables.lock")
    await tool.restore(golden.text)
    printed, wanted = parse_save(await tool.save()), parse_save(golden.text)

    for table in ("filter", "nat"):
        assert printed[table] == wanted[table]


async def test_jumps_stand_in_the_order_of_the_real_dump(tool: Iptables) -> None:
    await over(tool).sync()
    printed, wanted = parse_save(await tool.save()), parse_save((DATA / "iptables-world.save").read_text())

    for table, chain in (("filter", "INPUT"), ("filter", "FORWARD"), ("filter", "OUTPUT"), ("nat", "PREROUTING")):
        assert printed[table][chain] == wanted[table][chain]


async def test_second_full_sync_writes_nothing(tool: Iptables) -> None:
    await over(tool).sync()
    again = over(tool)
    again.tracker.take()

    written = await again.programmer.program(again.tracker.table, again.node, None)

    assert written.chains == 0


async def test_partial_syncs_lead_to_the_same_tables_as_a_full_one(tool: Iptables) -> None:
    proxy = over(tool)
    await proxy.sync()
    proxy.add(endpoint_slice("default/web", [("10.180.0.1", "test-node"), ("10.180.0.77", "test-node")]))
    proxy.remove(service("default/term"), service("prod/lb-ranges"))
    proxy.add(service("default/empty", "172.30.0.17", ports={"p80": 80}))
    await proxy.sync(full=False)
    by_parts = parse_save(await tool.save())

    written = await proxy.programmer.program(proxy.tracker.table, NODE, None)

    assert written.chains == 0
    assert parse_save(await tool.save()) == by_parts


@pytest.mark.parametrize("kind", KINDS)
async def test_the_kind_whose_tables_hold_the_kubelets_hint_is_chosen(kind: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n"
    await IptablesTool(f"iptables-{kind}", NAMESPACE, lock).restore(hint)

    assert (await choose(NAMESPACE, lock_file=lock)).prefix == f"iptables-{kind}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["iptables", "ip6tables"])
async def test_the_kind_that_holds_rules_is_chosen_for_both_families(kind: str, family: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    await IptablesTool(f"{family}-{kind}", NAMESPACE, lock).restore("*filter\n-A INPUT -j ACCEPT\nCOMMIT\n")

    assert (await choose(NAMESPACE, lock_file=lock)).prefix == f"iptables-{kind}"
    assert (await choose(NAMESPACE, ipv6=True, lock_file=lock)).prefix == f"ip6tables-{kind}"


async def test_what_somebody_else_changes_over_nf_tables_is_a_foreign_change(tmp_path: Path) -> None:
    tool = IptablesTool("iptables-nft", NAMESPACE, tmp_path / "lock")
    resident = ResidentIptables(tool)
    await resident.restore("*filter\n:A - [0:0]\nCOMMIT\n")
    before = await resident.foreign_changes()
    await tool.restore("*filter\n-A A -j ACCEPT\nCOMMIT\n")

    assert await resident.foreign_changes() != before
    resident.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_resident_tool_that_is_killed_is_started_again(kind: str, tmp_path: Path) -> None:
    resident = ResidentIptables(IptablesTool(f"iptables-{kind}", NAMESPACE, tmp_path / "lock"))
    await resident.restore("*filter\n:A - [0:0]\nCOMMIT\n")
    (child,) = (
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    )
    os.kill(child, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, child, os.WEXITED | os.WNOWAIT)
    await resident.restore("*filter\n:B - [0:0]\nCOMMIT\n")

    assert await resident.has_chain("filter", "B")
    resident.close()


async def test_the_systems_default_is_chosen_on_an_empty_node() -> None:
    assert (await choose(NAMESPACE)).prefix == "iptables"


async def test_ip6tables_takes_the_same_rules(tmp_path: Path) -> None:
    proxy = Proxy(NodeFacts(family=Family.IPV6), BASE[:2], Family.IPV6)
    proxy.programmer = IptablesProgrammer(
        IptablesTool("ip6tables", NAMESPACE, tmp_path / "lock"), rulefiles.load("iptables", BASE[:2])
    )
    proxy.add(
        service(ip="fd00:10:96::a", ipFamilies=["IPv6"], affinity=60, type="NodePort", node_ports={"http": 30080})
    )
    proxy.add(service("default/empty", "fd00:10:96::b", ipFamilies=["IPv6"]))
    proxy.add(endpoint_slice("default/web", [("fd00::1", "test-node"), ("fd00::2", "b")], address_type="IPv6"))
    await proxy.sync()

    written = await proxy.programmer.program(proxy.tracker.table, proxy.node, None)

    assert written.chains == 0
    assert "[fd00::1]:8080" in await proxy.programmer.tool.save("nat")


@pytest.mark.parametrize("index", [0, 10, 19], ids=["first", "middle", "last"])
async def test_rules_of_other_services_stay_when_one_changes(tool: Iptables, index: int) -> None:
    proxy = Proxy()
    proxy.programmer = IptablesProgrammer(tool, rulefiles.load("iptables", BASE))
    for number in range(20):
        name = f"default/s{number:02}"
        proxy.add(service(name, f"172.30.1.{number}", type="NodePort", node_ports={"http": 30000 + number}))
        if number != index:
            proxy.add(endpoint_slice(name, [(f"10.180.0.{number}", "test-node")]))
    await proxy.sync()
    proxy.add(endpoint_slice(f"default/s{index:02}", [("10.180.0.99", "test-node")]))
    await proxy.sync(full=False)
    proxy.remove(service(f"default/s{(index + 5) % 20:02}"))
    await proxy.sync(full=False)

    written = await proxy.programmer.program(proxy.tracker.table, proxy.node, None)

    assert written.chains == 0
