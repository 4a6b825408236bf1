"""The part of Go's `text/template` that DNS templates need: text with `{{ ... }}` in it.

Inside stand references (`.Name`, `.Group.a`), the functions `index LIST KEY`, `parseInt TEXT BASE BITS`, `printf FORMAT
VALUE...`, `print`, `len`, `eq` and `ne`, calls in parentheses, values handed on with `|`, and `if / else / end`. A
template is read once and filled often; what it does not know it refuses when it is read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ACTION = re.compile(r"{{-?\s*(.*?)\s*-?}}", re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|-?\d+|\.[\w.]*|\w+|[()|]')


class TemplateError(ValueError):
    """A template that is wrong, or that does not fit the values."""


def _index(of: Any, key: Any) -> Any:
    try:
        return of[key]
    except (KeyError, IndexError, TypeError) as error:
        raise TemplateError(f"index: there is no {key!r}") from error


def _parse_int(text: str, base: int, bits: int = 64) -> int:
    try:
        number = int(text, base)
    except ValueError as error:
        raise TemplateError(f"parseInt: {text!r} is not a number of base {base}") from error
    if number < 0 or number >= 1 << bits:
        raise TemplateError(f"parseInt: {text!r} does not fit into {bits} bits")
    return number


def _printf(form: str, *values: Any) -> str:
    try:
        return form.replace("%v", "%s") % values
    except (TypeError, ValueError) as error:
        raise TemplateError(f"printf: {form!r} does not fit the values") from error


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "index": _index,
    "parseInt": _parse_int,
    "printf": _printf,
    "print": lambda *values: "".join(map(str, values)),
    "len": len,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
}

_Value = Callable[[Mapping[str, Any]], Any]
_Part = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read; `references` are the first words of what it refers to, `Name` or `Group`."""

    parts: tuple[_Part, ...]
    references: frozenset[str]

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text for these values. Raises TemplateError."""
        return "".join([part(values) for part in self.parts])


def read(text: str, known: Sequence[str]) -> Template:
    """A template; `known` are the references it may make. Raises TemplateError."""
    return _Reader(text, known).template()


class _Reader:
    """Recursive descent: blocks of text and actions, expressions within actions."""

    def __init__(self, text: str, known: Sequence[str]) -> None:
        pieces = _ACTION.split(text)
        self.pieces = [(bool(at % 2), piece) for at, piece in enumerate(pieces)]
        self.known, self.references = known, set[str]()
        self.at = 0

    def template(self) -> Template:
        parts, ended = self._block()
        if ended:
            raise TemplateError(f"{{{{ {ended} }}}} without {{{{ if }}}}")
        return Template(tuple(parts), frozenset(self.references))

    def _block(self) -> tuple[list[_Part], str]:
        """Parts up to `else` or `end`, and which of them it was."""
        parts: list[_Part] = []
        while self.at < len(self.pieces):
            action, piece = self.pieces[self.at]
            self.at += 1
            if not action:
                if "{{" in piece:
                    raise TemplateError(f"{piece[piece.index('{{') :]!r} is not closed; expected }}}}")
                parts.append(lambda values, piece=piece: piece)  # type: ignore[misc]
            elif piece in ("else", "end"):
                return parts, piece
            elif piece.startswith("if "):
                parts.append(self._condition(piece))
            else:
                value = self._expression(piece)
                parts.append(lambda values, value=value: str(value(values)))  # type: ignore[misc]
        return parts, ""

    def _condition(self, piece: str) -> _Part:
        test = self._expression(piece.removeprefix("if "))
        then, ended = self._block()
        other: list[_Part] = []
        if ended == "else":
            other, ended = self._block()
        if ended != "end":
            raise TemplateError(f"{{{{ {piece} }}}} without {{{{ end }}}}")
        return lambda values: "".join([part(values) for part in (then if test(values) else other)])

    def _expression(self, text: str) -> _Value:
        tokens = list(_tokens(text))
        value = self._pipeline(tokens, text)
        if tokens:
            raise TemplateError(f"{{{{ {text} }}}}: unexpected {tokens[0]!r}")
        return value

    def _pipeline(self, tokens: list[str], text: str) -> _Value:
        value = self._call(tokens, text, None)
        while tokens and tokens[0] == "|":
            tokens.pop(0)
            value = self._call(tokens, text, value)
        return value

    def _call(self, tokens: list[str], text: str, piped: _Value | None) -> _Value:
        function = None
        if tokens and re.fullmatch(r"[A-Za-z]\w*", tokens[0]):
            name = tokens.pop(0)
            if name not in _FUNCTIONS:
                raise TemplateError(f"{{{{ {text} }}}}: unknown function {name!r}; known: {', '.join(_FUNCTIONS)}")
            function = _FUNCTIONS[name]
        arguments = []
        while tokens and tokens[0] not in ("|", ")"):
            arguments.append(self._operand(tokens, text))
        if piped:
            arguments.append(piped)
        if function is None:
            if len(arguments) != 1:
                raise TemplateError(f"{{{{ {text} }}}}: expected one value, or a function and its arguments")
            return arguments[0]
        return lambda values: _called(function, [argument(values) for argument in arguments])

    def _operand(self, tokens: list[str], text: str) -> _Value:
        token = tokens.pop(0)
        if token == "(":
            value = self._pipeline(tokens, text)
            if not tokens or tokens.pop(0) != ")":
                raise TemplateError(f"{{{{ {text} }}}}: ( is not closed")
            return value
        if token[0] in '"`':
            literal: Any = token[1:-1] if token[0] == "`" else re.sub(r"\\(.)", r"\1", token[1:-1])
        elif token[0] == ".":
            return self._reference(token, text)
        elif token.lstrip("-").isdecimal():
            literal = int(token)
        else:
            raise TemplateError(f"{{{{ {text} }}}}: unexpected {token!r}")
        return lambda values: literal

    def _reference(self, token: str, text: str) -> _Value:
        first, *rest = token[1:].split(".")
        if first not in self.known:
            near = difflib.get_close_matches(first, self.known, n=1)
            right = f"did you mean .{near[0]}?" if near else f"known: {', '.join('.' + word for word in self.known)}"
            raise TemplateError(f"{{{{ {text} }}}}: unknown {token}; {right}")
        self.references.add(first)

        def value(values: Mapping[str, Any]) -> Any:
            found: Any = values[first]
            for word in rest:
                # A map in Go has the zero value for what is not in it.
                found = found.get(word, "") if isinstance(found, Mapping) else ""
            return found

        return value


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _TOKEN.match(text, at)
        if not found:
            raise TemplateError(f"{{{{ {text} }}}} is not understood")
        yield found[0]
        at = found.end()


def _called(function: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return function(*arguments)
    except TypeError as error:
        raise TemplateError(str(error)) from error
