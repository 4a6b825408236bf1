"""Which Pods a Service selects, and which Services a Pod's change concerns, at the cost of the answer."""

from __future__ import annotations

from collections.abc import Callable

from netemu.client.index import Index
from netemu.controllers.cache import Cache
from netemu.model.objects import Service
from netemu.model.pods import Pod
from netemu.model.resources import PODS, SERVICES


class ServicePods:
    """Pods by label and Services by namespace; shared by the controllers of EndpointSlices and Endpoints."""

    def __init__(self, cache: Cache) -> None:
        self._pods = cache.of(PODS, Pod)
        self._by_label = Index(
            self._pods, lambda pod: [pod.namespace, *(f"{pod.namespace}/{k}={v}" for k, v in pod.labels.items())]
        )
        services = cache.of(SERVICES, Service)
        self._services = Index(services, lambda service: (service.namespace,) if service.spec.selector else ())

    def of(self, service: Service) -> list[Pod]:
        """The Pods that `service` selects, by name."""
        selector = service.spec.selector
        if not selector:
            return self._by_label[service.namespace] if selector is not None else []
        rarest = min(
            (f"{service.namespace}/{k}={v}" for k, v in selector.items()), key=lambda term: self._by_label.count(term)
        )
        return [pod for pod in self._by_label[rarest] if selector.items() <= pod.labels.items()]

    def on_change(self, mark: Callable[[str], None]) -> None:
        """Call `mark` with the key of every Service whose endpoints a Pod's change may alter."""

        def change(old: Pod | None, new: Pod | None) -> None:
            if old is not None and new is not None and _same(old, new):
                return
            for pod in filter(None, (old, new)):
                for service in self._services[pod.namespace]:
                    if (service.spec.selector or {}).items() <= pod.labels.items():
                        mark(service.key)

        self._pods.on_change(change)


def _same(old: Pod, new: Pod) -> bool:
    """Whether nothing that an endpoint shows has changed."""
    return (
        old.ready == new.ready
        and old.deleting == new.deleting
        and old.finished == new.finished
        and old.status.pod_ips == new.status.pod_ips
        and old.status.pod_ip == new.status.pod_ip
        and old.labels == new.labels
        and old.spec == new.spec
        and old.metadata.uid == new.metadata.uid
    )
