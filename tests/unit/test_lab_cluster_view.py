"""What the oracle is told of a lab: whose addresses are whose, what listens, which mode each proxy is in."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from netemu.lab.cluster_view import cluster_of, modes_of, senders
from netemu.lab.config import ClientConfig, LabConfig, NodeConfig
from netemu.model.meta import decode
from netemu.model.objects import Node, ServiceCIDR
from netemu.model.pods import Pod
from netemu.observe.cluster import Cluster, HostPort, Sender

CONFIG = LabConfig(
    name="lab",
    nodes=(
        NodeConfig(name="cp", addresses=("172.18.0.2",), pod_cidrs=("10.244.0.0/24",), control_plane=True),
        NodeConfig(name="w", addresses=("172.18.0.3",), pod_cidrs=("10.244.1.0/24",)),
    ),
    clients=(ClientConfig(name="laptop", addresses=("203.0.113.10",), ports=(443,)),),
    node_cidrs=("172.18.0.0/16",),
    pod_cidrs=("10.244.0.0/16",),
    service_cidrs=("10.96.0.0/16",),
    load_balancer_pools=("172.18.255.0/24",),
)
CIDRS = [decode({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}, ServiceCIDR)]
ZONE = {"topology.kubernetes.io/zone": "z"}
NODES = [
    decode(
        {
            "metadata": {"name": "w", "labels": ZONE},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.3"}]},
        },
        Node,
    )
]


def pod(name: str, ip: str, phase: str = "Running", *ports: dict[str, Any], **spec: Any) -> Pod:
    spec = {"nodeName": "w", "containers": [{"name": "c", "ports": list(ports)}], **spec}
    status = {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}] if ip else []}
    return decode({"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": status}, Pod)


def view(*pods: Pod, config: LabConfig = CONFIG, **modes: str) -> Cluster:
    return cluster_of(config, modes, nodes=NODES, pods=pods, services=(), slices=(), cidrs=CIDRS)


def test_nodes_of_which_the_agent_knows_nothing_yet_have_no_mode_of_their_own() -> None:
    told = {"nodes": {"cp": None, "w": {"proxy": {"mode": "ipvs"}}, "new": {"proxy": None}, "bare": {}}}

    assert modes_of(told) == {"cp": "", "w": "ipvs", "new": "", "bare": ""}
    assert modes_of({}) == {}


def test_nodes_have_the_pods_gateway_once_there_is_a_pod_with_a_link() -> None:
    on_host = pod("h", "172.18.0.3", hostNetwork=True)

    assert view(on_host).nodes["w"].view.addresses == ("172.18.0.3",)
    assert view(on_host, pod("a", "10.244.1.2")).nodes["w"].view.addresses == ("172.18.0.3", "10.244.1.1")
    assert view().nodes["w"].gateways == ("10.244.1.1",)


def test_proxies_have_their_own_modes_else_the_labs() -> None:
    nodes = view(w="ipvs").nodes

    assert {name: each.settings.mode for name, each in nodes.items()} == {"cp": "iptables", "w": "ipvs"}
    assert nodes["w"].settings.service_cidrs == ("10.96.0.0/16",)
    assert (nodes["w"].view.zone, nodes["cp"].view.zone) == ("z", "")


def test_api_servers_listen_on_control_planes_kubelets_everywhere() -> None:
    nodes = view().nodes

    assert {port for port, _ in nodes["cp"].listening - nodes["w"].listening} == {6443}
    assert (10250, "TCP") in nodes["w"].listening


def test_pods_without_an_address_or_at_their_end_are_left_out() -> None:
    places = view(pod("a", "10.244.1.2"), pod("new", ""), pod("done", "10.244.1.3", "Succeeded")).pods

    assert [place.name for place in places] == ["shop/a"]


def test_ports_of_containers_and_host_ports() -> None:
    tcp = {"containerPort": 80, "hostPort": 8088, "hostIP": "0.0.0.0"}
    (place,) = view(pod("a", "10.244.1.2", "Running", tcp, {"containerPort": 53, "protocol": "UDP"})).pods
    (on_host,) = view(pod("h", "172.18.0.3", "Running", tcp, hostNetwork=True)).pods

    assert place.ports == {(80, "TCP"), (53, "UDP")}
    assert place.host_ports == (HostPort("", 8088, "TCP", 80),)
    assert on_host.host_ports == ()


def test_caches_are_on_every_node_that_has_node_local_dns() -> None:
    assert view().nodes["w"].caches == frozenset()
    with_caches = view(config=msgspec.structs.replace(CONFIG, node_local_dns=True))
    assert with_caches.nodes["w"].caches == {"169.254.20.10", "10.96.0.10"}


def test_connections_start_from_pods_nodes_and_clients() -> None:
    found = senders(view(pod("a", "10.244.1.2"), pod("h", "172.18.0.3", hostNetwork=True)))

    assert found == [
        Sender("shop/a", ("10.244.1.2",), "w"),
        Sender("shop/h", ("172.18.0.3",), "w", is_node=True),
        Sender("node/cp", ("172.18.0.2",), "cp", is_node=True),
        replace(found[1], name="node/w"),
        Sender("client/laptop", ("203.0.113.10",)),
    ]
