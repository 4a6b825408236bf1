"""The base rule set of nftables mode, read from `rules/nftables/` into typed objects.

The files are scripts for `nft -f`. What is read here is the part of nft's language that they use; anything else is
refused with file and line, so that what stands in a file is what the kernel gets. Each `define` in a file may be
overridden, which is how the masquerade mark and the ServiceCIDRs come in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from netemu.model import nft
from netemu.model.errors import UserError
from netemu.model.nft import DataType, Expression, Field, Match
from netemu.proxy.nftables import Line
from netemu.proxy.rulefiles import folder

_FIELDS = {f.value: f for f in Field}
_DEFINE = re.compile(r"define\s+(\w+)\s*=\s*(.+)")
_HOOK = re.compile(r"type (\w+) hook (\w+) priority (-?\d+); policy (\w+);")
_IP6 = ((r"\bip (?=[sd]addr|kube-proxy)", "ip6 "), (r"\bipv4_addr\b", "ipv6_addr"), (r"127\.0\.0\.0/8", "::1"))


@dataclass(slots=True)
class Base:
    """Sets, maps and chains by name, in file order; rules by chain."""

    table: nft.Table
    sets: dict[str, nft.Set | nft.Map] = field(default_factory=dict)
    chains: dict[str, nft.Chain] = field(default_factory=dict)
    rules: dict[str, tuple[Line, ...]] = field(default_factory=dict)


def load(names: Iterable[str], family: nft.Family, defines: Mapping[str, str]) -> Base:
    """Read `rules/nftables/NAME` one after another; a chain that several name has its rules in that order.

    Raises UserError.
    """
    base = Base(nft.Table(family, ""))
    for name in names:
        path = folder() / "nftables" / name
        reader = _Reader(base, family, defines)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                reader.line(line)
            except (ValueError, KeyError, IndexError) as error:
                raise UserError(f"{path}:{number}: cannot read {line.strip()!r}") from error
    return base


class _Reader:
    """Takes one file in, line by line."""

    def __init__(self, base: Base, family: nft.Family, defines: Mapping[str, str]) -> None:
        self.base, self.family, self.given = base, family, defines
        self.defined: dict[str, str] = {}
        self.block: tuple[str, str] = ("", "")

    def line(self, text: str) -> None:
        text = text.strip()
        if not text or text.startswith("#"):
            return
        if found := _DEFINE.match(text):
            self.defined[found[1]] = self.given.get(found[1], found[2])
            return
        for name, value in self.defined.items():
            text = text.replace(f"${name}", value)
        if self.family == "ip6":
            for pattern, replacement in _IP6:
                text = re.sub(pattern, replacement, text)
        if text.startswith("insert rule "):
            *_, chain, inserted = text.split(" ", 5)
            self.base.rules[chain] = (rule(inserted), *self.base.rules[chain])
        elif text == "}":
            self.block = ("table", "") if self.block[0] != "table" else ("", "")
        elif text.endswith(" {"):
            self._open(text.split())
        else:
            self._content(text)

    def _open(self, words: list[str]) -> None:
        kind, name = words[0], words[-2]
        self.block, base = (kind, name), self.base
        if kind == "table":
            base.table = nft.Table(self.family, name, base.table.comment)
        elif kind == "set":
            base.sets[name] = nft.Set(name, ())
        elif kind == "map":
            base.sets[name] = nft.Map(name, ())
        elif kind == "chain":
            base.chains.setdefault(name, nft.Chain(name))
            base.rules.setdefault(name, ())
        else:
            raise ValueError(kind)

    def _content(self, text: str) -> None:
        (kind, name), base = self.block, self.base
        comment = text.removeprefix("comment ").strip('"') if text.startswith("comment ") else ""
        if kind == "table" and comment:
            base.table = nft.Table(self.family, base.table.name, comment)
        elif kind in ("set", "map"):
            base.sets[name] = _set_with(base.sets[name], text, comment)
        elif kind == "chain" and comment:
            base.chains[name] = _chain_with(base.chains[name], comment)
        elif kind == "chain" and (found := _HOOK.fullmatch(text)):
            held = base.chains[name]
            base.chains[name] = nft.Chain(name, found[1], found[2], int(found[3]), found[4], held.comment)  # type: ignore[arg-type]
        elif kind == "chain":
            base.rules[name] = (*base.rules[name], rule(text))
        else:
            raise ValueError(text)


def _chain_with(held: nft.Chain, comment: str) -> nft.Chain:
    return nft.Chain(held.name, held.type, held.hook, held.priority, held.policy, comment)


def _set_with(held: nft.Set | nft.Map, text: str, comment: str) -> nft.Set | nft.Map:
    key, data = held.type, held.data if isinstance(held, nft.Map) else ()
    if text.startswith("type "):
        key_text, _, data_text = text.removeprefix("type ").partition(" : ")
        key, data = _types(key_text), _types(data_text) if data_text else ()
    elif not comment:
        raise ValueError(text)
    comment = comment or held.comment
    return nft.Map(held.name, key, data, comment=comment) if data else nft.Set(held.name, key, comment=comment)


def _types(text: str) -> tuple[DataType, ...]:
    return tuple(DataType(part) for part in text.split(" . "))


def rule(text: str) -> Line:
    """One rule, as expressions and comment. Raises ValueError, KeyError or IndexError for what is not understood."""
    words, found, comment = shlex.split(text.replace(",", " ")), [], ""
    if " comment " in text:
        comment = words.pop()
        words.pop()
    while words:
        found.append(_expression(words))
    return tuple(found), comment


def _expression(words: list[str]) -> Expression:
    """Takes one expression off the front."""
    match words:
        case ["jump" | "goto" as kind, chain, *_]:
            del words[:2]
            return nft.Verdict(kind, chain)
        case ["return" | "drop" | "accept" as kind, *_]:
            del words[0]
            return nft.Verdict(kind)
        case ["reject", *_]:
            del words[0]
            return nft.Reject()
        case ["masquerade", "fully-random", *_]:
            del words[:2]
            return nft.Masquerade(fully_random=True)
        case ["meta", "mark", "set", "meta", "mark", "|" | "^" | "&" as operator, value, *_]:
            del words[:7]
            return nft.SetMark(int(value, 0), operator)
        case ["meta", "mark", "&", mask, "==" | "!=" as operator, value, *_]:
            del words[:6]
            return nft.MarkMatch(int(mask, 0), int(value, 0), operator == "!=")
    return _match(words)


def _match(words: list[str]) -> Expression:
    key = [_field(words)]
    while words[0] == ".":
        del words[0]
        key.append(_field(words))
    word = words.pop(0)
    if word == "vmap":
        return nft.Vmap(tuple(key), words.pop(0).removeprefix("@"))
    if negated := word == "!=":
        word = words.pop(0)
    if word.startswith("@"):
        return nft.Lookup(tuple(key), word[1:], negated)
    values = [word]
    if word == "{":
        end = words.index("}")
        values, words[:] = words[:end], words[end + 1 :]
    (only,) = key
    return Match(only, tuple(values), negated)


def _field(words: list[str]) -> Field:
    for length in (3, 2, 1):
        if (found := _FIELDS.get(" ".join(words[:length]))) is not None:
            del words[:length]
            return found
    raise ValueError(words)
