"""What ought to become of a packet to a Service: judged from API objects alone, rules never looked at.

Theory of operation: this is the specification of kube-proxy as a function. It finds the Service port that a destination
belongs to, the endpoints that count on this node, and what the policies say about the source; where the three modes
differ by design it says so. Nothing of `netemu.proxy` is used, so that the two can be held against each other: tests
compare every mode's rules with it. `Judgement.reason` explains in words why a packet goes where it goes.

Only first packets of connections are judged. Session affinity chooses among the endpoints named here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from netemu.model.objects import Endpoint, EndpointSlice, Service, ServicePort

_SKIP_LABELS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
_SERVICE_LABEL = "kubernetes.io/service-name"
_HINTS = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
_CLUSTER_IP, _EXTERNAL_IP, _BALANCER_IP, _NODE_PORT = "cluster IP", "external IP", "load balancer IP", "node port"


class Origin(Enum):
    """Where a packet starts, seen from the node whose rules it meets."""

    POD_HERE = "a Pod on this node"
    POD_ELSEWHERE = "a Pod on another node"
    NODE = "this node"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Source:
    """Who sends. `interface` is where the packet enters the node, "" where the node itself sends it."""

    origin: Origin
    address: str
    interface: str = ""


@dataclass(frozen=True, slots=True)
class NodeView:
    """The node that judges."""

    name: str
    ips: tuple[str, ...]
    """As its Node object tells them; the first of a family is the primary one."""
    addresses: tuple[str, ...] = ()
    """Every address on its interfaces, loopback aside."""
    zone: str = ""
    pod_cidrs: tuple[str, ...] = ()

    def primary(self, like: str) -> str:
        """The node's IP of the family of another address, "" if it has none."""
        return next((ip for ip in self.ips if (":" in ip) == (":" in like)), "")

    def owns(self, address: str) -> bool:
        """Whether packets to an address end here."""
        return address in self.addresses or ipaddress.ip_address(address).is_loopback


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration of kube-proxy contributes; names are those of KubeProxyConfiguration."""

    mode: str = "iptables"
    cluster_cidr: str = ""
    detect_local_mode: str = "ClusterCIDR"
    interface: str = ""
    """`detectLocal.bridgeInterface` or `.interfaceNamePrefix`."""
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    node_port_addresses: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    """Networks of cluster IPs as far as the proxy knows them from ServiceCIDR objects."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`verdict` is dnat, reject, drop, or none for a packet that no rule about Services concerns.

    `endpoints` are `ip:port`, any of which is right; for those of `masqueraded` the source becomes the node's.
    """

    verdict: str
    reason: str
    endpoints: frozenset[str] = frozenset()
    masqueraded: frozenset[str] = frozenset()


def judge(
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    node: NodeView,
    settings: Settings,
    source: Source,
    destination: str,
    port: int,
    protocol: str = "TCP",
) -> Judgement:
    """The fate of a first packet from `source` to `destination`, on `node`. Addresses in canonical text."""
    case = _Case(node, settings, source, destination)
    tracked = [s for s in sorted(services, key=lambda s: s.key) if _tracked(s) and _cluster_ip(s, destination)]
    if settings.mode == "ipvs" and source.origin is not Origin.NODE and _virtual(tracked, source.address):
        return Judgement("drop", f"{source.address} is this node's own on kube-ipvs0, so nobody else may send with it")
    hit = next(_hits(tracked, case, port, protocol), None)
    if hit is None:
        return _unclaimed(tracked, case)
    endpoints = _endpoints_of(hit, slices, node, destination)
    sets = _choose(hit, endpoints, node)
    return _ipvs(case, hit, sets, endpoints) if settings.mode == "ipvs" else _by_rules(case, hit, sets)


# --- which Service port a destination belongs to -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Case:
    node: NodeView
    settings: Settings
    source: Source
    destination: str

    @property
    def from_pod(self) -> bool | None:
        """Whether the source counts as a Pod by `detectLocalMode`; None: there is nothing to tell it by."""
        settings, interface = self.settings, self.source.interface
        match settings.detect_local_mode:
            case "BridgeInterface":
                return interface == settings.interface
            case "InterfaceNamePrefix":
                return interface.startswith(settings.interface)
            case "NodeCIDR":
                networks: Iterable[str] = self.node.pod_cidrs
            case _:
                networks = settings.cluster_cidr.split(",")
        network = next((n for n in networks if n and (":" in n) == (":" in self.destination)), "")
        return _inside(self.source.address, [network]) if network else None

    @property
    def from_node(self) -> bool:
        return self.node.owns(self.source.address)

    @property
    def virtual_source(self) -> bool:
        """Whether, in ipvs mode, the node's own packet carries its destination as its source, too."""
        own = self.source.origin is Origin.NODE and not ipaddress.ip_address(self.source.address).is_loopback
        return own and self.settings.mode == "ipvs"


@dataclass(frozen=True, slots=True)
class _Hit:
    service: Service
    port: ServicePort
    via: str
    cluster_ip: str
    refuses_only: bool = False
    """A node port on an address that does not serve node ports: iptables still refuses it without endpoints."""

    @property
    def name(self) -> str:
        return f"{self.service.key}:{self.port.name}" if self.port.name else self.service.key

    @property
    def policy_local(self) -> bool:
        """Whether the traffic policy for this kind of address is Local."""
        return self.internal_local if self.via == _CLUSTER_IP else self.external_local

    @property
    def internal_local(self) -> bool:
        return self.service.spec.internal_traffic_policy == "Local"

    @property
    def external_local(self) -> bool:
        spec = self.service.spec
        reachable = spec.type in ("NodePort", "LoadBalancer") or (spec.type == "ClusterIP" and spec.external_ips)
        return bool(reachable) and spec.external_traffic_policy == "Local"


def _tracked(service: Service) -> bool:
    spec = service.spec
    return (
        not any(label in service.labels for label in _SKIP_LABELS)
        and spec.type != "ExternalName"
        and spec.cluster_ip not in ("", "None")
    )


def _cluster_ip(service: Service, like: str) -> str:
    spec = service.spec
    family = "IPv6" if ":" in like else "IPv4"
    if spec.ip_families:
        pairs = zip(spec.ip_families, spec.cluster_ips or (spec.cluster_ip,), strict=False)
        return next((_clean(ip) for name, ip in pairs if name == family), "")
    return _clean(spec.cluster_ip) if (":" in spec.cluster_ip) == (":" in like) else ""


def _balancer_ips(service: Service) -> list[str]:
    return [_clean(i.ip) for i in service.status.load_balancer.ingress if i.ip and i.ip_mode in (None, "VIP")]


def _virtual(tracked: Iterable[Service], address: str) -> bool:
    """Whether some Service is reached at the address."""
    return any(address in (_cluster_ip(s, address), *_external_ips(s), *_balancer_ips(s)) for s in tracked)


def _external_ips(service: Service) -> list[str]:
    return [_clean(ip) for ip in service.spec.external_ips]


def _hits(tracked: Sequence[Service], case: _Case, number: int, protocol: str) -> Iterator[_Hit]:
    """Addresses of Services come before node ports."""
    for service in tracked:
        cluster_ip = _cluster_ip(service, case.destination)
        kinds = ((_CLUSTER_IP, [cluster_ip]), (_EXTERNAL_IP, _external_ips(service)))
        for via, addresses in (*kinds, (_BALANCER_IP, _balancer_ips(service))):
            for port in service.spec.ports if case.destination in addresses else ():
                if (port.port, port.protocol) == (number, protocol):
                    yield _Hit(service, port, via, cluster_ip)
    serves = _serves_node_ports(case)
    if not serves and not (case.settings.mode == "iptables" and case.node.owns(case.destination)):
        return
    for service in tracked:
        for port in service.spec.ports:
            if number and (port.node_port, port.protocol) == (number, protocol):
                yield _Hit(service, port, _NODE_PORT, _cluster_ip(service, case.destination), not serves)


def _serves_node_ports(case: _Case) -> bool:
    """Whether node ports answer on the destination."""
    node, settings, to = case.node, case.settings, case.destination
    if not node.owns(to):
        return False
    if ipaddress.ip_address(to).is_loopback and not (
        settings.mode == "iptables" and settings.localhost_node_ports and ":" not in to
    ):
        return False
    if settings.node_port_addresses == ("primary",):
        return to == node.primary(to)
    if networks := [n for n in settings.node_port_addresses if (":" in n) == (":" in to)]:
        return any(n.endswith("/0") for n in networks) or _inside(to, networks)
    return to == node.primary(to) if settings.mode == "nftables" else True


def _unclaimed(tracked: Sequence[Service], case: _Case) -> Judgement:
    """No Service has this address with this port."""
    settings, to = case.settings, case.destination
    cluster_ips = [_cluster_ip(s, to) for s in tracked]
    if settings.mode == "ipvs" and not case.node.owns(to):
        held = [*cluster_ips, *(ip for s in tracked for ip in (*_external_ips(s), *_balancer_ips(s)))]
        if to in held:
            return Judgement("reject", f"kube-ipvs0 holds {to}, and no Service has this port on it")
    if settings.mode == "nftables":
        if to in cluster_ips:
            return Judgement("reject", f"{to} is a cluster IP whose Service does not have this port")
        if _inside(to, settings.service_cidrs):
            return Judgement("drop", f"{to} is within the Services' network and belongs to no Service")
    guarded = settings.mode == "iptables" and settings.localhost_node_ports and ":" not in to
    if guarded and ipaddress.ip_address(to).is_loopback and not ipaddress.ip_address(case.source.address).is_loopback:
        return Judgement("drop", "only this node itself may reach its loopback")
    return Judgement("none", f"no Service has {to} with this port and protocol")


# --- which endpoints count ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """An endpoint as this node sees it."""

    ip: str
    target: str
    local: bool
    of: Endpoint

    @property
    def ready(self) -> bool:
        return self.of.conditions.ready is not False

    @property
    def ending(self) -> bool:
        """On its way out, and still serving."""
        return self.of.conditions.serving is not False and self.of.conditions.terminating is True

    def hints(self, kind: str) -> list[str]:
        """Names in the hints `forZones` or `forNodes`."""
        return [hint["name"] for hint in (self.of.hints or {}).get(kind) or () if hint.get("name")]


@dataclass(frozen=True, slots=True)
class _Sets:
    cluster: tuple[_Seen, ...]
    local: tuple[_Seen, ...]
    anywhere: bool


def _endpoints_of(hit: _Hit, slices: Sequence[EndpointSlice], node: NodeView, like: str) -> list[_Seen]:
    """All endpoints of the Service port, each `ip:port` once: the local copy first, then the better one."""
    family = "IPv6" if ":" in like else "IPv4"
    found: dict[str, _Seen] = {}
    for piece in slices:
        belongs = piece.namespace == hit.service.namespace and piece.labels.get(_SERVICE_LABEL) == hit.service.name
        if not belongs or piece.address_type != family:
            continue
        numbers = [
            p.port for p in piece.ports or () if (p.name, p.protocol or "TCP") == (hit.port.name, hit.port.protocol)
        ]
        for endpoint in piece.endpoints or ():
            ip = _clean(endpoint.addresses[0]) if endpoint.addresses else ""
            for number in numbers:
                if not number or not ip or (":" in ip) != (":" in like):
                    continue
                target = f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}"
                seen = _Seen(ip, target, endpoint.node_name == node.name, endpoint)
                if target not in found or _worth(seen) > _worth(found[target]):
                    found[target] = seen
    return list(found.values())


def _worth(seen: _Seen) -> tuple[bool, bool, bool]:
    return seen.local, seen.ready, seen.of.conditions.serving is not False


def _choose(hit: _Hit, endpoints: Sequence[_Seen], node: NodeView) -> _Sets:
    external = bool(hit.port.node_port or _balancer_ips(hit.service) or _external_ips(hit.service))
    cluster: Sequence[_Seen] = ()
    if external or not hit.internal_local:
        ready = _hinted(hit.service, [e for e in endpoints if e.ready], node)
        cluster = ready or [e for e in endpoints if e.ending]
    local: Sequence[_Seen] = ()
    if hit.internal_local or (hit.external_local and external):
        here = [e for e in endpoints if e.local]
        local = [e for e in here if e.ready] or [e for e in here if e.ending]
    return _Sets(tuple(cluster), tuple(local), any(e.ready or e.ending for e in endpoints))


def _hinted(service: Service, ready: list[_Seen], node: NodeView) -> list[_Seen]:
    """Those of the ready endpoints that hints keep traffic to: of this node, else of its zone, else all.

    Hints are asked for by trafficDistribution, whichever (PreferSameZone, PreferClose and PreferSameNode differ in the
    hints that are made), else by annotation. They mean nothing where one ready endpoint has none.
    """
    annotation = next((service.annotations[a] for a in _HINTS if a in service.annotations), "")
    if not service.spec.traffic_distribution and annotation in ("", "disabled", "Disabled"):
        return ready
    for kind, place in (("forNodes", node.name), ("forZones", node.zone)):
        kept = [e for e in ready if place in e.hints(kind)]
        if place and kept and all(e.hints(kind) for e in ready):
            return kept
    return ready


# --- what happens ---------------------------------------------------------------------------------------------------


def _by_rules(case: _Case, hit: _Hit, sets: _Sets) -> Judgement:
    """iptables and nftables."""
    blocked = hit.via == _BALANCER_IP and not _admitted(case, hit)
    nftables = case.settings.mode == "nftables"
    if blocked and (nftables or sets.anywhere):
        return Judgement("drop", f"{case.source.address} is outside of the source ranges of {hit.name}")
    if not sets.anywhere:
        unguarded = not nftables and hit.via in (_EXTERNAL_IP, _BALANCER_IP)
        if unguarded and not case.source.interface and not case.node.owns(case.destination):
            return Judgement("none", f"{hit.name} has no endpoints, which iptables mode tells all but the node itself")
        return Judgement("reject", f"{hit.name} has no endpoints")
    lonely = Judgement("drop", f"the policy of {hit.name} is Local, and its endpoints are elsewhere")
    if hit.refuses_only:
        return lonely if hit.policy_local and not sets.local else Judgement("none", "not an address for node ports")
    if hit.via == _CLUSTER_IP:
        used = sets.local if hit.internal_local else sets.cluster
        return _dnat(case, used, _masquerades_cluster_ip(case), f"{hit.via} of {hit.name}") if used else lonely
    if not hit.external_local:
        return _dnat(case, sets.cluster, True, f"{hit.via} of {hit.name}, any endpoint")
    if case.from_pod:
        return _dnat(case, sets.cluster, False, f"{hit.via} of {hit.name}; Pods may use any endpoint")
    if case.from_node:
        return _dnat(case, sets.cluster, True, f"{hit.via} of {hit.name}; the node itself may use any endpoint")
    return _dnat(case, sets.local, False, f"{hit.via} of {hit.name}, endpoints of this node") if sets.local else lonely


def _ipvs(case: _Case, hit: _Hit, sets: _Sets, endpoints: Sequence[_Seen]) -> Judgement:
    """IPVS knows no dropping for want of local endpoints, and treats Pods and the node as everybody else."""
    used = (sets.local or sets.cluster) if hit.policy_local else sets.cluster
    # What comes in meets the source ranges first; what the node sends, IPVS, which refuses without endpoints.
    if not used and case.source.origin is Origin.NODE:
        return Judgement("reject", f"{hit.name} has no endpoints")
    if hit.via == _BALANCER_IP and not _admitted(case, hit):
        return Judgement("drop", f"{case.source.address} is outside of the source ranges of {hit.name}")
    if not used:
        return Judgement("reject", f"{hit.name} has no endpoints")
    if case.virtual_source:
        # Addresses of Services are local ones, so the kernel takes them as the source of what the node sends there.
        case = replace(case, source=replace(case.source, address=case.destination))
    if ipaddress.ip_address(case.source.address).is_loopback:
        masquerade = False
    elif hit.via == _CLUSTER_IP:
        unknown = case.from_pod is None and case.source.address == hit.cluster_ip
        masquerade = _masquerades_cluster_ip(case) or unknown
    else:
        masquerade = not hit.external_local
    here = frozenset(e.target for e in endpoints if e.local)
    return _dnat(case, used, masquerade, f"{hit.via} of {hit.name}", hairpin=here)


def _masquerades_cluster_ip(case: _Case) -> bool:
    return case.settings.masquerade_all or case.from_pod is False


def _dnat(
    case: _Case, used: Sequence[_Seen], masquerade: bool, reason: str, *, hairpin: frozenset[str] | None = None
) -> Judgement:
    """`hairpin`: endpoints whose way back to themselves is looked after; None: every endpoint's."""
    targets = frozenset(e.target for e in used)
    itself = {e.target for e in used if e.ip == case.source.address and (hairpin is None or e.target in hairpin)}
    # What comes in and ends on this node's own network never passes where sources are changed.
    delivered = {e.target for e in used if case.source.origin is not Origin.NODE and case.node.owns(e.ip)}
    return Judgement("dnat", reason, targets, (targets if masquerade else frozenset(itself)) - delivered)


def _admitted(case: _Case, hit: _Hit) -> bool:
    """Whether `loadBalancerSourceRanges` admit the source: ranges of the other family do not count."""
    wanted = [r.strip() for r in hit.service.spec.load_balancer_source_ranges]
    ranges = [r for r in wanted if (":" in r) == (":" in case.destination) and _network(r)]
    if not ranges or (_inside(case.source.address, ranges) and not case.virtual_source):
        return True
    # A load balancer that shares a network with the node may send with its own virtual address.
    primary = case.node.primary(case.destination)
    virtual = case.virtual_source or case.source.address in _balancer_ips(hit.service)
    return virtual and bool(primary) and _inside(primary, ranges)


# --- addresses ------------------------------------------------------------------------------------------------------


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _inside(address: str, networks: Iterable[str]) -> bool:
    ip = ipaddress.ip_address(address)
    return any((n := _network(text)) is not None and ip in n for text in networks)


def _clean(address: str) -> str:
    """Canonical text; IPv4 may come with leading zeros. "" for what is no address, or has a zone."""
    if "%" in address:
        return ""
    if ":" not in address:
        address = ".".join(part.lstrip("0") or "0" for part in address.strip().split("."))
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""
