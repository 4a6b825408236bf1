"""A zone as a zone file has it, and what it says about a name.

Theory of operation (RFC 1034, 4.3.2, in the order of `coredns/plugin/file/lookup.go`). The walk goes from the origin
down to the name. NS records on the way are a delegation: the answer is where to ask. A DNAME on the way renames the
rest. At the name stand the records, or an alias to follow. A name that is not there may be covered by the nearest `*`;
what exists only because something is beneath it exists without data. A zone never changes: a new file is a new zone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from netemu.dns import names, wire
from netemu.dns.wire import Record

DNAME = 39
_MOST_LINKS = 8
_WITH_TARGETS = {wire.NS: 0, wire.MX: 2, wire.SRV: 6}
"""Types whose targets' addresses belong into the additional section, and where the name begins in the data."""

_Sets = dict[int, list[Record]]


@dataclass(slots=True)
class Found:
    """An answer; `delegated` means that it is not authoritative, `chase` is a name to be asked for elsewhere."""

    rcode: int = wire.NOERROR
    answers: list[Record] = field(default_factory=list)
    authority: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    delegated: bool = False
    chase: bytes = b""


class Zone:
    """Records of one origin. Raises ValueError when there is no SOA record, or a record lies elsewhere."""

    def __init__(self, origin: bytes, records: list[Record]) -> None:
        self.origin = origin.lower()
        self._names: dict[bytes, _Sets] = {}
        self._between: set[bytes] = set()
        for record in records:
            self._add(record)
        apex = self._names.get(self.origin, {})
        if wire.SOA not in apex:
            raise ValueError(f"no SOA record for {names.text(origin)}")
        self.soa = apex[wire.SOA][0]
        self._ns = apex.get(wire.NS, [])

    def _add(self, record: Record) -> None:
        owner = record.name.lower()
        if not names.within(owner, self.origin):
            raise ValueError(f"{names.text(record.name)} is not in {names.text(self.origin)}")
        found = self._names.setdefault(owner, {}).setdefault(record.type, [])
        if record not in found:
            found.append(record)
        for parent in names.suffixes(owner):
            if parent == self.origin:
                break
            self._between.add(parent)

    @property
    def serial(self) -> int:
        """The number that grows with every change."""
        return int.from_bytes(self.soa.rdata[-20:-16], "big")

    def records(self) -> list[Record]:
        """Everything, the SOA record first, then by name."""
        rest = [record for sets in self._names.values() for found in sets.values() for record in found]
        return [self.soa, *(record for record in rest if record is not self.soa)]

    def lookup(self, name: bytes, qtype: int) -> Found:
        """What the zone says about a name in it, in any case; answers are spelled as the question."""
        lower = name.lower()
        if lower == self.origin and qtype == wire.SOA:
            return Found(answers=[self.soa], authority=self._ns)
        if lower == self.origin and qtype == wire.NS:
            return Found(answers=self._ns, additional=self._targets(self._ns))
        wildcard = b""
        for at in reversed(list(names.suffixes(lower))[: self._depth(lower)]):
            sets = self._names.get(at)
            if sets is None:
                wildcard = self._wildcard(at) or wildcard
                continue
            if at != lower and (dname := sets.get(DNAME)):
                return self._renamed(name, qtype, at, dname[0])
            if at != self.origin and wire.NS in sets and not (qtype == wire.DS and at == lower):
                found = sets[wire.NS]
                return Found(authority=found, additional=self._targets(found), delegated=True)
            if at == lower:
                return self._at(name, qtype, sets)
        if wildcard and lower not in self._between:
            return self._at(name, qtype, self._names[wildcard])
        return self._nothing(wire.NOERROR if lower in self._between else wire.NXDOMAIN)

    def _depth(self, lower: bytes) -> int:
        """How many of the name's suffixes lie in the zone."""
        return len(names.labels(lower)) - len(names.labels(self.origin)) + 1

    def _wildcard(self, missing: bytes) -> bytes:
        """The `*` beside a name that is not there, or nothing."""
        beside = b"\x01*" + missing[1 + missing[0] :]
        return beside if beside in self._names else b""

    def _nothing(self, rcode: int) -> Found:
        return Found(rcode, authority=[self.soa])

    def _at(self, name: bytes, qtype: int, sets: _Sets) -> Found:
        """Records of a name that exists, or that a wildcard stands for."""
        if wire.CNAME in sets and qtype != wire.CNAME:
            return self._follow(_owned(sets[wire.CNAME], name), qtype)
        found = _owned(sets.get(qtype, []), name)
        if not found:
            return self._nothing(wire.NOERROR)
        return Found(answers=found, authority=self._ns, additional=self._targets(found))

    def _renamed(self, name: bytes, qtype: int, owner: bytes, dname: Record) -> Found:
        """RFC 6672: the part above the DNAME, put in front of its target."""
        front = name[: len(name) - len(owner)]
        if len(front) + len(dname.rdata) > 255:
            return Found(wire.RCODES["YXDOMAIN"], [dname])
        found = self._follow([Record(name, wire.CNAME, dname.ttl, front + dname.rdata)], qtype)
        found.answers.insert(0, dname)
        return found

    def _follow(self, answers: list[Record], qtype: int) -> Found:
        """An alias and what it leads to, within the zone; what lies outside is left to the caller."""
        found = Found(answers=list(answers), authority=self._ns)
        for _ in range(_MOST_LINKS):
            target = found.answers[-1].rdata
            sets = self._names.get(target.lower())
            if sets is None:
                found.chase = target
                break
            if wire.CNAME not in sets:
                found.answers += sets.get(qtype, [])
                break
            found.answers += sets[wire.CNAME]
        return found

    def _targets(self, records: list[Record]) -> list[Record]:
        """Addresses in this zone of what the records point to."""
        targets: dict[bytes, None] = {}
        for record in records:
            if (at := _WITH_TARGETS.get(record.type)) is not None:
                targets[record.rdata[at:].lower()] = None
        found = []
        for target in targets:
            sets = self._names.get(target, {})
            found += sets.get(wire.A, []) + sets.get(wire.AAAA, [])
        return found


def _owned(records: list[Record], name: bytes) -> list[Record]:
    return [record._replace(name=name) for record in records]
