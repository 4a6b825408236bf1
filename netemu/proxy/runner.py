"""Runs a function soon after it is asked to, but not too often, and never too seldom.

Theory of operation (`pkg/util/async/bounded_frequency_runner.go`): many requests before a run make one run. A token
bucket allows two runs at once, then one per `min_interval`, counted from start to start. Without any request the
function runs `max_interval` after its last start. Time is the event loop's clock, so tests can run on virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

_BURST = 2


class BoundedRunner:
    """Calls `function` from `run`, one call at a time. What it raises ends `run`."""

    def __init__(
        self,
        function: Callable[[], Awaitable[None]],
        *,
        min_interval: float,
        max_interval: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._function, self._min, self._max = function, min_interval, max_interval
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._wake = asyncio.Event()
        self._asked = False
        self._due: float | None = None
        self._tokens, self._counted = float(_BURST), 0.0

    def ask(self) -> None:
        """Run as soon as the limits allow. Plain function, safe in event handlers."""
        self._asked = True
        self._wake.set()

    def ask_after(self, seconds: float) -> None:
        """Run at the latest that much later; an earlier request stands."""
        due = self._clock() + seconds
        self._due = due if self._due is None else min(self._due, due)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. The first call happens when it is asked for, or after `max_interval`."""
        started = self._counted = self._clock()
        while True:
            now = self._clock()
            wait = started + self._max - now
            if self._asked:
                wait = self._until_token(now)
            elif self._due is not None:
                wait = min(wait, self._due - now)
            if wait > 0:
                await self._sleep(wait)
                continue
            self._asked, self._due, started = False, None, now
            self._tokens = max(0.0, self._tokens - 1)
            await self._function()

    def _until_token(self, now: float) -> float:
        self._tokens = min(float(_BURST), self._tokens + (now - self._counted) / self._min) if self._min else _BURST
        self._counted = now
        # The clock's resolution must not turn "just enough" into another round of waiting.
        return 0.0 if self._tokens >= 1 - 1e-9 else (1 - self._tokens) * self._min

    async def _sleep(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
