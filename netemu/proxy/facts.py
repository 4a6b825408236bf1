"""What every mode's compiler may depend on besides the service port: facts about the node, in no tool's language."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from netemu.proxy.services import Family


@dataclass(frozen=True, slots=True)
class Detector:
    """How to tell traffic of this cluster's Pods from other traffic; at most one of the three is set.

    With none set it cannot be told: nobody is masqueraded on the way to a ClusterIP, and Pods count as outside.
    """

    network: str = ""
    """Sources inside this CIDR (detectLocalMode ClusterCIDR, NodeCIDR)."""
    interface_name: str = ""
    """Packets that come in by this interface (BridgeInterface)."""
    interface_prefix: str = ""
    """Packets that come in by an interface whose name starts like this (InterfaceNamePrefix)."""

    @staticmethod
    def cidr(network: str) -> Detector:
        """By source address."""
        return Detector(network=network)

    @staticmethod
    def interface(name: str) -> Detector:
        """By the interface a packet came in by; `name+` stands for every name that starts so."""
        return Detector(interface_prefix=name[:-1]) if name.endswith("+") else Detector(interface_name=name)

    def __bool__(self) -> bool:
        return bool(self.network or self.interface_name or self.interface_prefix)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node, as one family sees it. Equal facts and equal tables mean equal rules."""

    family: Family = Family.IPV4
    node_ip: str = ""
    """Decides whether source ranges include the node itself."""
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    detector: Detector = Detector()
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    node_port_networks: tuple[str, ...] = ()
    """CIDRs of the addresses where node ports answer; empty: everywhere."""
    addresses: tuple[str, ...] = ()
    """The node's own addresses, on whatever interface, in order; empty where no rule depends on them."""
    service_cidrs: tuple[str, ...] = ()
    """Where ClusterIPs come from; empty where the API server does not tell."""


def listed_addresses(node: NodeFacts) -> list[str]:
    """The addresses that `node_port_networks` names, but loopback. One of a single address need not be on a link."""
    networks = [ipaddress.ip_network(n) for n in node.node_port_networks]
    found = {n.network_address for n in networks if n.num_addresses == 1}
    found |= {a for a in map(ipaddress.ip_address, node.addresses) if any(a in network for network in networks)}
    return [str(a) for a in sorted(found, key=int) if not a.is_loopback]
