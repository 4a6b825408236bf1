"""The objects behind a zone, kept current by informers.

Every change goes straight into `records.Cluster`; when an answer may differ, the serial moves to the present second and
`on_change` voids the finished answers that the change touches, so it shows with the next question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from netemu.dns.objects import Changed, Cluster, Options
from netemu.model.meta import KubeObject
from netemu.model.objects import EndpointSlice, Namespace, Service
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTSLICES, NAMESPACES, PODS, SERVICES

if TYPE_CHECKING:
    from netemu.client.base import Client
    from netemu.client.informer import Informer


class ClusterStore:
    """A `Cluster` and what fills it. `run` until cancelled; `synced` once every list has arrived."""

    def __init__(
        self,
        options: Options,
        on_change: Callable[[Changed | None], None],
        *,
        endpoints: bool = True,
        labels: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.cluster = Cluster(options)
        self.serial = int(clock())
        self._options, self._on_change, self._clock = options, on_change, clock
        self._endpoints, self._labels = endpoints, labels
        self._informers: list[Informer[Any]] = []
        self._synced = False

    @property
    def synced(self) -> bool:
        """Whether every kind was listed at least once."""
        if not self._synced and self._informers:
            self._synced = all(informer.synced.is_set() for informer in self._informers)
        return self._synced

    async def run(self, client: Client) -> None:
        """Follow the API server until cancelled."""
        # Not above: the client room costs more to import than everything else here, and the sockets must not wait for
        # it.
        from netemu.client.informer import Informer

        self._informers = [self._follow(Informer(client, NAMESPACES, Namespace), self.namespace)]
        self._informers.append(
            self._follow(Informer(client, SERVICES, Service, label_selector=self._labels), self.service)
        )
        if self._endpoints:
            informer = Informer(client, ENDPOINTSLICES, EndpointSlice, label_selector=self._labels)
            self._informers.append(self._follow(informer, self.slice))
        if self._options.pods == "verified":
            # Pods that ended keep their address in status but no longer own it.
            alive = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Unknown"
            self._informers.append(self._follow(Informer(client, PODS, Pod, field_selector=alive), self.pod))
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())

    @staticmethod
    def _follow(informer: Informer[Any], handler: Callable[[Any, Any], None]) -> Informer[Any]:
        informer.on_change(handler)
        return informer

    def namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        """A Namespace changed."""
        if self.cluster.set_namespace(_which(old, new).name, new):
            self._on_change(None)

    def service(self, old: Service | None, new: Service | None) -> None:
        """A Service changed."""
        which = _which(old, new)
        self._moved(self.cluster.set_service(which.namespace, which.name, new))

    def slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """An EndpointSlice changed."""
        which = _which(old, new)
        self._moved(self.cluster.set_slice(which.namespace, which.name, new))

    def pod(self, old: Pod | None, new: Pod | None) -> None:
        """A Pod changed."""
        which = _which(old, new)
        self._moved(self.cluster.set_pod(which.namespace, which.name, new))

    def _moved(self, changed: Changed) -> None:
        if changed:
            self.serial = int(self._clock())
            self._on_change(changed)


def _which(old: KubeObject | None, new: KubeObject | None) -> KubeObject:
    which = new or old
    assert which is not None
    return which
