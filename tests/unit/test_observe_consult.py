"""What is asked of the kernel about a packet's way through a place, and behind which of its rules."""

from __future__ import annotations

import pytest

from netemu.model import nft
from netemu.model.nft import Field
from netemu.observe.trace.consult import balancing_run, looked_up, routed_before, translated
from netemu.observe.trace.evidence import Crossing, Headers, Hook, RuleHit
from netemu.observe.trace.passages import Passage, Run

SERVICE = Headers(protocol="tcp", source="10.0.0.1", destination="10.96.0.1", port=80)
SERVER = Headers(protocol="tcp", source="10.0.0.1", destination="10.0.0.2", port=8080)
FRAME = Crossing(
    seconds=1.0, place="node", leg="there", link="veth1", direction="in", headers=SERVICE, frame=b""
)  # fmt: skip


def run(hook: Hook, headers: Headers) -> Run:
    return Run("there", hook, 0, "", "", headers, 0, "nft")


def passage(*runs: Run, came: bool) -> Passage:
    return Passage("node", "there", entry=FRAME if came else None, runs=list(runs))


PRE, NAT = run("prerouting", SERVICE), run("prerouting", SERVICE)
FORWARD, INPUT, POST = run("forward", SERVER), run("input", SERVICE), run("postrouting", SERVER)
OUT, OUT_BEHIND_NAT = run("output", SERVICE), run("output", SERVER)


@pytest.mark.parametrize(
    ("runs", "came", "routed"),
    [
        ([PRE, NAT, FORWARD, POST], True, {2: FORWARD}),
        ([PRE], True, {1: None}),
        ([], True, {0: None}),
        ([OUT, OUT, POST], False, {0: None, 2: POST}),
        ([OUT, OUT_BEHIND_NAT, POST], False, {0: None, 1: OUT_BEHIND_NAT}),
        ([OUT], False, {0: None}),
    ],
)
def test_a_packet_is_routed_behind_prerouting_and_anew_where_output_translates(
    runs: list[Run], came: bool, routed: dict[int, Run | None]
) -> None:
    assert routed_before(passage(*runs, came=came)) == routed


@pytest.mark.parametrize(
    ("runs", "came", "where"),
    [
        ([PRE, INPUT, INPUT, OUT_BEHIND_NAT, POST], True, 2),
        ([OUT, OUT, POST], False, 1),
        ([PRE, FORWARD, POST], True, -1),
    ],
)
def test_ipvs_works_behind_the_last_rules_of_its_hook(runs: list[Run], came: bool, where: int) -> None:
    assert balancing_run(passage(*runs, came=came)) == where


def test_a_rule_that_acted_found_what_it_looked_up_unless_it_wanted_not_to() -> None:
    key = (Field.IP_DADDR, Field.L4PROTO, Field.TH_DPORT)
    rule = nft.Rule(
        "services",
        (
            nft.Lookup((Field.IP_SADDR,), "clients"),
            nft.Lookup((Field.IP_DADDR,), "others", negated=True),
            nft.Vmap(key, "service-ips"),
            nft.Vmap((nft.Numgen(2),), entries=(((0,), nft.ACCEPT),)),
        ),
    )

    assert list(looked_up(rule)) == [((Field.IP_SADDR,), "clients", "set"), (key, "service-ips", "map")]


@pytest.mark.parametrize(
    ("text", "to"),
    [
        ("-p tcp -j DNAT --to-destination 10.244.2.2:8080", ["10.244.2.2"]),
        ("meta l4proto tcp dnat to [fd00::2]:8080", ["fd00::2"]),
        ("dnat ip to numgen random mod 2 map { 0 : 10.244.2.2 . 8080, 1 : 10.244.2.3 . 8080 }",
         ["10.244.2.2", "10.244.2.3"]),
        ("-j ACCEPT", []),
    ],
)  # fmt: skip
def test_a_packet_that_no_later_witness_saw_went_where_the_last_rule_sent_it(text: str, to: list[str]) -> None:
    hit = RuleHit(
        seconds=0.0,
        place="node",
        leg="there",
        backend="nft",
        family="ip",
        table="nat",
        chain="c",
        verdict="",
        text=text,
    )

    assert translated([hit]) == to
