"""Rules that change questions and answers, as values: which names they fit, and what becomes of records.

Theory of operation. Names are text here, in lower case with the last dot, because that is what patterns and
replacements are written for. A rule looks at a question and says either nothing, or the question to ask instead and the
changes that undo this in the answer. With several rules, undoing goes backwards (`coredns/plugin/rewrite`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from netemu.dns import names, wire
from netemu.dns.wire import Query, Record, Response

MATCHES = ("exact", "prefix", "suffix", "substring", "regex")
_GROUP = re.compile(r"\{(\d+)\}")
_VALUES = {wire.NS: 0, wire.CNAME: 0, wire.MX: 2, wire.SRV: 6, 39: 0}
"""Types whose data ends with a name, and where it begins; 39 is DNAME."""

Renaming = Callable[[bytes], bytes]
"""A name of the answer, in wire form, into another."""
Change = Callable[[Record], Record]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Fits names in one of five ways and says what they become."""

    kind: str
    source: str
    target: str = ""
    regex: re.Pattern[str] | None = None

    def fits(self, name: str) -> bool:
        """Whether the rule is about this name."""
        return self.replaced(name) is not None

    def replaced(self, name: str) -> str | None:
        """The name it becomes, None for a name that it does not fit."""
        source, target = self.source, self.target
        match self.kind:
            case "exact":
                return target if name == source else None
            case "prefix":
                return target + name.removeprefix(source) if name.startswith(source) else None
            case "suffix":
                return name.removesuffix(source) + target if name.endswith(source) else None
            case "substring":
                return name.replace(source, target) if source in name else None
        assert self.regex is not None
        found = self.regex.search(name)
        # A group may have taken the last dot, and the target has one of its own.
        return re.sub(r"[.]+$", ".", expanded(target, found)) if found else None


def pattern(kind: str, source: str, target: str = "", absolute: bool = True) -> Pattern:
    """A pattern from its words; `absolute`: what stands for a whole name gets its last dot. Raises ValueError."""
    if kind == "regex":
        return Pattern(kind, source, dotted(target) if absolute else target, regex(source, target))
    source, target = source.lower(), target.lower()
    if absolute and kind in ("exact", "suffix"):
        source, target = dotted(source), dotted(target)
    return Pattern(kind, source, target)


def regex(source: str, target: str) -> re.Pattern[str]:
    """Compiled, and with enough groups for the target. Raises ValueError."""
    try:
        found = re.compile(source)
    except re.error as error:
        raise ValueError(f"{source!r} is not a regular expression: {error}") from error
    most = max((int(number) for number in _GROUP.findall(target)), default=0)
    if most > found.groups:
        raise ValueError(f"{target!r} uses group {most}, but {source!r} has {found.groups}")
    return found


def dotted(name: str) -> str:
    """The name with its last dot."""
    return name if name.endswith(".") else name + "."


def expanded(target: str, found: re.Match[str]) -> str:
    """`{1}` and so on replaced by the groups."""
    return _GROUP.sub(lambda group: found[int(group[1])] or "", target)


# --- what happens to records -------------------------------------------------------------------------------------


def back(asked: bytes, instead: bytes) -> Renaming:
    """From the name that was asked instead, and those beneath it, back to the one of the client."""
    lower = instead.lower()

    def rename(name: bytes) -> bytes:
        if name.lower() == lower:
            return asked
        front = name[: len(name) - len(lower)]
        if names.within(name.lower(), lower) and len(front) + len(asked) <= 255:
            return front + asked
        return name

    return rename


def by_pattern(rule: Pattern) -> Renaming:
    """Names as a pattern has them; what would be no name stays as it is."""

    def rename(name: bytes) -> bytes:
        text = rule.replaced(names.text(name.lower()))
        try:
            return name if text is None else names.parse(text)
        except ValueError:
            return name

    return rename


def owners(rename: Renaming) -> Change:
    """Renames what records belong to."""
    return lambda record: record._replace(name=rename(record.name))


def values(rename: Renaming) -> Change:
    """Renames what records point to."""

    def change(record: Record) -> Record:
        if record.type == wire.SOA:
            mname, at = wire.read_name(record.rdata, 0)
            return record._replace(rdata=rename(mname) + record.rdata[at:])
        if (at_name := _VALUES.get(record.type)) is None:
            return record
        return record._replace(rdata=record.rdata[:at_name] + rename(record.rdata[at_name:]))

    return change


def lifetimes(shortest: int, longest: int) -> Change:
    """TTLs within bounds."""
    return lambda record: record._replace(ttl=min(max(record.ttl, shortest), longest))


def changed(response: Response, change: Change) -> None:
    """Every record of a response, changed in place."""
    for section in ("answers", "authority", "additional"):
        setattr(response, section, [change(record) for record in getattr(response, section)])


def renamed(query: Query, text: str) -> Query:
    """The question with another name. Raises ValueError for what is no name."""
    return dataclasses.replace(query, name=names.parse(text), question=b"")
