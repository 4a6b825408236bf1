"""The cluster of a running lab as the oracle sees it: its API objects, its addresses, the mode of each proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from netemu.lab.api import LabApi, agent_status
from netemu.lab.config import API_PORT, LabConfig, NodeConfig, load_config
from netemu.lab.network_plan import resolvers
from netemu.lab.node_local_dns import own_addresses
from netemu.lab.node_spec import ZONE_LABEL
from netemu.model.meta import KubeObject, decode
from netemu.model.objects import EndpointSlice, Node, Service, ServiceCIDR
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTSLICES, NODES, PODS, SERVICECIDRS, SERVICES, Resource
from netemu.network.plan import first_address
from netemu.observe.cluster import Cluster, Host, HostPort, Machine, PodPlace, Port, Sender
from netemu.observe.oracle import NodeView, Settings
from netemu.observe.story.destination import Objects

K = TypeVar("K", bound=KubeObject)
_KUBELET, _PROXY_HEALTH, _ETCD, _DNS = 10250, 10256, (2379, 2380), 53


@dataclass(frozen=True, slots=True)
class View:
    """What is known of a lab at one moment."""

    config: LabConfig
    agent: Mapping[str, Any]
    """What the node agent tells; nothing if it does not answer."""
    objects: Objects
    cluster: Cluster


def read_view(lab: str) -> View:
    """Ask the API server and the node agent. Raises UserError, ApiError."""
    config, objects, agent = load_config(lab), read_objects(lab), agent_status(lab)
    cluster = cluster_of(
        config, modes_of(agent), nodes=objects.nodes, pods=objects.pods, services=objects.services,
        slices=objects.slices, cidrs=read_all(LabApi(lab), SERVICECIDRS, ServiceCIDR),
    )  # fmt: skip
    return View(config, agent, objects, cluster)


def read_cluster(lab: str) -> Cluster:
    """The cluster alone. Raises UserError, ApiError."""
    return read_view(lab).cluster


def read_objects(lab: str) -> Objects:
    """What destinations are found in. Raises UserError, ApiError."""
    api, clients = LabApi(lab), load_config(lab).clients
    return Objects(
        read_all(api, SERVICES, Service), read_all(api, ENDPOINTSLICES, EndpointSlice), read_all(api, PODS, Pod),
        read_all(api, NODES, Node), {client.name: client.addresses for client in clients},
    )  # fmt: skip


def modes_of(agent: Mapping[str, Any]) -> dict[str, str]:
    """The mode of each node's kube-proxy, as far as the node agent tells; a node that is new has told nothing yet."""
    nodes = agent.get("nodes") or {}
    return {name: ((told or {}).get("proxy") or {}).get("mode", "") for name, told in nodes.items()}


def cluster_of(
    config: LabConfig,
    modes: Mapping[str, str],
    *,
    nodes: Sequence[Node],
    pods: Sequence[Pod],
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    cidrs: Sequence[ServiceCIDR],
) -> Cluster:
    """Put together what is known; `modes`: of the kube-proxy of each node, as far as somebody told. Pure."""
    places = [_place(pod) for pod in pods if pod.status.pod_ip and pod.spec.node_name and not pod.finished]
    networks = tuple(cidr for each in cidrs for cidr in each.spec.cidrs)
    objects = {node.name: node for node in nodes}
    busy = {place.node for place in places if not place.host_network}
    machines = {}
    for node in config.nodes:
        mode = modes.get(node.name) or config.proxy_mode
        settings = Settings(mode, cluster_cidr=",".join(config.pod_cidrs), service_cidrs=networks)
        machines[node.name] = _machine(config, node, objects.get(node.name), settings, with_pods=node.name in busy)
    return Cluster(
        services, slices, machines, places,
        clients=[
            Host(f"client/{each.name}", each.addresses, frozenset((port, "TCP") for port in each.ports))
            for each in config.clients
        ],
        router=Host("the router", (*map(first_address, config.node_cidrs), *resolvers(config)), _both(_DNS)),
        pools=config.load_balancer_pools,
    )  # fmt: skip


def senders(cluster: Cluster) -> list[Sender]:
    """Every place that a connection can start from: Pods, nodes, clients."""
    pods = (Sender(pod.name, pod.addresses, pod.node, is_node=pod.host_network) for pod in cluster.pods)
    nodes = (Sender(f"node/{name}", each.view.ips, name, is_node=True) for name, each in cluster.nodes.items())
    return [*pods, *nodes, *(Sender(host.name, host.addresses) for host in cluster.clients)]


def read_all(api: LabApi, resource: Resource, kind: type[K]) -> list[K]:
    """All objects of a resource. Raises UserError, ApiError."""
    return [decode(obj, kind) for obj in api.list(resource)[0]]


def _machine(config: LabConfig, node: NodeConfig, obj: Node | None, settings: Settings, *, with_pods: bool) -> Machine:
    told = obj.status.addresses if obj else ()
    ips = tuple(each.address for each in told if each.type == "InternalIP") or node.addresses
    gateways = tuple(map(first_address, node.pod_cidrs))
    zone = obj.labels.get(ZONE_LABEL, "") if obj else ""
    own = own_addresses(config) if config.node_local_dns else ()
    addresses = (*ips, *(gateways if with_pods else ()), *own)
    return Machine(
        NodeView(node.name, ips, addresses, zone, node.pod_cidrs),
        settings,
        gateways,
        listening=_listening(config, node),
        caches=frozenset(own),
    )


def _listening(config: LabConfig, node: NodeConfig) -> frozenset[Port]:
    """The ports of kubelet and kube-proxy, and of the control plane where it is."""
    etcd = _ETCD if config.etcd_members else ()
    ports = (_KUBELET, _PROXY_HEALTH, *((API_PORT, *etcd) if node.control_plane else ()))
    return frozenset((port, "TCP") for port in ports)


def _place(pod: Pod) -> PodPlace:
    ports = [port for container in pod.spec.containers for port in container.ports]
    addresses = tuple(each.ip for each in pod.status.pod_ips) or (pod.status.pod_ip,)
    asked = [] if pod.spec.host_network else [port for port in ports if port.host_port]
    host_ports = (HostPort(port.host_ip, port.host_port, port.protocol, port.container_port) for port in asked)
    return PodPlace(
        pod.key, pod.spec.node_name, addresses, pod.spec.host_network,
        frozenset((port.container_port, port.protocol) for port in ports), tuple(map(_any_address, host_ports)),
    )  # fmt: skip


def _any_address(port: HostPort) -> HostPort:
    """0.0.0.0 and :: mean every address too."""
    return HostPort("", port.port, port.protocol, port.container_port) if port.address in ("0.0.0.0", "::") else port


def _both(port: int) -> frozenset[Port]:
    return frozenset({(port, "TCP"), (port, "UDP")})
