"""A machine's own end: what a node and a client find in their namespaces. Requests are pure; see `underlay` for who
applies them.

Every neighbour a machine may talk to directly is a permanent entry (the ARP table is one for the whole host), and
IPv6 stays quiet: no router solicitations, no link-local addresses that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from netemu.kernel.rtnetlink import AddAddress, AddNeighbour, AddRoute, Request, SetLink
from netemu.network import plan as plans
from netemu.network.plan import ClientPlan, NetworkPlan, NodePlan

LINK: Final = "eth0"

QUIET: Final[Mapping[str, str | int]] = {
    "net.ipv6.conf.default.addr_gen_mode": 1,
    "net.ipv6.conf.default.accept_ra": 0,
}
# A new namespace copies these from the machine's, where they may be anything. The larger of `all` and the interface's
# counts, and an interface starts with `default`; so both are set, before any interface exists.
LOOSE: Final[Mapping[str, str | int]] = {
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
}
NODE: Final[Mapping[str, str | int]] = {"net.ipv4.ip_forward": 1, **LOOSE}
CLIENT: Final = LOOSE


def node_requests(plan: NetworkPlan, node: NodePlan) -> list[Request]:
    """A node: its address, the ways to the other nodes' Pods, and everything else through the underlay.

    The load balancer pool lies in the node network but is nobody's: the router spreads it over the nodes.
    """
    gateway = plans.first_address(plan.node_network)
    requests = _attached(node.address, plan.node_network)
    requests.append(AddRoute(plan.load_balancer_pool, via=gateway, dev=LINK, replace=True))
    for other in plan.nodes:
        if other.name != node.name:
            requests.append(AddNeighbour(other.address, plans.machine_mac(other.address), LINK))
            requests.append(AddRoute(other.pod_cidr, via=other.address, dev=LINK, replace=True))
    return requests


def client_requests(plan: NetworkPlan, client: ClientPlan) -> list[Request]:
    """A client: its address, and everything through the underlay."""
    return _attached(client.address, plan.client_network)


def _attached(address: str, network: str) -> list[Request]:
    gateway = plans.first_address(network)
    return [
        SetLink("lo", up=True),
        SetLink(LINK, up=True),
        AddAddress(LINK, f"{address}/{plans.prefix_length(network)}", replace=True),
        AddNeighbour(gateway, plans.machine_mac(gateway), LINK),
        AddRoute("default", via=gateway, dev=LINK, replace=True),
    ]
