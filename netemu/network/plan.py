"""The address plan of a lab: which machine has which address, and what is routed where. Values only.

    outside 203.0.113.0/24          node network 172.18.0.0/16, load balancer pool 172.18.255.0/24 within it
    clients ---- br-clients [ LAB.underlay: a router ] br-nodes ---- nodes ---- Pods, a /24 of 10.244.0.0/16 per node

Everything that has an address has one of each IP family of the lab, in the same order everywhere, the primary family
first; what is said of one family holds for the other. The underlay has the first address of the node network and of
the client network. MAC addresses follow from first addresses (02:42 and the address for machines, as Docker has it,
0a:58 and the address for Pods, as CNI's bridge has it; of an IPv6 address its last four bytes), so that everybody's
permanent neighbour entries can be written before anybody exists.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

from msgspec import Struct

from netemu.network import names

NODE_BRIDGE: Final = "br-nodes"
CLIENT_BRIDGE: Final = "br-clients"


class NodePlan(Struct, frozen=True):
    """A node: its addresses on the node network and the ranges its Pods get addresses from."""

    name: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]

    @property
    def gateways(self) -> tuple[str, ...]:
        """What its Pods route through: the first address of each range, on the node's end of every Pod's link."""
        return tuple(map(first_address, self.pod_cidrs))


class ClientPlan(Struct, frozen=True):
    """A machine outside the cluster, with its addresses on the client network."""

    name: str
    addresses: tuple[str, ...]


class LinkPlan(Struct, frozen=True):
    """What the link of a node or client is like; without one it is as fast as the machine.

    `rate` in bit/s shapes what leaves either end; `delay` in seconds, and `loss` from 0 to 1, apply to each direction.
    """

    machine: str
    rate: int = 0
    delay: float = 0.0
    loss: float = 0.0


class NetworkPlan(Struct, frozen=True, dict=True):
    """Everything of a lab's network except Pods. Overlaps and duplicates are the topology file's to refuse."""

    lab: str
    node_networks: tuple[str, ...] = ("172.18.0.0/16",)
    load_balancer_pools: tuple[str, ...] = ("172.18.255.0/24",)
    mtu: int = 1500
    nodes: tuple[NodePlan, ...] = ()
    clients: tuple[ClientPlan, ...] = ()
    links: tuple[LinkPlan, ...] = ()
    client_networks: tuple[str, ...] = ("203.0.113.0/24",)

    @cached_property
    def ports(self) -> Mapping[str, str]:
        """The underlay's end of each machine's link, by the machine's namespace; nodes have the first pick."""
        ports: dict[str, str] = {}
        taken = {"lo", NODE_BRIDGE, CLIENT_BRIDGE}
        for name, netns in self.machines():
            ports[netns] = names.link_name(name, taken, netns)
            taken.add(ports[netns])
        return ports

    @property
    def ipv6(self) -> bool:
        """Whether the lab has IPv6."""
        return any(map(is_ipv6, self.node_networks))

    def machines(self) -> Iterator[tuple[str, str]]:
        """Name and namespace of every node, then of every client."""
        for node in self.nodes:
            yield node.name, names.node_netns(self.lab, node.name)
        for client in self.clients:
            yield client.name, names.client_netns(self.lab, client.name)

    def link(self, machine: str) -> LinkPlan:
        """The properties of the link of a node or client."""
        return next((link for link in self.links if link.machine == machine), LinkPlan(machine))


def first_address(cidr: str) -> str:
    """The first usable address of a range: 10.244.1.1 of 10.244.1.0/24."""
    network = ipaddress.ip_network(cidr)
    return str(network[1] if network.num_addresses > 2 else network[0])


def prefix_length(cidr: str) -> int:
    """24 of 10.244.1.0/24."""
    return int(cidr.rpartition("/")[2])


def is_ipv6(address: str) -> bool:
    """Whether an address or network is IPv6."""
    return ":" in address


def same_family(addresses: Iterable[str], other: str) -> str:
    """The one of `addresses` that is of the family of `other`; every machine has one of each family of its lab."""
    return next(address for address in addresses if is_ipv6(address) == is_ipv6(other))


def machine_mac(addresses: Sequence[str]) -> str:
    """The MAC address of the machine (node, client, underlay) with these addresses."""
    return _mac("02:42", addresses[0])


def pod_mac(addresses: Sequence[str]) -> str:
    """The MAC address of a Pod, or of the node's end of its link, with these addresses."""
    return _mac("0a:58", addresses[0])


def _mac(prefix: str, address: str) -> str:
    return prefix + "".join(f":{byte:02x}" for byte in ipaddress.ip_address(address).packed[-4:])
