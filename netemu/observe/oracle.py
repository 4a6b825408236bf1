"""What ought to become of a packet to a Service: judged from API objects alone, rules never looked at.

Theory of operation: this is the specification of kube-proxy as a function. It finds the Service port that a destination
belongs to, the endpoints that count on this node (`service_ports`), and what the policies say about the source; where
the three modes differ by design it says so. Nothing of `netemu.proxy` is used, so that the two can be held against each
other: tests compare every mode's rules with it. `Judgement.reason` explains in words why a packet goes where it goes,
`code` says it for programs. What becomes of a connection in the whole cluster `predict` says, which asks node after
node here.

Only first packets of connections are judged. Session affinity chooses among the endpoints named here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from netemu.model.objects import EndpointSlice, Service
from netemu.observe.addresses import inside, network_of
from netemu.observe.reasons import Reason
from netemu.observe.service_ports import (
    Hit,
    Seen,
    Sets,
    Via,
    balancer_ips_of,
    choose,
    cluster_ip_of,
    endpoints_of,
    external_ips_of,
    proxied,
    reached_at,
)


class Origin(Enum):
    """Where a packet starts, seen from the node whose rules it meets."""

    POD_HERE = "a Pod on this node"
    POD_ELSEWHERE = "a Pod on another node"
    NODE = "this node"
    OUTSIDE = "outside"


class Source(Struct, frozen=True):
    """Who sends. `interface` is where the packet enters the node, "" where the node itself sends it."""

    origin: Origin
    address: str
    interface: str = ""


class NodeView(Struct, frozen=True):
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


class Settings(Struct, frozen=True):
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


class Judgement(Struct, frozen=True):
    """`verdict` is dnat, reject, drop, or none for a packet that no rule about Services concerns.

    `endpoints` are `ip:port`, any of which is right; for those of `masqueraded` the source becomes the node's.
    `hit` is the Service port that the packet is for, if it is for one.
    """

    verdict: str
    code: Reason
    reason: str
    endpoints: frozenset[str] = frozenset()
    masqueraded: frozenset[str] = frozenset()
    hit: Hit | None = None


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
    tracked = [s for s in sorted(services, key=lambda s: s.key) if proxied(s) and cluster_ip_of(s, destination)]
    if settings.mode == "ipvs" and source.origin is not Origin.NODE and reached_at(tracked, source.address):
        why = f"{source.address} is this node's own on kube-ipvs0, so nobody else may send with it"
        return Judgement("drop", Reason.SOURCE_IS_VIRTUAL, why)
    hit = next(_hits(tracked, case, port, protocol), None)
    if hit is None:
        return _unclaimed(tracked, case)
    endpoints = endpoints_of(hit, slices, node.name, destination)
    sets = choose(hit, endpoints, node.name, node.zone)
    said = _ipvs(case, hit, sets, endpoints) if settings.mode == "ipvs" else _by_rules(case, hit, sets)
    return replace(said, hit=hit)


# --- which Service port a destination belongs to -----------------------------------------------------------------


class _Case(Struct, frozen=True):
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
        return inside(self.source.address, [network]) if network else None

    @property
    def from_node(self) -> bool:
        return self.node.owns(self.source.address)

    @property
    def virtual_source(self) -> bool:
        """Whether, in ipvs mode, the node's own packet carries its destination as its source, too."""
        own = self.source.origin is Origin.NODE and not ipaddress.ip_address(self.source.address).is_loopback
        return own and self.settings.mode == "ipvs"


def _hits(tracked: Sequence[Service], case: _Case, number: int, protocol: str) -> Iterator[Hit]:
    """Addresses of Services come before node ports."""
    for service in tracked:
        cluster_ip = cluster_ip_of(service, case.destination)
        kinds = ((Via.CLUSTER_IP, [cluster_ip]), (Via.EXTERNAL_IP, external_ips_of(service)))
        for via, addresses in (*kinds, (Via.BALANCER_IP, balancer_ips_of(service))):
            for port in service.spec.ports if case.destination in addresses else ():
                if (port.port, port.protocol) == (number, protocol):
                    yield Hit(service, port, via, cluster_ip)
    serves = _serves_node_ports(case)
    if not serves and not (case.settings.mode == "iptables" and case.node.owns(case.destination)):
        return
    for service in tracked:
        for port in service.spec.ports:
            if number and (port.node_port, port.protocol) == (number, protocol):
                yield Hit(service, port, Via.NODE_PORT, cluster_ip_of(service, case.destination), not serves)


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
        return any(n.endswith("/0") for n in networks) or inside(to, networks)
    return to == node.primary(to) if settings.mode == "nftables" else True


def _unclaimed(tracked: Sequence[Service], case: _Case) -> Judgement:
    """No Service has this address with this port."""
    settings, to = case.settings, case.destination
    held = reached_at(tracked, to)
    if settings.mode == "ipvs" and not case.node.owns(to) and held:
        return Judgement("reject", Reason.WRONG_PORT, f"kube-ipvs0 holds {to}, and no Service has this port on it")
    if settings.mode == "nftables":
        if to in [cluster_ip_of(s, to) for s in tracked]:
            why = f"{to} is a cluster IP whose Service does not have this port"
            return Judgement("reject", Reason.WRONG_PORT, why)
        if inside(to, settings.service_cidrs):
            why = f"{to} is within the Services' network and belongs to no Service"
            return Judgement("drop", Reason.NO_SERVICE, why)
    guarded = settings.mode == "iptables" and settings.localhost_node_ports and ":" not in to
    if guarded and ipaddress.ip_address(to).is_loopback and not ipaddress.ip_address(case.source.address).is_loopback:
        return Judgement("drop", Reason.LOOPBACK, "only this node itself may reach its loopback")
    code = Reason.WRONG_PORT if held else Reason.NO_SERVICE
    return Judgement("none", code, f"no Service has {to} with this port and protocol")


# --- what happens ---------------------------------------------------------------------------------------------------


def _by_rules(case: _Case, hit: Hit, sets: Sets) -> Judgement:
    """iptables and nftables."""
    blocked = hit.via == Via.BALANCER_IP and not _admitted(case, hit)
    nftables = case.settings.mode == "nftables"
    if blocked and (nftables or sets.anywhere):
        return _out_of_range(case, hit)
    if not sets.anywhere:
        unguarded = not nftables and hit.via in (Via.EXTERNAL_IP, Via.BALANCER_IP)
        if unguarded and not case.source.interface and not case.node.owns(case.destination):
            told = _without_endpoints(hit, sets)
            return replace(told, verdict="none", reason=f"{told.reason}, which iptables mode tells all but the node")
        return _without_endpoints(hit, sets)
    why = f"the policy of {hit.name} is Local, and its endpoints are elsewhere"
    lonely = Judgement("drop", Reason.NO_LOCAL_ENDPOINT, why)
    if hit.refuses_only:
        elsewhere = Judgement("none", Reason.NO_NODE_PORT_HERE, f"{case.destination} is not an address for node ports")
        return lonely if hit.policy_local and not sets.local else elsewhere
    if hit.via == Via.CLUSTER_IP:
        used = sets.local if hit.internal_local else sets.cluster
        return _dnat(case, used, _masquerades_cluster_ip(case), f"{hit.via} of {hit.name}") if used else lonely
    if not hit.external_local:
        return _dnat(case, sets.cluster, True, f"{hit.via} of {hit.name}, any endpoint")
    if case.from_pod:
        return _dnat(case, sets.cluster, False, f"{hit.via} of {hit.name}; Pods may use any endpoint")
    if case.from_node:
        return _dnat(case, sets.cluster, True, f"{hit.via} of {hit.name}; the node itself may use any endpoint")
    return _dnat(case, sets.local, False, f"{hit.via} of {hit.name}, endpoints of this node") if sets.local else lonely


def _ipvs(case: _Case, hit: Hit, sets: Sets, endpoints: Sequence[Seen]) -> Judgement:
    """IPVS knows no dropping for want of local endpoints, and treats Pods and the node as everybody else."""
    used = (sets.local or sets.cluster) if hit.policy_local else sets.cluster
    # What comes in meets the source ranges first; what the node sends, IPVS, which refuses without endpoints.
    if not used and case.source.origin is Origin.NODE:
        return _without_endpoints(hit, sets)
    if hit.via == Via.BALANCER_IP and not _admitted(case, hit):
        return _out_of_range(case, hit)
    if not used:
        return _without_endpoints(hit, sets)
    if case.virtual_source:
        # Addresses of Services are local ones, so the kernel takes them as the source of what the node sends there.
        case = replace(case, source=replace(case.source, address=case.destination))
    if ipaddress.ip_address(case.source.address).is_loopback:
        masquerade = False
    elif hit.via == Via.CLUSTER_IP:
        unknown = case.from_pod is None and case.source.address == hit.cluster_ip
        masquerade = _masquerades_cluster_ip(case) or unknown
    else:
        masquerade = not hit.external_local
    here = frozenset(e.target for e in endpoints if e.local)
    return _dnat(case, used, masquerade, f"{hit.via} of {hit.name}", hairpin=here)


def _out_of_range(case: _Case, hit: Hit) -> Judgement:
    why = f"{case.source.address} is outside of the source ranges of {hit.name}"
    return Judgement("drop", Reason.SOURCE_RANGE, why)


def _without_endpoints(hit: Hit, sets: Sets) -> Judgement:
    """Refused: none that can be used here."""
    if sets.anywhere:
        why = f"the policy of {hit.name} is Local, and its endpoints are elsewhere"
        return Judgement("reject", Reason.NO_LOCAL_ENDPOINT, why)
    if sets.known:
        return Judgement("reject", Reason.NOT_READY, f"of {hit.name} no endpoint is ready, of {sets.known}")
    return Judgement("reject", Reason.NO_ENDPOINTS, f"{hit.name} has no endpoints")


def _masquerades_cluster_ip(case: _Case) -> bool:
    return case.settings.masquerade_all or case.from_pod is False


def _dnat(
    case: _Case, used: Sequence[Seen], masquerade: bool, reason: str, *, hairpin: frozenset[str] | None = None
) -> Judgement:
    """`hairpin`: endpoints whose way back to themselves is looked after; None: every endpoint's."""
    targets = frozenset(e.target for e in used)
    itself = {e.target for e in used if e.ip == case.source.address and (hairpin is None or e.target in hairpin)}
    # What comes in and ends on this node's own network never passes where sources are changed.
    delivered = {e.target for e in used if case.source.origin is not Origin.NODE and case.node.owns(e.ip)}
    masqueraded = (targets if masquerade else frozenset(itself)) - delivered
    return Judgement("dnat", Reason.TRANSLATED, reason, targets, masqueraded)


def _admitted(case: _Case, hit: Hit) -> bool:
    """Whether `loadBalancerSourceRanges` admit the source: ranges of the other family do not count."""
    wanted = [r.strip() for r in hit.service.spec.load_balancer_source_ranges]
    ranges = [r for r in wanted if (":" in r) == (":" in case.destination) and network_of(r)]
    if not ranges or (inside(case.source.address, ranges) and not case.virtual_source):
        return True
    # A load balancer that shares a network with the node may send with its own virtual address.
    primary = case.node.primary(case.destination)
    virtual = case.virtual_source or case.source.address in balancer_ips_of(hit.service)
    return virtual and bool(primary) and inside(primary, ranges)
