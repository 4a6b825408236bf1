"""The table of questions, `data/dns_questions.txt`, and whole replies as text.

How to read it. `@` begins a part, `|` lines are the Corefile that its questions are put to, over the cluster of
`dns_cluster`. A line at the margin is a sentence, what is indented under it are questions that show it:

    NAME TYPE [VERDICT] [FLAGS]
      [SECTION] OWNER TTL TYPE DATA

NAME without a last dot lies under cluster.local, `@` is cluster.local itself. VERDICT is an rcode, NOERROR if there is
none; NODATA, NXDOMAIN and SERVFAIL in the zone mean an empty answer with the SOA record of the zone, unless authority
is spelled out. FLAGS are those of the header that differ from an answer of the zone: aa set, ra and tc clear. SECTION
is nothing for the answer, `~` for authority and `+` for additional; OWNER `=` is the name asked for, letter by letter.
Records are all that the reply holds, in any order, but an alias stands before what it leads to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from netemu.dns import names, wire
from netemu.dns.wire import Message, Record

PATH = Path(__file__).parent / "data" / "dns_questions.txt"
SERIAL = 1700000000
_ORIGIN = "cluster.local."
_DENIALS = ("NODATA", "NXDOMAIN", "SERVFAIL")
_NAMED = ("NS", "CNAME", "PTR", "SRV")

OUTSIDE = """
example.com:53 {
    template IN A {
        match ^www[.]
        answer "{{ .Name }} 300 IN A 192.0.2.1"
        fallthrough
    }
    template IN A {
        match ^alias[.]
        answer "{{ .Name }} 300 IN CNAME www.example.com."
        answer "www.example.com. 60 IN A 192.0.2.1"
        fallthrough
    }
    template IN A {
        match ^broken[.]
        rcode SERVFAIL
        fallthrough
    }
    template IN ANY {
        match ^(www|empty)[.]
        authority "example.com. 60 IN SOA a. b. 1 2 3 4 5"
        fallthrough
    }
    template IN ANY {
        rcode NXDOMAIN
        authority "example.com. 60 IN SOA a. b. 1 2 3 4 5"
    }
}
"""
"""What stands for the world outside; names outside of example.com are refused."""


class Part(NamedTuple):
    """Questions to one Corefile."""

    title: str
    plugins: str
    silent: bool
    """Whether the API server never answers."""

    @property
    def corefile(self) -> str:
        """The server blocks; the first is for the zones of the cluster."""
        zones = " ".join(f"{zone}:53" for zone in self.zones)
        return f"{zones} {{\n{self.plugins}\n}}\n{OUTSIDE}"

    @property
    def zones(self) -> tuple[str, ...]:
        """What the kubernetes directive serves."""
        found = re.search(r"kubernetes (.*?)( \{)?$", self.plugins, re.MULTILINE)
        assert found, self.title
        return tuple(found[1].split())

    @property
    def ttl(self) -> int:
        """The ttl option."""
        found = re.search(r"ttl (\d+)", self.plugins)
        return int(found[1]) if found else 5


class Row(NamedTuple):
    """One question and its reply, as lines: verdict and flags, then records with their section."""

    part: Part
    sentence: str
    name: str
    type: str
    reply: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.sentence} ({self.name} {self.type})"

    @property
    def question(self) -> tuple[bytes, int]:
        """Name in wire form and type."""
        number = wire.TYPES.get(self.type) or int(self.type.removeprefix("TYPE"))
        return names.parse(_absolute(self.name)), number


def rows() -> list[Row]:
    """The whole table."""
    found: list[Row] = []
    part, sentence, row = Part("", "", False), "", None
    for line in PATH.read_text().splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if line[0] in "@!|":
            row = None
            part = Part(text[2:], "", False) if line[0] == "@" else part
            part = part._replace(silent=True) if line[0] == "!" else part
            part = part._replace(plugins=f"{part.plugins}{line[2:]}\n") if line[0] == "|" else part
        elif line[0] != " ":
            sentence, row = text, None
        elif row is None or not line.startswith("      "):
            name, kind, *verdict = text.split()
            row = Row(part, sentence, name, kind, _reply(part, _absolute(name), verdict))
            found.append(row)
        else:
            # The SOA record of a denial may be spelled out, where it is not the plain one.
            plain = f"~ {_soa(part, _absolute(row.name))}" if text[0] == "~" else ""
            kept = tuple(each for each in row.reply if each != plain)
            row = found[-1] = row._replace(reply=(*kept, _line(_absolute(row.name), text)))
    return [row._replace(reply=(row.reply[0], *_sorted(row.reply[1:]))) for row in found]


def _absolute(name: str) -> str:
    return name if name.endswith(".") else _ORIGIN if name == "@" else f"{name}.{_ORIGIN}"


def _reply(part: Part, name: str, verdict: list[str]) -> tuple[str, ...]:
    code = verdict[0] if verdict and verdict[0][0] not in "+-" else "NOERROR"
    flags = [word for word in verdict if word[0] in "+-"]
    first = " ".join(["NOERROR" if code == "NODATA" else code, *flags])
    return (first, f"~ {_soa(part, name)}") if code in _DENIALS and "-aa" not in flags else (first,)


def _soa(part: Part, name: str) -> str:
    """The SOA record of the zone that a name lies in, the zone spelled as the name does."""
    wanted = names.parse(name)
    served = [zone for word in part.zones for zone in names.zones(word)]
    size = next(len(suffix) for suffix in names.suffixes(wanted) if suffix.lower() in served)
    zone = names.text(wanted[-size:])
    numbers = f"{SERIAL} 7200 1800 86400 {part.ttl}"
    return f"{zone} {min(part.ttl, 300)} SOA ns.dns.{zone} hostmaster.{zone} {numbers}"


def _line(name: str, text: str) -> str:
    section, rest = (text[:2], text[2:]) if text[0] in "~+" else ("", text)
    owner, ttl, kind, data = rest.split(None, 3)
    if kind in _NAMED:
        before, _, target = data.rpartition(" ")
        data = f"{before} {_absolute(target)}".strip()
    return f"{section}{name if owner == '=' else _absolute(owner)} {ttl} {kind} {data}"


def said(message: Message) -> tuple[str, ...]:
    """A reply in the form of `Row.reply`."""
    flags = [text for text, bit in (("-aa", ~message.flags & wire.AA), ("+ra", message.flags & wire.RA),
                                    ("+tc", message.flags & wire.TC)) if bit]  # fmt: skip
    lines = [
        f"{section}{names.text(each.name)} {each.ttl} {wire.type_name(each.type)} {wire.rdata_text(each)}"
        for section, each in _records(message)
    ]
    return (" ".join([wire.rcode_name(message.rcode), *flags]), *_sorted(lines))


def _records(message: Message) -> Iterator[tuple[str, Record]]:
    for section, records in (("", message.answers), ("~ ", message.authority), ("+ ", message.additional)):
        for record in records:
            yield section, record


def _sorted(lines: list[str] | tuple[str, ...]) -> list[str]:
    """Lines in one order, but aliases in the order in which they lead to each other."""
    aliases = [line for line in lines if line.split()[2] == "CNAME"]
    return aliases + sorted(line for line in lines if line not in aliases)
