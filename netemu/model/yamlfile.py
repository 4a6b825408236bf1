"""YAML with line numbers: every value knows where it stands, so that every mistake can say so.

PyYAML composes a node graph with positions and then forgets them; here the graph is kept beside the values. Two keys of
one name in a mapping, which PyYAML lets pass, are a mistake too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from netemu.model.errors import UserError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Where = tuple[str | int, ...]
"""A path into a document: `("spec", "nodes", 0, "name")`."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a file."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class Mistakes(UserError):
    """Everything wrong with a file, one line each, in the order of its lines."""

    placed = True

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: (mistake.file, mistake.line))
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its value, and the line of each key and list item."""

    file: str
    value: Any
    lines: dict[Where, int] = field(repr=False)

    def line(self, where: Where = ()) -> int:
        """The line of a path, or of the nearest thing around it that is there."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines[where]

    def mistake(self, where: Where, text: str) -> Mistake:
        """`text` about the value at `where`, with the path written as Kubernetes writes it."""
        path = path_text(where)
        return Mistake(self.file, self.line(where), f"{path}: {text}" if path else text)


def path_text(where: Where) -> str:
    """`spec.nodes[0].name`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_documents(path: Path) -> tuple[list[Document], list[Mistake]]:
    """All documents of a file (empty ones skipped) and the mistakes of syntax in it. Raises UserError if unreadable."""
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    mistakes: list[Mistake] = []
    documents: list[Document] = []
    loader = _Loader(text)
    try:
        while loader.check_node():
            root = loader.get_node()
            lines: dict[Where, int] = {}
            if looped := _loop(root, ()):
                mistakes.append(Mistake(str(path), looped.start_mark.line + 1, "an alias contains itself"))
                continue
            mistakes.extend(_positions(str(path), root, (), lines))
            value = loader.construct_document(root)
            if value is not None:
                documents.extend(_unpacked(Document(str(path), value, lines)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, (error.context, error.problem)))
        mistakes.append(Mistake(str(path), mark.line + 1 if mark else 1, f"not valid YAML: {problem}"))
    except yaml.YAMLError as error:
        mistakes.append(Mistake(str(path), 1, f"not valid YAML: {' '.join(str(error).split())}"))
    finally:
        loader.dispose()
    return documents, mistakes


def _loop(node: yaml.Node, around: tuple[yaml.Node, ...]) -> yaml.Node | None:
    """A node that is inside itself, by way of an alias."""
    if any(node is outer for outer in around):
        return node
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    return next(filter(None, (_loop(child, (*around, node)) for child in inner)), None)


def _unpacked(document: Document) -> list[Document]:
    """The items of a `kind: List`, which `kubectl get -o yaml` prints, as documents of their own."""
    value = document.value
    if not isinstance(value, dict) or value.get("kind") != "List" or not isinstance(value.get("items"), list):
        return [document]
    items = []
    for index, item in enumerate(value["items"]):
        begin = ("items", index)
        lines = {where[2:]: line for where, line in document.lines.items() if where[:2] == begin}
        items.append(Document(document.file, item, lines))
    return items


def _positions(file: str, node: yaml.Node, where: Where, lines: dict[Where, int]) -> Iterator[Mistake]:
    # A key's own line, set by the parent, says more than the line its value begins on.
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*where, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                yield Mistake(file, line, f"{path_text(inner)}: given twice, first on line {lines[inner]}")
            lines[inner] = line
            yield from _positions(file, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _positions(file, value, (*where, index), lines)
