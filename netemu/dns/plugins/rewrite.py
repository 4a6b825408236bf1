"""`rewrite [continue|stop] FIELD ...`: ask something else than the client did, and answer as if nothing had happened.

    rewrite [continue|stop] name [exact|prefix|suffix|substring|regex] FROM TO [answer auto | answer name|value FROM TO...]
    rewrite [continue|stop] type FROM TO
    rewrite [continue|stop] class FROM TO
    rewrite [continue|stop] ttl [exact|prefix|suffix|substring|regex] NAME SECONDS | MIN-MAX | MIN- | -MAX
    rewrite [continue|stop] rcode [exact|prefix|suffix|substring|regex] NAME FROM TO
    rewrite [continue|stop] cname [exact|prefix|suffix|substring|regex] FROM TO
    rewrite [continue|stop] edns0 local set|append|replace|unset CODE [DATA]
    rewrite [continue|stop] edns0 nsid set|append|replace|unset
    rewrite [continue|stop] edns0 subnet set|append|replace|unset [BITS4 BITS6]

Rules are tried in the order of the Corefile; the first that fits ends it, unless it says `continue`. The words may also
stand in a block, one part per line. In `regex` rules `{1}` stands for the first group.

The question section of the reply is the client's in any case. Owner names in the answer are put back for `exact` rules,
and for others with `answer auto` - without it, a resolver will not find what it asked for. `answer name` and `answer
value` change owners and targets by a regular expression. `ttl` puts lifetimes within bounds, `rcode` turns one code into
another, `cname` replaces the target of an alias and what it leads to. `edns0` changes the options that go along to other
servers; DATA is text, octets as `0x61626364`, or one of `{qname} {qtype} {client_ip} {client_port} {protocol}`
(`coredns/plugin/rewrite`).
"""  # noqa: E501

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable
from dataclasses import dataclass

from netemu.dns import edns, names, rewriting, wire
from netemu.dns.corefile import Directive, nearest
from netemu.dns.edns import Edit
from netemu.dns.plugin import NEXT, Block, Plugin, Refuse, Result, follow
from netemu.dns.rewriting import MATCHES, Change, Pattern
from netemu.dns.wire import Query, Record, Response

_FIELDS = ("name", "type", "class", "ttl", "rcode", "cname", "edns0")
_CLASSES = {"IN": 1, "CH": 3, "HS": 4, "NONE": 254, "ANY": 255}
_LONGEST = 2**32 - 1


class Rule:
    """One directive. `stop`: no rule behind it is tried when it fits."""

    stop = True

    def ask(self, query: Query) -> Query | None:
        """What to ask instead, None when the rule does not fit. Raises ValueError for what is no question."""
        raise NotImplementedError

    async def answer(self, asked: Query, instead: Query, response: Response) -> None:
        """Change the answer to `instead` into one to `asked`."""


@dataclass(frozen=True, slots=True)
class _Name(Rule):
    pattern: Pattern
    auto: bool
    changes: tuple[Change, ...]
    stop: bool

    def ask(self, query: Query) -> Query | None:
        text = self.pattern.replaced(names.text(query.lower))
        return None if text is None else rewriting.renamed(query, text)

    async def answer(self, asked: Query, instead: Query, response: Response) -> None:
        if self.auto:
            back = rewriting.back(asked.name, instead.name)
            if self.pattern.kind == "suffix":  # other names of the zone come back too
                back = rewriting.by_pattern(Pattern("suffix", self.pattern.target, self.pattern.source))
                rewriting.changed(response, rewriting.owners(rewriting.back(asked.name, instead.name)))
            rewriting.changed(response, rewriting.owners(back))
            rewriting.changed(response, rewriting.values(back))
        for change in self.changes:
            rewriting.changed(response, change)


@dataclass(frozen=True, slots=True)
class _Field(Rule):
    """Type or class."""

    field: str
    source: int
    target: int
    stop: bool

    def ask(self, query: Query) -> Query | None:
        if getattr(query, self.field) != self.source:
            return None
        return dataclasses.replace(query, **{self.field: self.target, "question": b""})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Lifetime(Rule):
    pattern: Pattern
    change: Change
    stop: bool

    def ask(self, query: Query) -> Query | None:
        return query if self.pattern.fits(names.text(query.lower)) else None

    async def answer(self, asked: Query, instead: Query, response: Response) -> None:
        rewriting.changed(response, self.change)


@dataclass(frozen=True, slots=True)
class _Code(Rule):
    pattern: Pattern
    source: int
    target: int
    stop: bool

    def ask(self, query: Query) -> Query | None:
        return query if self.pattern.fits(names.text(query.lower)) else None

    async def answer(self, asked: Query, instead: Query, response: Response) -> None:
        if response.rcode == self.source:
            response.rcode = self.target


@dataclass(frozen=True, slots=True)
class _Target(Rule):
    """`cname`: fits every question; the answer tells whether there is an alias."""

    pattern: Pattern
    block: Block
    stop: bool

    def ask(self, query: Query) -> Query | None:
        return query

    async def answer(self, asked: Query, instead: Query, response: Response) -> None:
        for at, record in enumerate(response.answers):
            text = self.pattern.replaced(names.text(record.rdata.lower())) if record.type == wire.CNAME else None
            if text is None:
                continue
            target = names.parse(text)
            further = await follow(self.block, instead, target)
            found: list[Record] = further.answers if further else []
            response.answers = [*response.answers[:at], record._replace(rdata=target), *found]
            response.stable = False
            return


@dataclass(frozen=True, slots=True)
class _Option(Rule):
    edit: Edit
    stop: bool

    def ask(self, query: Query) -> Query | None:
        return self.edit.applied(query)


class Rewrite(Plugin):
    """All directives of a server block."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """See Plugin."""
        applied: list[tuple[Rule, Query, Query]] = []
        current = query
        for rule in self.rules:
            try:
                instead = rule.ask(current)
            except ValueError as error:
                return Refuse(wire.SERVFAIL, f"invalid name after rewrite: {error}")
            if instead is None:
                continue
            applied.append((rule, current, instead))
            current = instead
            if rule.stop:
                break
        return self._ask(current, applied) if applied else NEXT

    async def _ask(self, question: Query, applied: list[tuple[Rule, Query, Query]]) -> Result:
        response = await self.rest(question)
        for rule, asked, instead in reversed(applied):
            await rule.answer(asked, instead, response)
        return response


def setup_all(directives: list[Directive], block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    return Rewrite([_rule(directive, block) for directive in directives])


def _rule(directive: Directive, block: Block) -> Rule:
    words = [*directive.args, *(word for option in directive.options for word in (option.name, *option.args))]
    stop = not words or words[0].lower() != "continue"
    if words and words[0].lower() in ("continue", "stop"):
        words.pop(0)
    if not words:
        raise directive.error(f"rewrite: expected [continue|stop] and one of {', '.join(_FIELDS)}")
    field, *words = words
    try:
        match field.lower():
            case "name":
                return _name(words, stop)
            case "type" | "class":
                return _field(directive, field.lower(), words, stop)
            case "ttl":
                kind, (name, ttl) = _matched(words, 2, "ttl NAME SECONDS")
                return _Lifetime(rewriting.pattern(kind, name), rewriting.lifetimes(*_bounds(ttl)), stop)
            case "rcode":
                kind, (name, source, target) = _matched(words, 3, "rcode NAME FROM TO")
                return _Code(rewriting.pattern(kind, name), directive.rcode(source), directive.rcode(target), stop)
            case "cname":
                kind, (source, target) = _matched(words, 2, "cname FROM TO")
                return _Target(rewriting.pattern(kind, source, target), block, stop)
            case "edns0":
                # Options never come back to the client, so there is nothing to revert.
                return _Option(edns.edit(words[: words.index("revert")] if "revert" in words else words), stop)
    except ValueError as error:
        raise directive.error(f"rewrite: {error}") from error
    raise directive.error(f"rewrite: unknown field {field!r}{nearest(field, _FIELDS)}")


def _matched(words: list[str], count: int, form: str) -> tuple[str, list[str]]:
    """The kind of match, exact where none is named, and what follows. Raises ValueError."""
    field, rest = form.split(" ", 1)
    expected = f"expected {field} [{'|'.join(MATCHES)}] {rest}"
    if len(words) == count:
        return "exact", words
    if len(words) != count + 1:
        raise ValueError(expected)
    if words[0].lower() not in MATCHES:
        raise ValueError(f"unknown match {words[0]!r}{nearest(words[0], MATCHES) or '; ' + expected}")
    return words[0].lower(), words[1:]


def _field(directive: Directive, field: str, words: list[str], stop: bool) -> Rule:
    if len(words) != 2:
        raise ValueError(f"expected {field} FROM TO")
    if field == "type":
        return _Field("type", directive.type(words[0]), directive.type(words[1]), stop)
    numbers = []
    for word in words:
        if word.upper() not in _CLASSES:
            raise ValueError(f"unknown class {word!r}; expected {', '.join(_CLASSES)}")
        numbers.append(_CLASSES[word.upper()])
    return _Field("cls", numbers[0], numbers[1], stop)


def _bounds(word: str) -> tuple[int, int]:
    """`30`, `30-300`, `30-`, `-300`."""
    low, dash, high = word.partition("-")
    numbers = (low or "0", (high or str(_LONGEST)) if dash else low)
    if word in ("", "-") or not all(number.isdecimal() and int(number) <= _LONGEST for number in numbers):
        raise ValueError(f"{word!r} is not a TTL like 30, 30-300, 30- or -300")
    shortest, longest = map(int, numbers)
    if shortest > longest:
        raise ValueError(f"{word!r}: the lower bound is above the upper one")
    return shortest, longest


def _name(words: list[str], stop: bool) -> Rule:
    at = 2 if len(words) < 3 or words[2] == "answer" else 3
    kind, (source, target) = _matched(words[:at], 2, "name FROM TO [answer ...]")
    auto, changes = _answers(words[at:])
    return _Name(rewriting.pattern(kind, source, target), auto or kind == "exact", changes, stop)


def _answers(words: list[str]) -> tuple[bool, tuple[Change, ...]]:
    """`[answer] auto`, `[answer] name|value FROM TO`, any number of them."""
    auto, named = False, False
    changes: list[Change] = []
    if words and words[0] != "answer":
        raise ValueError(f"unexpected {words[0]!r}; expected answer auto, answer name or answer value")
    while words:
        word = words.pop(0)
        if word == "answer":
            if not words:
                raise ValueError("expected auto, name or value after answer")
            continue
        if word == "auto":
            auto = True
            continue
        if word not in ("name", "value") or len(words) < 2:
            raise ValueError(f"unexpected {word!r}; expected answer auto, or answer name|value FROM TO")
        rename = rewriting.by_pattern(rewriting.pattern("regex", words.pop(0), words.pop(0)))
        changes.append(rewriting.owners(rename) if word == "name" else rewriting.values(rename))
        named |= word == "name"
    if auto and named:
        raise ValueError("answer auto and answer name cannot be combined")
    return auto, tuple(changes)
