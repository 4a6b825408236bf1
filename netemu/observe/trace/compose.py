"""One row of events from the passages of all places. Pure.

A passage's frames have their place in time; what happened between them follows the frame that came in, or stands
before the one that went out where the packet began. A passage that has neither, because a rule ended it where it began,
stands where it must: what was sent first of all, an answer behind what it answers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from netemu.observe.trace.evidence import (
    Crossing,
    Dropped,
    Event,
    Evidence,
    Headers,
    Packet,
    Routed,
    RuleHit,
    Translation,
    Watched,
)
from netemu.observe.trace.passages import Passage

Noted = Sequence[tuple[Passage, Sequence[Event]]]
"""Passages, and what happened in each between its frames."""
_REFUSING = ("drop", "reject")


class Sending(Struct, frozen=True):
    """The packet as it was sent, from where and when; `refusal` is what the kernel said to the sender."""

    packet: Packet
    source: Watched
    sent: float
    refusal: str = ""


def compose(sending: Sending, crossed: Sequence[Crossing], noted: Noted, lost: int) -> Evidence:
    """The evidence."""
    source, sent, refusal = sending.source, sending.sent, sending.refusal
    behind = {
        id(passage.entry or passage.exit): entry for entry in noted if (passage := entry[0]).entry or passage.exit
    }
    unseen = [entry for entry in noted if not entry[0].entry and not entry[0].exit]
    events = [event for entry in unseen if entry[0].leg == "there" for event in _told(entry, sent, crossed)]
    for crossing in crossed:
        entry = behind.get(id(crossing))
        told = _told(entry, crossing.seconds, crossed) if entry else []
        if entry and entry[0].entry is None:
            events += [*told, crossing]
        else:
            events += [crossing, *told]
    last = events[-1].seconds if events else sent
    events += [event for entry in unseen if entry[0].leg == "back" for event in _told(entry, last, crossed)]
    if refusal:
        by: Literal["link", "route"] = "link" if refusal == os.strerror(errno.EMSGSIZE) else "route"
        events.append(Dropped(seconds=sent, place=source.name, leg="there", by=by, detail=refusal))
    answer = _answer(noted, source)
    arrived = answer[0].entry if answer else None
    return Evidence(
        packet=sending.packet,
        source=source,
        sent=sent,
        events=tuple(events),
        answer=_as_received(answer) if answer else None,
        reached=_reached(noted),
        seconds=arrived.seconds - sent if arrived else 0.0,
        lost=lost,
    )


def _told(entry: tuple[Passage, Sequence[Event]], seconds: float, crossed: Sequence[Crossing]) -> list[Event]:
    passage, notes = entry
    told = [replace(event, seconds=seconds) for event in notes]
    end = _end(passage, notes, crossed)
    return [*told, replace(end, seconds=seconds)] if end else told


def _end(passage: Passage, notes: Sequence[Event], crossed: Sequence[Crossing]) -> Dropped | None:
    """How the packet ended there, if it did and was not taken in."""
    hit, route = _last_hit(notes), _last_route(notes)
    ended = Dropped(seconds=0.0, place=passage.place, leg=passage.leg, by="unknown")
    if passage.exit or passage.bridged:
        last = passage.exit or passage.entry
        if last is None or _goes_on(last, crossed):
            return None
        detail = (
            f"it left through {last.link}" if passage.exit else f"the bridge that has {last.link} did not pass it on"
        )
        return replace(ended, by="link", link=last.link, detail=f"{detail} and was not seen again")
    if hit and hit.verdict in _REFUSING:
        refused = hit.verdict == "reject" or "reject" in hit.text.split()
        return replace(ended, by="policy" if hit.policy else "rule", rejected=refused, detail=_where(hit))
    if route and route.leads_nowhere:
        return replace(ended, by="route", detail=route.error or route.type, rejected=_refused(passage, crossed))
    if _taken_in(passage, notes):
        return None
    length = passage.headers.length if passage.headers else 0
    if route and route.mtu and length > route.mtu:
        detail = f"{length} bytes are more than the MTU of {route.out_link}, {route.mtu}"
        return replace(ended, by="link", link=route.out_link, detail=detail, rejected=_refused(passage, crossed))
    if route and route.silent:
        detail = f"no neighbour on {route.out_link} answers for {route.via or route.destination}"
        return replace(ended, by="link", link=route.out_link, detail=detail, rejected=_refused(passage, crossed))
    if route and route.out_link:
        return replace(ended, by="link", link=route.out_link, detail=f"it did not leave through {route.out_link}")
    return ended


def _where(hit: RuleHit) -> str:
    which = "policy" if hit.policy else f"rule {hit.number}" if hit.number else f"rule with handle {hit.handle}"
    return f"{which} of chain {hit.chain}, table {hit.family} {hit.table}"


def _goes_on(last: Crossing, crossed: Sequence[Crossing]) -> bool:
    """Whether the frame is seen once more, on another end of a link and unchanged; or an answer comes in where it went
    out, from a place that is not watched."""
    later = [each for each in crossed if each is not last and each.seconds >= last.seconds]
    if any(each.leg == last.leg and each.frame == last.frame for each in later):
        return True
    answers = (each for each in later if each.leg == "back" and each.direction == "in")
    return last.direction == "out" and any((each.place, each.link) == (last.place, last.link) for each in answers)


def _refused(passage: Passage, crossed: Sequence[Crossing]) -> bool:
    """Whether the place has answered by an ICMP error."""
    return any(
        each.place == passage.place and each.leg == "back" and each.direction == "out" and each.headers.about
        for each in crossed
    )


def _taken_in(passage: Passage, notes: Sequence[Event]) -> bool:
    hit, route = _last_hit(notes), _last_route(notes)
    refused = bool(hit and hit.verdict in _REFUSING)
    return passage.exit is None and passage.entry is not None and not refused and bool(route and route.type == "local")


def _answer(noted: Noted, source: Watched) -> tuple[Passage, Sequence[Event]] | None:
    """The first answer that its place took in."""
    return next(
        (
            (passage, notes)
            for passage, notes in noted
            if passage.leg == "back" and passage.place == source.name and _taken_in(passage, notes)
        ),
        None,
    )


def _as_received(answer: tuple[Passage, Sequence[Event]]) -> Headers | None:
    """The answer as a program there sees it: a place that translated what it sent itself translates the answer back."""
    passage, notes = answer
    headers = passage.headers
    for event in notes:
        if headers and isinstance(event, Translation):
            after = event.after
            headers = replace(
                headers, source=after.source, source_port=after.source_port, destination=after.destination,
                port=after.port,
            )  # fmt: skip
    return headers


def _reached(noted: Noted) -> str:
    taken = [passage.place for passage, notes in noted if passage.leg == "there" and _taken_in(passage, notes)]
    return taken[-1] if taken else ""


def _last_hit(notes: Sequence[Event]) -> RuleHit | None:
    return next((event for event in reversed(notes) if isinstance(event, RuleHit)), None)


def _last_route(notes: Sequence[Event]) -> Routed | None:
    return next((event for event in reversed(notes) if isinstance(event, Routed)), None)
