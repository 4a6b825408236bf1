"""A topology resolved to a LabConfig: every name, address and port decided. What both processes of a lab read."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

from netemu.lab.paths import LabPaths
from netemu.lab.topology import LinkSpec, NodeSpec, TaintSpec, Topology, node_names
from netemu.model.errors import UserError

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
API_PORT = 6443


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node, decided."""

    name: str
    address: str
    pod_cidr: str
    control_plane: bool = False
    labels: dict[str, str] = {}
    taints: tuple[TaintSpec, ...] = ()
    link: LinkSpec = LinkSpec()


PROXY_MODE_ANNOTATION = "netemu.dev/proxy-mode"
"""On a Node: the mode of its kube-proxy, instead of the lab's."""


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One external client, decided."""

    name: str
    address: str


class LabConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One lab, decided."""

    name: str
    nodes: tuple[NodeConfig, ...]
    clients: tuple[ClientConfig, ...] = ()
    node_cidr: str
    pod_cidr: str
    service_cidr: str
    load_balancer_pool: str
    proxy_mode: str = "iptables"
    dns_domain: str = "cluster.local"
    dns_replicas: int = 2
    api_port: int = 0
    """On 127.0.0.1 of the host; 0 until the control plane has taken one. Inside the lab it is always 6443."""
    strict_images: bool = False

    @property
    def control_plane(self) -> NodeConfig:
        """The node whose address the API server has."""
        return next(node for node in self.nodes if node.control_plane)

    @property
    def api_service_ip(self) -> str:
        """The first address of the Service network."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def dns_service_ip(self) -> str:
        """The tenth, by convention."""
        return str(ipaddress.ip_network(self.service_cidr)[10])


def resolve(topology: Topology, *, strict_images: bool = False) -> LabConfig:
    """Decide everything a topology leaves open. Pure."""
    spec = topology.spec
    named = [(name, node) for node in spec.nodes for name in node_names(node)]
    leader = next((name for name, node in named if node.role == "control-plane"), named[0][0])
    node_net = ipaddress.ip_network(spec.node_cidr)
    pod_nets = ipaddress.ip_network(spec.pod_cidr).subnets(new_prefix=24)
    nodes = [
        NodeConfig(
            name=name,
            address=str(node_net[index + 2]),
            pod_cidr=str(pod_net),
            control_plane=name == leader,
            labels=_labels(node, control_plane=name == leader),
            taints=_taints(node, control_plane=name == leader, alone=len(named) == 1),
            link=node.link or spec.links,
        )
        for index, ((name, node), pod_net) in enumerate(zip(named, pod_nets, strict=False))
    ]
    return LabConfig(
        name=topology.metadata.name,
        nodes=tuple(nodes),
        clients=_clients(topology),
        node_cidr=spec.node_cidr,
        pod_cidr=spec.pod_cidr,
        service_cidr=spec.service_cidr,
        load_balancer_pool=str(list(node_net.subnets(new_prefix=24))[-1]),
        proxy_mode=spec.proxy.mode,
        dns_domain=spec.dns.domain,
        dns_replicas=spec.dns.replicas,
        strict_images=strict_images,
    )


def _labels(node: NodeSpec, *, control_plane: bool) -> dict[str, str]:
    labels = dict(node.labels)
    if control_plane:
        labels.setdefault(CONTROL_PLANE_LABEL, "")
    if node.zone:
        labels.setdefault("topology.kubernetes.io/zone", node.zone)
    return labels


def _taints(node: NodeSpec, *, control_plane: bool, alone: bool) -> tuple[TaintSpec, ...]:
    if node.taints is not None:
        return node.taints
    return (TaintSpec(key=CONTROL_PLANE_LABEL, effect="NoSchedule"),) if control_plane and not alone else ()


def _clients(topology: Topology) -> tuple[ClientConfig, ...]:
    given = {client.address for client in topology.spec.clients if client.address}
    free = (f"203.0.113.{last}" for last in range(10, 255) if f"203.0.113.{last}" not in given)
    return tuple(ClientConfig(name=c.name, address=c.address or next(free)) for c in topology.spec.clients)


def save_config(config: LabConfig) -> None:
    """Write it where both processes find it."""
    write_file(LabPaths(config.name).config, msgspec.json.format(msgspec.json.encode(config), indent=2))


def load_config(lab: str) -> LabConfig:
    """Read it back. Raises UserError where no such lab is."""
    try:
        return msgspec.json.decode(LabPaths(lab).config.read_bytes(), type=LabConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"no lab named {lab!r} here; `netemu list` shows those that are") from error


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.touch(mode=mode)
    fresh.chmod(mode)
    fresh.write_bytes(data)
    fresh.replace(path)
