"""A lab as a graph: machines and links, Pods on nodes, Services and the endpoints they lead to. Pure.

Everybody who draws (`graph_text.py`: dot, mermaid; `graph_svg.py`: SVG, HTML) draws the same graph. A vertex is
something with a name; a Pod's vertex stands inside of its node's. Edges are links between machines and the underlay,
and endpoints: from a Service to a Pod, or to an address where no Pod is known to have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from netemu.model.objects import Endpoint, EndpointSlice, Node, Service
from netemu.model.pods import Pod
from netemu.observe.conntrack.flows import ServiceFlow
from netemu.observe.service_ports import balancer_ips_of

_ZONE: Final = "topology.kubernetes.io/zone"
UNDERLAY: Final = "underlay"
_MOST_CLIENTS: Final = 3


class Kind(StrEnum):
    """What a vertex is."""

    CLIENT = "client"
    UNDERLAY = "underlay"
    NODE = "node"
    POD = "pod"
    SERVICE = "service"
    ADDRESS = "address"
    """An endpoint that is no Pod of the lab."""


class State(StrEnum):
    """How something is. A link is ready when it is up."""

    READY = "ready"
    NOT_READY = "not ready"
    TERMINATING = "terminating"
    NO_ENDPOINTS = "no ready endpoints"


class Vertex(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something with a name. `details` are lines for whoever looks closer, `inside` the node that a Pod is on."""

    id: str
    kind: Kind
    name: str
    details: tuple[str, ...] = ()
    inside: str = ""
    zone: str = ""
    state: State = State.READY

    @property
    def title(self) -> str:
        """Its name, a node's with its zone."""
        return f"{self.name} ({self.zone})" if self.zone else self.name


class Edge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A link of a machine, or an endpoint of a Service. `labels`: what a link is like, or the ports of an endpoint."""

    source: str
    target: str
    kind: str
    """`link` or `endpoint`."""
    labels: tuple[str, ...] = ()
    state: State = State.READY
    connections: int = 0
    """How many the nodes track from the Service to this endpoint, where that was asked."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The picture. Vertices in the order in which they are drawn."""

    name: str
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]

    def of(self, *kinds: Kind) -> list[Vertex]:
        """The vertices of these kinds."""
        return [vertex for vertex in self.vertices if vertex.kind in kinds]

    def inside(self, node: str) -> list[Vertex]:
        """The Pods on a node, by its vertex."""
        return [vertex for vertex in self.vertices if vertex.inside == node]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A node or a client, with its link to the underlay: `delay 5ms`, `mtu 1400` and the like."""

    name: str
    addresses: tuple[str, ...]
    link: tuple[str, ...] = ()
    up: bool = True


def graph_of(
    name: str,
    *,
    underlay: Sequence[str],
    nodes: Sequence[Machine],
    clients: Sequence[Machine],
    objects: Sequence[Node],
    pods: Sequence[Pod],
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
) -> Graph:
    """Everything of a lab. `underlay` are lines about it; `objects` the Nodes as the API server has them."""
    known = {node.name: node for node in objects}
    placed = [pod for pod in pods if pod.spec.node_name and not pod.finished]
    owners = {address: _id(Kind.NODE, each.name) for each in nodes for address in each.addresses}
    owners |= {address: _id(Kind.CLIENT, each.name) for each in clients for address in each.addresses}
    endpoints, others = _endpoints(services, slices, {pod.key for pod in placed}, owners)
    led_to = {edge.source for edge in endpoints if edge.state is State.READY}
    vertices = (
        *(_service(service, led_to) for service in services),
        *(_node(machine, known.get(machine.name)) for machine in nodes),
        *(_pod(pod) for pod in placed),
        *others,
        Vertex(id=UNDERLAY, kind=Kind.UNDERLAY, name="underlay", details=tuple(underlay)),
        *(Vertex(id=_id(Kind.CLIENT, c.name), kind=Kind.CLIENT, name=c.name, details=c.addresses) for c in clients),
    )
    links = (*(_link(Kind.NODE, each) for each in nodes), *(_link(Kind.CLIENT, each) for each in clients))
    return Graph(name=name, vertices=vertices, edges=(*links, *endpoints))


def part_of(graph: Graph, *, namespace: str = "", service: str = "") -> Graph:
    """Machines, and of Pods and Services only those of a namespace, or a Service (NAMESPACE/NAME) and its Pods."""

    def mine(vertex: Vertex) -> bool:
        if vertex.kind not in (Kind.POD, Kind.SERVICE, Kind.ADDRESS):
            return True
        if service:
            return vertex.id == _id(Kind.SERVICE, service) or vertex.id in reached
        return vertex.name.startswith(f"{namespace}/") or (vertex.kind is Kind.ADDRESS and vertex.id in reached)

    of = [e for e in graph.edges if e.kind == "endpoint"]
    starts = f"{_id(Kind.SERVICE, namespace)}/"
    reached = {
        e.target for e in of if (e.source == _id(Kind.SERVICE, service) if service else e.source.startswith(starts))
    }
    vertices = tuple(vertex for vertex in graph.vertices if mine(vertex))
    left = {vertex.id for vertex in vertices}
    edges = tuple(edge for edge in graph.edges if edge.source in left and edge.target in left)
    return msgspec.structs.replace(graph, vertices=vertices, edges=edges)


def with_flows(graph: Graph, flows: Iterable[ServiceFlow]) -> Graph:
    """The graph with what goes on: connections at the endpoints' lines, and at each Service who asks how often."""
    ids = {vertex.id for vertex in graph.vertices}
    lines: Counter[tuple[str, str]] = Counter()
    clients: dict[str, Counter[str]] = {}
    for flow in flows:
        service = _id(Kind.SERVICE, flow.service.rpartition(":")[0])
        clients.setdefault(service, Counter())[flow.client.name] += 1
        if flow.endpoint is not None:
            named = (_id(Kind.POD, flow.endpoint.name), flow.endpoint.name)
            target = next((each for each in named if each in ids), _id(Kind.ADDRESS, flow.endpoint.address))
            lines[service, target] += 1
    vertices = (
        msgspec.structs.replace(vertex, details=(*vertex.details, *_asked(clients[vertex.id])))
        if vertex.id in clients
        else vertex
        for vertex in graph.vertices
    )
    edges = (
        msgspec.structs.replace(edge, connections=lines[edge.source, edge.target], labels=(*edge.labels, _many(count)))
        if (count := lines[edge.source, edge.target])
        else edge
        for edge in graph.edges
    )
    return msgspec.structs.replace(graph, vertices=tuple(vertices), edges=tuple(edges))


def _asked(clients: Counter[str]) -> Iterator[str]:
    """The most frequent clients of a Service, and how many more there are."""
    for name, count in clients.most_common(_MOST_CLIENTS):
        yield f"asked by {name}: {_many(count)}"
    if len(clients) > _MOST_CLIENTS:
        yield f"and by {len(clients) - _MOST_CLIENTS} more"


def _many(count: int) -> str:
    return f"{count} connection{'s' * (count != 1)}"


def _id(kind: Kind, name: str) -> str:
    return f"{kind}/{name}"


def _node(machine: Machine, obj: Node | None) -> Vertex:
    zone = obj.labels.get(_ZONE, "") if obj else ""
    cidrs = (obj.spec.pod_cidrs or (obj.spec.pod_cidr,)) if obj else ()
    details = [", ".join(machine.addresses)] + ([f"Pods {', '.join(cidrs)}"] if any(cidrs) else [])
    return Vertex(
        id=_id(Kind.NODE, machine.name), kind=Kind.NODE, name=machine.name, details=tuple(details), zone=zone,
        state=State.READY if obj is not None and obj.ready else State.NOT_READY,
    )  # fmt: skip


def _pod(pod: Pod) -> Vertex:
    addresses = ", ".join(each.ip for each in pod.status.pod_ips) or pod.status.pod_ip or "no address yet"
    network = " (the node's own)" if pod.spec.host_network else ""
    state = State.TERMINATING if pod.deleting else State.READY if pod.ready else State.NOT_READY
    return Vertex(
        id=_id(Kind.POD, pod.key), kind=Kind.POD, name=pod.key, details=(f"{addresses}{network}",),
        inside=_id(Kind.NODE, pod.spec.node_name), state=state,
    )  # fmt: skip


def _link(kind: Kind, machine: Machine) -> Edge:
    state = State.READY if machine.up else State.NOT_READY
    labels = machine.link if machine.up else ("down", *machine.link)
    return Edge(source=_id(kind, machine.name), target=UNDERLAY, kind="link", labels=labels, state=state)


def _service(service: Service, led_to: Collection[str]) -> Vertex:
    """`led_to`: the Services that have ready endpoints."""
    vertex = _id(Kind.SERVICE, service.key)
    state = State.READY if vertex in led_to or service.spec.type == "ExternalName" else State.NO_ENDPOINTS
    return Vertex(id=vertex, kind=Kind.SERVICE, name=service.key, details=tuple(_about(service)), state=state)


def _about(service: Service) -> Iterator[str]:
    """Kinds of addresses, ports, policies: what makes a Service's rules."""
    spec = service.spec
    if spec.type == "ExternalName":
        yield f"ExternalName {spec.external_name}"
        return
    own = [ip for ip in spec.cluster_ips or (spec.cluster_ip,) if ip]
    yield "headless" if service.headless else f"cluster IP {', '.join(own)}"
    for what, addresses in (("external IP", spec.external_ips), ("load balancer", balancer_ips_of(service))):
        if addresses:
            yield f"{what} {', '.join(addresses)}"
    for port in spec.ports:
        name = f"{port.name} " if port.name else ""
        node_port = f", node port {port.node_port}" if port.node_port else ""
        yield f"{name}{port.port}/{port.protocol.lower()} to {port.target_port or port.port}{node_port}"
    if spec.external_traffic_policy == "Local":
        yield "externalTrafficPolicy Local"
    if spec.internal_traffic_policy == "Local":
        yield "internalTrafficPolicy Local"
    if spec.session_affinity == "ClientIP":
        yield "session affinity"
    if spec.load_balancer_source_ranges:
        yield f"source ranges {', '.join(spec.load_balancer_source_ranges)}"


def _endpoints(
    services: Iterable[Service], slices: Iterable[EndpointSlice], pods: Collection[str], owners: Mapping[str, str]
) -> tuple[list[Edge], list[Vertex]]:
    """An edge for each Service and what it leads to, and vertices for addresses that nobody of the lab has.

    What it leads to is a Pod, or a machine: `owners` are the vertices of those by address.
    """
    listed = {service.key for service in services}
    edges: dict[tuple[str, str], Edge] = {}
    others: dict[str, Vertex] = {}
    for piece in slices:
        service = piece.service_key
        ports = tuple(f"{port.port}/{(port.protocol or 'TCP').lower()}" for port in piece.ports or () if port.port)
        for endpoint in (piece.endpoints or ()) if service in listed else ():
            pod, address = _target(endpoint), endpoint.addresses[0]
            target = _id(Kind.POD, pod) if pod in pods else owners.get(address) or _id(Kind.ADDRESS, address)
            if target == _id(Kind.ADDRESS, address):
                others[target] = Vertex(id=target, kind=Kind.ADDRESS, name=address)
            key = (_id(Kind.SERVICE, service), target)
            before = edges[key].labels if key in edges else ()
            labels = tuple(dict.fromkeys((*before, *ports)))
            edges[key] = Edge(source=key[0], target=target, kind="endpoint", labels=labels, state=_state(endpoint))
    return list(edges.values()), list(others.values())


def _target(endpoint: Endpoint) -> str:
    ref = endpoint.target_ref
    return f"{ref.namespace}/{ref.name}" if ref and ref.kind == "Pod" else ""


def _state(endpoint: Endpoint) -> State:
    conditions = endpoint.conditions
    if conditions.terminating:
        return State.TERMINATING
    return State.NOT_READY if conditions.ready is False else State.READY
