"""What the kernel tells of packets, told by a test instead: for whatever watches places and reads what comes.

`Scripted` and its like are readable, for poll and event loops, while something waits that was put in. `ScriptedSources`
has everything that `netemu.observe.trace` asks of a kernel, one `ScriptedPlace` for each namespace. The contract suite
of listeners runs on these and on the kernel's sockets.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from netemu.kernel.conntrack_events import Tracked, Tuple
from netemu.kernel.ipvs_connections import Connection
from netemu.kernel.nflog import Logged
from netemu.kernel.nft_trace import Step
from netemu.kernel.packet_socket import Counts
from netemu.kernel.packet_socket import Frame as RingFrame
from netemu.kernel.rtnetlink_answers import Address, Link, Neighbour, Route
from netemu.kernel.signature import Signature
from netemu.kernel.tap import Frame
from netemu.model import nft
from netemu.model.errors import KernelError

_T = TypeVar("_T")
_Listener = TypeVar("_Listener", bound="Waiting[Any]")


class Waiting(Generic[_T]):
    """What was put in and waits to be read."""

    def __init__(self) -> None:
        self._in, self._out = os.pipe()
        self._waiting: list[_T] = []
        self.closed = False

    def put(self, *told: _T) -> None:
        """Something happens."""
        self._waiting += told
        os.write(self._out, b"x")

    def fileno(self) -> int:
        """Readable when something waits."""
        return self._in

    def take(self) -> list[_T]:
        """All that waits."""
        if self._waiting:
            os.read(self._in, 1 << 16)
        told, self._waiting = self._waiting, []
        return told

    def close(self) -> None:
        """Nothing is told any more."""
        if not self.closed:
            self.closed = True
            os.close(self._in)
            os.close(self._out)


class Scripted(Waiting[_T]):
    """See `observe.trace.sources.Listener`."""

    missed = 0
    """How often messages were lost."""

    def read(self) -> tuple[list[_T], int]:
        """See Listener."""
        missed, self.missed = self.missed, 0
        return self.take(), missed


class ScriptedTap(Waiting[Frame]):
    """See `observe.trace.sources.Frames`."""

    missed = 0
    """How many frames were lost."""

    def read(self) -> list[Frame]:
        """See Frames."""
        return self.take()

    def lost(self) -> int:
        """See Frames."""
        missed, self.missed = self.missed, 0
        return missed


class ScriptedRing(Waiting[RingFrame]):
    """See `observe.capture.stream.Source`."""

    lost, gone, _taken = 0, False, 0

    def read(self) -> list[RingFrame]:
        """See Source."""
        frames = self.take()
        self._taken += len(frames)
        return frames

    def counts(self) -> Counts:
        """See Source."""
        taken, self._taken = self._taken, 0
        lost, self.lost = self.lost, 0
        return Counts(taken, lost)


@dataclass
class ScriptedPlace:
    """One namespace. `failures` are raised when what they are for is opened: `events`, `log`, `trace`, `frames`."""

    link_list: list[Link] = field(default_factory=list)
    address_list: list[Address] = field(default_factory=list)
    neighbour_list: list[Neighbour] = field(default_factory=list)
    route_table: dict[str, Route] = field(default_factory=dict)
    """By destination."""
    chains: dict[tuple[str, str, str], nft.Chain] = field(default_factory=dict)
    rule_lists: dict[tuple[str, str, str], list[nft.Rule]] = field(default_factory=dict)
    elements: dict[tuple[str, str, str, nft.Values], nft.Element] = field(default_factory=dict)
    held: list[Tracked] = field(default_factory=list)
    balanced: list[Connection] = field(default_factory=list)
    xtables: bool = False
    failures: dict[str, list[KernelError]] = field(default_factory=dict)
    events: Scripted[Tracked] = field(init=False)
    """These four are there once they were opened, and new each time."""
    log: Scripted[Logged] = field(init=False)
    trace: Scripted[Step] = field(init=False)
    tap: ScriptedTap = field(init=False)

    def links(self) -> list[Link]:
        """See Links."""
        return self.link_list

    def addresses(self) -> list[Address]:
        """See Links."""
        return self.address_list

    def neighbours(self) -> list[Neighbour]:
        """See Links."""
        return self.neighbour_list

    def route_to(self, destination: str, *, source: str = "", in_index: int = 0, mark: int = 0) -> Route:
        """See Links."""
        if destination not in self.route_table:
            raise KernelError.of(f"find route to {destination}", "", errno.ENETUNREACH)
        return self.route_table[destination]

    def chain(self, family: str, table: str, name: str) -> nft.Chain | None:
        """See Reader."""
        return self.chains.get((family, table, name))

    def rules(self, family: str, table: str, chain: str) -> list[nft.Rule]:
        """See Reader."""
        return self.rule_lists.get((family, table, chain), [])

    def element(self, family: str, table: str, name: str, key: nft.Values) -> nft.Element | None:
        """See Reader."""
        return self.elements.get((family, table, name, key))

    def close(self) -> None:
        """Of questions there is nothing to give back."""


@dataclass
class ScriptedSender:
    """See `observe.trace.sources.Sender`."""

    source_port: int
    on_send: Callable[[bytes], None]

    def send(self, packet: bytes, destination: str) -> None:
        """See Sender."""
        self.on_send(packet)


class ScriptedSources:
    """See `observe.trace.sources.Sources`. `on_send` is called with each packet that is sent: what it puts into the
    places is what the kernel tells of it; it may raise KernelError."""

    def __init__(self, places: dict[str, ScriptedPlace]) -> None:
        self.places = places
        self.on_send: Callable[[bytes], None] = lambda packet: None
        self.senders = 0
        """That are open."""
        self._listeners: list[Callable[[], bool]] = []

    @property
    def still_open(self) -> int:
        """How many listeners are not closed yet."""
        return sum(not closed() for closed in self._listeners)

    def _opened(self, listener: _Listener) -> _Listener:
        self._listeners.append(lambda: listener.closed)
        return listener

    def _place(self, netns: str) -> ScriptedPlace:
        if netns not in self.places:
            raise KernelError.of("enter namespace", netns, errno.ENOENT, f"no network namespace {netns}")
        return self.places[netns]

    def _open(self, netns: str, what: str) -> ScriptedPlace:
        place = self._place(netns)
        if waiting := place.failures.get(what):
            raise waiting.pop(0)
        return place

    @contextmanager
    def sender(self, netns: str, protocol: str, *, ipv6: bool, source_port: int = 0) -> Iterator[ScriptedSender]:
        """See Sources."""
        self._place(netns)
        self.senders += 1
        try:
            yield ScriptedSender(source_port or 61001, lambda packet: self.on_send(packet))
        finally:
            self.senders -= 1

    def links(self, netns: str) -> ScriptedPlace:
        """See Sources."""
        return self._place(netns)

    def has_xtables(self, netns: str, family: str) -> bool:
        """See Sources."""
        return self._place(netns).xtables

    def events(self, netns: str) -> Scripted[Tracked]:
        """See Sources."""
        place = self._open(netns, "events")
        place.events = self._opened(Scripted[Tracked]())
        return place.events

    def log(self, netns: str, *, ipv6: bool) -> Scripted[Logged]:
        """See Sources."""
        place = self._open(netns, "log")
        place.log = self._opened(Scripted[Logged]())
        return place.log

    def trace(self, netns: str, signature: Signature) -> Scripted[Step]:
        """See Sources."""
        place = self._open(netns, "trace")
        place.trace = self._opened(Scripted[Step]())
        return place.trace

    def frames(self, netns: str, signature: Signature) -> ScriptedTap:
        """See Sources."""
        place = self._open(netns, "frames")
        place.tap = self._opened(ScriptedTap())
        return place.tap

    def reader(self, netns: str) -> ScriptedPlace:
        """See Sources."""
        return self._place(netns)

    def connection(self, netns: str, of: Tuple) -> Tracked | None:
        """See Sources."""
        return next((each for each in self._place(netns).held if of in (each.original, each.reply)), None)

    def balanced(self, netns: str) -> list[Connection]:
        """See Sources."""
        return self._place(netns).balanced
