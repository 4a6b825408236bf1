"""The two HTTP servers of kube-proxy itself: `pages` says what is on them, this serves it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netemu.model.errors import KernelError
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.healthcheck import NOT_FOUND, Answer, Handler, listen
from netemu.proxy.metrics import FamilyMetrics, exposition
from netemu.proxy.pages import (
    FamilyHealth,
    configz_page,
    health_page,
    metrics_answer,
    mode_page,
    ok_page,
    other_page,
)

log = logging.getLogger(__name__)

_LISTEN_RETRY = 5.0


@dataclass(frozen=True, slots=True)
class View:
    """What there is to tell, now. Families by the name that Kubernetes has for them."""

    mode: str
    now: float
    eligible: bool
    """Whether load balancers may send to this node."""
    health: Mapping[str, FamilyHealth]
    metrics: Mapping[str, FamilyMetrics]


class StatusServers:
    """`run` serves `healthzBindAddress` and `metricsBindAddress` inside a namespace.

    `failed` hears, with the reason of the Event to post, of an address that cannot be had with `bindAddressHardFail`.
    """

    def __init__(
        self,
        config: KubeProxyConfiguration,
        netns: str,
        look: Callable[[], View],
        failed: Callable[[str, str], None],
    ) -> None:
        self._config, self._netns, self._look, self._failed = config, netns, look, failed
        self._codes: Counter[tuple[str, int]] = Counter()

    async def run(self) -> None:
        """Until cancelled. Raises KernelError where an address cannot be had and `bindAddressHardFail` is set."""
        async with asyncio.TaskGroup() as tasks:
            healthz, metrics = self._config.healthz_bind_address, self._config.metrics_bind_address
            tasks.create_task(self._serve(healthz, self._health, "FailedToStartProxierHealthcheck"))
            tasks.create_task(self._serve(metrics, self._metrics, "FailedToStartMetricServer"))

    async def _serve(self, address: str, handler: Handler, reason: str) -> None:
        while True:
            try:
                server = await listen(address, self._netns, handler)
                break
            except KernelError as error:
                if self._config.bind_address_hard_fail:
                    self._failed(reason, str(error))
                    raise
                log.error("proxy: %s; again in %.0f s", error, _LISTEN_RETRY)
                await asyncio.sleep(_LISTEN_RETRY)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()

    def _health(self, path: str) -> Answer:
        if path not in ("/healthz", "/livez"):
            return NOT_FOUND
        seen = self._look()
        answer = health_page(seen.health, eligible=None if path == "/livez" else seen.eligible, now=seen.now)
        self._codes[path[1:], answer.code] += 1
        return answer

    def _metrics(self, path: str) -> Answer:
        seen = self._look()
        match path:
            case "/metrics":
                return metrics_answer(exposition(seen.mode, seen.metrics, self._codes))
            case "/proxyMode":
                return mode_page(seen.mode)
            case "/configz":
                return configz_page(self._config, seen.mode)
            case "/healthz":
                return ok_page()
            case _:
                return other_page(path)
