"""ipvs mode, its end: what goes when the mode does, and what stays of it for connections that are still open.

Theory of operation: a connection that IPVS translates is IPVS' as long as it lives. No rule of the mode that took over
touches its packets, because those of table nat see first packets only. But they must come to IPVS still, which takes
what is for this machine, and find their virtual server and their real server there. So these stay, without weight,
and so does the address on kube-ipvs0. New connections never get there: rules in PREROUTING and OUTPUT come first.
Until an address goes, ports of it that no Service has are this node's own, as with any address of the node.

kube-ipvs0 goes last, after all sets. So a link without sets is how a later run knows that nothing but such connections
is left, and any link that something may be.

UDP flows have no end that could be waited for. conntrack forgets them, and their next packets take the new rules.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from netemu.kernel.conntrack import ConntrackNetlink
from netemu.kernel.ipvs import ServerKey
from netemu.kernel.rtnetlink import DelLink
from netemu.proxy.ipvs import DUMMY_LINK
from netemu.proxy.ipvs_edge import IpvsEdge, front_of
from netemu.proxy.services import family_of


def remove_servers(edge: IpvsEdge, *, linger: bool) -> None:
    """Remove this family's virtual servers, but for the excluded ones, and its addresses from kube-ipvs0.

    With `linger` those stay that have connections, as the module tells.
    """
    keys = edge.keys()
    stay = {key for key in keys if linger and _drain(edge, key)}
    _unbind(edge, {key.address for key in stay})
    edge.delete_servers(front_of(key) for key in keys if key not in stay)


def remove_link(edge: IpvsEdge) -> None:
    """Remove kube-ipvs0 when neither family has an address on it, nor a virtual server."""
    index = edge.link_index()
    if index and not _bound(edge, index) and not edge.keys(both=True):
        edge.links.apply(DelLink(DUMMY_LINK))


def tidy(edge: IpvsEdge) -> bool:
    """Remove what stayed for the sake of connections that have ended by now; whether anything is left to wait for."""
    if not edge.link_index() or edge.has_sets():
        return False
    remove_servers(edge, linger=True)
    remove_link(edge)
    return bool(edge.link_index())


def udp_fronts(edge: IpvsEdge) -> frozenset[tuple[str, int]]:
    """Where UDP senders of either family are served from."""
    return frozenset((key.address, key.port) for key in edge.keys(both=True) if key.protocol == "udp")


def forget_flows(fronts: Collection[tuple[str, int]], netns: str) -> None:
    """Have conntrack forget the UDP flows to these addresses and ports."""
    conntrack = ConntrackNetlink(netns)
    for ipv6 in (False, True):
        flows = conntrack.flows("udp", ipv6=ipv6)
        conntrack.delete([flow for flow in flows if (flow.destination, flow.port) in fronts], ipv6=ipv6)


def _drain(edge: IpvsEdge, key: ServerKey) -> bool:
    """Whether a virtual server has connections; if so no new one comes to it, and idle real servers go."""
    if key.protocol == "udp":
        return False
    front = front_of(key)
    every = {each.target: each.weight for each in edge.destinations(key)}
    busy = edge.busy((front, target) for target in every)
    if busy:
        edge.delete_reals((front, target) for target in every if (front, target) not in busy)
        edge.weigh((real for real in busy if every[real[1]]), 0)
    return bool(busy)


def _unbind(edge: IpvsEdge, but: Collection[str]) -> None:
    if index := edge.link_index():
        edge.unbind(sorted(ip for ip in _bound(edge, index) if family_of(ip) is edge.family and ip not in but))


def _bound(edge: IpvsEdge, index: int) -> set[str]:
    """Addresses of kube-ipvs0, of both families; those that the kernel gives every link are not meant."""
    texts = (each.address.partition("/")[0] for each in edge.links.addresses() if each.index == index)
    return {text for text in texts if not ipaddress.ip_address(text).is_link_local}
