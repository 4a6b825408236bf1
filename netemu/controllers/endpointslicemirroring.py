"""EndpointSlices for Endpoints that somebody wrote by hand (`pkg/controller/endpointslicemirroring`).

Only Endpoints of Services without a selector are mirrored; those of others have slices of their own, and
`default/kubernetes` has one from the API server.
"""

from __future__ import annotations

from collections.abc import Sequence

from netemu.client.index import Index
from netemu.controllers.actions import Action, Actions, Delete, owner_reference
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.controllers.slices import (
    MANAGED_BY,
    TRIGGER_TIME,
    Frame,
    Group,
    managed_by,
    port_key,
    reconcile_slices,
)
from netemu.model.objects import (
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointAddress,
    EndpointConditions,
    Endpoints,
    EndpointSlice,
    Service,
)
from netemu.model.resources import ENDPOINTS, ENDPOINTSLICES, SERVICES

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_MOST = 1000
_NOT_COPIED = (TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration")


def reconcile(endpoints: Endpoints | None, service: Service | None, slices: Sequence[EndpointSlice]) -> Actions:
    """What to write so that the mirror of `endpoints` is right: nothing is mirrored where `wanted` says no."""
    if endpoints is None or not wanted(endpoints, service):
        return [Delete(ENDPOINTSLICES, s.name, s.namespace, s.metadata.uid) for s in slices if not s.deleting]
    own = {key: value for key, value in endpoints.labels.items() if key != SKIP}
    frame = Frame(
        namespace=endpoints.namespace,
        service=endpoints.name,
        owner=owner_reference(endpoints, "v1", "Endpoints"),
        labels={**own, SERVICE_NAME_LABEL: endpoints.name, MANAGED_BY: MANAGER},
        annotations={key: value for key, value in endpoints.annotations.items() if key not in _NOT_COPIED},
        trigger=endpoints.annotations.get(TRIGGER_TIME, ""),
    )
    return reconcile_slices(frame, desired(endpoints), slices, _MOST)


def wanted(endpoints: Endpoints, service: Service | None) -> bool:
    """Whether these Endpoints are mirrored."""
    return (
        not endpoints.deleting
        and endpoints.labels.get(SKIP) != "true"
        and _LEADER not in endpoints.annotations
        and endpoints.key != "default/kubernetes"
        and service is not None
        and service.spec.selector is None
    )


def desired(endpoints: Endpoints) -> dict[Group, list[Endpoint]]:
    """Endpoints by family and ports, one per address."""
    groups: dict[Group, dict[str, Endpoint]] = {}
    for subset in endpoints.subsets or ():
        ports = port_key(subset.ports or ())
        for ready, addresses in ((True, subset.addresses), (False, subset.not_ready_addresses)):
            for address in addresses or ():
                family = "IPv6" if ":" in address.ip else "IPv4"
                groups.setdefault((family, ports), {}).setdefault(address.ip, _endpoint(address, ready))
    return {group: list(found.values())[:_MOST] for group, found in groups.items()}


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=(address.ip,),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


class EndpointSliceMirroringController:
    """Watches Endpoints, Services, and the slices made here."""

    name = "endpoint-slice-mirroring-controller"
    needs = (ENDPOINTS, SERVICES, ENDPOINTSLICES)

    def __init__(self, cache: Cache) -> None:
        self._endpoints = cache.of(ENDPOINTS, Endpoints)
        self._services = cache.of(SERVICES, Service)
        self._slice_informer = cache.of(ENDPOINTSLICES, EndpointSlice)
        mine = managed_by(MANAGER)
        self._slices = Index(self._slice_informer, lambda item: (item.service_key,) if mine(item) else ())

    def watch(self, queue: Queue) -> None:
        """Endpoints and their Services have the same key."""

        def of_any(old: Endpoints | Service | None, new: Endpoints | Service | None) -> None:
            for item in filter(None, (old, new)):
                queue.mark(item.key)

        def of_slice(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
            for item in filter(None, (old, new)):
                if item.labels.get(MANAGED_BY) == MANAGER:
                    queue.mark(item.service_key)

        self._endpoints.on_change(of_any)
        self._services.on_change(of_any)
        self._slice_informer.on_change(of_slice)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        return reconcile(self._endpoints.get(key), self._services.get(key), self._slices[key])
