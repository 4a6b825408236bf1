"""What `iptables-save -c` prints, as values: rules with what they have counted, and a rule taken apart. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field

Tables = dict[str, dict[str, list["Saved"]]]

_LINE: Final = re.compile(r"(?:\[(\d+):(\d+)\] )?-A (\S+) ?(.*)$")
_HEAD: Final = re.compile(r":(\S+) (\S+)")
_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPED: Final = re.compile(r"\\(.)")
_ALONE: Final = frozenset(
    {"--reap", "--rsource", "--rcheck", "--set", "--physdev-is-in", "--update", "--rdest", "--notrack"}
)
_ENDS: Final = ("ACCEPT", "DROP", "REJECT", "RETURN", "MASQUERADE", "MARK", "DNAT", "SNAT", "LOG", "NFLOG", "TRACE",
                "REDIRECT", "CT", "NOTRACK", "TCPMSS", "SET", "CONNMARK")  # fmt: skip


class Saved(Struct, frozen=True):
    """A rule as saved: without `-A CHAIN`."""

    text: str
    packets: int | None = None
    bytes: int | None = None


def parse_counted(text: str) -> tuple[Tables, dict[tuple[str, str], str]]:
    """The rules by table and chain, and the policies of built-in chains, of what `iptables-save [-c]` prints."""
    tables: Tables = {}
    policies: dict[tuple[str, str], str] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
            tables.setdefault(table, {})
        elif head := _HEAD.match(line):
            tables[table].setdefault(head[1], [])
            if head[2] != "-":
                policies[table, head[1]] = head[2]
        elif found := _LINE.match(line):
            packets, size, chain, rest = found.groups()
            rule = Saved(rest, int(packets) if packets else None, int(size) if size else None)
            tables[table].setdefault(chain, []).append(rule)
    return tables, policies


class Options(Struct, frozen=True):
    """A rule taken apart: its matches by option (a negated one's value begins with `! `), target and its options."""

    matches: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def comment(self) -> str:
        """What somebody wrote on it."""
        return self.matches.get("--comment", "")

    @property
    def protocol(self) -> str:
        """`tcp`, `udp`, ...; "" for any."""
        return self.matches.get("-p", "")

    @property
    def chain(self) -> str:
        """The chain it leads to, "" where the target is none."""
        return self.target if self.target and self.target not in _ENDS else ""


def options_of(text: str) -> Options:
    """Take a rule apart."""
    matches: dict[str, str] = {}
    more: dict[str, str] = {}
    into, target, negated = matches, "", ""
    words = (bare or _ESCAPED.sub(r"\1", quoted) for quoted, bare in _WORD.findall(text))
    for word in words:
        if word == "!":
            negated = "! "
        elif word in ("-j", "-g"):
            target, into = next(words, ""), more
        elif word in _ALONE:
            into[word] = negated or "yes"
            negated = ""
        elif word == "-m":
            next(words, "")
        elif word == "--match-set":
            into[word] = f"{negated}{next(words, '')} {next(words, '')}"
            negated = ""
        elif word.startswith("-"):
            into[word] = negated + ("yes" if word in ("--random-fully", "--random") else next(words, ""))
            negated = ""
    return Options(matches, target, more)
