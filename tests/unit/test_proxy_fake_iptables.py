"""The contract of `Iptables`, on the fake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from netemu.kernel.iptables import Iptables, fuller, hinted
from netemu.testing.iptables import FakeIptables
from netemu.testing.packets import Node, Packet
from tests.unit.iptables_contract import BEHAVIOUR, REFUSED, check_refusal


@pytest.mark.parametrize("text", REFUSED)
async def test_refuses(text: str) -> None:
    await check_refusal(FakeIptables(), text)


@pytest.mark.parametrize("check", BEHAVIOUR)
async def test_behaves(check: Callable[[Iptables], Awaitable[None]]) -> None:
    await check(FakeIptables())


async def test_a_rule_of_somebody_else_is_a_foreign_change() -> None:
    fake = FakeIptables()
    await fake.restore("*filter\n:A - [0:0]\nCOMMIT\n")
    before = await fake.foreign_changes()
    fake.tables["filter"]["A"].append("-j ACCEPT")

    assert await fake.foreign_changes() != before


NFT_HINT = {"nft": "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\n", "legacy": "*mangle\n"}
LEGACY_HINT = {"nft": "*mangle\n", "legacy": "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n"}
BOTH = {"nft": NFT_HINT["nft"], "legacy": LEGACY_HINT["legacy"]}


@pytest.mark.parametrize(
    ("mangle", "kind"),
    [(NFT_HINT, "nft"), (LEGACY_HINT, "legacy"), (BOTH, "nft"), ({"nft": "*mangle\n"}, ""), ({}, "")],
)
def test_a_hint_decides_for_a_kind(mangle: dict[str, str], kind: str) -> None:
    assert hinted(mangle) == kind


@pytest.mark.parametrize(
    ("nft", "legacy", "kind"), [(0, 0, ""), (1, 0, "nft"), (1, 2, "legacy"), (3, 2, "nft"), (2, 2, "")]
)
def test_without_a_hint_the_kind_with_more_rules_is_taken(nft: int, legacy: int, kind: str) -> None:
    rule = "-A INPUT -j ACCEPT\n"

    assert fuller({"nft": "*filter\n" + nft * rule, "legacy": "*filter\n" + legacy * rule}) == kind


async def test_tracer_fails_on_a_match_it_does_not_know() -> None:
    fake = FakeIptables()
    await fake.restore("*nat\n-A PREROUTING -m time --timestart 10:00 -j ACCEPT\nCOMMIT\n")

    with pytest.raises(AssertionError, match="-m time"):
        Node(fake.tables).trace(Packet("10.0.0.1", "10.0.0.2", 80))
