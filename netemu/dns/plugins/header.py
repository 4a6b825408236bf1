"""`header { query|response set|clear FLAG... }`: bits of the header, on the way in and on the way out.

    header {
        response set aa ra
        query clear rd
    }

Flags are `aa` (authoritative), `ra` (recursion available) and `rd` (recursion desired). Without `query` or `response` a
line is about the response, as it was before both could be named. What is said about a query counts for the plugins
behind, and for other servers (`coredns/plugin/header`).
"""

from __future__ import annotations

from dataclasses import dataclass

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result
from netemu.dns.wire import Query, Response

_OPTIONS = ("query", "response", "set", "clear")
_FLAGS = {"aa": wire.AA, "ra": wire.RA, "rd": wire.RD}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line."""

    of_query: bool
    on: bool
    flags: tuple[str, ...]


class Header(Plugin):
    """Rules in their order."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        for rule in self.rules:
            for flag in rule.flags if rule.of_query else ():
                query.flags = query.flags | _FLAGS[flag] if rule.on else query.flags & ~_FLAGS[flag]
        return NEXT

    def after(self, query: Query, response: Response) -> None:
        """See Plugin."""
        for rule in self.rules:
            for flag in () if rule.of_query else rule.flags:
                if flag == "rd":  # the reply repeats the query's
                    query.flags = query.flags | wire.RD if rule.on else query.flags & ~wire.RD
                else:
                    setattr(response, flag, rule.on)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if directive.args:
        raise directive.error("header takes no arguments; its rules stand in a block")
    if not directive.options:
        raise directive.error("header: expected at least one rule, for example `response set ra`")
    return Header([_rule(option) for option in directive.options])


def _rule(option: Directive) -> Rule:
    if option.name not in _OPTIONS:
        raise option.unknown(_OPTIONS)
    words = [option.name, *option.args]
    of_query = words[0] == "query"
    if words[0] in ("query", "response"):
        words.pop(0)
    if len(words) < 2 or words[0] not in ("set", "clear"):
        raise option.error(f"{option.name}: expected [query|response] set|clear FLAG...")
    for word in words[1:]:
        if word not in _FLAGS:
            raise option.error(f"{option.name}: unknown flag {word!r}; expected aa, ra or rd")
    return Rule(of_query, words[0] == "set", tuple(words[1:]))
