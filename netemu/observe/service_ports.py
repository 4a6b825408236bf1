"""Which addresses a Service has, and which of its endpoints count where: the oracle's reading of API objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from netemu.model.hosts import endpoint_text
from netemu.model.objects import Endpoint, EndpointSlice, Service, ServicePort
from netemu.observe.addresses import canonical

_SKIP_LABELS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
_HINTS = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")


class Via(StrEnum):
    """The kinds of addresses that a Service port has."""

    CLUSTER_IP = "cluster IP"
    EXTERNAL_IP = "external IP"
    BALANCER_IP = "load balancer IP"
    NODE_PORT = "node port"


class Hit(Struct, frozen=True):
    """The Service port that a destination belongs to, and by which kind of address."""

    service: Service
    port: ServicePort
    via: Via
    cluster_ip: str
    refuses_only: bool = False
    """A node port on an address that does not serve node ports: iptables still refuses it without endpoints."""

    @property
    def name(self) -> str:
        """`NAMESPACE/NAME:PORT`, without the port's name where it has none."""
        return f"{self.service.key}:{self.port.name}" if self.port.name else self.service.key

    @property
    def policy_local(self) -> bool:
        """Whether the traffic policy for this kind of address is Local."""
        return self.internal_local if self.via == Via.CLUSTER_IP else self.external_local

    @property
    def internal_local(self) -> bool:
        """Whether `internalTrafficPolicy` is Local."""
        return self.service.spec.internal_traffic_policy == "Local"

    @property
    def external_local(self) -> bool:
        """Whether `externalTrafficPolicy` is Local, and means anything."""
        spec = self.service.spec
        reachable = spec.type in ("NodePort", "LoadBalancer") or (spec.type == "ClusterIP" and spec.external_ips)
        return bool(reachable) and spec.external_traffic_policy == "Local"


def proxied(service: Service) -> bool:
    """Whether kube-proxy has anything to do with the Service."""
    spec = service.spec
    return (
        not any(label in service.labels for label in _SKIP_LABELS)
        and spec.type != "ExternalName"
        and spec.cluster_ip not in ("", "None")
    )


def cluster_ip_of(service: Service, like: str) -> str:
    """The cluster IP of the family of another address, "" if there is none."""
    spec = service.spec
    family = "IPv6" if ":" in like else "IPv4"
    if spec.ip_families:
        pairs = zip(spec.ip_families, spec.cluster_ips or (spec.cluster_ip,), strict=False)
        return next((canonical(ip) for name, ip in pairs if name == family), "")
    return canonical(spec.cluster_ip) if (":" in spec.cluster_ip) == (":" in like) else ""


def balancer_ips_of(service: Service) -> list[str]:
    """Addresses of its load balancer that nodes take for their own; those with `ipMode: Proxy` are none."""
    return [canonical(i.ip) for i in service.status.load_balancer.ingress if i.ip and i.ip_mode in (None, "VIP")]


def reached_at(services: Iterable[Service], address: str) -> bool:
    """Whether some Service is reached at the address."""
    return any(address in (cluster_ip_of(s, address), *external_ips_of(s), *balancer_ips_of(s)) for s in services)


def external_ips_of(service: Service) -> list[str]:
    """`externalIPs`."""
    return [canonical(ip) for ip in service.spec.external_ips]


# --- which endpoints count ------------------------------------------------------------------------------------------


class Seen(Struct, frozen=True):
    """An endpoint as this node sees it."""

    ip: str
    target: str
    local: bool
    of: Endpoint

    @property
    def ready(self) -> bool:
        """Not known to be unready."""
        return self.of.conditions.ready is not False

    @property
    def ending(self) -> bool:
        """On its way out, and still serving."""
        return self.of.conditions.serving is not False and self.of.conditions.terminating is True

    def hints(self, kind: str) -> list[str]:
        """Names in the hints `forZones` or `forNodes`."""
        return [hint["name"] for hint in (self.of.hints or {}).get(kind) or () if hint.get("name")]


class Sets(Struct, frozen=True):
    """Endpoints that a node uses: those for policy Cluster and for Local; and whether there is any to use anywhere."""

    cluster: tuple[Seen, ...]
    local: tuple[Seen, ...]
    anywhere: bool
    known: int
    """How many there are, in whatever condition."""


def endpoints_of(hit: Hit, slices: Sequence[EndpointSlice], node: str, like: str) -> list[Seen]:
    """All endpoints of the Service port, each `ip:port` once: the local copy first, then the better one."""
    family = "IPv6" if ":" in like else "IPv4"
    found: dict[str, Seen] = {}
    for piece in slices:
        if piece.service_key != hit.service.key or piece.address_type != family:
            continue
        numbers = [
            p.port for p in piece.ports or () if (p.name, p.protocol or "TCP") == (hit.port.name, hit.port.protocol)
        ]
        for endpoint in piece.endpoints or ():
            ip = canonical(endpoint.addresses[0]) if endpoint.addresses else ""
            for number in numbers:
                if not number or not ip or (":" in ip) != (":" in like):
                    continue
                target = endpoint_text(ip, number)
                seen = Seen(ip, target, endpoint.node_name == node, endpoint)
                if target not in found or _worth(seen) > _worth(found[target]):
                    found[target] = seen
    return list(found.values())


def _worth(seen: Seen) -> tuple[bool, bool, bool]:
    return seen.local, seen.ready, seen.of.conditions.serving is not False


def choose(hit: Hit, endpoints: Sequence[Seen], node: str, zone: str) -> Sets:
    """Which of the endpoints of a Service port count on a node of that name and zone."""
    external = bool(hit.port.node_port or balancer_ips_of(hit.service) or external_ips_of(hit.service))
    cluster: Sequence[Seen] = ()
    if external or not hit.internal_local:
        ready = _hinted(hit.service, [e for e in endpoints if e.ready], node, zone)
        cluster = ready or [e for e in endpoints if e.ending]
    local: Sequence[Seen] = ()
    if hit.internal_local or (hit.external_local and external):
        here = [e for e in endpoints if e.local]
        local = [e for e in here if e.ready] or [e for e in here if e.ending]
    return Sets(tuple(cluster), tuple(local), any(e.ready or e.ending for e in endpoints), len(endpoints))


def _hinted(service: Service, ready: list[Seen], node: str, zone: str) -> list[Seen]:
    """Those of the ready endpoints that hints keep traffic to: of this node, else of its zone, else all.

    Hints are asked for by trafficDistribution, whichever (PreferSameZone, PreferClose and PreferSameNode differ in the
    hints that are made), else by annotation. They mean nothing where one ready endpoint has none.
    """
    annotation = next((service.annotations[a] for a in _HINTS if a in service.annotations), "")
    if not service.spec.traffic_distribution and annotation in ("", "disabled", "Disabled"):
        return ready
    for kind, place in (("forNodes", node), ("forZones", zone)):
        kept = [e for e in ready if place in e.hints(kind)]
        if place and kept and all(e.hints(kind) for e in ready):
            return kept
    return ready
