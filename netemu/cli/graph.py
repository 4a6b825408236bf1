"""`netemu graph`: a lab as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from netemu.cli.labs import pick
from netemu.cli.output import Drawing, json_text, say, write_file
from netemu.cli.root import need_root
from netemu.observe.graph.model import Graph

_SUFFIXES = {
    ".dot": Drawing.dot, ".gv": Drawing.dot, ".mmd": Drawing.mermaid, ".mermaid": Drawing.mermaid,
    ".svg": Drawing.svg, ".html": Drawing.html, ".json": Drawing.json,
}  # fmt: skip


def graph(lab: str, drawing: Drawing | None, *, namespace: str, service: str, flows: bool, file: Path | None) -> None:
    """`netemu graph`."""
    from netemu.lab.lab_graph import read_graph
    from netemu.lab.node_rules import find_service
    from netemu.observe.graph.model import part_of

    need_root()
    if namespace and service:
        raise typer.BadParameter("--namespace and --service: give one of them")
    kind = drawing or _by_suffix(file)
    lab = pick(lab)
    wanted = find_service(lab, service).partition(":")[0] if service else ""
    found = read_graph(lab, flows=flows)
    text = _drawer(kind)(part_of(found, namespace=namespace, service=wanted) if namespace or wanted else found)
    if file is None:
        say(text.rstrip())
    else:
        write_file(file, text)


def _by_suffix(file: Path | None) -> Drawing:
    if file is None:
        return Drawing.dot
    if file.suffix not in _SUFFIXES:
        raise typer.BadParameter(f"{file}: give --format, or a name that ends in {', '.join(_SUFFIXES)}")
    return _SUFFIXES[file.suffix]


def _drawer(kind: Drawing) -> Callable[[Graph], str]:
    from netemu.observe.graph import svg as graph_svg
    from netemu.observe.graph import text as graph_text

    return {
        Drawing.dot: graph_text.dot,
        Drawing.mermaid: graph_text.mermaid,
        Drawing.svg: graph_svg.svg,
        Drawing.html: graph_svg.html,
        Drawing.json: json_text,
    }[kind]
