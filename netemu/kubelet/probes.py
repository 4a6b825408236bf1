"""Probes: when to ask a container how it is, and what the answers add up to.

`ProbeResults` is the pure part: thresholds, as kubernetes/pkg/kubelet/prober/worker.go counts them. `Prober` runs one
task per probe of one started container and tells its owner when a result changes.

One thing differs from upstream. Upstream asks a new container at its initial delay and then once per period, so a
server that needs 300 ms after its start is Ready after ten seconds. Here, until the first success, a readiness or
startup probe is also tried between its regular attempts, at growing intervals; such an extra attempt counts only if it
succeeds, so thresholds and events are those of the regular ones. A readiness probe begins with extra ones: upstream's
ticks began before the container, so that one that is ready within its first period need never have been unhealthy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from netemu.model.pods import Container, Probe

log = logging.getLogger(__name__)

Kind = Literal["startup", "liveness", "readiness"]
_FIRST_EXTRA = 0.05
_GROWTH = 1.1
"""What comes late is noticed late by a tenth of its time at most."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt: whether it succeeded, and what to say if not."""

    ok: bool
    text: str = ""


Attempt = Callable[[Probe], Awaitable[Outcome]]


class ProbeResults:
    """Counts outcomes; `good` is what they add up to."""

    def __init__(self, kind: Kind, probe: Probe, *, good: bool = False) -> None:
        """`good`: what the answers of an earlier run of the kubelet added up to."""
        self._probe = probe
        self.good = good or kind == "liveness"
        """A container is alive until proven dead, and neither started nor ready until proven so."""
        self.failed = False
        """Whether failures reached the threshold."""
        self._last: bool | None = None
        self._run = 0

    def observe(self, ok: bool) -> bool:
        """Take one more outcome; whether `good` or `failed` changed."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        threshold = max(1, self._probe.success_threshold if ok else self._probe.failure_threshold)
        if self._run < threshold:
            return False
        before = (self.good, self.failed)
        self.good, self.failed = ok, not ok
        return before != (self.good, self.failed)


@dataclass(frozen=True, slots=True)
class ProbeHooks:
    """How a prober reaches the world."""

    attempt: Attempt
    changed: Callable[[], None]
    """A result changed: look at `Prober`."""
    unhealthy: Callable[[Kind, str], None]
    """A regular attempt failed."""


class Prober:
    """The probes of one attempt of one container. `ready`, `started` and `broken` are the results."""

    def __init__(
        self,
        container: Container,
        hooks: ProbeHooks,
        *,
        running_for: float = 0.0,
        started: bool = False,
        ready: bool = False,
    ) -> None:
        """`running_for`: seconds since the container's start, from which initial delays count. `started` and `ready`
        hold for a container that an earlier run of the kubelet found to be so: a kubelet that starts again must not
        take Pods out of their Services until it has asked them."""
        self._hooks, self._running_for = hooks, running_for
        given: dict[Kind, Probe | None] = {
            "startup": container.startup_probe,
            "liveness": container.liveness_probe,
            "readiness": container.readiness_probe,
        }
        self._probes: dict[Kind, Probe] = {kind: probe for kind, probe in given.items() if probe is not None}
        if started:
            self._probes.pop("startup", None)
        self._results: dict[Kind, ProbeResults] = {
            kind: ProbeResults(kind, probe, good=ready and kind == "readiness") for kind, probe in self._probes.items()
        }
        self._started = asyncio.Event()
        if "startup" not in self._probes:
            self._started.set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def started(self) -> bool:
        """Whether the startup probe, if any, succeeded."""
        return self._started.is_set()

    @property
    def ready(self) -> bool:
        """Whether it is started and its readiness probe, if any, says so."""
        readiness = self._results.get("readiness")
        return self.started and (readiness is None or readiness.good)

    @property
    def broken(self) -> Kind | None:
        """The probe that wants the container killed."""
        for kind in ("startup", "liveness"):
            result = self._results.get(kind)
            if result is not None and result.failed:
                return kind
        return None

    def start(self) -> None:
        """Begin to ask; the container has just started, or was found running."""
        for kind in self._probes:
            self._tasks.append(asyncio.create_task(self._run(kind), name=f"{kind} probe"))

    async def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _run(self, kind: Kind) -> None:
        probe, results = self._probes[kind], self._results[kind]
        if (delay := probe.initial_delay_seconds - self._running_for) > 0:
            await asyncio.sleep(delay)
        if kind != "startup":
            await self._started.wait()
        period = max(1, probe.period_seconds)
        if kind == "readiness" and not results.good and await self._extra_attempts(kind, probe, results, period, 0.0):
            await asyncio.sleep(period)
        while True:
            outcome = await self._try(probe)
            if not outcome.ok:
                self._hooks.unhealthy(kind, outcome.text)
            self._take(kind, results, outcome)
            if (kind == "startup" and results.good) or (kind != "readiness" and results.failed):
                return  # a startup probe is done once it succeeds; a broken container is about to be replaced
            if outcome.ok or kind == "liveness" or results.good:
                await asyncio.sleep(period)
            else:
                await self._extra_attempts(kind, probe, results, period, _FIRST_EXTRA)

    async def _extra_attempts(
        self, kind: Kind, probe: Probe, results: ProbeResults, period: float, pause: float
    ) -> bool:
        """Spend one period, trying now and then, first after `pause`; returns early, and True, once one succeeds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + period
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(max(_FIRST_EXTRA, pause * _GROWTH), 1.0)
            if left > pause and (outcome := await self._try(probe)).ok:
                self._take(kind, results, outcome)
                return True
        return False

    async def _try(self, probe: Probe) -> Outcome:
        try:
            async with asyncio.timeout(max(1, probe.timeout_seconds)):
                return await self._hooks.attempt(probe)
        except TimeoutError:
            return Outcome(False, f"probe timed out after {max(1, probe.timeout_seconds)}s")
        except Exception as error:  # a probe must never end the task: that would freeze the last result for ever
            log.exception("probe")
            return Outcome(False, str(error))

    def _take(self, kind: Kind, results: ProbeResults, outcome: Outcome) -> None:
        if not results.observe(outcome.ok):
            return
        if kind == "startup" and results.good:
            self._started.set()
        self._hooks.changed()
