"""The Corefile: CoreDNS's configuration language, read into blocks and directives.

A file is server blocks `KEY[, KEY...] { directives }`; a directive is a word, its arguments up to the end of the
line, and perhaps a block of options of the same shape. `#` comments to the end of the line, double quotes keep
spaces, `{$NAME}` and `{%NAME%}` are environment variables, `(name) { ... }` is a snippet, `import` inserts a snippet
or files. Every token knows its file and line, so every refusal can point at them. Grammar: `coredns/core/caddyfile`,
`caddy/caddyfile/lexer.go`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from netemu.dns import names, wire
from netemu.model.errors import UserError, reason

_ENVIRONMENT = re.compile(r"\{\$([^}]*)\}|\{%([^}]*)%\}")
_MOST_IMPORTS = 100
DEFAULT_PORT = 53


class _Token(NamedTuple):
    text: str
    file: str
    line: int
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Directive:
    """One line of a block, with the options of its own block, which are directives too."""

    name: str
    args: tuple[str, ...]
    options: tuple[Directive, ...]
    file: str
    line: int

    def error(self, message: str) -> UserError:
        """A refusal that points here."""
        return UserError(f"{self.file}:{self.line}: {message}")

    def unknown(self, known: Collection[str], what: str = "option") -> UserError:
        """A refusal of this word, with the nearest that is known."""
        return self.error(f"unknown {what} {self.name!r}{nearest(self.name, known)}")

    def one(self, what: str) -> str:
        """The only argument. Raises UserError."""
        if len(self.args) != 1:
            raise self.error(f"{self.name}: expected {what}, got {' '.join(self.args) or 'nothing'}")
        return self.args[0]

    def none(self) -> None:
        """Refuse arguments and options."""
        if self.args or self.options:
            raise self.error(f"{self.name} takes no arguments")

    def number(self, low: int, high: int) -> int:
        """The only argument as a number within bounds. Raises UserError."""
        word = self.one(f"a number from {low} to {high}")
        if not word.isdecimal() or not low <= int(word) <= high:
            raise self.error(f"{self.name}: {word!r} is not a number from {low} to {high}")
        return int(word)

    def duration(self) -> float:
        """The only argument as seconds; Go's spelling, `5s`, `1m30s`, `500ms`. Raises UserError."""
        word = self.one("a duration like 5s")
        seconds = parse_duration(word)
        if seconds is None:
            raise self.error(f"{self.name}: {word!r} is not a duration like 5s or 1m30s")
        return seconds

    def type(self, word: str) -> int:
        """The number of a record type, `A` or `TYPE65`. Raises UserError."""
        number = wire.type_number(word)
        if number is None:
            raise self.error(f"{self.name}: unknown type {word!r}{nearest(word.upper(), wire.TYPES)}")
        return number

    def rcode(self, word: str) -> int:
        """The number of a response code, `NXDOMAIN`. Raises UserError."""
        if word.upper() not in wire.RCODES:
            raise self.error(f"{self.name}: unknown response code {word!r}{nearest(word.upper(), wire.RCODES)}")
        return wire.RCODES[word.upper()]

    def network(self, word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """A range of addresses, or one address. Raises UserError."""
        try:
            return ipaddress.ip_network(word, strict=False)
        except ValueError as error:
            raise self.error(f"{self.name}: {word!r} is neither an address nor a range like 10.0.0.0/8") from error

    def pattern(self, word: str) -> re.Pattern[str]:
        """A regular expression. Raises UserError."""
        try:
            return re.compile(word)
        except re.error as error:
            raise self.error(f"{self.name}: {word!r} is not a regular expression: {error}") from error

    def zones(self, words: Collection[str]) -> tuple[bytes, ...]:
        """Words as lower-case zones. Raises UserError."""
        try:
            return tuple(zone for word in words for zone in names.zones(word))
        except ValueError as error:
            raise self.error(f"{self.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class ServerBlock:
    """`keys` are (zone, port), zones in wire form and lower-case."""

    keys: tuple[tuple[bytes, int], ...]
    directives: tuple[Directive, ...]
    file: str
    line: int


def nearest(word: str, known: Collection[str]) -> str:
    """`; did you mean "forward"?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def parse_duration(word: str) -> float | None:
    """Seconds of a Go duration (`time.ParseDuration`), None for what is none."""
    if word == "0":
        return 0.0
    if not re.fullmatch(r"(\d+(\.\d*)?(ms|us|ns|[hms]))+", word):
        return None
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    return sum(float(n) * units[u] for n, u in re.findall(r"(\d+(?:\.\d*)?)(ms|us|ns|[hms])", word))


def parse(text: str, file: str = "Corefile", env: Mapping[str, str] | None = None) -> list[ServerBlock]:
    """The server blocks of a Corefile. Raises UserError with file and line."""
    return _Parser(_tokens(text, file, os.environ if env is None else env), file, env).blocks()


def load(path: Path, env: Mapping[str, str] | None = None) -> list[ServerBlock]:
    """The server blocks of a file. Raises UserError."""
    return parse(_read(path), str(path), env)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {reason(error)}") from error


def _tokens(text: str, file: str, env: Mapping[str, str]) -> list[_Token]:
    tokens, line, i = [], 1, 0
    while i < len(text):
        c = text[i]
        if c.isspace():
            line += c == "\n"
            i += 1
        elif c == "#":
            i = end if (end := text.find("\n", i)) >= 0 else len(text)
        elif c == '"':
            value, i, lines = _quoted(text, i + 1, file, line)
            tokens.append(_Token(_expand(value, env), file, line, True))
            line += lines
        else:
            start = i
            while i < len(text) and not text[i].isspace():
                i += 1
            tokens.append(_Token(_expand(text[start:i], env), file, line))
    return tokens


def _quoted(text: str, i: int, file: str, line: int) -> tuple[str, int, int]:
    """(value, index behind the closing quote, lines passed)."""
    out: list[str] = []
    start = line
    while i < len(text):
        if text[i] == '"':
            return "".join(out), i + 1, line - start
        if text[i] == "\\" and text[i + 1 : i + 2] == '"':
            i += 1
        line += text[i] == "\n"
        out.append(text[i])
        i += 1
    raise UserError(f'{file}:{start}: a quotation mark is not closed; expected another "')


def _expand(word: str, env: Mapping[str, str]) -> str:
    return _ENVIRONMENT.sub(lambda match: env.get(match[1] or match[2] or "", ""), word)


class _Parser:
    """Recursive descent over tokens; the position is the only state besides snippets."""

    def __init__(self, tokens: list[_Token], file: str, env: Mapping[str, str] | None) -> None:
        self.tokens, self.file = tokens, file
        self.env = os.environ if env is None else env
        self.at = 0
        self.imports = 0
        self.snippets: dict[str, list[_Token]] = {}

    def blocks(self) -> list[ServerBlock]:
        found: list[ServerBlock] = []
        seen: dict[tuple[bytes, int], list[ServerBlock]] = {}
        while self.at < len(self.tokens):
            first = self.tokens[self.at]
            if first.text == "import":
                self._import(self._line())
                continue
            if first.text.startswith("(") and first.text.endswith(")"):
                self._snippet(first)
                continue
            block = self._server(first)
            for key in block.keys:
                for other in seen.setdefault(key, []):
                    if other is block or _meet(other, block):
                        spelled = f"{names.text(key[0])}:{key[1]}"
                        raise UserError(f"{block.file}:{block.line}: {spelled} is already defined in line {other.line}")
                seen[key].append(block)
            found.append(block)
        if not found:
            raise UserError(f"{self.file}: no server block; expected for example `.:53 {{ ... }}`")
        return found

    def _server(self, first: _Token) -> ServerBlock:
        keys: list[tuple[bytes, int]] = []
        while True:
            if self.at >= len(self.tokens):
                raise UserError(f"{first.file}:{first.line}: expected {{ after {first.text!r}")
            token = self.tokens[self.at]
            self.at += 1
            if token.text == "{" and not token.quoted:
                break
            if token.text in ("}", ","):
                if token.text == ",":
                    continue
                raise UserError(f"{token.file}:{token.line}: }} without {{")
            word = token.text
            attached = word.endswith("{")
            for part in word.removesuffix("{").split(","):
                if part:
                    keys += _server_keys(part, token)
            if attached:
                break
        if not keys:
            raise UserError(f"{first.file}:{first.line}: a server block needs a zone, for example `.:53`")
        return ServerBlock(tuple(keys), self._body(first), first.file, first.line)

    def _body(self, opened: _Token) -> tuple[Directive, ...]:
        """Directives up to the closing brace, which is consumed."""
        found: list[Directive] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.text == "}" and not token.quoted:
                self.at += 1
                return tuple(found)
            if token.text == "{" and not token.quoted:
                raise UserError(f"{token.file}:{token.line}: {{ must follow a word on its own line")
            line = self._line()
            if line[0].text == "import":
                self._import(line)
                continue
            options: tuple[Directive, ...] = ()
            if line[-1].text == "{" and not line[-1].quoted:
                line.pop()
                options = self._body(token)
            args = tuple(word.text for word in line[1:])
            found.append(Directive(token.text, args, options, token.file, token.line))
        raise UserError(f"{opened.file}:{opened.line}: the block that begins here is not closed; expected }}")

    def _line(self) -> list[_Token]:
        """The tokens of the current line. A closing brace ends it, an opening one too and is its last."""
        first = self.tokens[self.at]
        line = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if (token.line, token.file) != (first.line, first.file) or (token.text == "}" and not token.quoted):
                break
            self.at += 1
            line.append(token)
            if token.text == "{" and not token.quoted:
                break
        return line

    def _snippet(self, first: _Token) -> None:
        self.at += 1
        if self.at >= len(self.tokens) or self.tokens[self.at].text != "{":
            raise UserError(f"{first.file}:{first.line}: expected {{ after {first.text}")
        start, depth = self.at + 1, 0
        while self.at < len(self.tokens):
            depth += {"{": 1, "}": -1}.get(self.tokens[self.at].text, 0)
            self.at += 1
            if not depth:
                self.snippets[first.text[1:-1]] = self.tokens[start : self.at - 1]
                return
        raise UserError(f"{first.file}:{first.line}: snippet {first.text} is not closed; expected }}")

    def _import(self, line: list[_Token]) -> None:
        """Put what is imported in place of the line just read."""
        where = f"{line[0].file}:{line[0].line}"
        self.imports += 1
        if self.imports > _MOST_IMPORTS:
            raise UserError(f"{where}: more than {_MOST_IMPORTS} imports; does a file import itself?")
        if len(line) != 2:
            raise UserError(f"{where}: import: expected one file, pattern or snippet")
        name = line[1].text
        if (tokens := self.snippets.get(name)) is None:
            base = Path(line[0].file).parent
            pattern = Path(name) if Path(name).is_absolute() else base / name
            paths = sorted(pattern.parent.glob(pattern.name))
            if not paths and not set(name) & set("*?["):
                raise UserError(f"{where}: import: no file or snippet {name!r}{nearest(name, self.snippets)}")
            tokens = [token for path in paths for token in _tokens(_read(path), str(path), self.env)]
        self.tokens[self.at : self.at] = tokens


def _meet(one: ServerBlock, other: ServerBlock) -> bool:
    """Whether two blocks may be asked at the same address."""
    bound, others = (
        {word for each in block.directives if each.name == "bind" for word in each.args} for block in (one, other)
    )
    return not bound or not others or bool(bound & others)


def _server_keys(word: str, token: _Token) -> list[tuple[bytes, int]]:
    """The (zone, port) pairs of `[dns://]zone[:port]` or `CIDR[:port]`."""
    where = f"{token.file}:{token.line}"
    scheme, _, rest = word.rpartition("://")
    if scheme not in ("", "dns"):
        raise UserError(f"{where}: {word}: {scheme}:// is not supported; expected dns:// or nothing")
    zone, port = rest, DEFAULT_PORT
    if match := re.fullmatch(r"(.*):(\d+)", rest):
        zone, port = match[1], int(match[2])
        if not 0 < port < 65536:
            raise UserError(f"{where}: {word}: port {port} is not between 1 and 65535")
    elif ":" in rest and "/" not in rest:  # else a range of IPv6 addresses
        raise UserError(f"{where}: {word}: {rest.rpartition(':')[2]!r} is not a port from 1 to 65535")
    try:
        return [(found, port) for found in names.zones(zone or ".")]
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
