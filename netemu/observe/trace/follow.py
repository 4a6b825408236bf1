"""Following the connections that real programs open from one place to one destination, as each begins.

Nothing is sent. Every place is watched for all packets that begin connections and for what answers them
(`Signature.beginnings`); those that leave the source for the destination are picked out by what its hook output saw,
before any rule changed them, and each is then a packet like one that was crafted: known by its sequence number, or by
its first bytes, wherever it went. Connections are told in the order in which they began, those that are under way at
the same time together, once all of them were answered or a second has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from typing import Final, NamedTuple

from netemu.kernel.nft_trace import TABLE
from netemu.kernel.signature import Signature
from netemu.observe.trace.compose import Sending
from netemu.observe.trace.consult import Consultant
from netemu.observe.trace.evidence import Evidence, Headers, Packet, Protocol, Watched
from netemu.observe.trace.gather import evidence_of, news_of, open_watcher
from netemu.observe.trace.headers import parse
from netemu.observe.trace.passages import Legs, Seen
from netemu.observe.trace.sources import KERNEL, Sources
from netemu.observe.trace.watching import Watcher, close_all

_PATIENCE: Final = 1.0
_SETTLE: Final = 0.02
_MOST: Final = 20_000
"""Frames that are kept while connections begin faster than they are told; then some are missed."""
_SEQUENCE: Final = slice(4, 8)
_PAYLOAD: Final = slice(8, 24)
_FIRSTS: Final = ("SYN", "datagram", "echo request")


class Begun(NamedTuple):
    """A packet that began a connection."""

    headers: Headers
    signature: Signature
    at: float

    def legs(self) -> Legs:
        """What tells its packets from others."""
        return Legs(self.signature, self.headers.source, self.headers.source_port)


async def follow(
    source: Watched,
    places: Sequence[Watched],
    destination: str,
    port: int,
    protocol: Protocol,
    ready: Callable[[], None],
    sources: Sources = KERNEL,
) -> AsyncIterator[Evidence]:
    """Evidence of each new connection, until the caller has had enough. See `gather` for what it raises.

    `ready` is called once nothing that begins can be missed.
    """
    ipv6, known = ":" in destination, set[tuple[str, int]]()
    with ExitStack() as stack:
        watchers: dict[str, Watcher] = {}
        stack.callback(lambda: close_all(watchers.values()))
        # In one order, whoever traces: two that wait for each other would wait for good.
        for netns, place in sorted({place.netns: place for place in (*places, source)}.items()):
            watchers[netns] = await open_watcher(place, Signature.beginnings(protocol, ipv6=ipv6), sources)
        consultants = [Consultant(watcher, ipv6=ipv6) for watcher in watchers.values()]
        for each in consultants:
            stack.callback(each.close)
        here, all_of_them, told = watchers[source.netns], list(watchers.values()), set[bytes]()
        ready()
        while True:
            await asyncio.gather(*(each.before() for each in consultants))
            for one in await _ended(here, all_of_them, destination, port, protocol, told):
                told.add(one.signature.value)
                pair = (one.headers.source, one.headers.source_port)
                if protocol == "tcp" or pair not in known:  # else it is a later datagram of a flow that was told
                    known.add(pair)
                    packet = Packet(
                        destination=destination, port=port, protocol=protocol, source=pair[0], source_port=pair[1]
                    )
                    yield await evidence_of(Sending(packet, source, one.at), consultants, one.legs())
            if not beginnings(here.seen, destination, port, protocol, told) or len(here.seen.frames) > _MOST:
                told.clear()
                for watcher in all_of_them:
                    watcher.forget()


async def _ended(
    here: Watcher,
    watchers: Sequence[Watcher],
    destination: str,
    port: int,
    protocol: Protocol,
    told: AbstractSet[bytes],
) -> list[Begun]:
    """Connections that were answered, or will not be: when that is all that have begun, or the first waits too long."""
    async with news_of(watchers) as news:
        while True:
            news.clear()
            for watcher in watchers:
                watcher.read()
            seen, now = here.seen, time.time()
            begun = beginnings(seen, destination, port, protocol, told)
            ended = [one for one in begun if now - one.at > _PATIENCE or answered(seen, one)]
            if ended and (len(ended) == len(begun) or now - begun[0].at > _PATIENCE):
                await asyncio.sleep(_SETTLE)
                for watcher in watchers:
                    watcher.read()
                return ended
            if not begun:
                for watcher in watchers:
                    watcher.forget()
            # A lab is never quite silent, so this is no time-out of anything but a silence.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _PATIENCE)


def beginnings(
    seen: Seen, destination: str, port: int, protocol: Protocol, told: AbstractSet[bytes] = frozenset()
) -> list[Begun]:
    """What left the place for the destination, by what its hook output saw, and is not told yet. Pure."""
    found: dict[bytes, Begun] = {}
    first = min((frame.nanoseconds for frame in seen.frames), default=time.time_ns()) / 1e9
    for step in seen.steps:
        headers = (
            parse(step.packet) if step.packet and step.table.startswith(TABLE) and step.chain == "output" else None
        )
        if headers is None or headers.what not in _FIRSTS or headers.destination != destination:
            continue
        if protocol != "icmp" and headers.port != port:
            continue
        transport = step.packet[40 if ":" in destination else 20 :]
        value = transport[_SEQUENCE if protocol == "tcp" else _PAYLOAD]
        if value and value not in told:
            found.setdefault(value, Begun(headers, Signature(":" in destination, protocol, value), first))
    return [_timed(seen, one) for one in found.values()]


def answered(seen: Seen, begun: Begun) -> bool:
    """Whether the place has got an answer. Pure."""
    legs = begun.legs()
    told = [(legs.learn(frame.data), frame.outgoing) for frame in seen.frames]
    return any(learnt is not None and learnt[1] == "back" and not outgoing for learnt, outgoing in told)


def _timed(seen: Seen, begun: Begun) -> Begun:
    """With the time of the first frame that bears its signature, where one was seen."""
    legs = begun.legs()
    for frame in seen.frames:
        if (learnt := legs.learn(frame.data)) and learnt[1] == "there":
            return begun._replace(at=frame.nanoseconds / 1e9)
    return begun
