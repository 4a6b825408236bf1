"""EndpointSlices of Services that have a selector (`pkg/controller/endpointslice`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from netemu.client.index import Index
from netemu.controllers import podendpoints
from netemu.controllers.actions import Action, Actions, owner_reference
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.controllers.servicepods import ServicePods
from netemu.controllers.slices import MANAGED_BY, Frame, Group, managed_by, port_key, reconcile_slices
from netemu.model.objects import SERVICE_NAME_LABEL, Endpoint, EndpointSlice, Node, Service
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTSLICES, NODES, PODS, SERVICES

MANAGER = "endpointslice-controller.k8s.io"
_RESERVED = (podendpoints.HEADLESS, SERVICE_NAME_LABEL, MANAGED_BY)


def reconcile(
    service: Service,
    pods: Sequence[Pod],
    nodes: Mapping[str, Node],
    slices: Sequence[EndpointSlice],
    trigger: str = "",
    most: int = 100,
) -> Actions:
    """What to write so that the slices of `service` say what its Pods are. `pods` are those it selects."""
    if service.spec.selector is None or service.spec.type == "ExternalName" or service.deleting:
        return []  # somebody else's slices, or none; those of a deleted Service go with their owner
    frame = Frame(
        namespace=service.namespace,
        service=service.name,
        owner=owner_reference(service, "v1", "Service"),
        labels=labels(service),
        trigger=trigger,
    )
    return reconcile_slices(frame, desired(service, pods, nodes), slices, most)


def labels(service: Service) -> dict[str, str]:
    """Labels of every slice: the Service's own, who it belongs to, who writes it."""
    own = {key: value for key, value in service.labels.items() if key not in _RESERVED}
    headless = {podendpoints.HEADLESS: ""} if service.headless else {}
    return {**own, **headless, SERVICE_NAME_LABEL: service.name, MANAGED_BY: MANAGER}


def desired(service: Service, pods: Sequence[Pod], nodes: Mapping[str, Node]) -> dict[Group, list[Endpoint]]:
    """Endpoints by family and ports. A family without any has one group of nothing: the empty slice."""
    groups: dict[Group, list[Endpoint]] = {}
    for family in podendpoints.address_types(service):
        mine: dict[Group, list[Endpoint]] = {}
        for pod in pods:
            found = podendpoints.addresses(pod, family)
            if found and not pod.finished:
                group = (family, port_key(podendpoints.ports(service, pod)))
                mine.setdefault(group, []).append(podendpoints.endpoint(service, pod, found, nodes))
        groups |= mine or {(family, ()): []}
    return groups


@dataclass(slots=True)
class TriggerTimes:
    """Remembers what was seen of a Service, to tell when what is new happened (`trigger_time_tracker.go`)."""

    _services: dict[str, str] = field(default_factory=dict)
    _pods: dict[str, dict[str, str]] = field(default_factory=dict)

    def newest(self, service: Service, pods: Sequence[Pod]) -> str:
        """The earliest time among the changes since the last call; empty if nothing with a time changed."""
        seen = {pod.key: when for pod in pods if (when := podendpoints.trigger_time(pod))}
        before = self._pods.get(service.key, {})
        changes = [when for key, when in seen.items() if when > before.get(key, "")]
        created = service.metadata.creation_timestamp or ""
        if created > self._services.get(service.key, ""):
            changes.append(created)
        self._pods[service.key], self._services[service.key] = seen, created
        return min(changes, default="")

    def forget(self, key: str) -> None:
        """The Service is gone."""
        self._pods.pop(key, None)
        self._services.pop(key, None)


class EndpointSliceController:
    """Watches Services, their Pods, the zones of Nodes, and slices that somebody else touches."""

    name = "endpoint-slice-controller"
    needs = (SERVICES, PODS, NODES, ENDPOINTSLICES)

    def __init__(self, cache: Cache, service_pods: ServicePods) -> None:
        self._services = cache.of(SERVICES, Service)
        self._nodes = cache.of(NODES, Node)
        self._service_pods = service_pods
        self._slice_informer = cache.of(ENDPOINTSLICES, EndpointSlice)
        mine = managed_by(MANAGER)
        self._slices = Index(self._slice_informer, lambda item: (item.service_key,) if mine(item) else ())
        self._times = TriggerTimes()

    def watch(self, queue: Queue) -> None:
        """Mark the Services whose endpoints may have changed."""

        def of_slice(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
            for item in filter(None, (old, new)):
                if item.labels.get(MANAGED_BY) == MANAGER:
                    queue.mark(item.service_key)

        def of_node(old: Node | None, new: Node | None) -> None:
            if _zone(old) != _zone(new):
                for key in self._services.objects:
                    queue.mark(key)

        def of_service(old: Service | None, new: Service | None) -> None:
            for service in filter(None, (old, new)):
                queue.mark(service.key)

        self._services.on_change(of_service)
        self._service_pods.on_change(queue.mark)
        self._slice_informer.on_change(of_slice)
        self._nodes.on_change(of_node)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        service = self._services.get(key)
        if service is None:
            self._times.forget(key)
            return ()
        pods = self._service_pods.of(service)
        trigger = self._times.newest(service, pods)
        return reconcile(service, pods, self._nodes.objects, self._slices[key], trigger)


def _zone(node: Node | None) -> str:
    return node.labels.get(podendpoints.ZONE, "") if node else ""
