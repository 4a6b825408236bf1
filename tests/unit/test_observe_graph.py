"""A lab as a picture: what is in it, and that every drawing of it is well-formed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest

from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.model.pods import Pod
from netemu.observe.conntrack.flows import Counts, End, ServiceFlow
from netemu.observe.graph.layout import Box, layout
from netemu.observe.graph.model import Graph, Kind, Machine, State, graph_of, part_of, with_flows
from netemu.observe.graph.svg import html, svg
from netemu.observe.graph.text import dot, mermaid
from tests.unit import objects_world

SVG = "{http://www.w3.org/2000/svg}"
ADDRESSES = {"web-1": "10.244.1.2", "web-2": "10.244.2.2", "web-3": "10.244.2.3", "lone": "10.244.1.9"}


def pod(name: str, node: str, **more: Any) -> Pod:
    return decode(objects_world.pod(name, ADDRESSES[name], node=node, **more), Pod)


def service(name: str, **spec: Any) -> Service:
    return decode(objects_world.service(name, **spec), Service)


def slice_of(name: str, endpoints: list[dict[str, Any]], number: int = 80) -> EndpointSlice:
    labels = {"kubernetes.io/service-name": name}
    meta = {"name": f"{name}-{number}", "namespace": "shop", "labels": labels}
    return decode({"metadata": meta, "endpoints": endpoints, "ports": [{"port": number}]}, EndpointSlice)


def endpoint(name: str, **conditions: bool) -> dict[str, Any]:
    ref = {"kind": "Pod", "namespace": "shop", "name": name}
    return {"addresses": [ADDRESSES[name]], "targetRef": ref, "conditions": conditions}


@pytest.fixture
def graph() -> Graph:
    """Two zones, a slow link and one that is down; Services of every kind; a name that must be escaped."""
    nodes = [decode(objects_world.node(name, zone=zone), Node) for name, zone in (("n1", "west"), ("n2", "east"))]
    balancer: Any = {"metadata": {"namespace": "shop"}, "type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    services = [
        service("web", **balancer, ports=[{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}]),
        service("empty", clusterIP="10.96.0.8"),
        service("late", clusterIP="10.96.0.7"),
        service("api", clusterIP="10.96.0.6"),
        service("headless", clusterIP="None"),
        service("away", type="ExternalName", clusterIP="", externalName='<b>"a"&co</b>', ports=[]),
    ]
    outside = {"addresses": ["192.0.2.9"], "conditions": {"ready": True}}
    api = {"addresses": ["172.18.0.2"], "conditions": {"ready": True}}
    web = [endpoint("web-1", ready=True), endpoint("web-2", ready=False, terminating=True), outside]
    return graph_of(
        "lab",
        underlay=["nodes 172.18.0.0/16"],
        nodes=[
            Machine(name="n1", addresses=("172.18.0.2", "fc00::2"), link=("mtu 1400", "delay 5ms")),
            Machine(name="n2", addresses=("172.18.0.3",), link=("mtu 1500",), up=False),
        ],
        clients=[Machine(name="laptop", addresses=("203.0.113.10",))],
        objects=nodes,
        pods=[
            pod("web-1", "n1"), pod("web-2", "n2", metadata={"deletionTimestamp": objects_world.NOW}),
            pod("web-3", "n2", ready=False), pod("lone", "n1"),
        ],
        services=services,
        slices=[
            slice_of("web", web), slice_of("web", [endpoint("web-1", ready=True)], 81),
            slice_of("late", [endpoint("web-3", ready=False)]), slice_of("api", [api], 6443),
            slice_of("unknown", [endpoint("web-1")]),
        ],
    )  # fmt: skip


def test_services_lead_to_pods_machines_and_addresses_as_ready_as_they_are(graph: Graph) -> None:
    edges = {(e.source.removeprefix("service/"), e.target): (e.state, e.labels) for e in graph.edges[3:]}

    assert edges == {
        ("shop/web", "pod/shop/web-1"): (State.READY, ("80/tcp", "81/tcp")),
        ("shop/web", "pod/shop/web-2"): (State.TERMINATING, ("80/tcp",)),
        ("shop/web", "address/192.0.2.9"): (State.READY, ("80/tcp",)),
        ("shop/late", "pod/shop/web-3"): (State.NOT_READY, ("80/tcp",)),
        ("shop/api", "node/n1"): (State.READY, ("6443/tcp",)),
    }


def test_everything_says_what_it_is(graph: Graph) -> None:
    said = {vertex.id: (vertex.state, vertex.details) for vertex in graph.vertices}

    assert said["service/shop/web"][1] == (
        "cluster IP 10.96.0.9", "http 80/tcp to 8080, node port 30080", "externalTrafficPolicy Local",
    )  # fmt: skip
    assert said["service/shop/empty"][0] == said["service/shop/late"][0] == State.NO_ENDPOINTS
    assert said["service/shop/headless"][1][0] == "headless"
    assert said["pod/shop/web-2"] == (State.TERMINATING, ("10.244.2.2",))
    assert said["pod/shop/web-3"][0] == State.NOT_READY
    assert said["client/laptop"] == (State.READY, ("203.0.113.10",))
    links = {edge.source: (edge.state, edge.labels) for edge in graph.edges[:3]}
    assert links == {
        "node/n1": (State.READY, ("mtu 1400", "delay 5ms")),
        "node/n2": (State.NOT_READY, ("down", "mtu 1500")),
        "client/laptop": (State.READY, ()),
    }


def test_a_part_keeps_machines_and_what_was_asked_for(graph: Graph) -> None:
    web, other = part_of(graph, service="shop/web"), part_of(graph, namespace="other")

    names = {vertex.name for vertex in web.of(Kind.SERVICE, Kind.POD, Kind.ADDRESS)}
    assert names == {"shop/web", "shop/web-1", "shop/web-2", "192.0.2.9"}
    assert (other.of(Kind.SERVICE, Kind.POD, Kind.ADDRESS), len(other.edges), len(web.edges)) == ([], 3, 6)


def flow(service: str, client: str, endpoint: End | None) -> ServiceFlow:
    there = End(client, "10.0.0.1", 40000)
    return ServiceFlow(
        protocol="tcp", client=there, service=service, via="cluster IP", destination=End(service, "10.96.0.9", 80),
        endpoint=endpoint, source_seen=there, node="n1", state="ESTABLISHED", there=Counts(1, 60), back=Counts(1, 60),
    )  # fmt: skip


def test_what_goes_on_is_counted_at_lines_and_told_at_services(graph: Graph) -> None:
    web1, outside = End("shop/web-1", "10.244.1.2", 80), End("192.0.2.9", "192.0.2.9")
    node = End("node/n1", "172.18.0.2")
    asked = [flow("shop/web:80", f"shop/c{n}", web1) for n in (1, 1, 2, 3, 4)]
    asked += [flow("shop/web:80", "client/laptop", outside), flow("shop/api:443", "node/n2", node)]
    asked += [flow("shop/empty:80", "node/n2", None)]

    busy = with_flows(graph, asked)

    counted = {(edge.source, edge.target): edge.connections for edge in busy.edges if edge.connections}
    assert counted == {
        ("service/shop/web", "pod/shop/web-1"): 5, ("service/shop/web", "address/192.0.2.9"): 1,
        ("service/shop/api", "node/n1"): 1,
    }  # fmt: skip
    details = {vertex.id: vertex.details for vertex in busy.vertices}
    assert details["service/shop/web"][3:] == (
        "asked by shop/c1: 2 connections", "asked by shop/c2: 1 connection", "asked by shop/c3: 1 connection",
        "and by 2 more",
    )  # fmt: skip
    assert details["service/shop/empty"][-1] == "asked by node/n2: 1 connection"
    numbers = [each.text for each in ElementTree.fromstring(svg(busy)).iter(f"{SVG}text")]
    assert (numbers.count("5"), dot(busy).count("5 connections"), mermaid(busy).count("5 connections")) == (1, 1, 1)


# --- where everything stands


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.right and other.x < one.right
        and one.y < other.y + other.height and other.y < one.y + one.height
    )  # fmt: skip


def test_boxes_do_not_overlap_and_pods_are_inside_of_their_nodes(graph: Graph) -> None:
    placed = layout(graph)

    tops = [v.id for v in graph.vertices if v.kind is not Kind.POD]
    assert [(a, b) for a, b in combinations(tops, 2) if overlap(placed.boxes[a], placed.boxes[b])] == []
    pods = graph.of(Kind.POD)
    assert [(a, b) for a, b in combinations(pods, 2) if overlap(placed.boxes[a.id], placed.boxes[b.id])] == []
    for each in pods:
        inner, outer = placed.boxes[each.id], placed.boxes[each.inside]
        assert outer.x < inner.x
        assert inner.right < outer.right
        assert outer.y + 15 < inner.y < inner.y + inner.height < outer.y + outer.height
    assert all(box.right <= placed.width and box.y + box.height <= placed.height for box in placed.boxes.values())


def test_services_stand_in_the_order_of_their_pods() -> None:
    pods = [decode(objects_world.pod(f"p{n}", f"10.0.0.{n}", node=f"n{n}"), Pod) for n in range(6)]
    ADDRESSES.update({f"p{n}": f"10.0.0.{n}" for n in range(6)})
    crossed = [5, 2, 0, 4, 1, 3]
    graph = graph_of(
        "x", underlay=(), nodes=[Machine(name=f"n{n}", addresses=()) for n in range(6)], clients=(), objects=(),
        pods=pods, services=[service(f"s{n}") for n in crossed],
        slices=[slice_of(f"s{n}", [endpoint(f"p{n}")]) for n in crossed],
    )  # fmt: skip

    boxes = layout(graph).boxes
    assert sorted(range(6), key=lambda n: boxes[f"service/shop/s{n}"].y) == [0, 1, 2, 3, 4, 5]


# --- drawings


def test_svg_is_xml_with_every_thing_once_and_lines_that_begin_and_end_at_boxes(graph: Graph) -> None:
    root = ElementTree.fromstring(svg(graph))

    drawn = [str(each.get("data-id")) for each in root.iter(f"{SVG}g") if each.get("data-id")]
    assert sorted(drawn) == sorted(vertex.id for vertex in graph.vertices)
    lines = [each for each in root.iter(f"{SVG}g") if each.get("data-from")]
    assert len(lines) == len(graph.edges)
    boxes = layout(graph).boxes
    for line in lines:
        path = line.find(f"{SVG}path")
        assert path is not None
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d", ""))]
        source, target = boxes[str(line.get("data-from"))], boxes[str(line.get("data-to"))]
        edges = {round(edge, 1) for box in (source, target) for edge in (box.x, box.right)}
        ends = {numbers[0], numbers[-1] if "H" in path.get("d", "") else numbers[-2]}
        assert ends <= edges


def test_states_are_drawn_differently_and_titles_tell_more(graph: Graph) -> None:
    root = ElementTree.fromstring(svg(graph))

    classes = {each.get("data-to"): str(each.get("class")) for each in root.iter(f"{SVG}g")}
    assert classes["pod/shop/web-3"] == "edge endpoint not-ready"
    assert classes["pod/shop/web-2"] == "edge endpoint terminating"
    titles = [each.text for each in root.iter(f"{SVG}title")]
    assert "pod shop/web-3: not ready\n10.244.2.3" in titles
    assert 'service shop/away: ready\nExternalName <b>"a"&co</b>' in titles


class Tags(HTMLParser):
    """Tags that were opened and not closed, and whatever a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [tag] if tag != "meta" else []
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_complete_in_itself(graph: Graph) -> None:
    page = html(graph)
    tags = Tags()
    tags.feed(page)

    assert (tags.open, tags.fetched) == ([], [])
    assert re.findall(r"(?:https?:)?//[^\s\"']+|@import|url\(", page) == ["http://www.w3.org/2000/svg"]


TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(->)|([{}\[\];=,])|([A-Za-z0-9_.]+))')


def tokens(text: str) -> Iterator[str]:
    """The tokens of dot's grammar; fails where there is anything else."""
    at = 0
    while at < len(text.rstrip()):
        found = TOKEN.match(text, at)
        assert found, f"no dot: {text[at : at + 40]!r}"
        yield next(group for group in found.groups() if group)
        at = found.end()


def test_dot_has_its_grammar_and_names_nothing_that_is_not_there(graph: Graph) -> None:
    found = list(tokens(dot(graph)))

    depth = 0
    for token in found:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token, 0)
        assert depth >= 0
    ends = {found[i + step] for i, token in enumerate(found) if token == "->" for step in (-1, 1)}
    declared = {found[i] for i in range(len(found) - 1) if found[i + 1] == "[" and found[i - 1] in (";", "{", "}")}
    assert (depth, found[:2], ends - declared) == (0, ["digraph", '"lab"'], set())
    assert found.count("subgraph") == 2
    assert found.count("->") == len(graph.edges)


def test_mermaid_closes_what_it_opens_and_names_nothing_that_is_not_there(graph: Graph) -> None:
    lines = [line.strip() for line in mermaid(graph).splitlines()]

    declared = {found[1] for line in lines if (found := re.match(r'(?:subgraph )?(\w+)[\[({]+".*"[\])}]+$', line))}
    ends = [re.match(r'(\w+) (?:---|-\.-|-->|-\.->)(?:\|"[^"]*"\|)? (\w+)$', line) for line in lines]
    edges = [found.groups() for found in ends if found]
    assert lines[0] == "flowchart LR"
    assert sum(line.startswith("subgraph") for line in lines) == lines.count("end") == 2
    assert len(edges) == len(graph.edges)
    assert {end for edge in edges for end in edge} <= declared
    assert "ExternalName #lt;b#gt;#quot;a#quot;&co#lt;/b#gt;" in mermaid(graph)
