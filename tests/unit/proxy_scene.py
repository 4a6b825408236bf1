"""One node, and the packets that every mode must treat as the specification says.

The address plan, for all tests about the packet table:

    test-node   192.168.0.2, fd00:192::2 on eth0; 203.0.113.1, 2001:db8:203::1 on `out`; zone-a
    Pods here   10.180.0.N, fd00:10:180::N, N < 100 by interface `vethN`, the others by `cbr0`
    elsewhere   10.180.1.N, 10.180.2.N, fd00:10:181::N behind 192.168.0.3 (node-b), by eth0
    outside     203.0.113.9, 2001:db8:203::9, and the default route, by `out`
    Services    172.30.0.0/16, fd00:172::/112; external IP 198.51.100.7, load balancer 1.2.3.4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from netemu.model.meta import KubeObject, decode
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.observe.oracle import Judgement, NodeView, Origin, Settings, Source, judge
from netemu.testing.packets import Fate, Packet
from tests.unit.proxy_world import endpoint_slice, port_of, service

NODE_IP, NODE_OUTSIDE, PEER = "192.168.0.2", "203.0.113.1", "192.168.0.3"
NODE6, NODE6_OUTSIDE, PEER6 = "fd00:192::2", "2001:db8:203::1", "fd00:192::3"
CLIENT, CLIENT6 = "203.0.113.9", "2001:db8:203::9"
NODE = NodeView(
    "test-node",
    ips=(NODE_IP, NODE6),
    addresses=(NODE_IP, NODE_OUTSIDE, NODE6, NODE6_OUTSIDE),
    zone="zone-a",
    pod_cidrs=("10.180.0.0/24", "fd00:10:180::/64"),
)
DEFAULT = Settings(cluster_cidr="10.0.0.0/8,fd00:10::/32")

A, B, C = "10.180.0.1", "10.180.1.1", "10.180.2.1"
A6, B6 = "fd00:10:180::1", "fd00:10:181::1"
HERE, THERE, FAR = (A, "test-node"), (B, "node-b"), (C, "node-c")
HERE6, THERE6 = (A6, "test-node"), (B6, "node-b")

REJECT, DROP, NONE = Fate("reject"), Fate("drop"), Fate("accept")


@dataclass(frozen=True, slots=True)
class To:
    """A destination."""

    address: str
    port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class World:
    """Objects and settings that hold for one or more packets."""

    objects: tuple[KubeObject, ...]
    settings: Settings = DEFAULT

    @property
    def services(self) -> list[Service]:
        """The Services of it."""
        return [o for o in self.objects if isinstance(o, Service)]

    @property
    def slices(self) -> list[EndpointSlice]:
        """The EndpointSlices of it."""
        return [o for o in self.objects if isinstance(o, EndpointSlice)]


@dataclass(frozen=True, slots=True)
class Case:
    """One packet. `fates` are by mode; `sticky`: of the possible endpoints a client sees only one."""

    about: str
    world: World
    source: Source
    to: To
    fates: Mapping[str, Fate]
    sticky: bool = False

    @property
    def packet(self) -> Packet:
        """As tracers take it."""
        source = self.source
        return Packet(source.address, self.to.address, self.to.port, self.to.protocol, source.interface)


def case(
    about: str,
    what: Mapping[str, Any] | Sequence[KubeObject],
    at: Sequence[Sequence[str]],
    source: Source,
    to: To,
    fate: Fate,
    *,
    settings: Settings = DEFAULT,
    ports: Mapping[str, int | str] | None = None,
    nft: Fate | None = None,
    ipvs: Fate | None = None,
    sticky: bool = False,
) -> Case:
    """A case with one Service (`what`: fields of `service`) whose endpoints are `at`, or with any objects.

    `fate` holds in every mode for which no other is given.
    """
    if isinstance(what, Mapping):
        objects: tuple[KubeObject, ...] = (service(**what), *slices_of(at, ports or targets(what)))
    else:
        objects = tuple(what)
    fates = {"iptables": fate, "nftables": nft or fate, "ipvs": ipvs or fate}
    return Case(about, World(objects, settings), source, to, fates, sticky)


def targets(what: Mapping[str, Any]) -> dict[str, str]:
    """Every port of a Service leads to 8080."""
    return {name: f"8080/{port_of(port)[1]}" for name, port in what.get("ports", {"http": 80}).items()}


def slices_of(at: Sequence[Sequence[str]], ports: Mapping[str, int | str]) -> list[EndpointSlice]:
    """One slice per family that has endpoints, as the EndpointSlice controller writes them."""
    made = []
    for kind in ("IPv4", "IPv6"):
        of_kind = [e for e in at if (":" in e[0]) == (kind == "IPv6")]
        if of_kind or (kind == "IPv4" and not at):
            made.append(endpoint_slice("default/web", of_kind, ports, suffix=kind.lower(), address_type=kind))
    return made


def dnat(*ips: str, port: int = 8080, masquerade: bool = False) -> Fate:
    """To one of these endpoints, the source kept."""
    targets = frozenset(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in ips)
    return Fate("dnat", targets, masquerade)


def masq(*ips: str, port: int = 8080) -> Fate:
    """To one of these endpoints, from the node's own address."""
    return dnat(*ips, port=port, masquerade=True)


def outside(address: str) -> Source:
    """Somebody beyond the cluster."""
    return Source(Origin.OUTSIDE, address, "out")


def pod(address: str, interface: str = "cbr0") -> Source:
    """A Pod of this node."""
    return Source(Origin.POD_HERE, address, interface)


def away(address: str) -> Source:
    """A Pod of another node."""
    return Source(Origin.POD_ELSEWHERE, address, "eth0")


def itself(address: str) -> Source:
    """This node."""
    return Source(Origin.NODE, address)


OUT, OUT6 = outside(CLIENT), outside(CLIENT6)
POD, POD6 = pod("10.180.0.200"), pod("fd00:10:180::200")
AWAY, AWAY6 = away("10.180.1.200"), away("fd00:10:181::200")
SELF, SELF6, LOOP, LOOP6 = itself(NODE_IP), itself(NODE6), itself("127.0.0.1"), itself("::1")


def in_mode(mode: str, world: World) -> Settings:
    """The settings of a world as this mode has them."""
    return structs.replace(world.settings, mode=mode)


def configuration(settings: Settings) -> dict[str, Any]:
    """A KubeProxyConfiguration that says the same."""
    local = {
        "BridgeInterface": {"bridgeInterface": settings.interface},
        "InterfaceNamePrefix": {"interfaceNamePrefix": settings.interface},
    }
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": settings.mode,
        "clusterCIDR": settings.cluster_cidr,
        "detectLocalMode": settings.detect_local_mode,
        "detectLocal": local.get(settings.detect_local_mode, {}),
        "nodePortAddresses": list(settings.node_port_addresses),
        "iptables": {
            "minSyncPeriod": "1ms",
            "masqueradeAll": settings.masquerade_all,
            "localhostNodePorts": settings.localhost_node_ports,
        },
        "nftables": {"minSyncPeriod": "1ms", "masqueradeAll": settings.masquerade_all},
    }


def node_object() -> Node:
    """The Node of the API."""
    return decode(
        {
            "metadata": {"name": NODE.name, "labels": {"topology.kubernetes.io/zone": NODE.zone}},
            "spec": {"podCIDR": NODE.pod_cidrs[0], "podCIDRs": NODE.pod_cidrs},
            "status": {"addresses": [{"type": "InternalIP", "address": ip} for ip in NODE.ips]},
        },
        Node,
    )


def judgement(world: World, mode: str, source: Source, to: To) -> Judgement:
    """The oracle's word."""
    where, protocol = in_mode(mode, world), to.protocol.upper()
    return judge(world.services, world.slices, NODE, where, source, to.address, to.port, protocol)


def judged(world: World, mode: str, source: Source, to: To) -> Fate:
    """The same, put as tracers put it."""
    said = judgement(world, mode, source, to)
    assert said.reason
    assert said.masqueraded in (frozenset(), said.endpoints), "the source decides over each endpoint on its own"
    verdict = "accept" if said.verdict == "none" else said.verdict
    return Fate(verdict, said.endpoints, bool(said.masqueraded))
