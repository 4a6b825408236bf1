"""Which endpoints a service port uses on this node: pure, and the same in every mode.

Theory of operation (`pkg/proxy/topology.go`, CategorizeEndpoints): a port may need two sets, one drawn from the whole
cluster and one from this node. Each holds the ready endpoints, or, where that leaves none, those that terminate but
still serve. Topology hints narrow the cluster set only, and only if they are complete.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import msgspec

from netemu.model import objects
from netemu.model.hosts import endpoint_text
from netemu.proxy.services import Family, PortKey, ServicePort, canonical, family_of, is_host, is_number

ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port behind a service port, as one node sees it."""

    ip: str
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    local: bool = False
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()

    @property
    def target(self) -> str:
        """`ip:port`, `[ip]:port` for IPv6: what DNAT rules and hashes use, and the order of endpoints."""
        return endpoint_text(self.ip, self.port)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The endpoints of one service port that are used here, each set in order of `target`."""

    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    reachable: tuple[Endpoint, ...] = ()
    """Cluster and local together."""
    any: bool = False
    """Whether there is a usable endpoint anywhere: decides between REJECT and DROP."""


def choose(
    port: ServicePort, endpoints: Iterable[Endpoint], node_labels: Mapping[str, str], node_name: str = ""
) -> Chosen:
    """The sets for one service port. The order of `endpoints` does not matter."""
    every = sorted(endpoints, key=lambda e: e.target)
    cluster: list[Endpoint] = []
    if port.uses_cluster_endpoints:
        ready = [e for e in every if e.ready]
        cluster = (hinted(ready, node_labels, node_name) if port.use_hints else ready) or _last_resort(every)
    if not port.uses_local_endpoints:
        used = tuple(cluster)
        return Chosen(used, (), used, bool(used))
    here = [e for e in every if e.local]
    local = [e for e in here if e.ready] or _last_resort(here)
    kept = {e.target for e in (*cluster, *local)}
    reachable = tuple(e for e in every if e.target in kept)
    usable = any(e.ready or (e.serving and e.terminating) for e in every)
    return Chosen(tuple(cluster), tuple(local), reachable, usable)


def _last_resort(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Better an endpoint on its way out than none (KEP-1669)."""
    return [e for e in endpoints if e.serving and e.terminating]


def hinted(ready: list[Endpoint], node_labels: Mapping[str, str], node_name: str) -> list[Endpoint]:
    """Those of the ready endpoints to keep to: hinted for this node, else for its zone, else all.

    Hints count only where every ready endpoint has them and one names this node or zone.
    """
    zone = node_labels.get(ZONE_LABEL, "")
    for name, hints in ((node_name, [e.node_hints for e in ready]), (zone, [e.zone_hints for e in ready])):
        if name and all(hints) and any(name in h for h in hints):
            return [e for e, h in zip(ready, hints, strict=True) if name in h]
    return ready


# --- EndpointSlices to endpoints -----------------------------------------------------------------------------------

Slice = Mapping[tuple[str, str], tuple[Endpoint, ...]]
"""What one EndpointSlice says: (port name, protocol) to endpoints."""


_NO_HINTS: frozenset[str] = frozenset()
"""One for all endpoints without hints: an empty frozenset takes 216 bytes."""


def service_of(piece: objects.EndpointSlice) -> str:
    """`namespace/name` of the Service an EndpointSlice belongs to, "" where it belongs to none."""
    name = piece.labels.get(objects.SERVICE_NAME_LABEL, "")
    return f"{piece.namespace}/{name}" if name and piece.namespace and piece.name else ""


def trimmed(piece: objects.EndpointSlice) -> objects.EndpointSlice:
    """An EndpointSlice with no more than kube-proxy looks at; values that many endpoints share are one object."""
    return msgspec.structs.replace(
        piece, endpoints=tuple(_trimmed(e) for e in piece.endpoints) if piece.endpoints else piece.endpoints
    )


def _trimmed(endpoint: objects.Endpoint) -> objects.Endpoint:
    conditions = endpoint.conditions
    return objects.Endpoint(
        addresses=endpoint.addresses[:1],
        conditions=_shared_conditions(conditions.ready, conditions.serving, conditions.terminating),
        node_name=sys.intern(endpoint.node_name) if endpoint.node_name else None,
        hints=endpoint.hints,
    )


@cache
def _shared_conditions(
    ready: bool | None, serving: bool | None, terminating: bool | None
) -> objects.EndpointConditions:
    return objects.EndpointConditions(ready, serving, terminating)


def slice_endpoints(piece: objects.EndpointSlice, family: Family, node_name: str) -> Slice:
    """The endpoints of an EndpointSlice for one family, as node `node_name` sees them.

    Only the first address of an endpoint counts; unset conditions mean ready, serving, not terminating; a port without
    number or name is ignored (an absent number would mean "every port", which kube-proxy does not support).
    """
    if piece.address_type != family.value:
        return {}
    found: dict[tuple[str, str], tuple[Endpoint, ...]] = {}
    for port in piece.ports or ():
        if port.name is None or not port.port or not is_number(port.port):
            continue
        made = (_endpoint(e, port.port, family, node_name) for e in piece.endpoints or ())
        key = (port.name, port.protocol or "TCP")
        found[key] = (*found.get(key, ()), *(e for e in made if e is not None))
    return found


def _endpoint(endpoint: objects.Endpoint, port: int, family: Family, node_name: str) -> Endpoint | None:
    ip = canonical(endpoint.addresses[0]) if endpoint.addresses else ""
    if not ip or family_of(ip) is not family or not is_host(ip):
        return None
    conditions = endpoint.conditions
    return Endpoint(
        ip,
        port,
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        local=endpoint.node_name == node_name and bool(node_name),
        zone_hints=_hint_names(endpoint, "forZones"),
        node_hints=_hint_names(endpoint, "forNodes"),
    )


def _hint_names(endpoint: objects.Endpoint, kind: str) -> frozenset[str]:
    if not endpoint.hints:
        return _NO_HINTS
    named = endpoint.hints.get(kind) or ()
    return frozenset(hint["name"] for hint in named if isinstance(hint, dict) and hint.get("name"))


def merge(service: str, slices: Iterable[Slice]) -> dict[PortKey, tuple[Endpoint, ...]]:
    """The endpoints of all slices of a Service by service port, in order of `target`.

    An endpoint that two slices name is taken once: the local copy wins, then the one that is ready, then serving.
    """
    namespace, _, name = service.partition("/")
    merged: dict[PortKey, dict[str, Endpoint]] = {}
    for piece in slices:
        for (port, protocol), endpoints in piece.items():
            into = merged.setdefault(PortKey(namespace, name, port, protocol), {})
            for endpoint in endpoints:
                known = into.get(endpoint.target)
                if known is None or _rank(endpoint) > _rank(known):
                    into[endpoint.target] = endpoint
    return {key: tuple(by_target[t] for t in sorted(by_target)) for key, by_target in merged.items()}


def _rank(endpoint: Endpoint) -> tuple[bool, bool, bool, bool, list[str], list[str]]:
    # Upstream takes the first it meets in map order; a total order makes the result independent of arrival.
    hints = sorted(endpoint.zone_hints), sorted(endpoint.node_hints)
    return endpoint.local, endpoint.ready, endpoint.serving, not endpoint.terminating, *hints
