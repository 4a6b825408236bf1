"""Expressions of rules in the kernel's terms: loads into registers, comparisons, lookups, verdicts.

Theory of operation: the kernel runs a rule as a small program over registers. What `ip saddr 10.0.0.1 jump x` says is a
load of four bytes of the packet into register 1, a comparison of register 1, and a verdict written to register 0. The
programs here are those that the `nft` tool makes of the same text, instruction by instruction, so that the tool can
list what we wrote; see `netemu.kernel.nft_decode` for the way back.

A list of values written within a rule is a set of its own without a name; the rule refers to it by the number it has
in the transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from netemu.kernel import nft_data as data
from netemu.kernel.nfnetlink import attribute, be32, be64, nested, text
from netemu.model import nft
from netemu.model.nft import DataType, Field, Key

PAYLOADS: Final = {
    Field.IP_SADDR: (1, 12, 4),
    Field.IP_DADDR: (1, 16, 4),
    Field.IP6_SADDR: (1, 8, 16),
    Field.IP6_DADDR: (1, 24, 16),
    Field.TH_SPORT: (2, 0, 2),
    Field.TH_DPORT: (2, 2, 2),
    Field.TCP_DPORT: (2, 2, 2),
    Field.UDP_DPORT: (2, 2, 2),
    Field.SCTP_DPORT: (2, 2, 2),
}
"""Header (1 network, 2 transport), offset, length."""
PORT_PROTOCOLS: Final = {Field.TCP_DPORT: "tcp", Field.UDP_DPORT: "udp", Field.SCTP_DPORT: "sctp"}
META_KEYS: Final = {Field.MARK: 3, Field.IIFNAME: 6, Field.OIFNAME: 7, Field.L4PROTO: 16}
CT_KEYS: Final = {Field.CT_STATE: 0, Field.CT_STATUS: 2}
FIB_FLAGS: Final = {Field.FIB_SADDR_TYPE: 1, Field.FIB_DADDR_TYPE: 2}
CT_BITS: Final = {
    Field.CT_STATE: {"invalid": 1, "new": 8, "established": 2, "related": 4, "untracked": 64},
    Field.CT_STATUS: {
        "expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512,
    },
}  # fmt: skip
FIB_TYPES: Final = {
    "unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6,
    "unreachable": 7, "prohibit": 8,
}  # fmt: skip
VERDICT_CODES: Final = {"drop": 0, "accept": 1, "jump": -3, "goto": -4, "return": -5}
LIMIT_UNITS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
EQ, NEQ, LTE, GTE = 0, 1, 3, 5
_DNAT, _FAMILIES = 1, {"ip": 2, "ip6": 10}
_PROTO_SPECIFIED = 2
_PORT_UNREACHABLE = {"ip": 3, "ip6": 4}
_ALL_BITS = 0xFFFFFFFF

Entries = Sequence[tuple[nft.Values, nft.Verdict | nft.Values | None]]
AnonymousSet = Callable[[nft.Set | nft.Map, int, Entries], bytes]
"""Makes a set for a list in a rule (its types, the number of its key's type, its elements); what refers to it."""


def register(word: int) -> int:
    """The register that begins at a word: the old 16 byte ones where one begins there, as the tool has it."""
    return 1 + word // 4 if word % 4 == 0 else 8 + word


def instruction(name: str, *parts: bytes) -> bytes:
    """One instruction of a rule."""
    return nested(1, text(1, name), nested(2, *parts))


def comparison(operator: int, value: bytes) -> bytes:
    """Go on with the rule if register 1 is so."""
    return instruction("cmp", be32(1, 1), be32(2, operator), nested(3, attribute(1, value)))


def _bitwise(mask: bytes, xor: bytes) -> bytes:
    parts = (be32(1, 1), be32(2, 1), be32(6, 0), be32(3, len(mask)))
    return instruction("bitwise", *parts, nested(4, attribute(1, mask)), nested(5, attribute(1, xor)))


@lru_cache(256)
def _load(field: Field, into: int = 1, length: int = 0) -> bytes:
    if field in PAYLOADS:
        base, offset, size = PAYLOADS[field]
        return instruction("payload", be32(1, into), be32(2, base), be32(3, offset), be32(4, length or size))
    if field in META_KEYS:
        return instruction("meta", be32(2, META_KEYS[field]), be32(1, into))
    if field in CT_KEYS:
        return instruction("ct", be32(2, CT_KEYS[field]), be32(1, into))
    return instruction("fib", be32(3, FIB_FLAGS[field]), be32(2, 3), be32(1, into))


@lru_cache(256)
def _load_key(key: Key) -> bytes:
    parts, word = [], 0
    for part in key:
        if isinstance(part, nft.Numgen):
            parts.append(instruction("numgen", be32(1, register(word)), be32(2, part.mod), be32(3, 1), be32(4, 0)))
            word += 1
        else:
            parts.append(_protocol_of(part))
            parts.append(_load(part, register(word)))
            word += data.words(data.SIZES[field_type(part)]) // 4
    return b"".join(parts)


def field_type(field: Field) -> DataType:
    """The type of a field in a key. Raises ValueError for fields that no key can have here."""
    found = data.FIELD_TYPES.get(field)
    if found is None:
        raise ValueError(f"{field.value} cannot be part of a key")
    return found


def key_types(key: Key) -> tuple[DataType, ...]:
    """The types of a key's parts; numbers count as marks, which look the same."""
    return tuple(DataType.MARK if isinstance(part, nft.Numgen) else field_type(part) for part in key)


def key_number(key: Key) -> int:
    """The number of the key's type as the tool counts."""
    return data.key_number(
        [data.INTEGER if isinstance(p, nft.Numgen) else data.TYPE_NUMBERS[field_type(p)] for p in key]
    )


@lru_cache(64)
def _protocol_of(field: Field) -> bytes:
    """`tcp dport` means: the protocol is tcp, and the port is ..."""
    if field not in PORT_PROTOCOLS:
        return b""
    number = data.encode(DataType.INET_PROTO, PORT_PROTOCOLS[field])
    return _load(Field.L4PROTO) + comparison(EQ, number)


def verdict_data(verdict: nft.Verdict) -> bytes:
    """A verdict as data of an element or of register 0."""
    code = be32(1, VERDICT_CODES[verdict.kind])
    return nested(2, code, text(2, verdict.chain)) if verdict.chain else nested(2, code)


def encode(family: nft.Family, expression: nft.Expression, anonymous: AnonymousSet) -> bytes:
    """The instructions for one expression. Raises ValueError."""
    match expression:
        case nft.Match():
            return _match(expression, anonymous)
        case nft.Verdict():
            return _verdict(expression)
        case nft.Dnat():
            return _dnat(family, expression)
        case nft.Vmap():
            return _load_key(expression.key) + _vmap_lookup(expression, anonymous)
        case nft.DnatMap():
            return _dnat_map(expression, anonymous)
        case _:
            return _plain(family, expression)


@lru_cache(1024)
def _plain(family: nft.Family, expression: nft.Expression) -> bytes:
    match expression:
        case nft.MarkMatch():
            masked = _bitwise(struct.pack("=I", expression.mask), bytes(4))
            return _load(Field.MARK) + masked + comparison(int(expression.negated), struct.pack("=I", expression.value))
        case nft.SetMark():
            return _set_mark(expression)
        case nft.Lookup():
            flags = be32(5, 1) if expression.negated else b""
            return _load_key(expression.key) + instruction("lookup", be32(2, 1), text(1, expression.set), flags)
        case nft.Masquerade():
            how = 4 * expression.random | 16 * expression.fully_random
            return instruction("masq", be32(1, how)) if how else instruction("masq")
        case nft.Reject():
            if expression.tcp_reset:
                tcp = _load(Field.L4PROTO) + comparison(EQ, data.encode(DataType.INET_PROTO, "tcp"))
                return tcp + instruction("reject", be32(1, 1), attribute(2, b"\0"))
            return instruction("reject", be32(1, 0), attribute(2, bytes((_PORT_UNREACHABLE[family],))))
        case nft.Update():
            reference = (be32(4, 1), be32(3, 1), text(1, expression.set))
            return _load_key(expression.key) + instruction("dynset", *reference)
        case nft.Limit():
            unit = be64(2, LIMIT_UNITS[expression.unit])
            rest = (be32(3, expression.burst), be32(4, 0), be32(5, int(expression.over)))
            return instruction("limit", be64(1, expression.rate), unit, *rest)
        case nft.Counter():
            counts = (be64(1, expression.bytes), be64(2, expression.packets))
            return instruction("counter", *(counts if expression.packets else ()))
    raise ValueError(f"not to be sent: {expression.text()}")


@lru_cache(4096)
def _verdict(verdict: nft.Verdict) -> bytes:
    return instruction("immediate", be32(1, 0), nested(2, verdict_data(verdict)))


def _set_mark(expression: nft.SetMark) -> bytes:
    value = struct.pack("=I", expression.value)
    flipped = struct.pack("=I", expression.value ^ _ALL_BITS)
    store = instruction("meta", be32(2, 3), be32(3, 1))
    if not expression.operator:
        return _constant(1, value) + store
    mask, xor = {
        "|": (flipped, value),
        "^": (struct.pack("=I", _ALL_BITS), value),
        "&": (value, bytes(4)),
    }[expression.operator]
    return _load(Field.MARK) + _bitwise(mask, xor) + store


def _match(match: nft.Match, anonymous: AnonymousSet) -> bytes:
    field, before = match.field, _protocol_of(match.field)
    if field in CT_BITS:
        return _bits(match)
    if field in FIB_FLAGS:
        if len(match.values) != 1 or match.values[0] not in FIB_TYPES:
            raise ValueError(f"no such address type: {match.values!r}")
        return _load(field) + comparison(int(match.negated), struct.pack("=I", FIB_TYPES[str(match.values[0])]))
    if len(match.values) != 1:
        kind = field_type(field)
        flags = frozenset({"interval"}) if any(map(data.is_interval, match.values)) else frozenset[str]()
        held = nft.Set("", (kind,), flags)
        which = anonymous(held, data.TYPE_NUMBERS[kind], [((value,), None) for value in match.values])
        inverted = be32(5, 1) if match.negated else b""
        return before + _load(field) + instruction("lookup", be32(2, 1), which, inverted)
    return before + _single(field, match.values[0], match.negated)


def _single(field: Field, value: nft.Value, negated: bool) -> bytes:
    kind, operator = field_type(field), int(negated)
    if kind is DataType.IFNAME and str(value).endswith("*"):
        return _load(field) + comparison(operator, str(value)[:-1].encode())
    if not isinstance(value, str) or not data.is_interval(value):
        encoded = data.encode(kind, value)
        before, after = _frame(field, operator, len(encoded))
        return before + encoded + after
    low, high = data.bounds(kind, value)
    size = data.SIZES[kind]
    first, last = low.to_bytes(size, "big"), high.to_bytes(size, "big")
    if "/" not in value:
        if negated:
            span = (nested(3, attribute(1, first)), nested(4, attribute(1, last)))
            return _load(field) + instruction("range", be32(1, 1), be32(2, NEQ), *span)
        return _load(field) + comparison(GTE, first) + comparison(LTE, last)
    bits = size * 8 - (high - low).bit_length()
    if bits and bits % 8 == 0:  # whole bytes: load no more than those
        return _load(field, 1, bits // 8) + comparison(operator, first[: bits // 8])
    mask = (((1 << size * 8) - 1) ^ (high - low)).to_bytes(size, "big")
    return _load(field) + _bitwise(mask, bytes(size)) + comparison(operator, first)


@lru_cache(256)
def _frame(field: Field, operator: int, size: int) -> tuple[bytes, bytes]:
    """A comparison with a value of some size: what stands before the value and after it."""
    whole = _load(field) + comparison(operator, bytes(size))
    padding = -size % 4
    return whole[: len(whole) - size - padding], bytes(padding)


def _bits(match: nft.Match) -> bytes:
    known, mask = CT_BITS[match.field], 0
    for value in match.values:
        if value not in known:
            raise ValueError(f"no such {match.field.value}: {value!r}")
        mask |= known[str(value)]
    masked = _load(match.field) + _bitwise(struct.pack("=I", mask), bytes(4))
    return masked + comparison(EQ if match.negated else NEQ, bytes(4))


@lru_cache(1024)
def _named_lookup(name: str) -> bytes:
    return instruction("lookup", be32(2, 1), be32(3, 0), text(1, name))


def _vmap_lookup(expression: nft.Vmap, anonymous: AnonymousSet) -> bytes:
    if expression.map:
        return _named_lookup(expression.map)
    held = nft.Map("", key_types(expression.key))
    which = anonymous(held, key_number(expression.key), expression.entries)
    return instruction("lookup", be32(2, 1), be32(3, 0), which)


def _dnat(family: nft.Family, expression: nft.Dnat) -> bytes:
    address = data.encode(nft.addr_type(family), expression.address)
    if not expression.port:
        return _constant(1, address) + instruction("nat", *_nat_base(family))
    port = data.encode(DataType.INET_SERVICE, expression.port)
    before, between, after = _dnat_frame(family, len(address))
    return before + address + between + port + after


def _constant(into: int, value: bytes) -> bytes:
    return instruction("immediate", be32(1, into), nested(2, attribute(1, value)))


def _nat_base(family: nft.Family) -> tuple[bytes, ...]:
    return be32(1, _DNAT), be32(2, _FAMILIES[family]), be32(3, 1)


@lru_cache(8)
def _dnat_frame(family: nft.Family, size: int) -> tuple[bytes, bytes, bytes]:
    """What stands before the address, between it and the port, and after the port."""
    nat = instruction("nat", *_nat_base(family), be32(5, 2), be32(7, _PROTO_SPECIFIED))
    return _constant(1, bytes(size))[:-size], _constant(2, bytes(2))[:-4], bytes(2) + nat


def _dnat_map(expression: nft.DnatMap, anonymous: AnonymousSet) -> bytes:
    kind = nft.addr_type(expression.family)
    if expression.map:
        which = text(1, expression.map)
    else:
        held = nft.Map("", key_types(expression.key), (kind, DataType.INET_SERVICE))
        which = anonymous(held, key_number(expression.key), expression.entries)
    port = register(data.SIZES[kind] // 4)
    nat = (*_nat_base(expression.family), be32(5, port))
    found = _load_key(expression.key) + instruction("lookup", be32(2, 1), be32(3, 1), which)
    return found + instruction("nat", *nat, be32(7, _PROTO_SPECIFIED))
