"""A graph as a picture: SVG, and HTML around it that tells more of what the pointer is on. Pure.

Nothing is fetched from anywhere: styles, and in HTML twenty lines of script, are in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import log2
from typing import Final

from netemu.observe.graph.layout import LINE, PAD, Box, Layout, layout
from netemu.observe.graph.model import Edge, Graph, Kind, State, Vertex

_STYLE: Final = """
svg { font: 11px ui-monospace, "DejaVu Sans Mono", monospace; background: #fff }
rect { fill: #fff; stroke: #90a4ae; rx: 4px }
.title { font-weight: bold }
.node > rect { fill: #f5f7f8 }
.pod > rect { stroke: #2e7d32 }
.service > rect { stroke: #1565c0; fill: #f3f8fd }
.underlay > rect { fill: #eceff1 }
.client > rect { stroke: #6a1b9a }
.not-ready > rect, .terminating > rect, .no-ready-endpoints > rect { stroke-dasharray: 5 3 }
.not-ready > rect { stroke: #e65100 }
.terminating > rect { stroke: #757575 }
.no-ready-endpoints > rect { stroke: #c62828 }
path { fill: none; stroke: #2e7d32; stroke-width: 1.2 }
.link path { stroke: #546e7a; stroke-width: 2 }
.not-ready path { stroke: #e65100; stroke-dasharray: 6 4 }
.terminating path { stroke: #757575; stroke-dasharray: 2 3 }
.edge text { fill: #546e7a }
.edge text.count { fill: #000; text-anchor: middle; stroke: #fff; stroke-width: 4px; paint-order: stroke }
"""
_LEGEND: Final = (
    ("ready", State.READY), ("not ready", State.NOT_READY), ("terminating", State.TERMINATING),
)  # fmt: skip


def svg(graph: Graph) -> str:
    """The picture as a file of its own. Titles tell more where the pointer rests."""
    return "\n".join(_svg_lines(graph, layout(graph))) + "\n"


def _svg_lines(graph: Graph, placed: Layout) -> Iterator[str]:
    width, height = max(placed.width, 420.0), placed.height + 2 * LINE
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">'
    )
    yield f"<title>{escape(graph.name)}</title>"
    yield f"<style>{_STYLE}</style>"
    # Nodes lie below their Pods, and lines between both.
    for vertex in graph.vertices:
        if vertex.kind is not Kind.POD:
            yield from _vertex(vertex, placed.boxes[vertex.id])
    for edge in graph.edges:
        yield from _edge(edge, placed)
    for vertex in graph.of(Kind.POD):
        if vertex.id in placed.boxes:
            yield from _vertex(vertex, placed.boxes[vertex.id])
    yield from _legend(placed.height + LINE)
    yield "</svg>"


def _vertex(vertex: Vertex, box: Box) -> Iterator[str]:
    lines = (vertex.title, *vertex.details)
    state = f"{vertex.kind} {vertex.name}: {vertex.state}" if vertex.kind is not Kind.UNDERLAY else vertex.name
    yield f'<g class="vertex {vertex.kind} {_class(vertex.state)}" data-id="{escape(vertex.id)}">'
    yield f"<title>{escape(chr(10).join((state, *vertex.details)))}</title>"
    yield f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"/>'
    for number, line in enumerate(lines):
        title, y = ' class="title"' if number == 0 else "", box.y + PAD / 2 + (number + 0.75) * LINE
        yield f'<text x="{box.x + PAD:.1f}" y="{y:.1f}"{title}>{escape(line)}</text>'
    yield "</g>"


def _edge(edge: Edge, placed: Layout) -> Iterator[str]:
    if edge.source not in placed.boxes or edge.target not in placed.boxes:
        return
    source, target = placed.boxes[edge.source], placed.boxes[edge.target]
    ends = f'data-from="{escape(edge.source)}" data-to="{escape(edge.target)}"'
    yield f'<g class="edge {edge.kind} {_class(edge.state)}" {ends}>'
    told = (f"{edge.source} - {edge.target}: {edge.state if edge.kind == 'endpoint' else ''}", *edge.labels)
    yield f"<title>{escape(chr(10).join(told).removesuffix(': '))}</title>"
    if edge.kind == "link":
        yield from _link(edge, source, target)
    else:
        bend = (target.x - source.right) / 2
        yield (
            f'<path d="M {source.right:.1f} {source.middle:.1f} C {source.right + bend:.1f} {source.middle:.1f}, '
            f'{target.x - bend:.1f} {target.middle:.1f}, {target.x:.1f} {target.middle:.1f}"{_width(edge)}/>'
        )
        if edge.connections:
            x, y = (source.right + target.x) / 2, (source.middle + target.middle) / 2 + 4
            yield f'<text class="count" x="{x:.1f}" y="{y:.1f}">{edge.connections}</text>'
    yield "</g>"


def _width(edge: Edge) -> str:
    """A line is the thicker the more connections it stands for, by the logarithm."""
    return f' style="stroke-width:{1.2 + log2(edge.connections):.1f}"' if edge.connections else ""


def _link(edge: Edge, machine: Box, underlay: Box) -> Iterator[str]:
    """A straight line, with what the link is like above it."""
    left, right = (machine.right, underlay.x) if machine.x < underlay.x else (underlay.right, machine.x)
    yield f'<path d="M {left:.1f} {machine.middle:.1f} H {right:.1f}"/>'
    for number, label in enumerate(edge.labels):
        y = machine.middle - 4 - (len(edge.labels) - 1 - number) * LINE
        yield f'<text x="{left + 6:.1f}" y="{y:.1f}">{escape(label)}</text>'


def _legend(y: float) -> Iterator[str]:
    x = PAD
    for name, state in _LEGEND:
        yield f'<g class="edge endpoint {_class(state)}"><path d="M {x:.0f} {y:.0f} h 28"/>'
        yield f'<text x="{x + 34:.0f}" y="{y + 4:.0f}">{name}</text></g>'
        x += 134


def _class(state: State) -> str:
    return state.replace(" ", "-")


_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 0; display: flex; font: 13px sans-serif }}
main {{ flex: 1; overflow: auto; height: 100vh }}
aside {{ width: 22em; padding: 1em; background: #eceff1; height: 100vh; box-sizing: border-box; overflow: auto }}
pre {{ white-space: pre-wrap }}
svg.chosen .vertex:not(.hot), svg.chosen .edge:not(.hot) {{ opacity: .2 }}
</style>
</head>
<body>
<main>
{picture}
</main>
<aside><h1>{title}</h1><pre id="about">Point at something.</pre></aside>
<script>
const svg = document.querySelector("svg"), about = document.getElementById("about");
const all = [...svg.querySelectorAll(".vertex, .edge")];
const text = element => element.querySelector("title").textContent;
function choose(id) {{
  const mine = all.filter(each => each.dataset.from === id || each.dataset.to === id);
  const near = new Set([id, ...mine.flatMap(each => [each.dataset.from, each.dataset.to])]);
  for (const each of all) each.classList.toggle("hot", mine.includes(each) || near.has(each.dataset.id));
  svg.classList.add("chosen");
  const itself = all.filter(each => each.dataset.id === id);
  about.textContent = [...itself, ...mine].map(text).join("\\n\\n");
}}
for (const each of all.filter(each => each.dataset.id)) {{
  each.addEventListener("mouseenter", () => choose(each.dataset.id));
  each.addEventListener("mouseleave", () => svg.classList.remove("chosen"));
}}
</script>
</body>
</html>
"""


def html(graph: Graph) -> str:
    """A page with the picture: pointing at something shows what it is connected to, and everything known of it."""
    return _PAGE.format(title=escape(graph.name), picture=svg(graph).rstrip())
