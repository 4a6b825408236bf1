"""The network between the machines of a lab: a router with a switch for the nodes and one for the clients outside.

It lives in a namespace of its own. Every link is made from there, its other end directly in the machine's namespace,
so that no link of a lab is ever seen on the host. Building again is harmless: what is there stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from netemu.kernel import netns as namespaces
from netemu.kernel import sysctl
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink import (
    AddAddress,
    AddBridge,
    AddBridgeEntry,
    AddNeighbour,
    AddRoute,
    AddVeth,
    DelLink,
    NextHop,
    Request,
    SetLink,
)  # fmt: skip
from netemu.model.errors import KernelNotFound
from netemu.network import names, node, shaping
from netemu.network import plan as plans
from netemu.network.plan import CLIENT_BRIDGE, NODE_BRIDGE, NetworkPlan

# Connections, not pairs of addresses, are spread over the nodes. By what is in the packet: the kernel's own hash comes
# along from the sender's socket, which takes another one when it has to send something again.
_BY_FIELDS: Final = 3
_FIVE_TUPLE: Final = 0x37
_SYSCTLS: Final[Mapping[str, str | int]] = {
    **node.ROUTER,
    # A node that sends to the load balancer pool comes back over the same switch; nobody should be told to shortcut.
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
    "net.ipv4.fib_multipath_hash_policy": _BY_FIELDS,
    "net.ipv4.fib_multipath_hash_fields": _FIVE_TUPLE,
}
_IPV6: Final[Mapping[str, str | int]] = {
    **node.ROUTER_IPV6,
    "net.ipv6.fib_multipath_hash_policy": _BY_FIELDS,
    "net.ipv6.fib_multipath_hash_fields": _FIVE_TUPLE,
}
# Where br_netfilter is loaded a new namespace has these at 1, and bridged packets would be translated a second time.
_OPTIONAL: Final[Mapping[str, str | int]] = {
    **node.QUIET,
    "net.bridge.bridge-nf-call-iptables": 0,
    "net.bridge.bridge-nf-call-ip6tables": 0,
    "net.bridge.bridge-nf-call-arptables": 0,
}

_log = logging.getLogger(__name__)


def build(plan: NetworkPlan) -> None:
    """Make everything of the lab except Pods; what exists is left, or brought in line. Raises KernelError."""
    started = time.perf_counter()
    netns = names.underlay_netns(plan.lab)
    _prepare(netns, {**_SYSCTLS, **(_IPV6 if plan.ipv6 else {})}, _OPTIONAL)
    for _, machine in plan.machines():
        # Sysctls before links: an interface starts with the namespace's defaults.
        is_node = machine.startswith(f"{plan.lab}.node.")
        of_family = (node.ROUTER_IPV6 if is_node else node.IPV6) if plan.ipv6 else {}
        optional = {**node.QUIET, **node.COUNTED} if is_node else node.QUIET
        _prepare(machine, {**(node.ROUTER if is_node else node.LOOSE), **of_family}, optional)
    with Netlink(netns) as router:
        _lay(plan, router)
        for each in plan.nodes:
            _apply(names.node_netns(plan.lab, each.name), node.node_requests(plan, each))
        for client in plan.clients:
            _apply(names.client_netns(plan.lab, client.name), node.client_requests(plan, client))
        for port in plan.ports.values():
            router.link(port)  # from here on packets pass; see there
    for link in plan.links:
        shaping.shape(plan, link)
    counts = len(plan.nodes), len(plan.clients)
    _log.info("lab %s: %d nodes, %d clients in %.0f ms", plan.lab, *counts, (time.perf_counter() - started) * 1e3)


def _lay(plan: NetworkPlan, router: Netlink) -> None:
    present = {link.name for link in router.links()}
    for port in stale_ports(plan) & present:
        # It may vanish by itself at any moment.
        with suppress(KernelNotFound):
            router.apply(DelLink(port))
        present.remove(port)
    router.apply(*switches(plan, present), *ports(plan, present), *behind_ports(plan), *routing(plan))


def destroy(lab: str) -> None:
    """Remove every namespace of the lab, Pods too, and nothing else. Having none is success."""
    for netns in names.of_lab(lab, namespaces.names()):
        namespaces.delete(netns)


def stale_ports(plan: NetworkPlan) -> set[str]:
    """Ports whose machine has no link: its namespace is new, and the former one, which had it, is still ending."""
    stale = set()
    for netns, port in plan.ports.items():
        with Netlink(netns) as machine:
            if all(link.name != node.LINK for link in machine.links()):
                stale.add(port)
    return stale


def switches(plan: NetworkPlan, present: set[str]) -> list[Request]:
    """The two switches and the router's own addresses on them; `present` links are not made again."""
    requests: list[Request] = [SetLink("lo", up=True)]
    for bridge, networks in ((NODE_BRIDGE, plan.node_networks), (CLIENT_BRIDGE, plan.client_networks)):
        gateways = [plans.first_address(network) for network in networks]
        if bridge not in present:
            requests.append(AddBridge(bridge, mac=plans.machine_mac(gateways), mtu=plan.mtu))
        for gateway, network in zip(gateways, networks, strict=True):
            requests.append(AddAddress(bridge, f"{gateway}/{plans.prefix_length(network)}", replace=True))
    return requests


def ports(plan: NetworkPlan, present: set[str]) -> list[Request]:
    """A link to each machine."""
    machines = {names.node_netns(plan.lab, each.name): (each.addresses, NODE_BRIDGE) for each in plan.nodes}
    machines |= {names.client_netns(plan.lab, each.name): (each.addresses, CLIENT_BRIDGE) for each in plan.clients}
    return [
        AddVeth(
            port, node.LINK, netns, peer_mac=plans.machine_mac(addresses), mtu=plan.mtu, master=bridge, peer_index=2
        )
        for netns, (addresses, bridge) in machines.items()
        if (port := plan.ports[netns]) not in present
    ]


def behind_ports(plan: NetworkPlan) -> list[Request]:
    """Which machine is behind which port. A switch that has not learnt it yet would flood frames to every machine."""
    machines = [(names.node_netns(plan.lab, each.name), each.addresses) for each in plan.nodes]
    machines += [(names.client_netns(plan.lab, each.name), each.addresses) for each in plan.clients]
    return [AddBridgeEntry(plans.machine_mac(addresses), plan.ports[netns]) for netns, addresses in machines]


def routing(plan: NetworkPlan) -> list[Request]:
    """Where the machines are, their Pods' ranges behind them, and the load balancer pool spread over the nodes.

    Pods keep their address on the way out, as in clusters whose Pod range the network around them routes.
    """
    requests: list[Request] = [
        AddNeighbour(address, plans.machine_mac(each.addresses), bridge)
        for bridge, machines in ((NODE_BRIDGE, plan.nodes), (CLIENT_BRIDGE, plan.clients))
        for each in machines
        for address in each.addresses
    ]
    for each in plan.nodes:
        ways = zip(each.pod_cidrs, each.addresses, strict=True)
        requests += [AddRoute(pods, via=address, dev=NODE_BRIDGE, replace=True) for pods, address in ways]
    for pool in plan.load_balancer_pools if plan.nodes else ():
        hops = tuple(NextHop(plans.same_family(each.addresses, pool), NODE_BRIDGE) for each in plan.nodes)
        requests.append(AddRoute(pool, nexthops=hops, replace=True))
    return requests


def _prepare(netns: str, required: Mapping[str, str | int], optional: Mapping[str, str | int]) -> None:
    namespaces.ensure(netns)
    with namespaces.entered(netns):
        sysctl.write_here(required, netns)
        sysctl.write_here(optional, netns, optional=True)


def _apply(netns: str, requests: list[Request]) -> None:
    with Netlink(netns) as netlink:
        netlink.apply(*requests)
