"""What is wrong in objects of an API server that does not validate as Kubernetes does: told once, by name.

The rest of the object goes on working: `services`, `endpoints` and `node` leave out what is listed here. All pure but
for the memory of what has been told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from netemu.model.meta import KubeObject
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.proxy.node import pod_cidrs
from netemu.proxy.services import (
    LONGEST_AFFINITY_SECONDS,
    PROTOCOLS,
    canonical,
    claimed_ips,
    family_of,
    is_host,
    is_number,
    is_word,
    networks_of_family,
)

log = logging.getLogger(__name__)

_NO_HOST = "is no host's address (unspecified, loopback, multicast or broadcast)"
_NO_NAME = "is no name of at most 63 letters, digits, '-', '.' and '_'"


class Complaints:
    """Logs what is wrong with each object, once until it changes.

    `tell` hears of endpoints in a slice of another address family, for which upstream posts an Event.
    """

    def __init__(self, tell: Callable[[EndpointSlice, str], None] | None = None) -> None:
        self._tell = tell
        self._told: dict[tuple[str, str], tuple[str, ...]] = {}

    def look(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Informer handler for Services, EndpointSlices and, where its podCIDRs are used, the Node."""
        obj = new or old
        if obj is None:
            return
        kind = type(obj).__name__
        found: tuple[str, ...] = ()
        if isinstance(new, Service):
            found = tuple(of_service(new))
        elif isinstance(new, EndpointSlice):
            found = tuple(of_slice(new))
        elif isinstance(new, Node):
            found = tuple(of_node(new))
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
    for name in (service.namespace, service.name):
        if not is_word(name):
            yield f"{name!r} {_NO_NAME}"
    if spec.type != "ExternalName":
        yield from _of_cluster_ips(service)
    for ip in spec.external_ips:
        if why := _no_host(ip):
            yield f"externalIP {ip!r} {why}"
    for text in spec.load_balancer_source_ranges:
        if not networks_of_family((text,), family_of(text)):
            yield f"loadBalancerSourceRange {text!r} is no CIDR"
    for ingress in service.status.load_balancer.ingress:
        if ingress.ip and (why := _no_host(ingress.ip, loopback=True)):
            yield f"load balancer address {ingress.ip!r} {why}"
    affinity = spec.session_affinity_config
    if spec.session_affinity == "ClientIP" and affinity and affinity.client_ip:
        seconds = affinity.client_ip.timeout_seconds
        if not 0 < seconds <= LONGEST_AFFINITY_SECONDS:
            yield f"session affinity of {seconds} s is not within 1-{LONGEST_AFFINITY_SECONDS}"
    if spec.health_check_node_port and not is_number(spec.health_check_node_port):
        yield f"healthCheckNodePort {spec.health_check_node_port} is no port"
    for port in spec.ports:
        if not is_number(port.port) or port.protocol not in PROTOCOLS:
            yield f"port {port.name!r} {port.port}/{port.protocol} is no port"
        elif not is_word(port.name or "x"):
            yield f"port {port.port}: {port.name!r} {_NO_NAME}"
        elif port.node_port and not is_number(port.node_port):
            yield f"nodePort {port.node_port} is no port"


def _of_cluster_ips(service: Service) -> Iterator[str]:
    spec = service.spec
    for ip in spec.cluster_ips or (spec.cluster_ip,):
        if ip not in ("", "None") and (why := _no_host(ip)):
            yield f"clusterIP {ip!r} {why}"
    for name, ip in claimed_ips(service):
        if (known := canonical(ip)) and family_of(known).value != name:
            yield f"clusterIP {ip!r} is no {name} address"


def _no_host(ip: str, *, loopback: bool = False) -> str:
    known = canonical(ip)
    if not known:
        return "is no address"
    return "" if is_host(known, loopback=loopback) else _NO_HOST


def of_node(node: Node) -> Iterator[str]:
    """Networks that Pods cannot be in."""
    for network in pod_cidrs(node):
        if not networks_of_family((network,), family_of(network)):
            yield f"podCIDR {network!r} is no CIDR"


def of_slice(piece: EndpointSlice) -> Iterator[str]:
    """Endpoints that packets cannot be sent to."""
    if piece.address_type not in ("IPv4", "IPv6"):
        return
    yield from misplaced(piece)
    for endpoint in piece.endpoints or ():
        for address in endpoint.addresses[:1]:
            if not is_host(canonical(address)):
                yield f"endpoint {address!r} {_NO_HOST}"
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
