"""When a prober asks, and what it tells."""

from __future__ import annotations

import asyncio

from netemu.kubelet.probes import Outcome, ProbeHooks, Prober
from netemu.model.pods import Container, Probe


async def told_until_ready(failures: int) -> list[str]:
    """What is told of a container that fails that often before it is ready."""
    told, ready = list[str](), asyncio.Event()
    outcomes = iter([*[Outcome(False, "refused")] * failures, Outcome(True)])

    async def attempt(probe: Probe) -> Outcome:
        return next(outcomes)

    hooks = ProbeHooks(attempt, ready.set, lambda kind, text: told.append(f"{kind}: {text}"))
    prober = Prober(Container(name="c", readiness_probe=Probe()), hooks)
    prober.start()
    try:
        await ready.wait()
        assert prober.ready
        for _ in range(10):  # an attempt too many would be told now
            await asyncio.sleep(0)
    finally:
        await prober.stop()
    return told


async def test_a_container_that_is_ready_within_its_first_period_was_never_unhealthy() -> None:
    assert await told_until_ready(1) == []


async def test_a_container_that_is_ready_at_once_is_asked_once() -> None:
    assert await told_until_ready(0) == []


async def test_the_initial_delay_counts_from_the_start_of_the_container_not_of_the_kubelet() -> None:
    asked = asyncio.Event()

    async def attempt(probe: Probe) -> Outcome:
        asked.set()
        return Outcome(True)

    container = Container(name="c", liveness_probe=Probe(initial_delay_seconds=60))
    prober = Prober(container, ProbeHooks(attempt, asked.clear, print), running_for=61)
    prober.start()
    try:
        await asyncio.wait_for(asked.wait(), 5)
    finally:
        await prober.stop()
