"""Zone files (RFC 1035, 5) and single records in their language: text in, records out.

Theory of operation. The text is cut into entries: a line, or several where parentheses hold them together, as words
with comments and quotation marks gone. An entry is a directive (`$ORIGIN`, `$TTL`, `$INCLUDE`, `$GENERATE`) or
`[OWNER] [TTL] [CLASS] TYPE DATA`, in which a missing owner is the one before. Names without a last dot are relative to
the origin. Each type has one function from words to RDATA (`_RDATA`); any type may be spelled `\\# LENGTH HEX` (RFC
3597). Mistakes are ZoneError with file and line.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from netemu.dns import names, wire
from netemu.dns.wire import Record
from netemu.model.errors import reason

DEFAULT_TTL = 3600
"""Seconds, where neither the record nor $TTL says."""
_MOST_INCLUDES = 7
_MOST_GENERATED = 65536
_CLASSES = {"IN": 1, "CH": 3, "HS": 4}
_SECONDS = {"": 1, "S": 1, "M": 60, "H": 3600, "D": 86400, "W": 604800}
_TTL = re.compile(r"(\d+[SMHDW]?)+", re.IGNORECASE)
_GENERATED = re.compile(r"\$\{(-?\d+)(?:,(\d+)(?:,([doxX]))?)?\}|\$\$|\$")


class ZoneError(ValueError):
    """A mistake in a zone file; says where."""


class _Word(NamedTuple):
    text: str
    quoted: bool = False


class _Entry(NamedTuple):
    line: int
    indented: bool
    """Whether the entry begins with a blank: its owner is the one before."""
    words: list[_Word]


def parse(text: str, origin: bytes = names.ROOT, file: str = "") -> list[Record]:
    """All records of a zone file. Raises ZoneError."""
    return _Parser(origin, file, 0).records(text)


def parse_one(text: str) -> list[Record]:
    """The records of some lines with absolute names, for example `www.example.org. 60 IN A 192.0.2.1`.

    A name without a last dot counts as absolute. Raises ValueError.
    """
    found = parse(text)
    if not found:
        raise ZoneError(f"not a resource record: {text!r}")
    return found


def _entries(text: str, where: str) -> Iterator[_Entry]:
    """Raises ZoneError for what is not closed."""
    words: list[_Word] = []
    line = first = 1
    depth, indented, at, fresh = 0, False, 0, True
    while at <= len(text):
        c = text[at] if at < len(text) else "\n"
        if c == "\n":
            if not depth:
                if words:
                    yield _Entry(first, indented, words)
                words, fresh = [], True
            line += 1
            at += 1
        elif c == ";":
            at = end if (end := text.find("\n", at)) >= 0 else len(text)
        elif c in "()":
            depth += 1 if c == "(" else -1
            if depth < 0:
                raise ZoneError(f"{where}{line}: ) without (")
            at += 1
        elif c.isspace():
            if fresh and not words:
                indented, first, fresh = True, line, False
            at += 1
        else:
            if fresh:
                indented, first, fresh = False, line, False
            elif not words:
                first = line
            word, at = _word(text, at, f"{where}{line}")
            words.append(word)
    if depth:
        raise ZoneError(f"{where}{first}: ( is not closed")


def _word(text: str, at: int, where: str) -> tuple[_Word, int]:
    """The word that begins at an offset, escapes left as they are, and the offset behind it."""
    quoted = text[at] == '"'
    start = at = at + quoted
    while at < len(text) and text[at] != "\n":
        if text[at] == "\\":
            at += 2
            continue
        if text[at] == '"' if quoted else text[at].isspace() or text[at] in ';()"':
            break
        at += 1
    if quoted and text[at : at + 1] != '"':
        raise ZoneError(f"{where}: a quotation mark is not closed")
    return _Word(text[start:at], quoted), at + quoted


class _Parser:
    """One file; what an entry inherits from those before it is the only state."""

    def __init__(self, origin: bytes, file: str, depth: int) -> None:
        self.origin, self.file, self.depth = origin, file, depth
        self.ttl: int | None = None
        self.owner: bytes | None = None

    def records(self, text: str) -> list[Record]:
        found: list[Record] = []
        prefix = f"{self.file}:" if self.file else "line "
        for entry in _entries(text, prefix):
            try:
                found += self._entry(entry)
            except ZoneError as error:
                raise error if str(error).startswith(prefix) else ZoneError(f"{prefix}{entry.line}: {error}") from error
            except (ValueError, struct.error, IndexError) as error:
                raise ZoneError(f"{prefix}{entry.line}: {error}") from error
        return found

    def _entry(self, entry: _Entry) -> list[Record]:
        words = list(entry.words)
        first = words[0].text
        if not first.startswith("$") or words[0].quoted or entry.indented:
            return [self._record(words, entry.indented)]
        match first.upper(), [word.text for word in words[1:]]:
            case "$ORIGIN", [name]:
                self.origin = _name(name, self.origin)
            case "$TTL", [ttl]:
                self.ttl = _seconds(ttl)
            case "$INCLUDE", [file, *origin] if len(origin) < 2:
                return self._include(file, _name(origin[0], self.origin) if origin else self.origin)
            case "$GENERATE", [span, *_] if len(words) > 3:
                return self._generate(span, words[2:])
            case _:
                raise ZoneError(f"{first}: expected $ORIGIN NAME, $TTL SECONDS, $INCLUDE FILE [NAME] or $GENERATE")
        return []

    def _record(self, words: list[_Word], indented: bool) -> Record:
        if not indented:
            self.owner = _name(words.pop(0).text, self.origin)
        if self.owner is None:
            raise ZoneError("the first record needs a name")
        ttl, cls = None, 1
        while words and not words[0].quoted:
            word = words[0].text.upper()
            if word in _CLASSES:
                cls = _CLASSES[word]
            elif _TTL.fullmatch(word):
                ttl = _seconds(word)
            else:
                break
            words.pop(0)
        if not words:
            raise ZoneError("expected [NAME] [TTL] [CLASS] TYPE DATA")
        kind = words.pop(0).text
        number = wire.type_number(kind)
        if number is None:
            raise ZoneError(f"unknown type {kind!r}")
        ttl = self.ttl if ttl is None else ttl
        return Record(self.owner, number, DEFAULT_TTL if ttl is None else ttl, _rdata(number, words, self.origin), cls)

    def _include(self, file: str, origin: bytes) -> list[Record]:
        if self.depth >= _MOST_INCLUDES:
            raise ZoneError(f"$INCLUDE: more than {_MOST_INCLUDES} files inside each other")
        path = Path(self.file).parent / file
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ZoneError(f"$INCLUDE: {path}: {reason(error)}") from error
        inner = _Parser(origin, str(path), self.depth + 1)
        inner.ttl = self.ttl
        return inner.records(text)

    def _generate(self, span: str, words: list[_Word]) -> list[Record]:
        """`$GENERATE START-STOP[/STEP] OWNER ... DATA`, each `$` a number of the range (BIND's extension)."""
        match = re.fullmatch(r"(\d+)-(\d+)(?:/(\d+))?", span)
        if not match or int(match[1]) > int(match[2]) or match[3] == "0":
            raise ZoneError(f"$GENERATE: {span!r} is not a range like 1-10 or 0-100/2")
        numbers = range(int(match[1]), int(match[2]) + 1, int(match[3] or 1))
        if len(numbers) > _MOST_GENERATED:
            raise ZoneError(f"$GENERATE: more than {_MOST_GENERATED} records")
        return [self._record([_numbered(word, number) for word in words], False) for number in numbers]


def _numbered(word: _Word, number: int) -> _Word:
    """A word with `$`, `${OFFSET}` and `${OFFSET,WIDTH,BASE}` replaced by the number; `$$` is a dollar sign."""

    def spelled(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else f"{number + int(match[1] or 0):0{match[2] or 0}{match[3] or 'd'}}"

    return word._replace(text=_GENERATED.sub(spelled, word.text))


def _seconds(word: str) -> int:
    if not _TTL.fullmatch(word):
        raise ZoneError(f"{word!r} is not a number of seconds, or like 1h30m")
    total = sum(int(count) * _SECONDS[unit.upper()] for count, unit in re.findall(r"(\d+)([A-Za-z]?)", word))
    if total >= 2**31:
        raise ZoneError(f"{word!r} is more than {2**31 - 1} seconds")
    return total


def _name(text: str, origin: bytes) -> bytes:
    if text == "@":
        return origin
    name = names.parse(text)
    if text.endswith(".") and not text.endswith("\\."):
        return name
    if len(name) - 1 + len(origin) > 255:
        raise ZoneError(f"{text!r} is too long for a domain name")
    return name[:-1] + origin


# --- RDATA -------------------------------------------------------------------------------------------------------


def _rdata(number: int, words: list[_Word], origin: bytes) -> bytes:
    if words and words[0].text == "\\#":
        data = bytes.fromhex("".join(word.text for word in words[2:]))
        if len(words) < 2 or words[1].text != str(len(data)):
            raise ZoneError("\\#: the length does not fit the data")
        return data
    shape = _RDATA.get(number)
    if shape is None:
        raise ZoneError(f"data of type {wire.type_name(number)} is only known as \\# LENGTH HEX")
    kind, wanted, encode = shape
    if len(words) != len(wanted.split()) and not wanted.endswith("..."):
        raise ZoneError(f"{kind}: expected {wanted}, got {' '.join(word.text for word in words) or 'nothing'}")
    if len(words) < len(wanted.split()):
        raise ZoneError(f"{kind}: expected {wanted}, got {' '.join(word.text for word in words) or 'nothing'}")
    return encode([word.text for word in words], origin)


def _address(version: int) -> Callable[[list[str], bytes], bytes]:
    def encode(words: list[str], origin: bytes) -> bytes:
        address = ipaddress.ip_address(words[0])
        if address.version != version:
            raise ZoneError(f"{words[0]!r} is not an IPv{version} address")
        return address.packed

    return encode


def _one_name(words: list[str], origin: bytes) -> bytes:
    return _name(words[0], origin)


def _strings(words: list[str], origin: bytes) -> bytes:
    return b"".join(_string(word) for word in words)


def _string(word: str) -> bytes:
    r"""A character string; `\"` and `\DDD` as in names."""
    raw = re.sub(rb"\\(\d{3}|.)", _unescaped, word.encode(), flags=re.DOTALL)
    if len(raw) > 255:
        raise ZoneError("a string has at most 255 octets")
    return bytes((len(raw),)) + raw


def _unescaped(match: re.Match[bytes]) -> bytes:
    inside = match[1]
    return bytes((int(inside),)) if len(inside) == 3 else inside


def _numbers_then_name(layout: str) -> Callable[[list[str], bytes], bytes]:
    def encode(words: list[str], origin: bytes) -> bytes:
        return struct.pack(layout, *map(int, words[:-1])) + _name(words[-1], origin)

    return encode


def _numbers_then_hex(layout: str) -> Callable[[list[str], bytes], bytes]:
    def encode(words: list[str], origin: bytes) -> bytes:
        count = len(layout) - 1
        return struct.pack(layout, *map(int, words[:count])) + bytes.fromhex("".join(words[count:]))

    return encode


def _soa(words: list[str], origin: bytes) -> bytes:
    serial, *times = words[2:]
    return wire.soa(_name(words[0], origin), _name(words[1], origin), int(serial), *map(_seconds, times))


def _caa(words: list[str], origin: bytes) -> bytes:
    return bytes((int(words[0]),)) + _string(words[1]) + _string(words[2])[1:]


def _naptr(words: list[str], origin: bytes) -> bytes:
    numbers = struct.pack("!HH", int(words[0]), int(words[1]))
    return numbers + b"".join(map(_string, words[2:5])) + _name(words[5], origin)


def _dnskey(words: list[str], origin: bytes) -> bytes:
    try:
        key = base64.b64decode("".join(words[3:]), validate=True)
    except binascii.Error as error:
        raise ZoneError(f"the key is not base64: {error}") from error
    return struct.pack("!HBB", *map(int, words[:3])) + key


_RDATA: dict[int, tuple[str, str, Callable[[list[str], bytes], bytes]]] = {
    wire.type_number(kind) or 0: (kind, wanted, encode)
    for kind, wanted, encode in (
        ("A", "ADDRESS", _address(4)),
        ("AAAA", "ADDRESS", _address(6)),
        ("NS", "NAME", _one_name),
        ("CNAME", "NAME", _one_name),
        ("PTR", "NAME", _one_name),
        ("DNAME", "NAME", _one_name),
        ("MX", "PREFERENCE NAME", _numbers_then_name("!H")),
        ("SRV", "PRIORITY WEIGHT PORT TARGET", _numbers_then_name("!HHH")),
        ("TXT", "STRING...", _strings),
        ("SPF", "STRING...", _strings),
        ("HINFO", "CPU OS", _strings),
        ("SOA", "MNAME RNAME SERIAL REFRESH RETRY EXPIRE MINIMUM", _soa),
        ("CAA", "FLAGS TAG VALUE", _caa),
        ("NAPTR", "ORDER PREFERENCE FLAGS SERVICES REGEXP NAME", _naptr),
        ("DS", "TAG ALGORITHM DIGEST-TYPE DIGEST...", _numbers_then_hex("!HBB")),
        ("SSHFP", "ALGORITHM TYPE FINGERPRINT...", _numbers_then_hex("!BB")),
        ("TLSA", "USAGE SELECTOR MATCHING DATA...", _numbers_then_hex("!BBB")),
        ("DNSKEY", "FLAGS PROTOCOL ALGORITHM KEY...", _dnskey),
    )
}
"""Type -> its name, what its data consists of, and how that becomes RDATA."""
