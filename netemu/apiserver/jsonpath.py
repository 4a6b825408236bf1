"""JSON paths as CustomResourceDefinitions have them: where in an object a printer column finds its value.

    .spec.replicas     .metadata.labels.app\\.kubernetes\\.io/name     .metadata.annotations['a.b/c']
    .spec.hosts[0]     .spec.hosts[*]     .spec.hosts[-1:]     .status.conditions[?(@.type=="Ready")].status

That is the part of kubectl's dialect that makes sense without a template; a path may find several values, or none.
Upstream: client-go `util/jsonpath`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Step = Callable[[Any], Iterable[Any]]

_FIELD = re.compile(r"\.((?:[^.\[\\]|\\.)+)")
_QUOTED = re.compile(r"\[\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\s*\]")
_SLICE = re.compile(r"\[\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?(?::\s*(-?\d*)\s*)?\]")
_FILTER = re.compile(r"\[\?\(\s*@((?:[^=!<>\s])*)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?))?\s*\)\]")


class BadPath(ValueError):
    """A path that cannot be read."""


class JsonPath:
    """A path that was read. Raises BadPath."""

    def __init__(self, text: str) -> None:
        self._steps: list[Step] = []
        rest = text if text != "." else ""
        while rest:
            step, length = _step(rest)
            self._steps.append(step)
            rest = rest[length:]

    def find(self, value: Any) -> list[Any]:
        """All values that the path leads to."""
        found = [value]
        for step in self._steps:
            found = [inner for outer in found for inner in step(outer)]
        return found


def _step(text: str) -> tuple[Step, int]:
    if text.startswith(("[*]", ".*")):
        return _every, 3 if text[0] == "[" else 2
    if match := _FIELD.match(text):
        name = re.sub(r"\\(.)", r"\1", match[1])
        return lambda value: _field(value, name), match.end()
    if match := _QUOTED.match(text):
        key = re.sub(r"\\(.)", r"\1", match[1][1:-1])
        return lambda value: _field(value, key), match.end()
    if (match := _SLICE.match(text)) and (match[1] or match[2] is not None):
        return _slice(*match.groups()), match.end()
    if match := _FILTER.match(text):
        return _filter(*match.groups()), match.end()
    raise BadPath(f"cannot read {text!r}")


def _every(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _field(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict) and name in value:
        yield value[name]


def _slice(start: str, end: str | None, step: str | None) -> Step:
    if end is None:
        index = int(start)
        return lambda value: value[index : index + 1 or None] if isinstance(value, list) else ()
    part = slice(int(start) if start else None, int(end) if end else None, int(step) if step else None)
    return lambda value: value[part] if isinstance(value, list) else ()


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: bool(left == right),
    "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    ">": lambda left, right: bool(left > right),
    "<=": lambda left, right: bool(left <= right),
    ">=": lambda left, right: bool(left >= right),
}


def _filter(path: str, operator: str | None, literal: str | None) -> Step:
    inner = JsonPath(path)
    if operator is None:
        return lambda value: (item for item in _every(value) if inner.find(item))
    wanted, compare = _literal(literal or ""), _COMPARE[operator]

    def holds(item: Any) -> bool:
        for found in inner.find(item):
            try:
                return compare(found, wanted)
            except TypeError:  # a text and a number
                return False
        return False

    return lambda value: (item for item in _every(value) if holds(item))


def _literal(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if re.search(r"[.eE]", text) else int(text)
    except ValueError:
        raise BadPath(f"cannot compare with {text!r}") from None
