"""Holding the rules of a node against the API's objects: what is there for nobody, and what is missing. Pure.

Rules follow objects by some milliseconds, so a finding means something only where it stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from netemu.model.hosts import endpoint_text
from netemu.model.objects import EndpointSlice, Service, ServicePort
from netemu.observe.oracle import NodeView, Origin, Settings, Source, judge
from netemu.observe.rules.walk import Line, NodeRules, targets_from
from netemu.observe.rules.words import Words
from netemu.observe.service_ports import Via, balancer_ips_of, cluster_ip_of, external_ips_of, proxied


class Finding(NamedTuple):
    """Something that is off. `port` is the Service port, or what a rule claims to be about."""

    port: str
    what: str


def findings(
    rules: NodeRules, node: NodeView, services: Sequence[Service], slices: Sequence[EndpointSlice], words: Words
) -> list[Finding]:
    """What is off, by Service port."""
    mine = [service for service in services if proxied(service)]
    wrong = _wrong(rules, node, mine, slices, words)
    return [*dict.fromkeys((*_unexplained(rules), *_missing(rules, mine), *wrong))]


def _unexplained(rules: NodeRules) -> Iterator[Finding]:
    """Rules that no Service accounts for, one finding for all of one claim."""
    claims: dict[str, list[str]] = {}
    for chain in rules.chains.values():
        for number, line in enumerate(chain.lines, 1):
            if line.owner:
                claims.setdefault(line.owner, []).append(f"{chain.name} {number}")
    for owner, places in claims.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield Finding(owner, f"no Service explains {places[0]}{more}")


def _places(service: Service, like: str) -> Iterator[tuple[str, Via, str]]:
    """The places of one family that the proxy has to make rules for, as `Line.takes` has them, with port and kind."""
    for port in service.spec.ports:
        name, protocol = _name(service, port), port.protocol.lower()
        of_family = [
            ip for ip in (*external_ips_of(service), *balancer_ips_of(service)) if (":" in ip) == (":" in like)
        ]
        own = [(Via.CLUSTER_IP, cluster_ip_of(service, like))] if cluster_ip_of(service, like) else []
        own += [(Via.EXTERNAL_IP if ip in external_ips_of(service) else Via.BALANCER_IP, ip) for ip in of_family]
        for via, address in own:
            yield name, via, f"{endpoint_text(address, port.port)}/{protocol}"
        if port.node_port:
            yield name, Via.NODE_PORT, f":{port.node_port}/{protocol}"


def _name(service: Service, port: ServicePort) -> str:
    return f"{service.key}:{port.name}" if port.name else service.key


def _missing(rules: NodeRules, services: Iterable[Service]) -> Iterator[Finding]:
    like = _LIKE[rules.family]
    taken = {line.takes for chain in rules.chains.values() for line in chain.lines if line.takes}
    for service in services:
        if not cluster_ip_of(service, like):
            continue  # it is not of this family
        for name, via, place in _places(service, like):
            if place not in taken:
                yield Finding(name, f"no rule for {via} {place.removeprefix(':')}")


def _wrong(
    rules: NodeRules, node: NodeView, services: Sequence[Service], slices: Sequence[EndpointSlice], words: Words
) -> Iterator[Finding]:
    """Endpoints that cluster IPs should lead to from here and do not, and the other way round."""
    takers: dict[str, list[tuple[str, Line]]] = {}
    for chain in rules.chains.values():
        for line in chain.lines:
            if line.takes:
                takers.setdefault(line.takes, []).append((chain.table, line))
    like = _LIKE[rules.family]
    source, settings = Source(Origin.POD_HERE, _some_pod(node, like), "veth"), Settings(mode=rules.mode)
    for service in services:
        address = cluster_ip_of(service, like)
        for port in service.spec.ports if address else ():
            place, name = f"{endpoint_text(address, port.port)}/{port.protocol.lower()}", _name(service, port)
            if place not in takers:
                continue
            wanted = judge([service], slices, node, settings, source, address, port.port, port.protocol).endpoints
            found = {t for table, line in takers[place] for t in targets_from(rules, table, line)}
            for target in sorted(wanted - found):
                yield Finding(name, f"no rule leads to {words.endpoint(target)}")
            for target in sorted(found - wanted):
                yield Finding(name, f"rules lead to {words.endpoint(target)}, which is no endpoint to be used here")


_LIKE: Final = {"ip": "0.0.0.0", "ip6": "::"}
"""An address of each family."""


def _some_pod(node: NodeView, like: str) -> str:
    """An address that a Pod of the node may have."""
    cidr = next((cidr for cidr in node.pod_cidrs if (":" in cidr) == (":" in like)), like)
    return cidr.partition("/")[0]
