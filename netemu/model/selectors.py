"""Label and field selectors, as text in a query and as objects in a spec.

Grammar of the text form: apimachinery `labels/selector.go` (`a=b,c!=d,e in (x,y),f notin (z),g,!h`)
and `fields/selector.go` (`metadata.name=x,status.phase!=Running`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from netemu.model.errors import BadRequest

_SET = re.compile(r"^(?P<key>[^\s=!,()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)$")
_PAIR = re.compile(r"^(?P<key>[^\s=!,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!,()]*)$")
_WORD = re.compile(r"^(?P<not>!?)\s*(?P<key>[^\s=!,()]+)$")
_TERM = re.compile(r"(?:[^,(]|\([^)]*\)?)+")
"""What stands between commas, those inside of brackets left out."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. `op` is In, NotIn, Exists or DoesNotExist; `=` is In with one value."""

    key: str
    op: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy this term. NotIn is also satisfied where the key is absent."""
        value = labels.get(self.key)
        if self.op == "In":
            return value is not None and value in self.values
        if self.op == "NotIn":
            return value is None or value not in self.values
        return (value is not None) == (self.op == "Exists")


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All terms must hold; no term selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected."""
        labels = labels or {}
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)

    @staticmethod
    def parse(text: str) -> LabelSelector:
        """Read the query form. Raises BadRequest with the term that is wrong."""
        return LabelSelector(tuple(_label_term(term.strip()) for term in _TERM.findall(text) if term.strip()))

    @staticmethod
    def of_map(labels: Mapping[str, str]) -> LabelSelector:
        """The selector of a Service: every pair must match."""
        return LabelSelector(tuple(Requirement(k, "In", frozenset((v,))) for k, v in sorted(labels.items())))

    @staticmethod
    def of_spec(spec: Mapping[str, Any] | None) -> LabelSelector:
        """A `metav1.LabelSelector` object: matchLabels and matchExpressions."""
        spec = spec or {}
        terms = [Requirement(k, "In", frozenset((v,))) for k, v in sorted((spec.get("matchLabels") or {}).items())]
        for term in spec.get("matchExpressions") or ():
            terms.append(Requirement(term["key"], term["operator"], frozenset(term.get("values") or ())))
        return LabelSelector(tuple(terms))

    def __str__(self) -> str:
        return ",".join(map(_label_text, self.requirements))


def _label_text(term: Requirement) -> str:
    if term.op in ("Exists", "DoesNotExist"):
        return term.key if term.op == "Exists" else f"!{term.key}"
    if term.op == "In" and len(term.values) == 1:
        return f"{term.key}={next(iter(term.values))}"
    return f"{term.key} {term.op.lower()} ({','.join(sorted(term.values))})"


def _label_term(term: str) -> Requirement:
    if match := _SET.match(term):
        values = frozenset(value.strip() for value in match["values"].split(","))
        return Requirement(match["key"], "In" if match["op"] == "in" else "NotIn", values)
    if match := _PAIR.match(term):
        return Requirement(match["key"], "NotIn" if match["op"] == "!=" else "In", frozenset((match["value"],)))
    if match := _WORD.match(term):
        return Requirement(match["key"], "DoesNotExist" if match["not"] else "Exists")
    raise BadRequest(f"unable to parse requirement: {term!r} is no label selector term")


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Terms `(path, equal, value)`; a missing field counts as the empty string."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, obj: Mapping[str, Any]) -> bool:
        """Whether a plain JSON object is selected."""
        return all((field_text(obj, path) == value) == equal for path, equal, value in self.terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def value(self, path: str) -> str | None:
        """What a term demands `path` to equal, for indexes."""
        return next((value for p, equal, value in self.terms if p == path and equal), None)

    @staticmethod
    def parse(text: str, supported: Iterable[str] | None = None) -> FieldSelector:
        """Read the query form. Raises BadRequest for a term that is wrong or a field that is not `supported`."""
        allowed = None if supported is None else frozenset(supported)
        terms: list[tuple[str, bool, str]] = []
        for term in filter(None, (part.strip() for part in text.split(","))):
            match = re.match(r"^([^=!]+)(==|=|!=)(.*)$", term)
            if not match:
                raise BadRequest(f"invalid selector: {text!r}; can't understand {term!r}")
            path = match[1].strip()
            if allowed is not None and path not in allowed:
                raise BadRequest(f"field label not supported: {path}")
            terms.append((path, match[2] != "!=", match[3].strip()))
        return FieldSelector(tuple(terms))


def field_text(obj: Mapping[str, Any], path: str) -> str:
    """The text of a dotted field path, empty where it is absent."""
    value: Any = obj
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return ""
        value = value.get(part)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
