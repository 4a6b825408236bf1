"""Conntrack entries that no longer say where a Service leads: old choices that rules are not asked about again. Pure.

Only the first packet of a connection meets the rules; all others follow its entry. UDP knows no end: as long as a
socket sends, its entry lives, and with it a choice that may lead to a Pod that is gone, or to nobody because the
Service had no endpoints when it was made. kube-proxy deletes such entries of UDP when endpoints change; those of TCP
die with their connection, which nobody answers any more. What is closed already is not stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from netemu.kernel.conntrack_events import Tracked
from netemu.model.hosts import endpoint_text
from netemu.model.objects import Endpoint, EndpointSlice
from netemu.observe.conntrack.flows import Held
from netemu.observe.names import Names

_OVER: Final = frozenset({"TIME_WAIT", "CLOSE", "LAST_ACK", "FIN_WAIT", "CLOSE_WAIT"})
_Port = tuple[str, str, str]
"""Service, name of the port, protocol in small letters."""


class Stale(NamedTuple):
    """An entry, on a node, that leads where its Service does not lead any more, and why that is so."""

    node: str
    entry: Tracked
    service: str
    why: str


def stale_entries(held: Iterable[Held], names: Names, slices: Sequence[EndpointSlice]) -> list[Stale]:
    """Those of the entries of all nodes that are stale."""
    endpoints = _endpoints(slices)
    found = []
    for node, entry in held:
        original = entry.original
        port = names.service_port(original.protocol, original.destination, original.port)
        if port is None or entry.state in _OVER:
            continue
        known = endpoints.get((port.service, port.port_name, original.protocol), {})
        if why := _why(entry, known, names):
            found.append(Stale(node, entry, f"{port.service}:{port.port_name}".rstrip(":"), why))
    return found


def _why(entry: Tracked, known: Mapping[str, Endpoint], names: Names) -> str:
    """Why an entry for a Service port with these endpoints is stale; "" where it is not."""
    original, reply = entry.original, entry.reply
    target = endpoint_text(reply.source, reply.source_port)
    if (reply.source, reply.source_port) == (original.destination, original.port):
        usable = any(endpoint.conditions.ready is not False for endpoint in known.values())
        return "it is not translated: the Service had no endpoints when it was made" if usable else ""
    name = names.endpoint(original.protocol, reply.source, reply.source_port)
    shown = target if name == target else f"{name} ({target})"
    if target not in known:
        return f"it leads to {shown}, which is no endpoint any more"
    conditions = known[target].conditions
    serves = conditions.serving if conditions.serving is not None else conditions.ready
    if original.protocol == "udp" and serves is False:
        return f"it leads to {shown}, which is not ready any more"
    return ""


def _endpoints(slices: Iterable[EndpointSlice]) -> dict[_Port, dict[str, Endpoint]]:
    """The endpoints of each Service port, in whatever condition, by `address:port`."""
    found: dict[_Port, dict[str, Endpoint]] = {}
    for piece in slices:
        service = piece.service_key
        for name, protocol, number in _ports(piece):
            of = found.setdefault((service, name, protocol), {})
            for endpoint in piece.endpoints or ():
                of |= {endpoint_text(address, number): endpoint for address in endpoint.addresses}
    return found


def _ports(piece: EndpointSlice) -> Iterator[tuple[str, str, int]]:
    for port in piece.ports or ():
        if port.port:
            yield port.name or "", (port.protocol or "TCP").lower(), port.port
