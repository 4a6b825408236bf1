"""Everything that the kernel tells of one packet in one namespace, taken in while the packet is on its way.

Opening costs a millisecond or so and no process; closing leaves the namespace as it was, and so does the end of the
process, however it comes (see the modules of `netemu.kernel` that are used here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

from netemu.kernel.conntrack_events import Tracked
from netemu.kernel.signature import Signature
from netemu.kernel.tap import Frame
from netemu.observe.trace.evidence import Watched
from netemu.observe.trace.passages import Seen
from netemu.observe.trace.sources import KERNEL, Sources

_READS: Final = 16
"""A few thousand frames; where more than that come all the time, it must end nevertheless."""


class _Closing(Protocol):
    def close(self) -> None: ...


_Source = TypeVar("_Source", bound=_Closing)


class Watcher:
    """Watches one place until `close_all`. Raises KernelNotFound, KernelDenied."""

    def __init__(self, place: Watched, signature: Signature, sources: Sources = KERNEL) -> None:
        self.place, self.sources = place, sources
        self.seen = Seen(place.name)
        self.tracked: list[Tracked] = []
        self._closing: list[Callable[[], None]] = []
        try:
            self._open(signature)
        except BaseException:
            close_all([self])
            raise

    def _open(self, signature: Signature) -> None:
        netns, sources = self.place.netns, self.sources
        self.netlink = self._keep(sources.links(netns))
        links = self.netlink.links()
        self.seen.links = {link.index: link.name for link in links}
        self.seen.ports = frozenset(link.name for link in links if link.master)
        self.mtus = {link.name: link.mtu for link in links}
        self.xtables = sources.has_xtables(netns, "ip6" if signature.ipv6 else "ip")
        self._events = self._keep(sources.events(netns))
        self._log = self._keep(sources.log(netns, ipv6=signature.ipv6)) if self.xtables else None
        self._trace = self._keep(sources.trace(netns, signature))
        self._tap = self._keep(sources.frames(netns, signature))

    def _keep(self, source: _Source) -> _Source:
        self._closing.append(source.close)
        return source

    def closing(self) -> list[Callable[[], None]]:
        """What ends the watching; after that there is nothing more to end."""
        calls, self._closing = self._closing, []
        return calls

    @property
    def filenos(self) -> list[int]:
        """Readable when something is told."""
        sources = (self._tap, self._trace, self._log, self._events)
        return [source.fileno() for source in sources if source]

    def read(self) -> list[Frame]:
        """Take in what has been told; the frames of it. Never blocks."""
        before = len(self.seen.frames)
        for _ in range(_READS):
            if not (frames := self._tap.read()):
                break
            self.seen.frames += frames
        steps, lost = self._trace.read()
        self.seen.steps += steps
        tracked, missed = self._events.read()
        self.tracked += tracked
        if self._log:
            logged, more = self._log.read()
            self.seen.logged += logged
            lost += more
        self.seen.lost += lost + missed + self._tap.lost()
        return self.seen.frames[before:]

    def forget(self) -> None:
        """What has been taken in is done with."""
        for kept in (self.seen.frames, self.seen.steps, self.seen.logged, self.tracked):
            kept.clear()
        self.seen.lost = 0


def close_all(watchers: Iterable[Watcher]) -> None:
    """Watch no more. The kernel waits at most of these sockets until no processor looks at them, some 10 ms: for all of
    them at once."""
    calls = [call for watcher in watchers for call in watcher.closing()]
    if calls:
        with ThreadPoolExecutor(len(calls)) as threads:
            list(threads.map(_call, calls))


def _call(close: Callable[[], None]) -> None:
    close()
