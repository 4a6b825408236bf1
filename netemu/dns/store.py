"""The objects behind a zone, kept current by informers.

Every change goes straight into `records.Cluster`; when an answer may differ, the serial moves to the present second and
`on_change` voids the finished answers that the change touches, so it shows with the next question.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netemu.dns.names import LONGEST_LABEL
from netemu.dns.objects import Changed, Cluster, Key, Options, overlong, pod_address, service_facts, slice_facts
from netemu.model import times
from netemu.model.meta import KubeObject, ObjectMeta
from netemu.model.objects import EndpointSlice, Namespace, Service
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTSLICES, NAMESPACES, PODS, SERVICES

if TYPE_CHECKING:
    from netemu.client.base import Client
    from netemu.client.informer import Informer

log = logging.getLogger(__name__)

_PAGE = 500
"""Objects per piece of a list: of each only a tenth is kept."""
_TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects are followed: label selectors, empty for all."""

    labels: str = ""
    """Of Services, EndpointSlices and Pods."""
    namespaces: str = ""
    """Of Namespaces: others do not exist."""
    endpoints: bool = True


class ClusterStore:
    """A `Cluster` and what fills it. `run` until cancelled; `synced` once every list has arrived.

    `on_change` is called with what a change touches (None: everything), `on_delay` with the seconds from the cause of
    an EndpointSlice's change to its arrival here, and whether the Service is headless. Informers keep no more of an
    object than what DNS knows of it.
    """

    def __init__(
        self,
        options: Options,
        on_change: Callable[[Changed | None], None],
        selection: Selection = Selection(),
        *,
        on_delay: Callable[[float, bool], None] = lambda _, __: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.cluster = Cluster(options)
        self.serial = int(clock())
        self._selection, self._on_change, self._on_delay, self._clock = selection, on_change, on_delay, clock
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

        names, labels, options = self._selection.namespaces, self._selection.labels, self.cluster.options
        self._informers = [
            self._follow(Informer(client, NAMESPACES, Namespace, label_selector=names, page=_PAGE), self._namespace),
            self._follow(
                Informer(client, SERVICES, Service, label_selector=labels, page=_PAGE, transform=_service),
                self._service,
            ),
        ]
        if self._selection.endpoints:
            slim = functools.partial(_slice, options.endpoint_pod_names)
            informer = Informer(
                client, ENDPOINTSLICES, EndpointSlice, label_selector=labels, page=_PAGE, transform=slim
            )
            self._informers.append(self._follow(informer, self._slice))
        if options.pods == "verified":
            # Pods that ended keep their address in status but no longer own it.
            alive = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Unknown"
            pods = Informer(client, PODS, Pod, label_selector=labels, field_selector=alive, page=_PAGE, transform=_pod)
            self._informers.append(self._follow(pods, self._pod))
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())

    @staticmethod
    def _follow(informer: Informer[Any], handler: Callable[[Any, Any], None]) -> Informer[Any]:
        informer.on_change(handler)
        return informer

    def _namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        if self.cluster.set_namespace(_which(old, new).name, new):
            self._on_change(None)

    def _service(self, old: _Kept | None, new: _Kept | None) -> None:
        which = _which(old, new)
        self._moved(self.cluster.set_service(which.namespace, which.name, new.facts if new else None))

    def _slice(self, old: _Kept | None, new: _Kept | None) -> None:
        which = _which(old, new)
        changed = self.cluster.set_slice(which.namespace, which.name, new.facts if new else None)
        self._moved(changed)
        if changed and new and new.facts and new.caused and self.synced:
            self._measure(new.facts.service, new.caused)

    def _measure(self, service: Key, caused: str) -> None:
        found = self.cluster.service(service)
        with contextlib.suppress(ValueError):
            if found:
                self._on_delay(self._clock() - times.parse(caused).timestamp(), found.headless)

    def _pod(self, old: _Kept | None, new: _Kept | None) -> None:
        which = _which(old, new)
        self._moved(self.cluster.set_pod(which.namespace, which.name, new.facts if new else b""))

    def _moved(self, changed: Changed) -> None:
        if changed:
            self.serial = int(self._clock())
            self._on_change(changed)


class _Kept(KubeObject, frozen=True):
    """An object of which only `facts` is left."""

    facts: Any = None
    caused: str = ""
    """When the change happened that led to this EndpointSlice, as its controller wrote it."""


def _kept(obj: KubeObject, facts: object, caused: str = "") -> _Kept:
    meta = obj.metadata
    slim = ObjectMeta(name=meta.name, namespace=sys.intern(meta.namespace), resource_version=meta.resource_version)
    return _Kept(metadata=slim, facts=facts, caused=caused)


def _warn_of_overlong(obj: Service | EndpointSlice, kind: str) -> None:
    if words := overlong(obj):
        why = f"longer than the {LONGEST_LABEL} octets of a label"
        log.warning("plugin/kubernetes: %s %s/%s: left out of names, %s: %s", kind, obj.namespace, obj.name, why, words)


def _service(service: Service) -> Any:
    _warn_of_overlong(service, "Service")
    return _kept(service, service_facts(service))


def _slice(pod_names: bool, slice_: EndpointSlice) -> Any:
    _warn_of_overlong(slice_, "EndpointSlice")
    return _kept(slice_, slice_facts(slice_, pod_names), slice_.annotations.get(_TRIGGER, ""))


def _pod(pod: Pod) -> Any:
    return _kept(pod, pod_address(pod))


def _which(old: KubeObject | None, new: KubeObject | None) -> KubeObject:
    which = new or old
    assert which is not None
    return which
