"""The story of one packet: the kernel's evidence told hop by hop, for somebody who sees this for the first time. Pure.

Theory of operation: evidence (`evidence.py`) is a row of events. Each becomes a step: what the kernel said, word for
word, and a sentence of what it means, with the names that the lab has for addresses. Nothing is added and nothing
judged here; whether it ought to have been like this is asked in `whynot.py`.

The steps of the way there end where the packet was taken in, refused or lost; those of the way back follow. Printed,
steps stand under the place where they happened; `-o json` has the same steps, each with its event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import msgspec

from netemu.observe.names import Names
from netemu.observe.resolve.dig import Lookup, render
from netemu.observe.story.cause import WhyNot
from netemu.observe.story.destination import Destination
from netemu.observe.trace.evidence import (
    Balanced,
    Crossing,
    Dropped,
    Event,
    Evidence,
    Leg,
    MapHit,
    Routed,
    RuleHit,
    Translation,
    pair,
)
from netemu.observe.trace.outcome import Outcome, answerer, arrival, first_answer, last_place, outcome_of

Kind = Literal["link", "rule", "element", "server", "translation", "route", "end"]
Sentence = Callable[[RuleHit | MapHit], str]
"""What a rule or an element means; "" where nothing is known of it."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One thing that happened."""

    place: str
    leg: Leg
    kind: Kind
    milliseconds: float
    """Since it was sent."""
    what: str
    """As the kernel says it."""
    meaning: str = ""
    event: Event | None = None


class Story(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """All of it. `endpoint` and `source_seen` are how the packet arrived where it was taken in."""

    source: str
    destination: str
    protocol: str
    outcome: Outcome
    summary: str
    address: str = ""
    lookup: Lookup | None = None
    steps: tuple[Step, ...] = ()
    endpoint: str = ""
    source_seen: str = ""
    seconds: float = 0.0
    lost: int = 0
    """Messages of the kernel that were not read: events may be missing."""
    why_not: WhyNot | None = None


@dataclass(frozen=True, slots=True)
class Teller:
    """What a story is told with."""

    names: Names
    sentence: Sentence = field(default=lambda hit: hit.comment)

    def tell(self, evidence: Evidence) -> tuple[Step, ...]:
        """The steps, in order."""
        events = _without_echoes(evidence.events)
        crossings = [event for event in events if isinstance(event, Crossing)]
        peers = dict(_peers(crossings))
        return tuple(self._step(event, evidence, peers) for event in events)

    def _step(self, event: Event, evidence: Evidence, peers: dict[int, str]) -> Step:
        match event:
            case Crossing():
                kind, what, meaning = self._crossing(event, peers.get(id(event), ""))
            case RuleHit():
                kind, what, meaning = "rule", _rule(event), self.sentence(event) or _verdict(event)
            case MapHit():
                kind, what, meaning = "element", _element(event), self.sentence(event) or event.comment
            case Balanced():
                chosen = self._named(event.destination)
                meaning = f"IPVS ({event.scheduler}) gives the connection to {chosen}, weight {event.weight}"
                kind, what = "server", f"virtual server {event.server} -> {event.destination}"
            case Translation():
                kind, what, meaning = "translation", _translation(event), self._translated(event)
            case Routed():
                kind, what, meaning = "route", _route(event), self._routed(event)
            case Dropped():
                kind, what, meaning = "end", _dropped(event), _ended(event)
        plain = msgspec.structs.replace(event, frame=b"") if isinstance(event, Crossing) else event
        passed = round(1000 * (event.seconds - evidence.sent), 3)
        return Step(
            place=event.place, leg=event.leg, kind=kind, milliseconds=passed, what=what, meaning=meaning, event=plain
        )

    def _crossing(self, event: Crossing, peer: str) -> tuple[Kind, str, str]:
        headers = event.headers
        what = f"{event.direction} {event.link}  {headers.flow} {headers.what}".rstrip()
        there = event.leg == "there"
        to = self.names.endpoint(headers.protocol, headers.destination, headers.port if there else 0)
        source = self.names.endpoint(headers.protocol, headers.source, 0 if there else headers.source_port)
        where = f"{'to' if event.direction == 'out' else 'from'} {peer}" if peer else ""
        return "link", what, f"{where + ': ' if where else ''}{source} -> {to}"

    def _translated(self, event: Translation) -> str:
        before, after = event.before, event.after
        said = []
        if (before.destination, before.port) != (after.destination, after.port):
            chosen = self._endpoint(event.protocol, after.destination, after.port)
            said.append(f"the destination becomes {chosen}")
        if (before.source, before.source_port) != (after.source, after.source_port):
            whose = self._endpoint(event.protocol, after.source, after.source_port)
            said.append(f"the source becomes {whose}" + (", so that answers come back here" if event.new else ""))
        if not said:
            return "tracked, nothing translated"
        if event.leg == "back":
            return "the answer is translated back: " + " and ".join(said)
        known = "" if event.new else ", as conntrack has it from an earlier packet: no rule of table nat was asked"
        return " and ".join(said) + known

    def _routed(self, event: Routed) -> str:
        if event.leads_nowhere:
            return f"there is no way to {event.destination}"
        if event.type == "local":
            return f"{self._who(event.destination)} is here"
        if event.via:
            return f"on to {self._who(event.via)}"
        return f"{self._who(event.destination)} is on this link"

    def summary(self, evidence: Evidence) -> str:
        """What came of it, in a sentence."""
        flow, answer = arrival(evidence), evidence.answer
        took = f" after {1000 * evidence.seconds:.2f} ms" if evidence.seconds else ""
        said = f" ({answer.what})" if answer else ""
        server = self._endpoint(evidence.packet.protocol, flow.destination, flow.port) if flow else ""
        by = answerer(evidence, self.names) or "nobody that is known"
        match outcome_of(evidence):
            case "answered" if flow:
                sent = evidence.packet.source
                kept = "the sender's own" if flow.source == sent else f"not the sender's {sent}"
                return f"answered by {server}{took}; it saw the source {flow.source}, {kept}"
            case "answered":
                return f"answered by {self._server(evidence) or by}{took}; nobody watched what happened there"
            case "refused":
                return f"refused{said} by {server or by}{took}"
            case "rejected":
                return f"rejected on the way{said} by {by}{took}"
            case _ if server:
                return f"no answer; the packet reached {server}"
            case _:
                return f"no answer; the packet was seen last at {last_place(evidence) or 'its sender'}"

    def _server(self, evidence: Evidence) -> str:
        """Who answered, where nobody was seen to take the packet in: the answer's first source."""
        first = first_answer(evidence)
        if first is None:
            return ""
        return self._endpoint(first.headers.protocol, first.headers.source, first.headers.source_port)

    def _named(self, target: str) -> str:
        address, _, port = target.rpartition(":")
        return self._endpoint("tcp", address.strip("[]"), int(port)) if port.isdigit() else target

    def _endpoint(self, protocol: str, address: str, port: int) -> str:
        name = self.names.endpoint(protocol, address, port)
        party = self.names.party(address)
        return f"{name} on {party.node}" if party and party.node else name

    def _who(self, address: str) -> str:
        return self.names.text(address)


def story_of(evidence: Evidence, source: str, destination: Destination, teller: Teller, cause: WhyNot | None) -> Story:
    """The story of a packet that was sent."""
    flow, packet = arrival(evidence), evidence.packet
    return Story(
        source=source,
        destination=destination.text,
        protocol=packet.protocol,
        outcome=outcome_of(evidence),
        summary=teller.summary(evidence),
        address=pair(packet.destination, packet.port),
        lookup=destination.lookup,
        steps=teller.tell(evidence),
        endpoint=pair(flow.destination, flow.port) if flow else "",
        source_seen=flow.source if flow else "",
        seconds=evidence.seconds,
        lost=evidence.lost,
        why_not=cause,
    )


def nowhere_story(
    source: str, destination: Destination, protocol: str, cause: WhyNot, query: Story | None = None
) -> Story:
    """The story of a packet that could not be sent, for want of an address; the steps are those of a `query` for it."""
    of_query = f"; this is the way of a query to nameserver {query.address}" if query else ""
    return Story(
        source=source,
        destination=destination.text,
        protocol=protocol,
        outcome="nowhere",
        summary=f"nothing was sent: there is no address to send to{of_query}",
        lookup=destination.lookup,
        steps=query.steps if query else (),
        why_not=cause,
    )


# --- the kernel's words ----------------------------------------------------------------------------------------------


def _rule(event: RuleHit) -> str:
    table = f"{event.table} {event.chain}"
    counted = f" [{event.after.packets} packets]" if event.after else ""
    if event.policy:
        return f"{table}{counted}: policy {event.verdict}"
    return f"{table}{counted}: {event.text or event.verdict}"


def _verdict(event: RuleHit) -> str:
    """What can be said of a rule that nothing is known of."""
    match event.verdict:
        case "drop":
            return "this drops the packet"
        case "reject":
            return "this refuses the packet with an answer"
        case "jump" | "goto":
            return f"on to chain {event.to}"
        case "accept" if not event.policy:
            return "this lets the packet pass"
        case _:
            return ""


def _element(event: MapHit) -> str:
    return f"{event.kind} {event.name} {{ {event.key}{f' : {event.data}' if event.data else ''} }}"


def _translation(event: Translation) -> str:
    if event.before == event.after:
        return f"conntrack {event.protocol} {event.before}"
    return f"conntrack {event.protocol} {event.before}  =>  {event.after}"


def _route(event: Routed) -> str:
    asked = f"route get {event.destination}"
    if event.error:
        return f"{asked}: {event.error}"
    parts = [
        event.type if event.type != "unicast" else "",
        f"via {event.via}" if event.via else "",
        f"dev {event.out_link}",
    ]
    return f"{asked}: {' '.join(filter(None, parts))}"


def _dropped(event: Dropped) -> str:
    said = "rejected" if event.rejected else "dropped"
    return (
        f"{said} by {event.by}{f' on {event.link}' if event.link else ''}{f': {event.detail}' if event.detail else ''}"
    )


def _ended(event: Dropped) -> str:
    if event.rejected:
        return "the packet ends here, and its sender is told"
    if event.by == "unknown":
        return "the packet was seen here last, and nothing tells what became of it"
    return "the packet ends here without a word"


def _peers(crossings: Sequence[Crossing]) -> Iterator[tuple[int, str]]:
    """For each frame that left one place and came in at another, what is at the other end of its link."""
    for one, two in pairwise(crossings):
        if one.direction == "out" and two.direction == "in" and one.place != two.place:
            yield id(one), two.place
            yield id(two), one.place


def _without_echoes(events: Iterable[Event]) -> list[Event]:
    """What says nothing is left out: policies that accept."""
    return [e for e in events if not (isinstance(e, RuleHit) and e.policy and e.verdict == "accept")]


# --- text ------------------------------------------------------------------------------------------------------------


def lines_of(story: Story) -> Iterator[str]:
    """The story as lines for a terminal."""
    to = (
        f"{story.destination} ({story.address})"
        if story.address and story.address not in story.destination
        else story.destination
    )
    yield f"{story.source} -> {to}, {story.protocol.upper()}"
    if story.lookup is not None:
        yield from ("", *render(story.lookup))
    place: tuple[str, Leg] | None = None
    for step in story.steps:
        if (step.place, step.leg) != place:
            back = " (the way back)" if step.leg == "back" else ""
            yield from ("", f"{step.place}{back}")
            place = (step.place, step.leg)
        yield f"  {step.milliseconds:8.3f} ms  {step.kind:11}  {step.what}"
        if step.meaning:
            yield f"{'':26}{step.meaning}"
    yield from ("", story.summary)
    if story.lost:
        yield f"{story.lost} messages of the kernel were too many to be read: steps may be missing"
    if story.why_not is not None:
        yield from story.why_not.lines()
