"""What a Pod is worth as an endpoint of a Service, for EndpointSlices and for Endpoints
(`k8s.io/endpointslice/utils.go`, `pkg/api/v1/endpoints`)."""

from __future__ import annotations

from collections.abc import Mapping

from netemu.model.objects import Endpoint, EndpointConditions, EndpointPort, Node, ObjectReference, Service, ServicePort
from netemu.model.pods import Pod

ZONE = "topology.kubernetes.io/zone"
HEADLESS = "service.kubernetes.io/headless"


def address_types(service: Service) -> tuple[str, ...]:
    """The families for which a Service has slices; IPv4 where it does not say."""
    if service.spec.ip_families:
        return service.spec.ip_families
    return ("IPv6",) if ":" in service.spec.cluster_ip else ("IPv4",)


def addresses(pod: Pod, address_type: str) -> tuple[str, ...]:
    """The Pod's addresses of that family."""
    known = [item.ip for item in pod.status.pod_ips] or ([pod.status.pod_ip] if pod.status.pod_ip else [])
    return tuple(ip for ip in known if (":" in ip) == (address_type == "IPv6"))


def ports(service: Service, pod: Pod) -> tuple[EndpointPort, ...]:
    """Where the Pod listens for each port of the Service; a named target port that it lacks is left out."""
    found = ((port, target_port(port, pod)) for port in service.spec.ports)
    return tuple(EndpointPort(port.name, port.protocol, number, port.app_protocol) for port, number in found if number)


def target_port(port: ServicePort, pod: Pod) -> int:
    """The number that `targetPort` means on this Pod, 0 if it has no container port of that name and protocol."""
    target = port.target_port
    if isinstance(target, int):
        return target or port.port
    sidecars = (c for c in pod.spec.init_containers if c.restart_policy == "Always")
    for container in (*pod.spec.containers, *sidecars):
        for item in container.ports:
            if item.name == target and item.protocol == port.protocol:
                return item.container_port
    return 0


def endpoint(service: Service, pod: Pod, found: tuple[str, ...], nodes: Mapping[str, Node]) -> Endpoint:
    """The Pod as an entry of a slice."""
    serving = pod.ready
    ready = service.spec.publish_not_ready_addresses or (serving and not pod.deleting)
    node = nodes.get(pod.spec.node_name)
    zone = node.labels.get(ZONE) if node else None
    hints = {"forZones": [{"name": zone}]} if zone and ready and prefers_close(service) else None
    return Endpoint(
        addresses=found,
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=pod.deleting),
        hostname=hostname(service, pod) or None,
        target_ref=reference(pod),
        node_name=pod.spec.node_name or None,
        zone=zone,
        hints=hints,
    )


def hostname(service: Service, pod: Pod) -> str:
    """A Pod has a name under a Service only if its `subdomain` is that Service."""
    same = pod.spec.subdomain == service.name and pod.namespace == service.namespace
    return pod.spec.hostname if same else ""


def reference(pod: Pod) -> ObjectReference:
    """`targetRef`."""
    return ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.metadata.uid)


def prefers_close(service: Service) -> bool:
    """Whether endpoints carry the hint of their own zone."""
    return service.spec.traffic_distribution in ("PreferClose", "PreferSameZone")


def trigger_time(pod: Pod) -> str:
    """When the Pod last became ready or unready: the time that its changes are measured from."""
    ready = (c.last_transition_time for c in pod.status.conditions if c.type == "Ready")
    return next(ready, None) or ""
