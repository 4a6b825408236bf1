"""Rules of iptables in their own words: what iptables-save tells of a rule that acted."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from netemu.observe.rules.iptables_saved import parse_counted
from netemu.observe.trace.evidence import Counter, RuleHit
from netemu.observe.trace.rule_texts import Saved, with_iptables_text

SAVED = """
*nat
:PREROUTING ACCEPT [0:0]
:SVC - [0:0]
:END - [0:0]
[3:180] -A PREROUTING -d 10.96.0.1/32 -m comment --comment "shop/web cluster IP" -j SVC
[2:120] -A SVC -m mark --mark 0x1 -g END
[1:60] -A SVC -p tcp -j DNAT --to-destination 10.0.0.2:80
[9:540] -A SVC -m comment --comment counted
COMMIT
*filter
:FORWARD DROP [7:420]
COMMIT
"""
AFTER = Saved(*parse_counted(SAVED))
BEFORE = Saved(*parse_counted(SAVED.replace("[1:60]", "[0:0]").replace("[3:180]", "[2:120]")))
HIT = RuleHit(
    seconds=0.0, place="node", leg="there", backend="iptables-legacy", family="ip", table="nat", chain="SVC", verdict=""
)


@pytest.mark.parametrize(
    ("chain", "number", "verdict", "to", "comment"),
    [
        ("PREROUTING", 1, "jump", "SVC", "shop/web cluster IP"),
        ("SVC", 1, "goto", "END", ""),
        ("SVC", 2, "dnat", "", ""),
        ("SVC", 3, "continue", "", "counted"),
    ],
)
def test_a_rule_is_told_by_its_number(chain: str, number: int, verdict: str, to: str, comment: str) -> None:
    told = with_iptables_text(replace(HIT, chain=chain, number=number), AFTER)

    assert (told.verdict, told.to, told.comment) == (verdict, to, comment)
    assert told.before is None


def test_counters_are_told_from_before_and_after() -> None:
    told = with_iptables_text(replace(HIT, number=2), AFTER, BEFORE)

    assert (told.before, told.after) == (Counter(0, 0), Counter(1, 60))
    assert told.text == "-p tcp -j DNAT --to-destination 10.0.0.2:80"


def test_a_rule_that_was_another_before_has_no_counter_from_then() -> None:
    other = Saved(*parse_counted(SAVED.replace("10.0.0.2", "10.0.0.3")))
    assert with_iptables_text(replace(HIT, number=2), AFTER, other).before is None


def test_a_policy_is_told_by_its_chain() -> None:
    told = with_iptables_text(replace(HIT, table="filter", chain="FORWARD", policy=True), AFTER)
    assert (told.verdict, told.text) == ("drop", "policy DROP")


@pytest.mark.parametrize(
    "hit", [replace(HIT, number=4), replace(HIT, chain="GONE", number=1), replace(HIT, policy=True)]
)
def test_what_is_not_there_any_more_has_no_text(hit: RuleHit) -> None:
    assert with_iptables_text(hit, AFTER) == hit
