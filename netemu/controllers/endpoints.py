"""The older Endpoints objects of Services that have a selector (`pkg/controller/endpoint`).

One object holds all Pods, in *subsets* of addresses that have the same ports. Terminating Pods are left out at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from netemu.controllers import podendpoints
from netemu.controllers.actions import Action, Actions, Create, Delete, Patch
from netemu.controllers.cache import Cache
from netemu.controllers.endpointslice import TriggerTimes
from netemu.controllers.loop import Queue
from netemu.controllers.servicepods import ServicePods
from netemu.controllers.slices import TRIGGER_TIME, port_key
from netemu.model.meta import encode
from netemu.model.objects import EndpointAddress, EndpointPort, Endpoints, EndpointSubset, Service
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTS, PODS, SERVICES

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
"""On Endpoints that are somebody's lock and never had a Service."""
_MOST = 1000


def reconcile(service: Service, pods: Sequence[Pod], current: Endpoints | None, trigger: str = "") -> Actions:
    """What to write so that the Endpoints of `service` are right. `pods` are those it selects."""
    if service.spec.selector is None or service.spec.type == "ExternalName" or service.deleting:
        return []
    wanted, truncated = truncate(subsets(service, pods))
    labels = {key: value for key, value in service.labels.items() if key != podendpoints.HEADLESS}
    labels |= {podendpoints.HEADLESS: ""} if service.headless else {}
    notes = {OVER_CAPACITY: "truncated"} if truncated else {}
    if current is None:
        obj: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": service.name,
                "namespace": service.namespace,
                "labels": labels,
                "annotations": {**notes, **({TRIGGER_TIME: trigger} if trigger else {})},
            },
            "subsets": [_plain(subset) for subset in wanted],
        }
        return [Create(ENDPOINTS, obj, service.namespace)]
    stale = OVER_CAPACITY in current.annotations
    if wanted == _canonical(current.subsets or ()) and labels == current.labels and truncated == stale:
        return []
    patch: dict[str, Any] = {
        "metadata": {
            "labels": {**labels, **{key: None for key in current.labels if key not in labels}},
            "annotations": {TRIGGER_TIME: trigger or None, OVER_CAPACITY: "truncated" if truncated else None},
        },
        "subsets": [_plain(subset) for subset in wanted],
    }
    version = current.metadata.resource_version
    return [Patch(ENDPOINTS, service.name, patch, service.namespace, resource_version=version)]


def subsets(service: Service, pods: Sequence[Pod]) -> list[EndpointSubset]:
    """The Pods as subsets: addresses with the same ports together, in a canonical order (`RepackSubsets`)."""
    family = podendpoints.address_types(service)[0]
    tolerant = service.spec.publish_not_ready_addresses
    grouped: dict[tuple[EndpointPort, ...], tuple[list[EndpointAddress], list[EndpointAddress]]] = {}
    for pod in pods:
        found = podendpoints.addresses(pod, family)
        ports = port_key(podendpoints.ports(service, pod))
        usable = found and not pod.finished and (tolerant or not pod.deleting)
        if not usable or (not ports and not (service.headless and not service.spec.ports)):
            continue
        address = EndpointAddress(
            ip=found[0],
            hostname=podendpoints.hostname(service, pod),
            node_name=pod.spec.node_name or None,
            target_ref=podendpoints.reference(pod),
        )
        ready, not_ready = grouped.setdefault(ports, ([], []))
        (ready if tolerant or pod.ready else not_ready).append(address)
    return _canonical(
        EndpointSubset(addresses=tuple(ready), not_ready_addresses=tuple(rest), ports=ports)
        for ports, (ready, rest) in grouped.items()
    )


def truncate(wanted: list[EndpointSubset]) -> tuple[list[EndpointSubset], bool]:
    """At most 1000 addresses, ready ones first; and whether some were left out."""
    if sum(len(s.addresses or ()) + len(s.not_ready_addresses or ()) for s in wanted) <= _MOST:
        return wanted, False
    room = _MOST
    kept: list[EndpointSubset] = []
    for subset in wanted:
        ready = (subset.addresses or ())[:room]
        room -= len(ready)
        kept.append(EndpointSubset(addresses=ready, ports=subset.ports))
    for index, subset in enumerate(wanted):
        rest = (subset.not_ready_addresses or ())[:room]
        room -= len(rest)
        kept[index] = EndpointSubset(addresses=kept[index].addresses, not_ready_addresses=rest, ports=subset.ports)
    return [subset for subset in kept if subset.addresses or subset.not_ready_addresses], True


def _canonical(found: Iterable[EndpointSubset]) -> list[EndpointSubset]:
    def ordered(addresses: tuple[EndpointAddress, ...] | None) -> tuple[EndpointAddress, ...]:
        return tuple(sorted(addresses or (), key=lambda a: (a.ip, a.target_ref.uid if a.target_ref else "")))

    plain = [
        EndpointSubset(
            addresses=ordered(s.addresses),
            not_ready_addresses=ordered(s.not_ready_addresses),
            ports=port_key(s.ports or ()),
        )
        for s in found
    ]
    return sorted(plain, key=lambda s: [(p.name or "", p.port or 0, p.protocol or "") for p in s.ports or ()])


def _plain(subset: EndpointSubset) -> dict[str, Any]:
    plain: dict[str, Any] = encode(subset)
    for port in plain.get("ports", ()):
        if not port.get("name"):
            port.pop("name", None)
    return plain


class EndpointsController:
    """Watches Services, their Pods, and Endpoints that somebody else touches."""

    name = "endpoint-controller"
    needs = (SERVICES, PODS, ENDPOINTS)

    def __init__(self, cache: Cache, service_pods: ServicePods) -> None:
        self._services = cache.of(SERVICES, Service)
        self._endpoints = cache.of(ENDPOINTS, Endpoints)
        self._service_pods = service_pods
        self._times = TriggerTimes()

    def watch(self, queue: Queue) -> None:
        """Mark the Services whose Endpoints may have changed."""

        def of_service(old: Service | None, new: Service | None) -> None:
            for service in filter(None, (old, new)):
                queue.mark(service.key)

        def of_endpoints(old: Endpoints | None, new: Endpoints | None) -> None:
            for item in filter(None, (old, new)):
                if self._services.get(item.key) is not None:  # one that is written before its Service may stay
                    queue.mark(item.key)

        self._services.on_change(of_service)
        self._service_pods.on_change(queue.mark)
        self._endpoints.on_change(of_endpoints)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller. Endpoints go with their Service, which upstream's have no owner reference for."""
        service, current = self._services.get(key), self._endpoints.get(key)
        if service is None:
            self._times.forget(key)
            if current is None or current.deleting or _LEADER in current.annotations:
                return ()
            return [Delete(ENDPOINTS, current.name, current.namespace, current.metadata.uid)]
        pods = self._service_pods.of(service)
        return reconcile(service, pods, current, self._times.newest(service, pods))
