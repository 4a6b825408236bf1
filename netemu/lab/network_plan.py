"""A LabConfig as the network room wants it: addresses as they are, link properties in SI units."""

from __future__ import annotations

from netemu.lab.config import LabConfig
from netemu.lab.node_spec import LinkSpec
from netemu.lab.topology_networks import OUTSIDE
from netemu.network.plan import ClientPlan, LinkPlan, NetworkPlan, NodePlan, first_address

_RATES = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "bit": 1.0}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def network_plan(config: LabConfig) -> NetworkPlan:
    """What `underlay.build` makes. Pure."""
    shaped = [(node.name, node.link) for node in config.nodes]
    return NetworkPlan(
        lab=config.name,
        node_networks=config.node_cidrs,
        load_balancer_pools=config.load_balancer_pools,
        mtu=min(node.link.mtu for node in config.nodes),
        nodes=tuple(NodePlan(node.name, node.addresses, node.pod_cidrs) for node in config.nodes),
        clients=tuple(ClientPlan(client.name, client.addresses) for client in config.clients),
        client_networks=tuple(str(OUTSIDE[6 if ":" in cidr else 4]) for cidr in config.node_cidrs),
        links=tuple(_link(name, link) for name, link in shaped if link.rate or link.delay or link.loss),
    )


def _link(machine: str, link: LinkSpec) -> LinkPlan:
    loss = float(link.loss.rstrip("%") or 0) / 100
    return LinkPlan(machine, rate=int(_number(link.rate, _RATES)), delay=_number(link.delay, _TIMES), loss=loss)


def _number(text: str, units: dict[str, float]) -> float:
    """`10mbit` in bit/s, `5ms` in seconds; the topology file was checked, so the unit is known."""
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * units[unit] if unit else 0.0


def resolvers(config: LabConfig) -> tuple[str, ...]:
    """The addresses of the resolver outside, one of each family of the lab."""
    return tuple(map(first_address, network_plan(config).client_networks))
