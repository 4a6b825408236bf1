"""Probing on the beat while something else is done, to see what that costs whoever is connecting meanwhile.

The probing runs in a thread with a loop of its own; what is done, a command or a test's own code, stays in the thread
that it began in. For a while before and after, the probing goes on alone, so that there is something to compare with.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from msgspec.structs import replace

from netemu.observe.probe.prober import Destination, Pace, Place, Prober
from netemu.observe.probe.result import ProbeResult
from netemu.observe.probe.timeline import Event, Timeline, timeline

RATE: Final = 100.0
MARGIN: Final = 1.0
_MOST_AT_A_TIME: Final = 1000


class Steady:
    """A probing that is under way; `result` and `timeline` are complete once it has ended."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._events: list[Event] = []

    def mark(self, what: str) -> None:
        """Note that something happens now."""
        self._events.append(Event(round(self._prober.clock, 3), what))

    @property
    def result(self) -> ProbeResult:
        """What all attempts come to; nothing of the spread, for servers come and go meanwhile."""
        return replace(self._prober.result(), evenness=None)

    @property
    def timeline(self) -> Timeline:
        """When attempts were answered and lost, and what was marked."""
        return timeline(self._prober.attempts, self._events)


@contextmanager
def steadily(
    place: Place,
    destination: Destination,
    *,
    udp: bool = False,
    rate: float = RATE,
    timeout: float = 2.0,
    keep_alive: bool = False,
    margin: float = MARGIN,
) -> Iterator[Steady]:
    """Probe until the block has ended, and `margin` seconds before it begins and after.

    Raises what the block raises, and KernelNotFound for a namespace that is gone.
    """
    pace = Pace(None, rate=rate, concurrency=_MOST_AT_A_TIME, timeout=timeout, keep_alive=keep_alive)
    prober = Prober(place, destination, pace, udp=udp)
    failures: list[Exception] = []

    def work() -> None:
        try:
            asyncio.run(prober.run())
        except Exception as error:  # told to whoever waits for the thread
            failures.append(error)

    thread = threading.Thread(target=work, name="netemu-probe")
    thread.start()
    try:
        time.sleep(margin)
        yield Steady(prober)
        time.sleep(margin)
    finally:
        prober.stop()
        thread.join()
    if failures:
        raise failures[0]
