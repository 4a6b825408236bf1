"""A graph as text that others draw: Graphviz' dot and mermaid. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from netemu.observe.graph.model import Edge, Graph, Kind, State, Vertex

_SHAPES: Final = {
    Kind.CLIENT: "box", Kind.UNDERLAY: "box3d", Kind.POD: "box", Kind.SERVICE: "hexagon", Kind.ADDRESS: "ellipse",
}  # fmt: skip
_COLORS: Final = {State.READY: "#2e7d32", State.NOT_READY: "#e65100", State.TERMINATING: "#757575",
                  State.NO_ENDPOINTS: "#c62828"}  # fmt: skip
_DOT_STYLES: Final = {State.NOT_READY: "dashed", State.TERMINATING: "dotted", State.NO_ENDPOINTS: "dashed"}
_MERMAID_SHAPES: Final = {
    Kind.CLIENT: ("[", "]"), Kind.UNDERLAY: ("[[", "]]"), Kind.POD: ("(", ")"), Kind.SERVICE: ("{{", "}}"),
    Kind.ADDRESS: ("([", "])"),
}  # fmt: skip


def dot(graph: Graph) -> str:
    """Input for Graphviz: `dot -Tsvg`."""
    return "\n".join(_dot_lines(graph)) + "\n"


def _dot_lines(graph: Graph) -> Iterator[str]:
    yield f"digraph {_quoted(graph.name)} {{"
    yield '  rankdir=LR; node [fontname="sans-serif", fontsize=10]; edge [fontname="sans-serif", fontsize=9];'
    yield "  compound=true;"
    for vertex in graph.of(Kind.SERVICE):
        yield f"  {_dot_vertex(vertex)}"
    for number, node in enumerate(graph.of(Kind.NODE)):
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(_label(node))}; style=rounded; {_dot_state(node.state)}"
        # What a link begins at: a cluster cannot.
        yield f'    {_quoted(node.id)} [label="eth0", shape=point, width=0.08];'
        yield from (f"    {_dot_vertex(pod)}" for pod in graph.inside(node.id))
        yield "  }"
    for vertex in graph.of(Kind.ADDRESS, Kind.UNDERLAY, Kind.CLIENT):
        yield f"  {_dot_vertex(vertex)}"
    for edge in graph.edges:
        yield f"  {_dot_edge(edge)}"
    yield "}"


def _dot_vertex(vertex: Vertex) -> str:
    shape = _SHAPES[vertex.kind]
    return f"{_quoted(vertex.id)} [label={_quoted(_label(vertex))}, shape={shape}, {_dot_attributes(vertex.state)}];"


def _dot_edge(edge: Edge) -> str:
    ends = f"{_quoted(edge.source)} -> {_quoted(edge.target)}"
    label = f"label={_quoted(_edge_label(edge))}, "
    direction = "dir=none, " if edge.kind == "link" else ""
    return f"{ends} [{label}{direction}{_dot_attributes(edge.state)}];"


def _dot_attributes(state: State) -> str:
    style = f', style="{_DOT_STYLES[state]}"' if state in _DOT_STYLES else ""
    return f'color="{_COLORS[state]}"{style}'


def _dot_state(state: State) -> str:
    return f'color="{_COLORS[state]}";'


def _label(vertex: Vertex) -> str:
    state = f" - {vertex.state}" if vertex.state is not State.READY else ""
    return "\n".join((f"{vertex.title}{state}", *vertex.details))


def _edge_label(edge: Edge) -> str:
    state = (str(edge.state),) if edge.state is not State.READY and edge.kind == "endpoint" else ()
    return "\n".join((*edge.labels, *state))


def _quoted(text: str) -> str:
    """A dot string: only quotes and backslashes mean something in it, and `\\n` is a new line."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


# --- mermaid


def mermaid(graph: Graph) -> str:
    """A flowchart as Markdown renderers draw it, in a block of language `mermaid`."""
    return "\n".join(_mermaid_lines(graph)) + "\n"


def _mermaid_lines(graph: Graph) -> Iterator[str]:
    ids = {vertex.id: f"{vertex.kind[0]}{number}" for number, vertex in enumerate(graph.vertices)}
    yield "flowchart LR"
    for vertex in graph.of(Kind.SERVICE):
        yield f"  {_mermaid_vertex(vertex, ids)}"
    for node in graph.of(Kind.NODE):
        yield f'  subgraph {ids[node.id]}["{_escaped(_label(node))}"]'
        yield from (f"    {_mermaid_vertex(pod, ids)}" for pod in graph.inside(node.id))
        yield "  end"
    for vertex in graph.of(Kind.ADDRESS, Kind.UNDERLAY, Kind.CLIENT):
        yield f"  {_mermaid_vertex(vertex, ids)}"
    for edge in graph.edges:
        yield f"  {_mermaid_edge(edge, ids)}"
    for state, color in _COLORS.items():
        members = [ids[v.id] for v in graph.vertices if v.state is state and v.kind is not Kind.UNDERLAY]
        if members and state is not State.READY:
            name = state.replace(" ", "-")
            yield f"  classDef {name} stroke:{color},stroke-dasharray:4 3"
            yield f"  class {','.join(members)} {name}"


def _mermaid_vertex(vertex: Vertex, ids: dict[str, str]) -> str:
    opening, closing = _MERMAID_SHAPES[vertex.kind]
    return f'{ids[vertex.id]}{opening}"{_escaped(_label(vertex))}"{closing}'


def _mermaid_edge(edge: Edge, ids: dict[str, str]) -> str:
    plain = edge.state is State.READY
    arrow = ("---" if plain else "-.-") if edge.kind == "link" else ("-->" if plain else "-.->")
    label = _escaped(_edge_label(edge))
    return f"{ids[edge.source]} {arrow}" + (f'|"{label}"|' if label else "") + f" {ids[edge.target]}"


def _escaped(text: str) -> str:
    """Within quotes, only quotes and the beginnings of entities and tags mean something."""
    entities = (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"))
    for character, entity in entities:
        text = text.replace(character, entity)
    return text.replace("\n", "<br>")
