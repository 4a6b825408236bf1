"""Which tracked UDP flows are stale, and forgetting them.

Theory of operation (`pkg/proxy/conntrack/cleanup.go`, the reconciler of 1.32 and later): a UDP "connection" lives as
long as packets come, so a sender that never pauses keeps a translation to an endpoint that is gone, or none at all
though there are endpoints now. After a sync, flows to the addresses of touched UDP ports must lead to an endpoint that
serves, or go. A port without endpoints, or one that was deleted, has no such endpoint: all its flows go (upstream left
those until 2026). TCP is never touched: its end points notice by themselves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

from netemu.kernel.conntrack import Conntrack, Flow
from netemu.proxy.services import ServicePort
from netemu.proxy.tracker import Changes, Table

Target = tuple[str, int]
_Serving = frozenset[Target]
_NONE: _Serving = frozenset()


def forget_stale(
    conntrack: Conntrack, table: Table, changes: Changes, own: Collection[str], *, ipv6: bool = False
) -> int:
    """Forget the stale flows of one family; how many there were. Raises KernelError."""
    return conntrack.delete(stale_flows(conntrack.flows("udp", ipv6=ipv6), table, changes, own), ipv6=ipv6)


def stale_flows(flows: Iterable[Flow], table: Table, changes: Changes, own: Collection[str]) -> list[Flow]:
    """Those of `flows` that must be forgotten. The table is the one that was just programmed.

    `own` are the node's addresses: what goes elsewhere is no node port's, whatever its port (upstream forgets it, too).
    """
    owners: dict[Target, _Serving] = {}
    judged: set[Target] = set()
    for key, port in table.ports.items():
        if key.protocol == "UDP":
            serving = frozenset((e.ip, e.port) for e in table.endpoints.get(key, ()) if e.serving or e.ready)
            owners.update((address, serving) for address in _addresses(port))
            if key in changes.udp_endpoints:
                judged.update(_addresses(port))
    judged.update(address for former in changes.udp_removed for address in _addresses(former))
    return [flow for flow in flows if flow.protocol == "udp" and _is_stale(flow, owners, judged, own)]


def _is_stale(flow: Flow, owners: dict[Target, _Serving], judged: set[Target], own: Collection[str]) -> bool:
    here = flow.destination in own or ipaddress.ip_address(flow.destination).is_loopback
    for address in ((flow.destination, flow.port), *([("", flow.port)] if here else [])):
        if address in judged:
            return (flow.reply_source, flow.reply_port) not in owners.get(address, _NONE)
        if address in owners:
            return False
    return False


def _addresses(port: ServicePort) -> Iterator[Target]:
    """Where the port is reached; a node port, on whatever address of the node, is `("", number)`."""
    for ip in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
        yield ip, port.port
    if port.node_port:
        yield "", port.node_port
