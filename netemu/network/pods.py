"""A Pod's link to its node, as kindnet and CNI's ptp plugin lay it: routing, no bridge.

    Pod (its namespace)                          node
    eth0 10.244.1.5/24, no route to the prefix   vethX 10.244.1.1/32
    default via 10.244.1.1                       10.244.1.5 dev vethX
    10.244.1.1 dev eth0 (link scope)

The gateway is one address that every host-side veth has, so the node sees each Pod packet arrive on a link of its
own and routes it back out of the same one when a Service sends a Pod to itself: hairpin needs no switch here.
Both ends know the other's MAC by permanent entries: the ARP table is one for the whole machine and stays empty.
With two IP families a Pod has one address of each, and everything above twice.
What is allocated is read back from the node's routes, so a restarted kubelet finds everything as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from netemu.kernel import netns as namespaces
from netemu.kernel import sysctl
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink import AddAddress, AddNeighbour, AddRoute, AddVeth, DelLink, Request, SetLink
from netemu.kernel.rtnetlink_answers import Link, Route
from netemu.model.errors import KernelExists, KernelNotFound, NetemuError
from netemu.network import names, plan
from netemu.network.ipam import Ipam
from netemu.network.node import IPV6

LINK: Final = "eth0"
# kubelet and the container runtimes let Pods bind any port and send pings without privileges; accept_ra would have
# every new link ask for routers that are not there.
_SYSCTLS: Final[Mapping[str, str | int]] = {
    "net.ipv4.ip_unprivileged_port_start": 0,
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
}
_QUIET_IPV6: Final[Mapping[str, str | int]] = {
    "net.ipv6.conf.default.addr_gen_mode": 1,
    "net.ipv6.conf.default.accept_ra": 0,
}


class PodNetwork:
    """The Pods' links of one node. Calls may come from several threads; each takes a millisecond or two."""

    def __init__(self, lab: str, node: plan.NodePlan, mtu: int = 1500) -> None:
        self._node, self._mtu = node, mtu
        self._netns = names.node_netns(lab, node.name)
        self._netlink: Netlink | None = None
        self._ipams = [Ipam(cidr) for cidr in node.pod_cidrs]
        self._lock = threading.Lock()

    def add(self, netns: str) -> tuple[str, ...]:
        """CNI ADD: connect the Pod's namespace, which exists; its addresses. A second call gives the same addresses.

        Raises KernelNotFound without the namespace, KernelError when a range of the node is used up.
        """
        with self._lock:
            netlink = self._start()
            link = names.host_veth(netns)
            known = all(ipam.holds(link) for ipam in self._ipams)
            try:
                addresses = tuple(ipam.allocate(link) for ipam in self._ipams)
                self._connect(netlink, netns, link, addresses, known=known)
            except NetemuError:
                self._release(link)
                raise
            return addresses

    def delete(self, netns: str) -> None:
        """CNI DEL: no way leads to the Pod any more, its addresses are free; absent is success.

        The link is only set down, which takes its routes and neighbours away. It goes with the Pod's namespace, which
        the caller deletes next: the kernel removes a link in 16 ms, but those of many namespaces together in 30.
        """
        with self._lock:
            netlink = self._start()
            link = names.host_veth(netns)
            with suppress(KernelNotFound):
                netlink.apply(SetLink(link, up=False))
            self._release(link)

    def close(self) -> None:
        """Give the netlink socket back; the links stay."""
        with self._lock:
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None

    def _start(self) -> Netlink:
        if self._netlink is None:
            self._netlink = Netlink(self._netns)
            there = held(self._netlink.links(), self._netlink.routes())
            self._ipams = [Ipam(cidr, _within(there, cidr)) for cidr in self._node.pod_cidrs]
        return self._netlink

    def _release(self, link: str) -> None:
        for ipam in self._ipams:
            ipam.release(link)

    def _connect(self, netlink: Netlink, netns: str, link: str, addresses: Sequence[str], *, known: bool) -> None:
        requests = node_side(self._node.gateways, addresses, link, netns, self._mtu)
        with namespaces.entered(netns):
            sysctl.write_here(_SYSCTLS, netns)
            if any(map(plan.is_ipv6, addresses)):
                sysctl.write_here(IPV6, netns)
            sysctl.write_here(_QUIET_IPV6, netns, optional=True)
            with Netlink() as inside:
                if known and any(found.name == LINK for found in inside.links()):
                    return
                try:
                    netlink.apply(*requests)
                except KernelExists:
                    # The link of an earlier Pod of that name, whose namespace is still ending.
                    with suppress(KernelNotFound):
                        netlink.apply(DelLink(link))
                    netlink.apply(*requests)
                inside.apply(*pod_side(self._node, addresses))
        netlink.link(link)  # from here on packets pass; see there


def node_side(gateways: Sequence[str], addresses: Sequence[str], link: str, netns: str, mtu: int) -> list[Request]:
    """What makes the link and teaches the node the way to the Pod."""
    mac = plan.pod_mac(addresses)
    requests: list[Request] = [
        AddVeth(link, LINK, netns, mac=plan.pod_mac(gateways), peer_mac=mac, mtu=mtu, peer_index=2)
    ]
    for gateway, address in zip(gateways, addresses, strict=True):
        # Without a prefix route: IPv6 would add one to the gateway, and what leads to a link is read as a Pod's.
        requests.append(AddAddress(link, f"{gateway}/{_host_length(gateway)}", prefix_route=False))
        requests.append(AddRoute(address, dev=link))
        requests.append(AddNeighbour(address, mac, link))
    return requests


def pod_side(node: plan.NodePlan, addresses: Sequence[str]) -> list[Request]:
    """What a Pod's own namespace gets."""
    requests: list[Request] = [SetLink("lo", up=True), SetLink(LINK, up=True)]
    for address, gateway, cidr in zip(addresses, node.gateways, node.pod_cidrs, strict=True):
        requests.append(AddAddress(LINK, f"{address}/{plan.prefix_length(cidr)}", prefix_route=False))
        requests.append(AddNeighbour(gateway, plan.pod_mac(node.gateways), LINK))
        requests.append(AddRoute(gateway, dev=LINK, src=address))
        requests.append(AddRoute("default", via=gateway, dev=LINK))
        requests.append(AddRoute(cidr, via=gateway, dev=LINK, src=address))
    return requests


def held(links: list[Link], routes: list[Route]) -> dict[str, str]:
    """Address to host-side link of every Pod the node has a way to, both families' addresses together."""
    pods = {link.index: link.name for link in links if link.name.startswith("veth")}
    ways = [(route, *route.to.partition("/")[::2]) for route in routes if len(route.hops) == 1]
    return {
        address: pods[route.hops[0].index]
        for route, address, length in ways
        if length == str(_host_length(address)) and not route.hops[0].via and route.hops[0].index in pods
    }


def _within(there: Mapping[str, str], cidr: str) -> dict[str, str]:
    """Those of the held addresses that are of the range's family."""
    return {address: link for address, link in there.items() if plan.is_ipv6(address) == plan.is_ipv6(cidr)}


def _host_length(address: str) -> int:
    return 128 if plan.is_ipv6(address) else 32
