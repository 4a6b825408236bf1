"""A Pod's link to its node, as kindnet and CNI's ptp plugin lay it: routing, no bridge.

    Pod (its namespace)                          node
    eth0 10.244.1.5/24, no route to the prefix   vethX 10.244.1.1/32
    default via 10.244.1.1                       10.244.1.5 dev vethX
    10.244.1.1 dev eth0 (link scope)

The gateway is one address that every host-side veth has, so the node sees each Pod packet arrive on a link of its
own and routes it back out of the same one when a Service sends a Pod to itself: hairpin needs no switch here.
Both ends know the other's MAC by permanent entries: the ARP table is one for the whole machine and stays empty.
What is allocated is read back from the node's routes, so a restarted kubelet finds everything as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
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
        self._ipam = Ipam(node.pod_cidr)
        self._lock = threading.Lock()

    def add(self, netns: str) -> str:
        """CNI ADD: connect the Pod's namespace, which exists; its address. A second call gives the same address.

        Raises KernelNotFound without the namespace, KernelError when the node's range is used up.
        """
        with self._lock:
            netlink = self._start()
            link = names.host_veth(netns)
            known = self._ipam.holds(link)
            address = self._ipam.allocate(link)
            try:
                self._connect(netlink, netns, link, address, known=known)
            except NetemuError:
                self._ipam.release(link)
                raise
            return address

    def delete(self, netns: str) -> None:
        """CNI DEL: no way leads to the Pod any more, its address is free; absent is success.

        The link is only set down, which takes its routes and neighbours away. It goes with the Pod's namespace, which
        the caller deletes next: the kernel removes a link in 16 ms, but those of many namespaces together in 30.
        """
        with self._lock:
            netlink = self._start()
            link = names.host_veth(netns)
            with suppress(KernelNotFound):
                netlink.apply(SetLink(link, up=False))
            self._ipam.release(link)

    def close(self) -> None:
        """Give the netlink socket back; the links stay."""
        with self._lock:
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None

    def _start(self) -> Netlink:
        if self._netlink is None:
            self._netlink = Netlink(self._netns)
            self._ipam = Ipam(self._node.pod_cidr, held(self._netlink.links(), self._netlink.routes()))
        return self._netlink

    def _connect(self, netlink: Netlink, netns: str, link: str, address: str, *, known: bool) -> None:
        requests = node_side(self._node.gateway, address, link, netns, self._mtu)
        with namespaces.entered(netns):
            sysctl.write_here(_SYSCTLS, netns)
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
                inside.apply(*pod_side(self._node, address))
        netlink.link(link)  # from here on packets pass; see there


def node_side(gateway: str, address: str, link: str, netns: str, mtu: int) -> list[Request]:
    """What makes the link and teaches the node the way to the Pod."""
    mac = plan.pod_mac(address)
    return [
        AddVeth(link, LINK, netns, mac=plan.pod_mac(gateway), peer_mac=mac, mtu=mtu, peer_index=2),
        AddAddress(link, f"{gateway}/32"),
        AddRoute(address, dev=link),
        AddNeighbour(address, mac, link),
    ]


def pod_side(node: plan.NodePlan, address: str) -> list[Request]:
    """What a Pod's own namespace gets; the link-local address is the one its MAC would have given it."""
    gateway = node.gateway
    return [
        SetLink("lo", up=True),
        SetLink(LINK, up=True),
        AddAddress(LINK, f"{address}/{plan.prefix_length(node.pod_cidr)}", prefix_route=False),
        AddNeighbour(gateway, plan.pod_mac(gateway), LINK),
        AddRoute(gateway, dev=LINK, src=address),
        AddRoute("default", via=gateway, dev=LINK),
        AddRoute(node.pod_cidr, via=gateway, dev=LINK, src=address),
    ]


def held(links: list[Link], routes: list[Route]) -> dict[str, str]:
    """Address to host-side link of every Pod the node has a way to."""
    pods = {link.index: link.name for link in links if link.name.startswith("veth")}
    return {
        route.to.removesuffix("/32"): pods[route.hops[0].index]
        for route in routes
        if route.to.endswith("/32") and route.scope == "link" and route.hops[0].index in pods
    }
