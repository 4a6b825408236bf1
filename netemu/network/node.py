"""A machine's own end: what a node and a client find in their namespaces. Requests are pure; see `underlay` for who
applies them.

Every neighbour a machine may talk to directly is a permanent entry (the ARP table is one for the whole host), and
IPv6 stays quiet: no router solicitations, no link-local addresses that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
IPV6: Final[Mapping[str, str | int]] = {
    # A machine whose own IPv6 is turned off may have passed that on.
    "net.ipv6.conf.all.disable_ipv6": 0,
    "net.ipv6.conf.default.disable_ipv6": 0,
}
COUNTED: Final[Mapping[str, str | int]] = {
    "net.netfilter.nf_conntrack_acct": 1,
    "net.netfilter.nf_conntrack_timestamp": 1,
}
"""Conntrack counts packets and bytes, and notes when connections began: `netemu flows` tells it. Of the 3 µs that a
translated packet takes on its way through a node, counting is not to be told from chance."""
ROUTER: Final[Mapping[str, str | int]] = {"net.ipv4.ip_forward": 1, **LOOSE}
ROUTER_IPV6: Final[Mapping[str, str | int]] = {**IPV6, "net.ipv6.conf.all.forwarding": 1}


def node_requests(plan: NetworkPlan, node: NodePlan) -> list[Request]:
    """A node: its addresses, the ways to the other nodes' Pods, and everything else through the underlay.

    The load balancer pool lies in the node network but is nobody's: the router spreads it over the nodes.
    """
    requests = _attached(node.addresses, plan.node_networks)
    for network, pool in zip(plan.node_networks, plan.load_balancer_pools, strict=True):
        requests.append(AddRoute(pool, via=plans.first_address(network), dev=LINK, replace=True))
    for other in plan.nodes:
        if other.name != node.name:
            for address, pods in zip(other.addresses, other.pod_cidrs, strict=True):
                requests.append(AddNeighbour(address, plans.machine_mac(other.addresses), LINK))
                requests.append(AddRoute(pods, via=address, dev=LINK, replace=True))
    return requests


def client_requests(plan: NetworkPlan, client: ClientPlan) -> list[Request]:
    """A client: its addresses, and everything through the underlay."""
    return _attached(client.addresses, plan.client_networks)


def _attached(addresses: Sequence[str], networks: Sequence[str]) -> list[Request]:
    gateways = [plans.first_address(network) for network in networks]
    requests: list[Request] = [SetLink("lo", up=True), SetLink(LINK, up=True)]
    for address, network, gateway in zip(addresses, networks, gateways, strict=True):
        requests.append(AddAddress(LINK, f"{address}/{plans.prefix_length(network)}", replace=True))
        requests.append(AddNeighbour(gateway, plans.machine_mac(gateways), LINK))
        requests.append(AddRoute("default", via=gateway, dev=LINK, replace=True))
    return requests
