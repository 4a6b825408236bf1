"""preStop: what a container wants done, or waited for, before it is asked to end.

Its time counts against the Pod's grace period. A hook that fails is told as an event and holds nothing up. Upstream:
kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go (killContainer, executePreStopHook).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from netemu.kubelet.probes import Outcome
from netemu.model.pods import LifecycleHandler, Probe

LEAST_GRACE = 2.0
"""Seconds that a container has after SIGTERM, however long its hook took."""


async def run(handler: LifecycleHandler, attempt: Callable[[Probe], Awaitable[Outcome]]) -> Outcome:
    """Do what the handler says. `attempt` asks the container as a probe would."""
    if handler.sleep is not None:
        await asyncio.sleep(handler.sleep.seconds)
        return Outcome(True)
    return await attempt(Probe(http_get=handler.http_get, tcp_socket=handler.tcp_socket, exec=handler.exec))


async def within(hook: asyncio.Future[Outcome], grace: float) -> tuple[float, str]:
    """Wait for a hook, at most for the grace period. What is left of that, and what went wrong.

    Whoever cancels the hook ends the waiting, with no time left.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await asyncio.wait({hook}, timeout=grace)
        if hook.cancelled():
            return 0.0, ""
        left = max(grace - (loop.time() - began), LEAST_GRACE)
        if not hook.done():
            return left, f"not done within {grace:.0f} s"
        if error := hook.exception():
            return left, str(error)
        return left, "" if hook.result().ok else hook.result().text
    finally:
        hook.cancel()
