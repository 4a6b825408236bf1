"""A cluster of three nodes for tests of predictions, with the addresses that a lab gives.

n1, n2, n3    172.18.0.2, .3, .4 and fc00:f853::2, ::3, ::4; zones a, b, b; Pods 10.244.0.N, 10.244.1.N, 10.244.2.N
Pods          default/a1 and a2 on n1, b1 on n2, c1 on n3: 10.244.X.11, .12; they declare 8080/TCP and 8080/UDP
laptop        203.0.113.10
pool          172.18.255.0/24, routed to all nodes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netemu.model.objects import EndpointSlice, Service
from netemu.observe.cluster import Cluster, Host, HostPort, Machine, PodPlace, Sender
from netemu.observe.oracle import NodeView, Settings
from netemu.observe.predict import Prediction, predict
from tests.unit.proxy_world import endpoint_slice, service

NODES = ("n1", "n2", "n3")
A1, A2, B1, C1 = "10.244.0.11", "10.244.0.12", "10.244.1.11", "10.244.2.11"
PODS = {"a1": (A1, "n1"), "a2": (A2, "n1"), "b1": (B1, "n2"), "c1": (C1, "n3")}
LAPTOP, VIP, BALANCER, EXTERNAL = "203.0.113.10", "10.96.0.100", "172.18.255.1", "198.51.100.7"
NODE_PORT = 30080
OPEN: dict[str, Any] = {
    "type": "LoadBalancer", "node_ports": {"http": NODE_PORT}, "external_ips": [EXTERNAL], "ingress": [BALANCER],
}  # fmt: skip
LOCAL = {**OPEN, "external_policy": "Local"}


def node_ip(name: str) -> str:
    """Of a node."""
    return f"172.18.0.{NODES.index(name) + 2}"


def gateway(name: str) -> str:
    """Of the Pods of a node."""
    return f"10.244.{NODES.index(name)}.1"


def cluster(
    what: Any = None,
    at: Sequence[Sequence[str]] = (),
    *,
    mode: str = "iptables",
    pods: Sequence[PodPlace] = (),
    services: Sequence[Service] = (),
    slices: Sequence[EndpointSlice] = (),
    caches: Sequence[str] = (),
) -> Cluster:
    """One Service default/web (fields `what`) with endpoints (`at`: address, node, condition), or other objects."""
    if what is not None:
        services, slices = (service(ip=VIP, **what),), (endpoint_slice("default/web", at),)
    machines = {}
    for index, name in enumerate(NODES):
        ips = (node_ip(name), f"fc00:f853::{index + 2}")
        gateways = (gateway(name), f"fd00:10:244:{index}::1")
        ranges = (f"10.244.{index}.0/24", f"fd00:10:244:{index}::/64")
        view = NodeView(name, ips, (*ips, *gateways, *caches), "abb"[index], ranges)
        settings = Settings(mode, "10.244.0.0/16,fd00:10:244::/56", service_cidrs=("10.96.0.0/16",))
        machines[name] = Machine(view, settings, gateways, frozenset({(10250, "TCP")}), frozenset(caches))
    declared = frozenset({(8080, "TCP"), (8080, "UDP")})
    own = [PodPlace(f"default/{name}", node, (ip,), ports=declared) for name, (ip, node) in PODS.items()]
    return Cluster(
        services, slices, machines, (*own, *pods),
        clients=(Host("client/laptop", (LAPTOP,), frozenset({(443, "TCP")})),),
        router=Host("the router", ("172.18.0.1", "203.0.113.1"), frozenset({(53, "UDP")})),
        pools=("172.18.255.0/24",),
    )  # fmt: skip


def pod(name: str) -> Sender:
    """A Pod that sends."""
    ip, node = PODS[name]
    return Sender(f"default/{name}", (ip,), node)


def node(name: str) -> Sender:
    """A node that sends."""
    return Sender(f"node/{name}", (node_ip(name), f"fc00:f853::{NODES.index(name) + 2}"), name, is_node=True)


CLIENT = Sender("client/laptop", (LAPTOP,))


def on_host(name: str, on: str, *ports: tuple[int, str]) -> PodPlace:
    """A Pod of the host network."""
    return PodPlace(f"default/{name}", on, (node_ip(on),), host_network=True, ports=frozenset(ports))


def with_host_port(name: str, on: str, ip: str, port: int) -> PodPlace:
    """A Pod whose 8080 is a port of its node."""
    host_ports = (HostPort("", port, "TCP", 8080),)
    return PodPlace(f"default/{name}", on, (ip,), ports=frozenset({(8080, "TCP")}), host_ports=host_ports)


def told(said: Prediction) -> dict[str, set[str]]:
    """Outcome with its reason, to `server ip from source` of each answer."""
    found: dict[str, set[str]] = {}
    for ending in said.endings:
        who = f"{ending.endpoint} sees {ending.source}" if ending.endpoint else ""
        found.setdefault(f"{ending.outcome}: {ending.reason}", set()).update({who} - {""})
    return found


def fate(where: Cluster, sender: Sender, destination: str, port: int, protocol: str = "TCP") -> dict[str, set[str]]:
    """What becomes of a connection, by `told`."""
    return told(predict(where, sender, destination, port, protocol))
