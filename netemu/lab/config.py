"""A topology resolved to a LabConfig: every name, address and port decided. What the processes of a lab read."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from netemu.lab.certificate_spec import CertificateSpec
from netemu.lab.node_spec import ZONE_LABEL, LinkSpec, NodeSpec, TaintSpec, node_names
from netemu.lab.paths import LabPaths
from netemu.lab.topology_networks import FAMILIES, OUTSIDE, POD_PREFIX, Network, addresses_of_client, networks_of
from netemu.model.durations import Duration
from netemu.model.errors import UserError

if TYPE_CHECKING:
    from netemu.lab.topology import Topology

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
API_PORT = 6443


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node, decided."""

    name: str
    addresses: tuple[str, ...]
    """One of each IP family of the lab, the primary one first; so are all lists of addresses and networks here."""
    pod_cidrs: tuple[str, ...]
    control_plane: bool = False
    labels: dict[str, str] = {}
    taints: tuple[TaintSpec, ...] = ()
    link: LinkSpec = LinkSpec()


PROXY_MODE_ANNOTATION = "netemu.dev/proxy-mode"
"""On a Node: the mode of its kube-proxy, instead of the lab's."""


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One external client, decided."""

    name: str
    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


class LabConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One lab, decided."""

    name: str
    nodes: tuple[NodeConfig, ...]
    clients: tuple[ClientConfig, ...] = ()
    node_cidrs: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...]
    load_balancer_pools: tuple[str, ...]
    proxy_mode: str = "iptables"
    dns_domain: str = "cluster.local"
    dns_replicas: int = 2
    certificate_validity: float = 365 * 24 * 3600.0
    """Seconds."""
    certificate: CertificateSpec | None = None
    """One that somebody brings for the API server."""
    corefile: str = ""
    """What cluster DNS starts with; empty: kubeadm's."""
    node_local_dns: bool = False
    store: str = "sqlite"
    """Where API servers keep the cluster's objects: `sqlite`, or `etcd` with a member on each control-plane node."""
    api_port: int = 0
    """On 127.0.0.1 of the host; 0 until the control plane has taken one. Inside the lab it is always 6443."""
    strict_images: bool = False

    @property
    def control_planes(self) -> tuple[NodeConfig, ...]:
        """The nodes on which the members of the control plane are, each with an API server."""
        return tuple(node for node in self.nodes if node.control_plane)

    @property
    def etcd_members(self) -> int:
        """How many there are; 0 in a lab on SQLite. Members are numbered from 1, in the order of their nodes."""
        return len(self.control_planes) if self.store == "etcd" else 0

    @property
    def api_service_ip(self) -> str:
        """The first address of the primary Service network."""
        return str(ipaddress.ip_network(self.service_cidrs[0])[1])

    @property
    def dns_service_ips(self) -> tuple[str, ...]:
        """The tenth of each Service network, by convention."""
        return tuple(str(ipaddress.ip_network(cidr)[10]) for cidr in self.service_cidrs)

    @property
    def ipv6(self) -> bool:
        """Whether the lab has IPv6."""
        return any(":" in cidr for cidr in self.service_cidrs)


def resolve(topology: Topology, *, strict_images: bool = False) -> LabConfig:
    """Decide everything a topology leaves open. Pure."""
    spec = topology.spec
    named = [(name, node) for node in spec.all_nodes for name in node_names(node)]
    planes = [name for name, node in named if node.role == "control-plane"] or [named[0][0]]
    networks = networks_of(spec)
    node_nets = [ipaddress.ip_network(cidr) for cidr in networks["nodeCIDR"]]
    nodes = [
        NodeConfig(
            name=name,
            addresses=tuple(str(net[index + 2]) for net in node_nets),
            pod_cidrs=tuple(str(_part(cidr, index)) for cidr in networks["podCIDR"]),
            control_plane=name in planes,
            labels=_labels(node, control_plane=name in planes),
            taints=_taints(node, control_plane=name in planes, alone=len(named) == len(planes)),
            link=node.link or spec.links,
        )
        for index, (name, node) in enumerate(named)
    ]
    return LabConfig(
        name=topology.metadata.name,
        nodes=tuple(nodes),
        clients=_clients(topology),
        node_cidrs=networks["nodeCIDR"],
        pod_cidrs=networks["podCIDR"],
        service_cidrs=networks["serviceCIDR"],
        load_balancer_pools=tuple(map(_load_balancer_pool, node_nets)),
        proxy_mode=spec.proxy.mode,
        dns_domain=spec.dns.domain,
        dns_replicas=spec.dns.replicas,
        certificate_validity=float(Duration.parse(spec.control_plane.certificate_validity_period)),
        corefile=spec.dns.corefile,
        node_local_dns=spec.dns.node_local,
        certificate=spec.control_plane.certificate,
        store=spec.control_plane.store,
        strict_images=strict_images,
    )


def _part(cidr: str, index: int) -> Network:
    """The Pod network of the node with that number: computed, for a /48 has 65,536 parts to go through."""
    whole = ipaddress.ip_network(cidr)
    prefix = POD_PREFIX[whole.version]
    first = whole[index << (whole.max_prefixlen - prefix)]
    return ipaddress.ip_network(f"{first}/{prefix}")


def _load_balancer_pool(nodes: Network) -> str:
    """A part of the node network where no node is: of IPv4 the last /24; of IPv6, whose end is far, a /112 near by."""
    if nodes.version == 4:
        return f"{nodes[-256]}/24"
    return f"{nodes[0xFF0000]}/112"


def _labels(node: NodeSpec, *, control_plane: bool) -> dict[str, str]:
    labels = dict(node.labels)
    if control_plane:
        labels.setdefault(CONTROL_PLANE_LABEL, "")
    if node.zone:
        labels.setdefault(ZONE_LABEL, node.zone)
    return labels


def _taints(node: NodeSpec, *, control_plane: bool, alone: bool) -> tuple[TaintSpec, ...]:
    if node.taints is not None:
        return node.taints
    return (TaintSpec(key=CONTROL_PLANE_LABEL, effect="NoSchedule"),) if control_plane and not alone else ()


def _clients(topology: Topology) -> tuple[ClientConfig, ...]:
    spec = topology.spec
    given = [addresses_of_client(client.address) for client in spec.clients]
    taken = {address for addresses in given for address in addresses.values()}
    free = {version: _free_outside(version, taken) for version in FAMILIES[spec.ip_family]}
    return tuple(
        ClientConfig(
            name=client.name,
            names=client.names,
            ports=client.ports,
            addresses=tuple(addresses.get(version) or next(left) for version, left in free.items()),
        )
        for client, addresses in zip(spec.clients, given, strict=True)
    )


def _free_outside(version: int, taken: set[str]) -> Iterator[str]:
    """Addresses for clients, with the same digits in both families: 203.0.113.10 and 2001:db8:113::10."""
    prefix = str(OUTSIDE[version].network_address).removesuffix("0")
    return (address for last in range(10, 255) if (address := f"{prefix}{last}") not in taken)


def save_config(config: LabConfig) -> None:
    """Write it where all processes find it."""
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
