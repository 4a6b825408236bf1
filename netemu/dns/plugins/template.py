"""`template CLASS TYPE [ZONE...]`: answers made from the question.

    template IN A example.com {
        match ^ip-(?P<a>[0-9]+)[.]example[.]com[.]$
        answer "{{ .Name }} 60 IN A 10.0.0.{{ .Group.a }}"
        additional|authority RECORD
        rcode NXDOMAIN
        fallthrough [ZONE...]
    }

Of Go's templates the plain references are known: `.Name .Type .Class .Zone .Remote`, `.Group.NAME`, `index .Match N`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Fallthrough, Plugin, Refuse, Result, longest_zone
from netemu.dns.wire import Query, Record, Response

_REFERENCE = re.compile(r"{{\s*(.*?)\s*}}")
_KNOWN = re.compile(r"\.(Name|Type|Class|Zone|Remote|Group\.\w+)|index\s+\.Match\s+\d+|index\s+\.Group\s+\"\w+\"")
_OPTIONS = ("match", "answer", "additional", "authority", "rcode", "fallthrough", "ederror")


@dataclass(frozen=True, slots=True)
class _Rule:
    zones: tuple[bytes, ...]
    type: int
    cls: int
    matches: tuple[re.Pattern[str], ...]
    answers: tuple[str, ...]
    additional: tuple[str, ...]
    authority: tuple[str, ...]
    rcode: int
    falls: Fallthrough


class Template(Plugin):
    """One `template` directive."""

    def __init__(self, rule: _Rule) -> None:
        self.rule = rule
        self._parsed: dict[str, list[Record]] = {}

    async def serve(self, query: Query) -> Result:
        """See Plugin."""
        rule = self.rule
        zone = longest_zone(query.lower, rule.zones)
        if not zone or rule.type not in (wire.ANY, query.type) or rule.cls not in (255, query.cls):
            return NEXT
        text = names.text(query.name)
        match = next((found for each in rule.matches if (found := each.search(text))), None)
        if match is None:
            return NEXT if rule.falls(query.lower) else Refuse(wire.NXDOMAIN)
        values = {
            ".Name": text,
            ".Type": wire.type_name(query.type),
            ".Class": "IN",
            ".Zone": names.text(zone),
            ".Remote": query.client[0],
        }
        try:
            sections = [
                [record for line in lines for record in self._records(_fill(line, values, match))]
                for lines in (rule.answers, rule.authority, rule.additional)
            ]
        except ValueError as error:
            return Refuse(wire.SERVFAIL, str(error))
        if not any(sections) and rule.rcode == wire.NOERROR and rule.falls(query.lower):
            return NEXT
        return Response(rule.rcode, sections[0], sections[1], sections[2])

    def _records(self, line: str) -> list[Record]:
        found = self._parsed.get(line)
        if found is None:
            if len(self._parsed) > 1000:
                self._parsed.clear()
            found = self._parsed[line] = wire.parse_records(line)
        return found


def _fill(line: str, values: dict[str, str], match: re.Match[str]) -> str:
    def value(reference: re.Match[str]) -> str:
        words = reference[1].split()
        if words[0] == "index":
            key = words[2].strip('"')
            return (match[int(key)] if key.isdecimal() else match[key]) or ""
        return values.get(words[0]) or match[words[0].removeprefix(".Group.")] or ""

    return _REFERENCE.sub(value, line)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if len(directive.args) < 2:
        raise directive.error("template: expected CLASS TYPE [ZONE...]")
    cls, kind, *zones = directive.args
    classes = {"IN": 1, "CH": 3, "ANY": 255}
    if cls.upper() not in classes:
        raise directive.error(f"template: unknown class {cls!r}; expected {', '.join(classes)}")
    if kind.upper() not in wire.TYPES:
        raise directive.error(f"template: unknown type {kind!r}")
    lines: dict[str, tuple[str, ...]] = {"answer": (), "additional": (), "authority": ()}
    matches: tuple[re.Pattern[str], ...] = ()
    rcode, falls = wire.NOERROR, Fallthrough()
    for option in directive.options:
        if option.name == "match":
            matches += tuple(_pattern(option, word) for word in option.args)
        elif option.name in lines:
            lines[option.name] += tuple(_checked(option, word) for word in option.args)
        elif option.name == "rcode":
            word = option.one("a response code").upper()
            if word not in wire.RCODES:
                raise option.error(f"rcode: {word!r} is none of {', '.join(wire.RCODES)}")
            rcode = wire.RCODES[word]
        elif option.name == "fallthrough":
            falls = Fallthrough(option)
        else:
            raise option.unknown(_OPTIONS)
    return Template(
        _Rule(
            directive.zones(zones) or block.zones,
            wire.TYPES[kind.upper()],
            classes[cls.upper()],
            matches or (re.compile(".*"),),
            lines["answer"],
            lines["additional"],
            lines["authority"],
            rcode,
            falls,
        )
    )


def _pattern(option: Directive, word: str) -> re.Pattern[str]:
    try:
        return re.compile(word)
    except re.error as error:
        raise option.error(f"match: {word!r} is not a regular expression: {error}") from error


def _checked(option: Directive, line: str) -> str:
    for reference in _REFERENCE.findall(line):
        if not _KNOWN.fullmatch(reference):
            raise option.error(
                f"{option.name}: {{{{ {reference} }}}} is not supported; expected .Name, .Group.x and the like"
            )
    return line
