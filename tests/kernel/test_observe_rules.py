"""Rules read back from a kernel: the world of the golden dumps, in either kind of iptables and in nftables mode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from netemu.kernel import netns
from netemu.kernel.iptables import IptablesTool
from netemu.kernel.nftables import NftNetlink
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.observe.rules import read
from netemu.observe.rules.check import findings
from netemu.observe.rules.read import read_rules
from netemu.observe.rules.walk import NodeRules, of_service, others
from netemu.observe.rules.words import Words
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.nftables_mode import base_rules
from netemu.proxy.nftables_programmer import NftablesProgrammer
from tests.kernel.proxy_bed import sh
from tests.unit.nft_world import WORLD_NODE, world_table
from tests.unit.proxy_world import DATA
from tests.unit.rules_world import SERVICES, SLICES, TEST_NODE, world_names, world_rules

PLACE = "t-rules"


@pytest.fixture(autouse=True)
def place() -> Iterator[None]:
    netns.delete(PLACE)
    netns.create(PLACE)
    try:
        sh(PLACE, "ip", "link", "set", "lo", "up")
        yield
    finally:
        netns.delete(PLACE)


def sentences(rules: NodeRules) -> list[str]:
    """Everything said of every Service, in order."""
    return [each.line.sentence for service in SERVICES for each in of_service(rules, service.key)]


def off(rules: NodeRules) -> list[tuple[str, str]]:
    return [(each.port, each.what) for each in findings(rules, TEST_NODE, SERVICES, SLICES, Words(world_names()))]


@pytest.mark.parametrize("kind", ["nft", "legacy"])
async def test_iptables_rules_are_told_and_counted(kind: str, tmp_path: Path) -> None:
    tool = IptablesTool(f"iptables-{kind}", PLACE, tmp_path / "lock")
    await tool.restore((DATA / "iptables-world.save").read_text())
    await tool.restore("*filter\n-A INPUT -i eth7 -j DROP\nCOMMIT\n")
    sh(PLACE, "bash", "-c", "echo > /dev/udp/127.0.0.1/9")

    rules = await read_rules(PLACE, world_names())

    assert (rules.mode, off(rules), sentences(rules)) == ("iptables", [], sentences(world_rules("iptables")))
    assert [each.line.sentence for each in others(rules)] == ["drops what comes in by eth7"]
    jump = rules.line("nat", "OUTPUT", 1)
    assert jump is not None
    assert (jump.packets, jump.text) == (1, '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES')


async def test_rules_elements_and_counters_of_nftables_are_told() -> None:
    kernel = NftNetlink(PLACE)
    table = nft.Table("ip", "kube-proxy")
    try:
        await NftablesProgrammer(kernel, base_rules(KubeProxyConfiguration())).program(world_table(), WORLD_NODE, None)
        added = nft.Rule("services", (nft.Match(nft.Field.IIFNAME, ("eth7",)), nft.Counter(), nft.DROP))
        await kernel.run(nft.Transaction(table, (nft.Insert(added),)))
    finally:
        kernel.close()

    rules = await read_rules(PLACE, world_names())

    first = rules.chains["kube-proxy", "services"].lines[0]
    assert (rules.mode, off(rules)) == ("nftables", [])
    assert sorted(sentences(rules)) == sorted(sentences(await asyncio.to_thread(world_rules, "nftables")))
    assert (first.sentence, first.packets) == ("drops what comes in by eth7", 0)
    assert rules.with_handle("kube-proxy", "services", first.handle) is first


async def test_rules_of_both_kinds_at_once_and_of_other_tables_are_all_told(tmp_path: Path) -> None:
    for kind, link in (("nft", "eth7"), ("legacy", "eth8")):
        tool = IptablesTool(f"iptables-{kind}", PLACE, tmp_path / "lock")
        await tool.restore(f"*filter\n-A FORWARD -i {link} -j DROP\nCOMMIT\n")
    sh(PLACE, "nft", "add table inet guard; add chain inet guard in { type filter hook forward priority -5; }; "
       "add rule inet guard in tcp dport 22 counter drop; add table ip6 other; add chain ip6 other x")  # fmt: skip

    met = others(await read_rules(PLACE, world_names()))

    assert [(each.table, each.line.sentence) for each in met] == [
        ("inet guard", "drops what matches `tcp dport 22`"),
        ("filter", "drops what comes in by eth7"),
        ("legacy filter", "drops what comes in by eth8"),
    ]


async def test_where_nothing_is_every_rule_is_missing() -> None:
    rules = await read_rules(PLACE, world_names())

    missing = off(rules)
    assert ("default/web:http", "no rule for cluster IP 172.30.0.10:80/tcp") in missing
    assert ("prod/lb-local:p80", "no rule for load balancer IP 5.6.7.8:80/tcp") in missing
    assert (rules.mode, all(what.startswith("no rule for") for _, what in missing)) == ("iptables", True)


async def test_without_ipsets_no_socket_of_ipvs_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = list[str]()

    class Balancer:
        def __init__(self, netns: str) -> None:
            self._netns = netns

        def close(self) -> None:
            closed.append(self._netns)

    def no_ipsets(netns: str) -> None:
        raise KernelError("open ipset", netns)

    monkeypatch.setattr(read, "IpvsNetlink", Balancer)
    monkeypatch.setattr(read, "IpsetNetlink", no_ipsets)

    assert (await read_rules(PLACE, world_names())).mode == "iptables"
    assert closed == [PLACE]
