"""DNS messages: bytes in, values out, and back.

Written by hand because the server needs what dnslib does not do (truncation that keeps the question, replies to
malformed packets, the spelling of names untouched, bytes that can be patched for the next client). RDATA is kept in
wire form with names uncompressed, so records from any source look the same. Replies compress owner names always: legal,
smaller, and address records then do not depend on where they stand.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from netemu.dns import names

A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33
NAPTR, OPT, DS, IXFR, AXFR, ANY, CAA, HTTPS = 35, 41, 43, 251, 252, 255, 257, 65
TYPES = {
    "A": A, "NS": NS, "CNAME": CNAME, "SOA": SOA, "PTR": PTR, "HINFO": HINFO, "MX": MX, "TXT": TXT, "AAAA": AAAA,
    "SRV": SRV, "NAPTR": NAPTR, "DS": DS, "IXFR": IXFR, "AXFR": AXFR, "ANY": ANY, "CAA": CAA, "HTTPS": HTTPS,
}  # fmt: skip
_RARE_TYPES = {
    "DNAME": 39, "SSHFP": 44, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48, "NSEC3": 50, "NSEC3PARAM": 51, "TLSA": 52,
    "CDS": 59, "CDNSKEY": 60, "SVCB": 64, "SPF": 99, "URI": 256, "LOC": 29, "RP": 17, "AFSDB": 18,
}  # fmt: skip
"""Types that may be named and are not treated specially."""
TYPE_NAMES = {number: name for name, number in TYPES.items()}
_RARE_NAMES = {number: name for name, number in _RARE_TYPES.items()}
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODES = {
    "NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5, "YXDOMAIN": 6, "YXRRSET": 7,
    "NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10, "BADVERS": 16,
}  # fmt: skip
RCODE_NAMES = {number: name for name, number in RCODES.items()}
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
_OPCODE = 0x7800
_ECHOED_OPTIONS = frozenset((3, 9, 10, 11, 12))
"""NSID, EXPIRE, COOKIE, KEEPALIVE, PADDING: CoreDNS returns them as they came and drops all others."""

_NAME_TYPES = {NS: 0, CNAME: 0, PTR: 0, MX: 2, SRV: 6}
"""Types whose RDATA is fixed octets and then one name."""
_header = struct.Struct("!HHHHHH")
_rr = struct.Struct("!HHIH")


class Record(NamedTuple):
    """One resource record; `rdata` in wire form, its names uncompressed."""

    name: bytes
    type: int
    ttl: int
    rdata: bytes
    cls: int = 1


class Edns(NamedTuple):
    """The OPT record of a query."""

    size: int
    do: bool
    version: int
    options: bytes
    """Those that the reply repeats."""
    sent: bytes = b""
    """All options as they came; they go along to other servers."""


@dataclass(slots=True)
class Query:
    """A question as it came; `lower` is for matching, `name` for echoing."""

    id: int
    flags: int
    name: bytes
    type: int
    cls: int = 1
    edns: Edns | None = None
    question: bytes = b""
    transport: str = "udp"
    client: tuple[str, int] = ("", 0)
    size: int = 0
    depth: int = 0
    """How many aliases led here; a query from the wire has 0."""
    serial: int | None = None
    """The serial of the zone that a client has already, in a question of type IXFR."""
    lower: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.lower = self.name.lower()
        if not self.question:
            self.question = self.name + self.type.to_bytes(2, "big") + self.cls.to_bytes(2, "big")

    @property
    def do(self) -> bool:
        """Whether DNSSEC records are welcome."""
        return self.edns is not None and self.edns.do

    @property
    def limit(self) -> int:
        """The largest reply that this client takes."""
        if self.transport == "tcp":
            return 65535
        return max(512, self.edns.size) if self.edns else 512


@dataclass(slots=True)
class Response:
    """What is said about a question; the header's other bits come from the query."""

    rcode: int = NOERROR
    answers: list[Record] = field(default_factory=list)
    authority: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    aa: bool = True
    ra: bool = False
    tc: bool = False
    stable: bool = False
    """The same until a watched object changes: the packed reply may be kept and sent again."""
    depends: tuple[bytes, ...] = ()
    """What a stable answer was made of, in the words of `Host.invalidate`; empty: any change voids it."""
    until: float = math.inf
    """Monotonic time from which a stable answer has aged and must be made anew."""
    again: Callable[[int], None] | None = None
    """Told how many times a kept reply was sent without this plugin being asked."""
    shuffle: bool = False
    """Addresses are to be sent in another order each time."""
    silent: bool = False
    """Nothing is sent at all: the client waits until it gives up."""
    options: bytes = b""
    """EDNS options for the reply, besides those that are echoed."""
    more: list[Response] = field(default_factory=list)
    """Further messages of the same reply: a zone transfer that does not fit one."""
    plugin: str = ""
    cause: str = ""
    """Why there is no proper answer; the `errors` plugin logs it."""


class Malformed(Exception):
    """A packet that gets no ordinary answer; `reply` is what to send instead, empty for silence."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("malformed message")
        self.reply = reply


class WireError(ValueError):
    """Bytes that are not a DNS message."""


def parse_query(data: bytes, transport: str = "udp", client: tuple[str, int] = ("", 0)) -> Query:
    """A query from a packet. Raises Malformed, with the reply that `miekg/dns` and CoreDNS give in that case."""
    if len(data) < 12:
        raise Malformed
    ident, flags, questions, answers, authority, additional = _header.unpack_from(data)
    if flags & QR:
        raise Malformed
    opcode = flags & _OPCODE
    if opcode not in (0, 4 << 11):
        raise Malformed(_bare(ident, flags & (_OPCODE | RD | CD) | NOTIMP))
    if questions != 1 or answers > 1 or authority > 1 or additional > 2:
        raise Malformed(_bare(ident, flags & (RD | CD) | FORMERR))
    if len(data) == 12:
        raise Malformed(_bare(ident, flags & (RD | CD) | SERVFAIL))
    try:
        name, at = read_name(data, 12)
        qtype, cls = struct.unpack_from("!HH", data, at)
        end = at + 4
        edns = _find_opt(data, end, answers + authority + additional) if end < len(data) else None
    except (WireError, struct.error):
        raise Malformed(_bare(ident, flags & (RD | CD) | FORMERR)) from None
    plain = data[12:at] == name
    question = data[12:end] if plain else name + data[at:end]
    serial = _serial(data, end, answers + authority) if qtype == IXFR else None
    return Query(ident, flags, name, qtype, cls, edns, question, transport, client, len(data), serial=serial)


def _bare(ident: int, flags: int) -> bytes:
    return _header.pack(ident, flags | QR, 0, 0, 0, 0)


def _find_opt(data: bytes, at: int, count: int) -> Edns | None:
    edns = None
    for _ in range(count):
        if at >= len(data):
            break
        _, at = read_name(data, at)
        kind, size, ttl, length = _rr.unpack_from(data, at)
        at += 10
        if at + length > len(data):
            raise WireError("record beyond the end")
        if kind == OPT:
            options = data[at : at + length]
            edns = Edns(size, bool(ttl & 0x8000), ttl >> 16 & 0xFF, _echo(options), options)
        at += length
    return edns


def _serial(data: bytes, at: int, count: int) -> int | None:
    """The serial in the first SOA record of a query (RFC 1995, 3), None without one."""
    for _ in range(count):
        try:
            record, at = _read_record(data, at)
        except (WireError, struct.error):
            return None
        if record.type == SOA and len(record.rdata) >= 20:
            return int.from_bytes(record.rdata[-20:-16], "big")
    return None


def _echo(options: bytes) -> bytes:
    kept, at = b"", 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from("!HH", options, at)
        if at + 4 + length > len(options):
            raise WireError("option beyond the end")
        if code in _ECHOED_OPTIONS:
            kept += options[at : at + 4 + length]
        at += 4 + length
    if at != len(options):
        raise WireError("option beyond the end")
    return kept


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """The name at an offset, uncompressed, and the offset behind it. Raises WireError for loops and bad labels."""
    out, end, limit = bytearray(), 0, at
    while True:
        if at >= len(data):
            raise WireError("name beyond the end")
        size = data[at]
        if size < 64:
            if size == 0:
                break
            if at + 1 + size > len(data):
                raise WireError("label beyond the end")
            out += data[at : at + 1 + size]
            if len(out) > 254:
                raise WireError("name too long")
            at += 1 + size
        elif size >= 0xC0 and at + 1 < len(data):
            end = end or at + 2
            at = (size & 0x3F) << 8 | data[at + 1]
            if at >= limit:  # pointers must lead backwards, so that every chain ends
                raise WireError("compression loop")
            limit = at
        else:
            raise WireError("bad label type")
    return bytes(out) + b"\0", end or at + 1


class _Packer:
    """Writes one message, remembering where names stand."""

    def __init__(self, question: bytes) -> None:
        self.out = bytearray(12) + question
        self.places: dict[bytes, int] = {}
        self._remember(question[:-4], 12)

    def _remember(self, name: bytes, at: int) -> None:
        i = 0
        while name[i]:
            self.places.setdefault(name[i:], at + i)
            i += 1 + name[i]

    def name(self, name: bytes, compress: bool = True) -> None:
        out, i = self.out, 0
        while name[i]:
            if compress and (place := self.places.get(name[i:])) is not None:
                out += (0xC000 | place).to_bytes(2, "big")
                return
            if len(out) < 0x4000:
                self.places.setdefault(name[i:], len(out))
            out += name[i : i + 1 + name[i]]
            i += 1 + name[i]
        out.append(0)

    def record(self, record: Record) -> None:
        self.name(record.name)
        rdata, out = record.rdata, self.out
        out += _rr.pack(record.type, record.cls, record.ttl, len(rdata))
        if (fixed := _NAME_TYPES.get(record.type)) is None:
            out += rdata
            return
        start = len(out)
        out += rdata[:fixed]
        self.name(rdata[fixed:], compress=record.type != SRV)  # RFC 2782: the target must not be compressed
        out[start - 2 : start] = (len(out) - start).to_bytes(2, "big")


def pack(query: Query, response: Response) -> bytes:
    """The reply within the client's limit. What does not fit is left out whole, last section first, and TC is set."""
    packer = _Packer(query.question)
    opt = _opt(query, response) if query.edns else b""
    limit, truncated, counts = query.limit - len(opt), response.tc, [0, 0, 0]
    places: dict[bytes, int] | None = None
    for section, records in enumerate((response.answers, response.authority, response.additional)):
        for record in records:
            before = len(packer.out)
            packer.record(record)
            if len(packer.out) > limit:
                del packer.out[before:]
                truncated, places = True, {}
                break
            counts[section] += 1
        if places is not None:
            break
    flags = QR | query.flags & (_OPCODE | RD | CD) | response.rcode & 15
    flags |= (AA if response.aa else 0) | (RA if response.ra else 0)
    if truncated and query.transport == "udp":
        flags |= TC
    _header.pack_into(packer.out, 0, query.id, flags, 1, *counts[:2], counts[2] + bool(opt))
    return bytes(packer.out) + opt


def _opt(query: Query, response: Response) -> bytes:
    assert query.edns is not None
    size, do, _, options, _ = query.edns
    options += response.options
    if response.rcode == BADVERS:
        size, options = 0, b""
    ttl = response.rcode >> 4 << 24 | (0x8000 if do else 0)
    return b"\0" + _rr.pack(OPT, size, ttl, len(options)) + options


@dataclass(frozen=True, slots=True)
class Message:
    """A reply from another server."""

    id: int
    flags: int
    question: bytes
    answers: list[Record]
    authority: list[Record]
    additional: list[Record]

    @property
    def rcode(self) -> int:
        """The lower four bits; extended codes never reach a stub."""
        return self.flags & 15

    @property
    def truncated(self) -> bool:
        """Whether TCP would bring more."""
        return bool(self.flags & TC)


def parse_message(data: bytes) -> Message:
    """A whole message, OPT left out. Raises WireError."""
    try:
        ident, flags, questions, *counts = _header.unpack_from(data)
        at, question = 12, b""
        for _ in range(questions):
            name, at = read_name(data, at)
            question = name + data[at : at + 4]
            at += 4
        sections: list[list[Record]] = []
        for count in counts:
            section = []
            for _ in range(count):
                record, at = _read_record(data, at)
                if record.type != OPT:
                    section.append(record)
            sections.append(section)
    except (struct.error, IndexError) as error:
        raise WireError("message ends early") from error
    return Message(ident, flags, question, *sections)


def _read_record(data: bytes, at: int) -> tuple[Record, int]:
    name, at = read_name(data, at)
    kind, cls, ttl, length = _rr.unpack_from(data, at)
    at += 10
    end = at + length
    if end > len(data):
        raise WireError("record beyond the end")
    if (fixed := _NAME_TYPES.get(kind)) is not None:
        rdata = data[at : at + fixed] + read_name(data, at + fixed)[0]
    elif kind == SOA:
        mname, behind = read_name(data, at)
        rname, behind = read_name(data, behind)
        rdata = mname + rname + data[behind:end]
    else:
        rdata = data[at:end]
    return Record(name, kind, ttl, rdata, cls), end


def build_query(
    ident: int,
    name: bytes,
    qtype: int,
    *,
    cls: int = 1,
    flags: int = RD,
    edns_size: int = 0,
    do: bool = False,
    options: bytes = b"",
) -> bytes:
    """A query packet; `edns_size` 0 leaves OPT out, EDNS options too."""
    opt = b"\0" + _rr.pack(OPT, edns_size, 0x8000 if do else 0, len(options)) + options if edns_size else b""
    return _header.pack(ident, flags, 1, 0, 0, bool(opt)) + name + struct.pack("!HH", qtype, cls) + opt


# --- RDATA ---------------------------------------------------------------------------------------------------------


def srv(priority: int, weight: int, port: int, target: bytes) -> bytes:
    """RDATA of an SRV record."""
    return struct.pack("!HHH", priority, weight, port) + target


def soa(mname: bytes, rname: bytes, *numbers: int) -> bytes:
    """RDATA of an SOA record: serial, refresh, retry, expire, minimum."""
    return mname + rname + struct.pack("!5I", *numbers)


def txt(*strings: bytes) -> bytes:
    """RDATA of a TXT record."""
    return b"".join([bytes((len(item),)) + item for item in strings])


def strings(rdata: bytes) -> list[bytes]:
    """The strings of a TXT record."""
    found, at = [], 0
    while at < len(rdata):
        found.append(rdata[at + 1 : at + 1 + rdata[at]])
        at += 1 + rdata[at]
    return found


def type_name(number: int) -> str:
    """`A`, or `TYPE65280` as RFC 3597 has it."""
    return TYPE_NAMES.get(number) or _RARE_NAMES.get(number) or f"TYPE{number}"


def type_number(word: str) -> int | None:
    """65 for `HTTPS`, in any case, or `TYPE65`; None for what is no type."""
    upper = word.upper()
    number = upper.removeprefix("TYPE")
    if number != upper and number.isdecimal() and int(number) < 65536:
        return int(number)
    return TYPES.get(upper) or _RARE_TYPES.get(upper)


def extended_error(code: int, text: str = "") -> bytes:
    """The EDNS option that says why (RFC 8914)."""
    data = text.encode()
    return struct.pack("!HHH", 15, 2 + len(data), code) + data


def rcode_name(number: int) -> str:
    """`NOERROR`, `NXDOMAIN`."""
    return RCODE_NAMES.get(number) or f"RCODE{number}"


def rdata_text(record: Record) -> str:
    """RDATA as zone files spell it; `\\# LENGTH HEX` for types without a spelling here."""
    kind, rdata = record.type, record.rdata
    if kind in (A, AAAA) and len(rdata) in (4, 16):
        import ipaddress

        return str(ipaddress.ip_address(rdata))
    if kind in (NS, CNAME, PTR):
        return names.text(rdata)
    if kind == SRV:
        return " ".join(map(str, struct.unpack_from("!HHH", rdata))) + " " + names.text(rdata[6:])
    if kind == MX:
        return f"{int.from_bytes(rdata[:2], 'big')} {names.text(rdata[2:])}"
    if kind == SOA:
        mname, at = read_name(rdata, 0)
        rname, at = read_name(rdata, at)
        return f"{names.text(mname)} {names.text(rname)} " + " ".join(map(str, struct.unpack_from("!5I", rdata, at)))
    if kind in (TXT, HINFO):
        return " ".join('"' + item.decode("latin-1").replace('"', '\\"') + '"' for item in strings(rdata))
    return f"\\# {len(rdata)} {rdata.hex()}"


def record_text(record: Record) -> str:
    """One line as dig prints it: owner, TTL, class, type, data."""
    cls = "IN" if record.cls == 1 else f"CLASS{record.cls}"
    return f"{names.text(record.name)}\t{record.ttl}\t{cls}\t{type_name(record.type)}\t{rdata_text(record)}"
