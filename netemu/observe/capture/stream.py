"""Frames of many places of a lab in one stream, in the order of one clock.

Theory of operation: a packet socket per place (a namespace, or one link of it), all in one process, each with a ring
of its own that the kernel fills and a filter that the kernel runs. The kernel stamps each frame where it crosses a
link, so the times of different namespaces compare. A socket hands frames over a little late and not in step with the
others; a frame is therefore held back until nothing older can come, then told in the order of times. Interfaces are
numbered as they become known, those of links that appear later, too.
"""

from __future__ import annotations

import contextlib
import select
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Protocol

from netemu.kernel import netns as namespaces
from netemu.kernel.netlink import Netlink
from netemu.kernel.packet_socket import ETHERNET, HAND_OVER_NANOSECONDS, LOOPBACK, Counts, Frame, PacketSocket
from netemu.model.errors import KernelError
from netemu.observe.capture import pcapng
from netemu.observe.capture.pcapng import Interface, Packet

_HOLD_NANOSECONDS: Final = 3 * HAND_OVER_NANOSECONDS
_ROUND: Final = 0.1
_RINGS: Final = 64 << 20
_LARGEST_RING: Final = 16 << 20
_time_of = attrgetter("nanoseconds")


@dataclass(frozen=True, slots=True)
class Place:
    """Where frames are taken: all links of a namespace, or one. `name` is what people call it: shop/web-1."""

    name: str
    netns: str
    link: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.link}" if self.link else self.name


class Source(Protocol):
    """Where frames come from. Implemented by `PacketSocket`."""

    def fileno(self) -> int:
        """Readable when there is something."""

    def read(self) -> list[Frame]:
        """What is there."""

    @property
    def gone(self) -> bool:
        """Whether the one link that it is bound to went away."""

    def counts(self) -> Counts:
        """Taken and dropped since the last call."""

    def close(self) -> None:
        """Take nothing more."""


class Merged:
    """Packets of several sources in the order of their times. Pure."""

    def __init__(self) -> None:
        self._held: list[Packet] = []

    def add(self, packets: Iterable[Packet]) -> None:
        """What a source has handed over, in its own order."""
        self._held += packets

    def before(self, nanoseconds: int) -> list[Packet]:
        """Those older than that, in order; they are held no more."""
        self._held.sort(key=_time_of)
        end = bisect_left(self._held, nanoseconds, key=_time_of)
        ready, self._held = self._held[:end], self._held[end:]
        return ready

    def rest(self) -> list[Packet]:
        """All that are held, in order."""
        return self.before(1 << 63)


class Links:
    """The interfaces of all places: their numbers, and what they are called."""

    def __init__(self, places: Sequence[Place], describe: Callable[[Place, str], str], expression: str) -> None:
        self._places, self._describe, self._filter = places, describe, expression
        self._numbers: dict[tuple[int, int], int] = {}
        self.interfaces: list[Interface] = []
        self.place_of: list[Place] = []
        """Of each interface."""

    def number(self, place: int, link: int, kind: int) -> int:
        """Of a link, by its index."""
        number = self._numbers.get((place, link))
        if number is None:
            self.look(place)
            number = self._numbers.get((place, link))
        return self._add(place, link, f"link {link}", kind) if number is None else number

    def look(self, place: int) -> None:
        """Number the links that a place has now."""
        where = self._places[place]
        # A namespace that went away takes its links' names along; frames of it may still wait.
        with contextlib.suppress(KernelError), Netlink(where.netns) as netlink:
            for link in netlink.links():
                if where.link in ("", link.name) and (place, link.index) not in self._numbers:
                    self._add(place, link.index, link.name, ETHERNET)

    def _add(self, place: int, link: int, name: str, kind: int) -> int:
        where = self._places[place]
        link_type = pcapng.ETHERNET if kind in (ETHERNET, LOOPBACK) else pcapng.RAW_IP
        number = self._numbers[place, link] = len(self.interfaces)
        self.interfaces.append(Interface(f"{where.name} {name}", self._describe(where, name), link_type, self._filter))
        self.place_of.append(where)
        return number


class Capture:
    """A capture that runs. `describe` says in words what a place's link is, "" where its name says it all.

    Raises KernelNotFound for a place that is not there, KernelDenied without CAP_NET_RAW.
    """

    def __init__(
        self,
        places: Sequence[Place],
        program: bytes = b"",
        *,
        expression: str = "",
        describe: Callable[[Place, str], str] = lambda place, link: "",
        open_source: Callable[[Place, bytes, int], Source] | None = None,
    ) -> None:
        self.places = tuple(places)
        self.links = Links(self.places, describe, expression)
        self.counts: dict[str, Counts] = {str(place): Counts(0, 0) for place in places}
        self._merged = Merged()
        self._poll = select.poll()
        self._sources: dict[int, tuple[int, Source]] = {}
        ring = min(_RINGS // max(len(places), 1), _LARGEST_RING)
        try:
            for number, place in enumerate(self.places):
                source = (open_source or _open)(place, program, ring)
                self._sources[source.fileno()] = number, source
                self._poll.register(source, select.POLLIN)
                self.links.look(number)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the sockets."""
        for _, source in self._sources.values():
            source.close()
        self._sources.clear()

    @property
    def interfaces(self) -> list[Interface]:
        """Those that packets name by number; it grows."""
        return self.links.interfaces

    @property
    def gone(self) -> bool:
        """Whether all places went away: their namespaces, or their links."""
        return all(
            source.gone or not namespaces.exists(self.places[number].netns) for number, source in self._sources.values()
        )

    def packets(self, ended: Callable[[], bool], reader: int | None = None) -> Iterator[list[Packet]]:
        """Packets in order, some at a time, none when nothing came for a while; until `ended`, or until nobody reads
        `reader` (a pipe) any more. What the kernel still holds then comes last."""
        if reader is not None:
            self._poll.register(reader, 0)
        while not ended():
            events = self._poll.poll(1000 * _ROUND)
            if any(descriptor == reader for descriptor, _ in events):
                return
            begun = time.time_ns()  # reading may take long, where others want the processor; what comes meanwhile waits
            self._read()
            yield self._merged.before(begun - _HOLD_NANOSECONDS)
        time.sleep(2 * HAND_OVER_NANOSECONDS / 1e9)  # not for a state: the kernel hands a begun block over by the clock
        self._read()
        yield self._merged.rest()

    def _read(self) -> None:
        for number, source in self._sources.values():
            if frames := source.read():
                self._merged.add(self._packet(number, frame) for frame in frames)

    def _packet(self, place: int, frame: Frame) -> Packet:
        nanoseconds, link, kind, outgoing, length, data = frame
        return Packet(self.links.number(place, link, kind), nanoseconds, data, outgoing, length)

    def count(self) -> Counts:
        """What all places took and dropped so far; `counts` has it by place."""
        for number, source in self._sources.values():
            name, fresh = str(self.places[number]), source.counts()
            before = self.counts[name]
            self.counts[name] = Counts(before.taken + fresh.taken, before.dropped + fresh.dropped)
        return Counts(sum(c.taken for c in self.counts.values()), sum(c.dropped for c in self.counts.values()))


def _open(place: Place, program: bytes, ring: int) -> Source:
    return PacketSocket(place.netns, place.link, program, ring)
