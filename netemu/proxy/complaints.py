"""What is wrong in objects of an API server that does not validate as Kubernetes does: told once, by name.

The rest of the object goes on working: `services` and `endpoints` leave out what is listed here. All pure but for the
memory of what has been told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from netemu.model.meta import KubeObject
from netemu.model.objects import EndpointSlice, Service
from netemu.proxy.services import (
    LONGEST_AFFINITY_SECONDS,
    PROTOCOLS,
    canonical,
    family_of,
    is_number,
    is_word,
    networks_of_family,
)

log = logging.getLogger(__name__)


class Complaints:
    """Logs what is wrong with each object, once until it changes.

    `tell` hears of endpoints in a slice of another address family, for which upstream posts an Event.
    """

    def __init__(self, tell: Callable[[EndpointSlice, str], None] | None = None) -> None:
        self._tell = tell
        self._told: dict[tuple[str, str], tuple[str, ...]] = {}

    def look(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Informer handler for Services and EndpointSlices."""
        obj = new or old
        if obj is None:
            return
        kind = "Service" if isinstance(obj, Service) else "EndpointSlice"
        found: tuple[str, ...] = ()
        if isinstance(new, Service):
            found = tuple(of_service(new))
        elif isinstance(new, EndpointSlice):
            found = tuple(of_slice(new))
        for text in found:
            if text not in self._told.get((kind, obj.key), ()):
                log.warning("proxy: %s %s: %s; left out", kind, obj.key, text)
                if self._tell and isinstance(new, EndpointSlice) and text in misplaced(new):
                    self._tell(new, text)
        if found:
            self._told[kind, obj.key] = found
        else:
            self._told.pop((kind, obj.key), None)


def of_service(service: Service) -> Iterator[str]:
    """What rules cannot be made from."""
    spec = service.spec
    if not is_word(service.name) or not is_word(service.namespace):
        yield "its name is no name"
    if spec.type != "ExternalName":
        for ip in spec.cluster_ips or (spec.cluster_ip,):
            if ip not in ("", "None") and not canonical(ip):
                yield f"clusterIP {ip!r} is no address"
    yield from (f"externalIP {ip!r} is no address" for ip in spec.external_ips if not canonical(ip))
    for text in spec.load_balancer_source_ranges:
        if not networks_of_family((text,), family_of(text)):
            yield f"loadBalancerSourceRange {text!r} is no CIDR"
    for ingress in service.status.load_balancer.ingress:
        if ingress.ip and not canonical(ingress.ip):
            yield f"load balancer address {ingress.ip!r} is no address"
    affinity = spec.session_affinity_config
    if spec.session_affinity == "ClientIP" and affinity and affinity.client_ip:
        seconds = affinity.client_ip.timeout_seconds
        if not 0 < seconds <= LONGEST_AFFINITY_SECONDS:
            yield f"session affinity of {seconds} s is not within 1-{LONGEST_AFFINITY_SECONDS}"
    if spec.health_check_node_port and not is_number(spec.health_check_node_port):
        yield f"healthCheckNodePort {spec.health_check_node_port} is no port"
    for port in spec.ports:
        if not is_number(port.port) or port.protocol not in PROTOCOLS or not is_word(port.name or "x"):
            yield f"port {port.name!r} {port.port}/{port.protocol} is no port"
        elif port.node_port and not is_number(port.node_port):
            yield f"nodePort {port.node_port} is no port"


def of_slice(piece: EndpointSlice) -> Iterator[str]:
    """Endpoints that packets cannot be sent to."""
    if piece.address_type not in ("IPv4", "IPv6"):
        return
    yield from misplaced(piece)
    for port in piece.ports or ():
        if port.port and not is_number(port.port):
            yield f"endpoint port {port.port} is no port"


def misplaced(piece: EndpointSlice) -> list[str]:
    """Endpoints whose address is not of the family that the slice is for."""
    texts = []
    for endpoint in piece.endpoints or ():
        for address in endpoint.addresses[:1]:
            known = canonical(address)
            if not known or family_of(known).value != piece.address_type:
                texts.append(f"endpoint {address!r} is no {piece.address_type} address")
    return texts
