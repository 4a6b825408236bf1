"""What came of a packet, read off its evidence: answered, refused, rejected or lost, and as what it arrived. Pure."""

from __future__ import annotations

from typing import Literal

from netemu.observe.names import Names
from netemu.observe.trace.evidence import Balanced, Crossing, Dropped, Evidence, Flow, Leg, RuleHit, Translation

Outcome = Literal["answered", "refused", "rejected", "lost", "nowhere"]
"""`refused` by whoever has the address (RST, port unreachable), `rejected` by something on the way; `nowhere`: there
was no address to send to."""

_ANSWERS = ("SYN-ACK", "datagram", "echo reply")


def outcome_of(evidence: Evidence) -> Outcome:
    """What came of the packet."""
    answer = evidence.answer
    if answer is None:
        return "rejected" if rejection(evidence) else "lost"
    if answer.what in _ANSWERS:
        return "answered" if _is_known(evidence) else "lost"
    return "refused" if evidence.reached and not rejection(evidence) else "rejected"


def _is_known(evidence: Evidence) -> bool:
    """Whether the answer has the addresses that the sender waits for: who asked one address takes none from another."""
    flows = [flow for event in evidence.at(evidence.source.name, "back") if (flow := _flow(event)) is not None]
    packet = evidence.packet
    return (
        packet.protocol == "icmp"
        or not flows
        or (flows[-1].source, flows[-1].source_port)
        == (
            packet.destination,
            packet.port,
        )
    )


def rejection(evidence: Evidence) -> Dropped | None:
    """Where something before the destination sent an answer of its own, if it did."""
    return next((e for e in evidence.events if isinstance(e, Dropped) and e.leg == "there" and e.rejected), None)


def ended(evidence: Evidence, leg: Leg = "there") -> Dropped | None:
    """Where one leg ended before its time, if it did."""
    return next((e for e in evidence.events if isinstance(e, Dropped) and e.leg == leg), None)


def arrival(evidence: Evidence) -> Flow | None:
    """Addresses and ports as the packet had them where it was taken in; None if it was not."""
    if not evidence.reached:
        return None
    flows = [flow for event in evidence.at(evidence.reached, "there") if (flow := _flow(event)) is not None]
    return flows[-1] if flows else None


def translations(evidence: Evidence, leg: Leg = "there") -> list[Translation]:
    """What changed addresses on one leg, in order."""
    return [e for e in evidence.events if isinstance(e, Translation) and e.leg == leg and e.before != e.after]


def chosen(evidence: Evidence) -> Translation | None:
    """The translation of the destination, where there was one: who chose the endpoint, and which."""
    return next((t for t in translations(evidence) if "dnat" in t.kinds), None)


def first_answer(evidence: Evidence) -> Crossing | None:
    """The answer where it was seen first: as whoever made it sent it, whatever was translated later."""
    return next((e for e in evidence.events if isinstance(e, Crossing) and e.leg == "back"), None)


def answerer(evidence: Evidence, names: Names) -> str:
    """Who made the answer: the place that it left first; where that is not watched, whoever has its source."""
    first, refused = first_answer(evidence), rejection(evidence)
    if first is not None:
        return first.place if first.direction == "out" else names.text(first.headers.source)
    if refused is not None:
        return refused.place
    return names.text(evidence.answer.source) if evidence.answer is not None else ""


def translated_at(evidence: Evidence, place: str) -> bool:
    """Whether a rule or IPVS gave the packet another destination there. Conntrack knows of it only once the packet has
    passed every hook, so where it ended before, the rule is all there is."""
    return any(
        isinstance(event, Balanced)
        or (isinstance(event, RuleHit) and (event.verdict == "dnat" or "dnat " in event.text))
        for event in evidence.at(place, "there")
    )


def last_place(evidence: Evidence, leg: Leg = "there") -> str:
    """Where one leg was seen last."""
    return next((event.place for event in reversed(evidence.events) if event.leg == leg), "")


def _flow(event: object) -> Flow | None:
    if isinstance(event, Crossing):
        return event.headers.flow
    return event.after if isinstance(event, Translation) else None
