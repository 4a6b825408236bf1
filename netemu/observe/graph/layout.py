"""Where everything of a graph stands: four columns, in an order in which few lines cross. Pure.

From left to right: Services, nodes with their Pods in them, the underlay, clients. So an endpoint's line only crosses
the gap between the first two columns, a link's the one beside the underlay, and none crosses a box. Within the columns
the order is that of layered drawing: Services by the mean place of their Pods, the Pods of a node by the mean place of
their Services, in turn, a few times over. Text is set in a monospaced font, so its width is known without a renderer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from netemu.observe.graph.model import Graph, Kind, Vertex

CHARACTER, LINE, PAD, GAP = 6.7, 15.0, 8.0, 12.0
"""Width of a character, height of a line, room within a box and between boxes."""
COLUMN_GAP: Final = 150.0
_SWEEPS: Final = 6


@dataclass(frozen=True, slots=True)
class Box:
    """Where a vertex is drawn."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Half way down."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes by vertex, and the size of the whole."""

    boxes: Mapping[str, Box]
    width: float
    height: float


def layout(graph: Graph) -> Layout:
    """Place everything."""
    services, pods = _ordered(graph)
    nodes = [*graph.of(Kind.NODE), *graph.of(Kind.ADDRESS)]
    nodes.sort(key=lambda vertex: (vertex.kind is Kind.ADDRESS, vertex.zone))
    inside = {node.id: [pod for pod in pods if pod.inside == node.id] for node in nodes}
    columns: list[Sequence[Vertex]] = [services, nodes, graph.of(Kind.UNDERLAY), graph.of(Kind.CLIENT)]
    sizes = {v.id: _size(v, inside.get(v.id, ())) for column in columns for v in column}
    height = max(sum(sizes[v.id][1] + GAP for v in column) for column in columns)
    boxes: dict[str, Box] = {}
    x = GAP
    for column in columns:
        width = max((sizes[v.id][0] for v in column), default=0.0)
        used = sum(sizes[v.id][1] + GAP for v in column)
        y = GAP + (height - used) / 2
        for vertex in column:
            tall = height - GAP if vertex.kind is Kind.UNDERLAY else sizes[vertex.id][1]
            top = GAP if vertex.kind is Kind.UNDERLAY else y
            boxes[vertex.id] = box = Box(x, top, width, tall)
            boxes |= _within(box, vertex, inside.get(vertex.id, ()))
            y += sizes[vertex.id][1] + GAP
        x += width + COLUMN_GAP if column else 0
    return Layout(boxes, x - COLUMN_GAP + GAP, height + 2 * GAP)


def _size(vertex: Vertex, inside: Iterable[Vertex]) -> tuple[float, float]:
    lines = [vertex.title, *vertex.details]
    width, height = max(map(len, lines)) * CHARACTER + 2 * PAD, len(lines) * LINE + PAD
    for pod in inside:
        pod_width, pod_height = _size(pod, ())
        width, height = max(width, pod_width + 2 * PAD), height + pod_height + PAD
    return width, height


def _within(box: Box, node: Vertex, pods: Iterable[Vertex]) -> dict[str, Box]:
    """Pods below the lines of their node."""
    boxes: dict[str, Box] = {}
    y = box.y + (1 + len(node.details)) * LINE + PAD
    for pod in pods:
        height = _size(pod, ())[1]
        boxes[pod.id] = Box(box.x + PAD, y, box.width - 2 * PAD, height)
        y += height + PAD
    return boxes


def _ordered(graph: Graph) -> tuple[list[Vertex], list[Vertex]]:
    """Services and Pods, each by the mean place of what they are connected to."""
    services, pods = graph.of(Kind.SERVICE), graph.of(Kind.POD)
    nodes = {node.id: number for number, node in enumerate(sorted(graph.of(Kind.NODE), key=lambda node: node.zone))}
    ends: dict[str, list[str]] = {}
    for edge in graph.edges:
        if edge.kind == "endpoint":
            ends.setdefault(edge.source, []).append(edge.target)
            ends.setdefault(edge.target, []).append(edge.source)
    for _ in range(_SWEEPS):
        at = {service.id: float(number) for number, service in enumerate(services)}
        pods.sort(key=lambda pod: (nodes.get(pod.inside, len(nodes)), _mean(pod, ends, at)))
        at = {pod.id: float(number) for number, pod in enumerate(pods)}
        for pod in reversed(pods):
            at[pod.inside] = at[pod.id]  # what leads to a node leads to where its Pods begin
        services.sort(key=lambda service: _mean(service, ends, at))
    return services, pods


def _mean(vertex: Vertex, ends: Mapping[str, Sequence[str]], at: Mapping[str, float]) -> float:
    """The mean place of those it is connected to; at the end where it is alone."""
    places = [at[end] for end in ends.get(vertex.id, ()) if end in at]
    return sum(places) / len(places) if places else float("inf")
