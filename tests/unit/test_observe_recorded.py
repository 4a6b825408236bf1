"""Stories and causes of packets whose evidence a kernel told in a lab (data/evidence.json, frames left out)."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from netemu.observe.names import Names, Party, names_of
from netemu.observe.reasons import Reason
from netemu.observe.story.cause import WhyNot
from netemu.observe.story.destination import Destination, Objects
from netemu.observe.story.expected import Expected
from netemu.observe.story.story import Teller
from netemu.observe.story.whynot import Facts, why_not
from netemu.observe.trace.evidence import Evidence, Translation
from netemu.observe.trace.outcome import arrival, chosen, ended, outcome_of, translated_at

RECORDED = json.loads((Path(__file__).parent / "data/evidence.json").read_text())
NAMES: Names = names_of(
    [(address, Party(*party)) for address, party in RECORDED["names"].items() if party[0] != "service"]
)
FAR, NEAR = "10.244.2.2:8080", "10.244.1.3:8080"


def evidence(name: str) -> Evidence:
    return msgspec.convert(RECORDED["evidence"][name], Evidence)


def cause(name: str, expected: Expected) -> WhyNot | None:
    found = evidence(name)
    destination = Destination("", found.packet.destination, found.packet.port)
    return why_not(found, expected, destination, Facts(Objects(), NAMES))


def endpoint(*targets: str, node: str = "worker-1", sees: str = "") -> Expected:
    sources = frozenset((target, sees) for target in targets if sees)
    return Expected("dnat", Reason.TRANSLATED, "", node, frozenset(targets), sources)


@pytest.mark.parametrize(
    ("name", "outcome", "arrives", "ends"),
    [
        ("cluster IP, iptables", "answered", "10.244.1.2 -> 10.244.2.2:8080", ""),
        ("node port, iptables", "answered", "172.18.0.3 -> 10.244.2.2:8080", ""),
        ("hairpin, nftables", "answered", "10.244.1.1 -> 10.244.1.3:8080", ""),
        ("nobody listens", "refused", "10.244.1.2 -> 10.244.2.2:9999", ""),
        ("no endpoints, iptables", "rejected", "", "rejected by rule at node/worker-1"),
        ("dropped by a firewall", "lost", "", "dropped by rule at node/worker-2"),
        ("policy Local, nftables", "lost", "", "dropped by rule at node/worker-1"),
    ],
)
def test_what_came_of_a_packet(name: str, outcome: str, arrives: str, ends: str) -> None:
    found = evidence(name)
    flow, end = arrival(found), ended(found)

    assert outcome_of(found) == outcome
    assert (f"{flow.source} -> {flow.destination}:{flow.port}" if flow else "") == arrives
    assert (f"{'rejected' if end.rejected else 'dropped'} by {end.by} at {end.place}" if end else "") == ends


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cluster IP, iptables", "node/worker-1"),
        ("hairpin, nftables", "node/worker-1"),
        ("dropped by a firewall", "node/worker-1"),
    ],
)
def test_the_rule_that_translates_is_told_beside_what_conntrack_made_of_it(name: str, place: str) -> None:
    found = evidence(name)
    translation = chosen(found)

    assert translated_at(found, place)
    assert translation is not None
    assert (translation.place, translation.new) == (place, True)
    assert not translated_at(evidence("nobody listens"), place)


@pytest.mark.parametrize(
    ("name", "expected", "reason"),
    [
        ("cluster IP, iptables", endpoint(FAR, sees="10.244.1.2"), None),
        ("cluster IP, iptables", endpoint(FAR, sees="172.18.0.3"), "wrong-source"),
        ("cluster IP, iptables", endpoint(NEAR), "missing-rule"),
        ("hairpin, nftables", endpoint(NEAR, sees="10.244.1.1"), None),
        ("no endpoints, iptables", endpoint(FAR), "missing-rule"),
        ("no endpoints, iptables", Expected("reject", Reason.NO_ENDPOINTS, "no endpoints", "worker-1"), "no-endpoints"),
        ("dropped by a firewall", endpoint(FAR), "dropped-by-rule"),
        ("nobody listens", Expected("reject", Reason.NOT_LISTENING, ""), "not-listening"),
        ("policy Local, nftables", Expected("drop", Reason.NO_LOCAL_ENDPOINT, "Local"), "no-local-endpoint"),
    ],
)
def test_evidence_is_held_against_what_was_expected(name: str, expected: Expected, reason: str | None) -> None:
    found = cause(name, expected)

    assert (found.reason if found else None) == reason


def test_every_event_becomes_a_step_in_its_order() -> None:
    found = evidence("node port, iptables")
    steps = Teller(NAMES).tell(found)

    assert [step.milliseconds for step in steps] == sorted(step.milliseconds for step in steps)
    assert {step.kind for step in steps} == {"route", "link", "rule", "translation"}
    changes = [step for step in steps if isinstance(step.event, Translation) and step.event.before != step.event.after]
    assert [step.meaning for step in changes] == [
        "the destination becomes default/far:8080 on worker-2 and the source becomes node/worker-1:36056, so that "
        "answers come back here",
        "the answer is translated back: the destination becomes client/laptop:63396 and the source becomes "
        "node/worker-1:30102",
    ]
