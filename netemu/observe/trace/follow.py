"""Following the connections that real programs open from one place to one destination, as each begins.

Nothing is sent. Every place is watched for all packets that begin connections and for what answers them
(`Signature.beginnings`); those that leave the source for the destination are picked out by what its hook output saw,
before any rule changed them, and each is then a packet like one that was crafted: known by its sequence number, or by
its first bytes, wherever it went. Connections are told in the order in which they began, those that are under way at
the same time together, once all of them were answered or a second has passed. Which places are watched is asked again
between connections: Pods come and go meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from netemu.kernel.nft_trace import TABLE, Step
from netemu.kernel.signature import Signature
from netemu.kernel.tap import Frame
from netemu.model.errors import KernelBusy, KernelNotFound
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
_FLOWS: Final = 4096
"""Of so many flows of datagrams it is known that they were told; an older one that goes on is told once more."""
_SEQUENCE: Final = slice(4, 8)
_PAYLOAD: Final = slice(8, 24)
_FIRSTS: Final = ("SYN", "datagram", "echo request")


@dataclass(slots=True)
class Begun:
    """A packet that began a connection, and what has been seen of it where it was sent. Pure."""

    headers: Headers
    signature: Signature
    at: float
    answered: bool = False
    _timed: bool = False
    _legs: Legs = field(init=False)

    def __post_init__(self) -> None:
        self._legs = self.legs()

    def legs(self) -> Legs:
        """What tells its packets from others."""
        return Legs(self.signature, self.headers.source, self.headers.source_port)

    def see(self, frame: Frame) -> None:
        """Take in a frame of that place."""
        learnt = self._legs.learn(frame.data)
        if learnt is None:
            return
        if learnt[1] == "back":
            self.answered |= not frame.outgoing
        elif not self._timed:
            self.at, self._timed = frame.nanoseconds / 1e9, True


class Beginnings:
    """The connections that a place has begun to a destination and that are not told yet. Pure.

    What the place has seen is looked at once, as it grows.
    """

    def __init__(self, destination: str, port: int, protocol: Protocol) -> None:
        self._destination, self._port, self._protocol = destination, port, protocol
        self._open: dict[bytes, Begun] = {}
        self._told: set[bytes] = set()
        self._steps = self._frames = 0

    @property
    def waiting(self) -> list[Begun]:
        """In the order in which they began."""
        return list(self._open.values())

    def read(self, seen: Seen) -> None:
        """Take in what is new: packets by what its hook output saw, then the frames that bear them or answer them."""
        frames = seen.frames[self._frames :]
        fresh = [one for step in seen.steps[self._steps :] if (one := self._begun(step, seen)) is not None]
        for one in self._open.values():
            for frame in frames:
                one.see(frame)
        for one in fresh:
            if one.signature.value not in self._open:
                self._open[one.signature.value] = one
                for frame in seen.frames:
                    one.see(frame)
        self._steps, self._frames = len(seen.steps), len(seen.frames)

    def _begun(self, step: Step, seen: Seen) -> Begun | None:
        if not step.packet or not step.table.startswith(TABLE) or step.chain != "output":
            return None
        headers = parse(step.packet)
        if headers is None or headers.what not in _FIRSTS or headers.destination != self._destination:
            return None
        if self._protocol != "icmp" and headers.port != self._port:
            return None
        ipv6 = ":" in self._destination
        value = step.packet[40 if ipv6 else 20 :][_SEQUENCE if self._protocol == "tcp" else _PAYLOAD]
        if not value or value in self._told:
            return None
        first = min((frame.nanoseconds for frame in seen.frames), default=time.time_ns()) / 1e9
        return Begun(headers, Signature(ipv6, self._protocol, value), first)

    def tell(self, one: Begun) -> None:
        """It is told now, whatever more rules its packet meets."""
        self._told.add(one.signature.value)
        del self._open[one.signature.value]

    def forget(self) -> None:
        """What was seen is gone, and what was waited for with it."""
        self._open.clear()
        self._told.clear()
        self._steps = self._frames = 0


class _Scope:
    """The places that are watched now, and the one that connections begin at."""

    def __init__(
        self, source: Watched, places: Callable[[], Sequence[Watched]], protocol: Protocol, *, ipv6: bool,
        sources: Sources,
    ) -> None:  # fmt: skip
        self._source, self._places, self._ipv6, self._sources = source, places, ipv6, sources
        self._signature = Signature.beginnings(protocol, ipv6=ipv6)
        self._consultants: dict[str, Consultant] = {}
        self._watchers: dict[str, Watcher] = {}

    @property
    def here(self) -> Watcher:
        """Where connections begin."""
        return self._watchers[self._source.netns]

    @property
    def watchers(self) -> list[Watcher]:
        """All."""
        return list(self._watchers.values())

    @property
    def consultants(self) -> list[Consultant]:
        """All."""
        return list(self._consultants.values())

    async def renew(self) -> None:
        """Watch the places that there are now. Raises what `gather` raises for those that are there at first."""
        first = not self._watchers
        wanted = {place.netns: place for place in (*self._places(), self._source)}
        self._close([netns for netns in self._watchers if netns not in wanted])
        # In one order, whoever traces: two that wait for each other would wait for good.
        for netns, place in sorted(wanted.items()):
            if netns in self._watchers:
                continue
            try:
                watcher = await open_watcher(place, self._signature, self._sources)
            except (KernelNotFound, KernelBusy):
                if first:
                    raise
                continue  # it has gone already, or is looked at by somebody else: next time
            self._watchers[netns] = watcher
            self._consultants[netns] = Consultant(watcher, ipv6=self._ipv6)
            await self._consultants[netns].before()

    async def before(self) -> None:
        """Note what has to be known from before the next connection."""
        await asyncio.gather(*(each.before() for each in self.consultants))

    def forget(self) -> None:
        """What was taken in is done with."""
        for watcher in self.watchers:
            watcher.forget()

    def close(self) -> None:
        """Watch no more."""
        self._close(list(self._watchers))

    def _close(self, gone: Sequence[str]) -> None:
        for consultant in [self._consultants.pop(netns) for netns in gone if netns in self._consultants]:
            consultant.close()
        close_all([self._watchers.pop(netns) for netns in gone])


async def follow(
    source: Watched,
    places: Callable[[], Sequence[Watched]],
    destination: str,
    port: int,
    protocol: Protocol,
    ready: Callable[[], None],
    sources: Sources = KERNEL,
) -> AsyncIterator[Evidence]:
    """Evidence of each new connection, until the caller has had enough. See `gather` for what it raises.

    `places` are those to watch, asked again every second or so. `ready` is called once nothing that begins can be
    missed.
    """
    begun, known = Beginnings(destination, port, protocol), dict[tuple[str, int], None]()
    scope = _Scope(source, places, protocol, ipv6=":" in destination, sources=sources)
    with contextlib.closing(scope):
        await scope.renew()
        ready()
        while True:
            ended = await _ended(scope, begun)
            for one in ended:
                begun.tell(one)
                pair = (one.headers.source, one.headers.source_port)
                if protocol == "tcp" or pair not in known:  # else it is a later datagram of a flow that was told
                    known[pair] = None
                    packet = Packet(
                        destination=destination, port=port, protocol=protocol, source=pair[0], source_port=pair[1]
                    )
                    yield await evidence_of(Sending(packet, source, one.at), scope.consultants, one.legs())
            for oldest in list(known)[: max(0, len(known) - _FLOWS)]:
                del known[oldest]
            if ended:
                await scope.before()
            begun.read(scope.here.seen)  # what began while those were told
            if not begun.waiting or len(scope.here.seen.frames) > _MOST:
                begun.forget()
                scope.forget()
                await scope.renew()


async def _ended(scope: _Scope, begun: Beginnings) -> list[Begun]:
    """Connections that were answered, or will not be: when that is all that have begun, or the first waits too long.

    None where nothing has begun for a while.
    """
    watchers, until = scope.watchers, time.monotonic() + _PATIENCE
    async with news_of(watchers) as news:
        while True:
            news.clear()
            for watcher in watchers:
                watcher.read()
            begun.read(scope.here.seen)
            waiting, now = begun.waiting, time.time()
            ended = [one for one in waiting if now - one.at > _PATIENCE or one.answered]
            if ended and (len(ended) == len(waiting) or now - waiting[0].at > _PATIENCE):
                await asyncio.sleep(_SETTLE)
                for watcher in watchers:
                    watcher.read()
                return ended
            if not waiting:
                begun.forget()
                scope.forget()
                if time.monotonic() > until:
                    return []
            # A lab is never quite silent, so this is no time-out of anything but a silence.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _PATIENCE)
