"""`template CLASS TYPE [ZONE...]`: answers made from the question.

    template IN A example.com {
        match ^ip-(?P<a>[0-9]+)[.]example[.]com[.]$
        answer "{{ .Name }} 60 IN A 10.0.0.{{ .Group.a }}"
        additional|authority RECORD
        rcode NXDOMAIN
        ederror CODE [TEXT]
        fallthrough [ZONE...]
    }

A question of that class and type (ANY means all) for a name in the zones is answered when one of the patterns is found
in the name, which is in lower case and ends with a dot; without `match`, always. When none is found the name does not
exist, or `fallthrough` hands it to the next template or plugin. Records are templates of Go (`gotemplate.py`) over
`.Name .Type .Class .Zone .Remote .Regex .Match .Group .Question .Message` (`coredns/plugin/template`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netemu.dns import gotemplate, names, wire, zonefile
from netemu.dns.corefile import Directive
from netemu.dns.gotemplate import Template as Text
from netemu.dns.plugin import NEXT, Block, Fallthrough, Plugin, Refuse, Result, longest_zone
from netemu.dns.wire import Query, Record, Response

_CLASSES = {"IN": 1, "CH": 3, "HS": 4, "ANY": 255}
_CLASS_NAMES = {number: name for name, number in _CLASSES.items()}
_SECTIONS = ("answer", "authority", "additional")
_OPTIONS = ("match", *_SECTIONS, "rcode", "ederror", "fallthrough")
_REFERENCES = (
    "Name", "Type", "Class", "Zone", "Remote", "Regex", "Match", "Group", "Question", "Message",
)  # fmt: skip
_OF_THE_CLIENT = frozenset(("Remote", "Message"))
"""What differs between clients that ask the same."""
_MOST_PARSED = 1000


@dataclass(frozen=True, slots=True)
class _Rule:
    """One directive."""

    zones: tuple[bytes, ...]
    type: int
    cls: int
    matches: tuple[re.Pattern[str], ...]
    sections: tuple[tuple[Text, ...], ...]
    """Answers, authority, additional."""
    rcode: int
    options: bytes
    falls: Fallthrough


class Template(Plugin):
    """Answers from the question alone."""

    def __init__(self, rule: _Rule, block: Block) -> None:
        self.rule, self.block = rule, block
        self.stable = not any(text.references & _OF_THE_CLIENT for lines in rule.sections for text in lines)
        self._parsed: dict[str, list[Record]] = {}

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        rule = self.rule
        zone = longest_zone(query.lower, rule.zones)
        if not zone or not _either(rule.type, query.type) or not _either(rule.cls, query.cls):
            return NEXT
        text = names.text(query.lower)
        found = next((found for each in rule.matches if (found := each.search(text))), None)
        if found is None:
            return NEXT if rule.falls(query.lower) else Refuse(wire.NXDOMAIN)
        if rule.rcode == wire.SERVFAIL:
            return Refuse(wire.SERVFAIL)
        values = _values(query, text, zone, found)
        try:
            answers, authority, additional = (
                [each for line in lines for each in self._records(line, values)] for lines in rule.sections
            )
        except ValueError as error:
            return Refuse(wire.SERVFAIL, str(error))
        return Response(
            rule.rcode, answers, authority, additional,
            options=rule.options, stable=self.stable, depends=(b"template",),
        )  # fmt: skip

    def _records(self, line: Text, values: Mapping[str, Any]) -> list[Record]:
        text = line.fill(values)
        found = self._parsed.get(text)
        if found is None:
            if len(self._parsed) >= _MOST_PARSED:
                self._parsed.clear()
            found = self._parsed[text] = zonefile.parse_one(text)
        return found


def _either(wanted: int, asked: int) -> bool:
    """Whether a class or type fits; ANY does on either side."""
    return wanted == 255 or asked in (255, wanted)


def _values(query: Query, text: str, zone: bytes, found: re.Match[str]) -> dict[str, Any]:
    kind, cls = wire.type_name(query.type), _CLASS_NAMES.get(query.cls, f"CLASS{query.cls}")
    return {
        "Name": text,
        "Type": kind,
        "Class": cls,
        "Zone": names.text(zone),
        "Remote": query.client[0],
        "Regex": found.re.pattern,
        "Match": [found[0], *(group or "" for group in found.groups())],
        "Group": {name: value or "" for name, value in found.groupdict().items()},
        "Question": {"Name": names.text(query.name), "Qtype": query.type, "Qclass": query.cls},
        "Message": {"Id": query.id},
    }


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if len(directive.args) < 2:
        raise directive.error("template: expected CLASS TYPE [ZONE...]")
    cls, kind, *zones = directive.args
    if cls.upper() not in _CLASSES:
        raise directive.error(f"template: unknown class {cls!r}; expected {', '.join(_CLASSES)}")
    sections: dict[str, tuple[Text, ...]] = dict.fromkeys(_SECTIONS, ())
    matches: tuple[re.Pattern[str], ...] = ()
    rcode, extended, falls = wire.NOERROR, b"", Fallthrough()
    for option in directive.options:
        match option.name:
            case "match":
                matches += tuple(option.pattern(word) for word in option.args)
            case "rcode":
                rcode = option.rcode(option.one("a response code"))
            case "ederror":
                extended = _extended(option)
            case "fallthrough":
                falls = Fallthrough(option)
            case section if section in sections:
                sections[section] += tuple(_text(option, word) for word in option.args)
            case _:
                raise option.unknown(_OPTIONS)
    rule = _Rule(
        directive.zones(zones) or block.zones, directive.type(kind), _CLASSES[cls.upper()],
        matches or (re.compile(".*"),), tuple(sections.values()), rcode, extended, falls,
    )  # fmt: skip
    return Template(rule, block)


def _text(option: Directive, line: str) -> Text:
    try:
        return gotemplate.read(line, _REFERENCES)
    except gotemplate.TemplateError as error:
        raise option.error(f"{option.name}: {error}") from error


def _extended(option: Directive) -> bytes:
    if not 1 <= len(option.args) <= 2 or not option.args[0].isdecimal() or int(option.args[0]) > 65535:
        raise option.error("ederror: expected CODE [TEXT], the code a number (RFC 8914)")
    return wire.extended_error(int(option.args[0]), *option.args[1:])
