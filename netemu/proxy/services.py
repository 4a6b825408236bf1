"""What kube-proxy knows of a Service: one value per service port and address family.

Theory of operation (`pkg/proxy/serviceport.go`): a Service becomes one `ServicePort` per entry of `spec.ports`, with
everything that rules depend on and nothing else, so that comparing two of them says whether rules may differ. Headless
Services, ExternalName and Services without an address of the family have none. `targetPort` is never read: where
packets go stands in EndpointSlices.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from netemu.model.objects import Service

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
_HINTS_ANNOTATIONS = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
_DEFAULT_AFFINITY_SECONDS = 10800
LONGEST_AFFINITY_SECONDS = 86400
_WORD = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LOOPBACK = re.compile(r"127\..+|::1")
_NO_HOST = re.compile(r"0\.0\.0\.0|(22[4-9]|23\d)\..+|255\.255\.255\.255|::|ff[0-9a-f]{2}:.*")
PROTOCOLS = ("TCP", "UDP", "SCTP")


class Family(Enum):
    """An address family; the value is Kubernetes' word for it."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def bits(self) -> int:
        """Length of an address: the prefix that means one host."""
        return 32 if self is Family.IPV4 else 128


class PortKey(NamedTuple):
    """What tells service ports apart. `port` is the port's name, `protocol` TCP, UDP or SCTP."""

    namespace: str
    name: str
    port: str
    protocol: str

    @property
    def service(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def text(self) -> str:
        """`namespace/name[:port]`, the name that comments and hashes use; the protocol is no part of it."""
        return f"{self.namespace}/{self.name}:{self.port}" if self.port else f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service in one family; addresses are in canonical text."""

    key: PortKey
    cluster_ip: str
    port: int
    node_port: int = 0
    affinity_seconds: int = 0
    """Session affinity by client address for that long after its last new connection; 0: none."""
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    """Ingress addresses that packets still carry when they arrive here (ipMode VIP)."""
    source_ranges: tuple[str, ...] = ()
    """Who may use the load balancer addresses; empty: everybody."""
    internal_local: bool = False
    external_local: bool = False
    health_check_node_port: int = 0
    use_hints: bool = False
    """Whether the Service asks for topology hints, by annotation or by trafficDistribution."""

    @property
    def protocol(self) -> str:
        """Lower case, as iptables writes it."""
        return sys.intern(self.key.protocol.lower())

    @property
    def externally_accessible(self) -> bool:
        """Whether anything but the ClusterIP leads here."""
        return bool(self.node_port or self.load_balancer_ips or self.external_ips)

    @property
    def uses_cluster_endpoints(self) -> bool:
        """Whether some destination address of this port may use endpoints of the whole cluster."""
        return not self.internal_local or self.externally_accessible

    @property
    def uses_local_endpoints(self) -> bool:
        """Whether some destination address of this port uses endpoints of this node only."""
        return self.internal_local or (self.external_local and self.externally_accessible)


def skipped(service: Service) -> bool:
    """Whether another proxy, or none, takes care of this Service."""
    spec = service.spec
    labelled = PROXY_NAME_LABEL in service.labels or HEADLESS_LABEL in service.labels
    return labelled or spec.type == "ExternalName" or spec.cluster_ip in ("", "None")


def service_ports(service: Service, family: Family) -> dict[PortKey, ServicePort]:
    """Every port of a Service in one family; empty where the Service is skipped or has no ClusterIP of it."""
    named = is_word(service.name) and is_word(service.namespace)
    cluster_ip = _cluster_ip(service, family) if named and not skipped(service) else ""
    if not cluster_ip:
        return {}
    spec = service.spec
    external_ips = tuple(ip for ip in of_family(spec.external_ips, family) if is_host(ip))
    ports = {}
    for port in spec.ports:
        if not is_number(port.port) or port.protocol not in PROTOCOLS or not is_word(port.name or "x"):
            continue
        key = PortKey(service.namespace, service.name, port.name, port.protocol)
        ports[key] = ServicePort(
            key,
            cluster_ip,
            port.port,
            node_port=port.node_port if is_number(port.node_port) else 0,
            affinity_seconds=_affinity(service),
            external_ips=external_ips,
            load_balancer_ips=_load_balancer_ips(service, family),
            source_ranges=networks_of_family(spec.load_balancer_source_ranges, family),
            internal_local=spec.internal_traffic_policy == "Local",
            external_local=_external_local(service),
            health_check_node_port=_health_check_node_port(service),
            use_hints=_use_hints(service),
        )
    return ports


def _cluster_ip(service: Service, family: Family) -> str:
    spec = service.spec
    addresses: Iterable[str] = (spec.cluster_ip,)
    if spec.ip_families:
        addresses = (ip for name, ip in claimed_ips(service) if name == family.value)
    return next((ip for ip in of_family(addresses, family) if is_host(ip)), "")


def claimed_ips(service: Service) -> list[tuple[str, str]]:
    """The ClusterIPs with the family that the Service says each is of."""
    spec = service.spec
    return list(zip(spec.ip_families, spec.cluster_ips or (spec.cluster_ip,), strict=False))


def _use_hints(service: Service) -> bool:
    """Whoever makes hints is asked for them by trafficDistribution or by the annotation: any text but "disabled".

    1.30 reads the annotation too; later releases read neither and take hints for asked for. The difference shows only
    in slices made by hand that have hints for a Service that asks for none.
    """
    if service.spec.traffic_distribution:
        return True
    text = next((v for a in _HINTS_ANNOTATIONS if (v := service.annotations.get(a)) is not None), "")
    return text not in ("", "disabled", "Disabled")


def _affinity(service: Service) -> int:
    spec = service.spec
    if spec.session_affinity != "ClientIP":
        return 0
    config = spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else _DEFAULT_AFFINITY_SECONDS
    return seconds if 0 < seconds <= LONGEST_AFFINITY_SECONDS else 0


def _external_local(service: Service) -> bool:
    spec = service.spec
    from_outside = spec.type in ("NodePort", "LoadBalancer") or (spec.type == "ClusterIP" and spec.external_ips)
    return bool(from_outside) and spec.external_traffic_policy == "Local"


def _health_check_node_port(service: Service) -> int:
    spec = service.spec
    asked = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
    return spec.health_check_node_port if asked and is_number(spec.health_check_node_port) else 0


def _load_balancer_ips(service: Service, family: Family) -> tuple[str, ...]:
    ingress = service.status.load_balancer.ingress
    found = of_family((i.ip for i in ingress if i.ip and i.ip_mode in (None, "VIP")), family)
    return tuple(ip for ip in found if is_host(ip, loopback=True))  # some load balancers are on the machine itself


def is_number(port: int) -> bool:
    """Whether a port of that number can be listened on."""
    return 0 < port < 65536


def is_word(name: str) -> bool:
    """Whether a name is harmless in rules: what Kubernetes allows in names of Services, namespaces and ports, and a
    little more. Three longer ones would not fit into a comment of a rule or the name of a chain."""
    return bool(_WORD.fullmatch(name))


@lru_cache(maxsize=4096)
def canonical(address: str) -> str:
    """An address without blanks and leading zeros ("10.180.00.001"), which one tool refuses and another reads as octal.

    Returns "" for what is no address, and for one with a zone ("fe80::1%eth0"), which leads nowhere from elsewhere.
    """
    plain = address.strip()
    if "%" in plain:  # and a zone may be any text, even one that a rule would end in
        return ""
    if "." in plain and ":" not in plain:
        plain = ".".join(part.lstrip("0") or part[:1] for part in plain.split("."))
    try:
        text = str(ipaddress.ip_address(plain))
    except ValueError:
        return ""
    return address if text == address else text  # a string of its own for each of 50,000 endpoints would be waste


def is_host(address: str, *, loopback: bool = False) -> bool:
    """Whether a canonical address can be that of one host elsewhere: none that is unspecified, multicast or broadcast,
    nor a loopback one, unless those are to count.

    Rules for the others would take from the node what is its own. Upstream's API server refuses most of them
    (`ValidateNonSpecialIP`), so its kube-proxy need not look; link-local ones, refused there too, can be sent to.
    """
    return not _NO_HOST.fullmatch(address) and (loopback or not _LOOPBACK.fullmatch(address))


def family_of(address: str) -> Family:
    """The family of an address or network in text."""
    return Family.IPV6 if ":" in address else Family.IPV4


def of_family(addresses: Iterable[str], family: Family) -> list[str]:
    """Those that are addresses of the family, canonical."""
    return [text for a in addresses if (text := canonical(a)) and family_of(text) is family]


def networks_of_family(networks: Iterable[str], family: Family) -> tuple[str, ...]:
    """Those that are CIDRs of the family, as `network/prefix`; blanks are cut, nonsense is left out."""
    found = []
    for network in networks:
        address, _, prefix = network.strip().partition("/")
        try:
            value = ipaddress.ip_network(f"{canonical(address)}/{prefix}", strict=False)
        except ValueError:
            continue
        if family_of(str(value)) is family:
            found.append(str(value))
    return tuple(found)


def disjoint(networks: Iterable[str], family: Family) -> tuple[str, ...]:
    """The CIDRs of the family in order, what another one contains left out: the same addresses, none of them twice."""
    if family is Family.IPV6:
        six = map(ipaddress.IPv6Network, networks_of_family(networks, family))
        return tuple(map(str, ipaddress.collapse_addresses(six)))
    four = map(ipaddress.IPv4Network, networks_of_family(networks, family))
    return tuple(map(str, ipaddress.collapse_addresses(four)))
