"""What the kernel tells of its tables, as typed objects again.

Rules come back as programs over registers (see `nft_expressions`). They are read in order: loads wait until something
uses them, and what uses them becomes an expression. A program that is not one of those written here, because somebody
else put the rule there, gives `Unknown` expressions; reading never fails on a foreign rule.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, cast

from netemu.kernel import nft_data as data
from netemu.kernel import nft_encode as wire
from netemu.kernel import nft_expressions as expressions
from netemu.kernel.nfnetlink import attribute_list, attributes
from netemu.kernel.nft_elements import INTERVAL_END, HeldSet
from netemu.model import nft
from netemu.model.nft import DataType, Field

_VERDICTS: Final = {code: kind for kind, code in expressions.VERDICT_CODES.items()}
_PAYLOADS: Final = {
    known[:2]: found for found, known in expressions.PAYLOADS.items() if found not in expressions.PORT_PROTOCOLS
}
_META: Final = {number: found for found, number in expressions.META_KEYS.items()}
_CT: Final = {number: found for found, number in expressions.CT_KEYS.items()}
_FIB: Final = {number: found for found, number in expressions.FIB_FLAGS.items()}
_FIB_TYPES: Final = {number: name for name, number in expressions.FIB_TYPES.items()}
_UNITS: Final = {number: unit for unit, number in expressions.LIMIT_UNITS.items()}
_PORTS: Final = {"tcp": Field.TCP_DPORT, "udp": Field.UDP_DPORT, "sctp": Field.SCTP_DPORT}
_FAMILY_OF: Final = {2: "ip", 10: "ip6"}
_ALL_BITS: Final = 0xFFFFFFFF
_ONE, _CARRIED = 1, 3
"""An expression or element in a list of them; the list of elements in a message."""


@dataclass(frozen=True, slots=True)
class FoundSet:
    """A set as the kernel has it; `held` is None where its types are unknown here."""

    name: str
    anonymous: bool
    held: HeldSet | None


Anonymous = Mapping[str, tuple[FoundSet, Sequence[nft.Element]]]


def table(body: bytes, family: nft.Family) -> nft.Table:
    """A table from its message."""
    found = attributes(body)
    return nft.Table(family, _string(found[1]), _noted(found.get(6, b"")).get(0, ""))


def chain(body: bytes, of_table: str) -> nft.Chain | None:
    """A chain from its message; None for one of another table."""
    found = attributes(body)
    if _string(found[1]) != of_table:
        return None
    comment = _noted(found.get(12, b"")).get(0, "")
    if 4 not in found:
        return nft.Chain(_string(found[3]), comment=comment)
    hook = attributes(found[4])
    return nft.Chain(
        name=_string(found[3]),
        type=cast("Literal['filter', 'nat', 'route']", _string(found[7])),
        hook=cast("Literal['prerouting']", wire.HOOKS[_number(hook[1])]),
        priority=int.from_bytes(hook[2], "big", signed=True),
        policy="accept" if _number(found[5]) else "drop",
        comment=comment,
    )


def a_set(body: bytes, of_table: str) -> FoundSet | None:
    """A set or map from its message; None for one of another table."""
    found = attributes(body)
    if _string(found[1]) != of_table:
        return None
    name, flags = _string(found[2]), _number(found.get(3, b""))
    anonymous = bool(flags & wire.ANONYMOUS)
    try:
        types = data.key_types(_number(found[4]))
        held = _held(name, types, flags, found)
    except (ValueError, KeyError):
        return FoundSet(name, anonymous, None)
    return FoundSet(name, anonymous, held)


def _held(name: str, types: tuple[DataType, ...], flags: int, found: Mapping[int, bytes]) -> HeldSet:
    words = frozenset(word for word, bit in wire.SET_FLAGS.items() if flags & bit)
    size = _number(attributes(found.get(9, b"")).get(1, b""))
    timeout = _number(found.get(11, b"")) // 1000
    comment = _noted(found.get(13, b"")).get(7, "")
    if not flags & wire.MAP:
        return nft.Set(name, types, words, timeout, size, comment)
    number = _number(found[6])
    kinds = (DataType.VERDICT,) if number == data.VERDICT else data.key_types(number)
    return nft.Map(name, types, kinds, words, timeout, size, comment)


def elements(found: FoundSet, bodies: Sequence[bytes]) -> tuple[nft.Element, ...]:
    """All elements of a set from the answers to the question for them."""
    if found.held is None:
        return ()
    listed = [
        attributes(each)
        for body in bodies
        for carried in attribute_list(body, _CARRIED)
        for each in attribute_list(carried, _ONE)
    ]
    if "interval" in found.held.flags and len(found.held.type) == 1:
        return tuple(_spans(found.held, listed))
    return tuple(_element(found.held, each) for each in listed)


def _element(held: HeldSet, found: Mapping[int, bytes]) -> nft.Element:
    first = _value(found[1])
    if 10 in found:
        last = _value(found[10])
        key = _interval_key(held.type, first, last)
    else:
        key = data.decode_key(held.type, first)
    return nft.Element(held.name, key, *_extras(held, found))


def _interval_key(types: Sequence[DataType], first: bytes, last: bytes) -> nft.Values:
    key: list[nft.Value] = []
    for kind in types:
        size = data.SIZES[kind]
        if first[:size] == last[:size]:
            key.append(data.decode(kind, first))
        else:
            low, high = int.from_bytes(first[:size], "big"), int.from_bytes(last[:size], "big")
            key.append(data.span_text(kind, low, high))
        first, last = first[data.words(size) :], last[data.words(size) :]
    return tuple(key)


def _extras(held: HeldSet, found: Mapping[int, bytes]) -> tuple[nft.Verdict | nft.Values | None, str, int]:
    comment = _noted(found.get(6, b"")).get(0, "")
    timeout = _number(found.get(4, b"")) // 1000
    value: nft.Verdict | nft.Values | None = None
    if 2 in found and isinstance(held, nft.Map):
        within = attributes(found[2])
        value = _verdict(within[2]) if 2 in within else data.decode_key(held.data, within[1])
    return value, comment, 0 if timeout == held.timeout else timeout


def _spans(held: HeldSet, listed: Sequence[Mapping[int, bytes]]) -> list[nft.Element]:
    kind = held.type[0]
    size = data.SIZES[kind]
    marks = []
    for found in listed:
        end = bool(_number(found.get(3, b"")) & INTERVAL_END)
        marks.append((int.from_bytes(_value(found[1])[:size], "big"), not end, found))
    marks.sort(key=lambda mark: mark[:2])
    spans: list[nft.Element] = []
    for index, (low, starts, found) in enumerate(marks):
        if not starts:
            continue
        high = marks[index + 1][0] - 1 if index + 1 < len(marks) else (1 << size * 8) - 1
        spans.append(nft.Element(held.name, (data.span_text(kind, low, high),), *_extras(held, found)))
    return spans


def generation(body: bytes) -> int:
    """The number of the generation in force."""
    return _number(attributes(body)[1])


def rule(body: bytes, of_table: nft.Table, anonymous: Anonymous) -> nft.Rule | None:
    """A rule from its message; None for one of another table."""
    found = attributes(body)
    if _string(found[1]) != of_table.name:
        return None
    reader = _Program(of_table.family, anonymous)
    for each in attribute_list(found.get(4, b""), _ONE):
        reader.read(*_instruction(each))
    comment = _noted(found.get(7, b"")).get(0, "")
    return nft.Rule(_string(found[2]), reader.finish(), comment, _number(found[3]))


@lru_cache(4096)
def _instruction(body: bytes) -> tuple[str, Mapping[int, bytes]]:
    """Its name and its attributes; a rule set says the same things over and over."""
    parts = attributes(body)
    return _string(parts[1]), attributes(parts.get(2, b""))


@dataclass
class _Program:
    """Reads one rule's instructions; `loads` wait to be used, `values` are constants in registers."""

    family: nft.Family
    anonymous: Anonymous
    found: list[nft.Expression] = field(default_factory=list)
    loads: list[tuple[nft.KeyPart, int]] = field(default_factory=list)
    masks: tuple[bytes, bytes] | None = None
    values: dict[int, bytes] = field(default_factory=dict)
    chosen: tuple[nft.Key, str] | None = None

    def read(self, name: str, at: Mapping[int, bytes]) -> None:
        """Take the next instruction."""
        handler = _HANDLERS.get(name)
        try:
            if handler is None:
                raise ValueError(name)
            handler(self, at)
        except (ValueError, KeyError, IndexError, struct.error):
            self._forget()
            self.found.append(nft.Unknown(name))

    def finish(self) -> tuple[nft.Expression, ...]:
        """The expressions; a load that nothing used is something unknown."""
        if self.loads:
            self.found.append(nft.Unknown("load"))
        return tuple(self.found)

    def _forget(self) -> None:
        self.loads, self.masks, self.chosen = [], None, None

    def _key(self) -> nft.Key:
        if not self.loads or self.masks:
            raise ValueError("no plain key")
        key = tuple(part for part, _ in self.loads)
        self._forget()
        return key

    def payload(self, at: Mapping[int, bytes]) -> None:
        """A load of bytes of the packet."""
        self.loads.append((_PAYLOADS[_number(at[2]), _number(at[3])], _number(at[4])))

    def meta(self, at: Mapping[int, bytes]) -> None:
        """A load of what belongs to the packet, or a change of its mark."""
        if 3 in at:
            self._set_mark(at)
        else:
            self.loads.append((_META[_number(at[2])], 0))

    def ct(self, at: Mapping[int, bytes]) -> None:
        """A load of what belongs to the connection."""
        self.loads.append((_CT[_number(at[2])], 0))

    def fib(self, at: Mapping[int, bytes]) -> None:
        """A load of what routing says of an address."""
        if _number(at[2]) != 3:
            raise ValueError("not an address type")
        self.loads.append((_FIB[_number(at[3])], 0))

    def numgen(self, at: Mapping[int, bytes]) -> None:
        """A load of a random number."""
        if _number(at[3]) != 1 or _number(at.get(4, b"")):
            raise ValueError("not random from 0")
        self.loads.append((nft.Numgen(_number(at[2])), 0))

    def bitwise(self, at: Mapping[int, bytes]) -> None:
        """A mask over the last load."""
        self.masks = _value(at[4]), _value(at[5])

    def cmp(self, at: Mapping[int, bytes]) -> None:
        """A comparison of the last load."""
        ((part, length),) = self.loads
        operator, value, masks = _number(at[2]), _value(at[3]), self.masks
        self._forget()
        if not isinstance(part, Field) or operator not in (expressions.EQ, expressions.NEQ):
            raise ValueError("a comparison by size")
        self._add_match(_comparison(part, length, operator == expressions.NEQ, value, masks))

    def _add_match(self, match: nft.Match | nft.MarkMatch) -> None:
        before = self.found[-1] if self.found else None
        if isinstance(match, nft.Match) and match.field is Field.TH_DPORT and isinstance(before, nft.Match):
            protocol = before.values[0] if before.field is Field.L4PROTO and len(before.values) == 1 else ""
            if not before.negated and protocol in _PORTS:
                self.found[-1] = nft.Match(_PORTS[str(protocol)], match.values, match.negated)
                return
        self.found.append(match)

    def lookup(self, at: Mapping[int, bytes]) -> None:
        """A question to a set or map."""
        name, negated, key = _string(at[1]), bool(_number(at.get(5, b""))), self._key()
        if 3 in at and _number(at[3]):
            self.chosen = key, name
        elif 3 in at:
            self.found.append(self._vmap(key, name))
        elif name in self.anonymous:
            listed = self.anonymous[name][1]
            (only,) = key
            if not isinstance(only, Field):
                raise ValueError("a number in a set")
            values = [each.key[0] for each in listed]  # with intervals they are in order already
            if not any(map(data.is_interval, values)):
                values.sort(key=lambda value: data.encode(expressions.field_type(only), value))
            self._add_match(nft.Match(only, tuple(values), negated))
        else:
            self.found.append(nft.Lookup(key, name, negated))

    def _vmap(self, key: nft.Key, name: str) -> nft.Vmap:
        if name not in self.anonymous:
            return nft.Vmap(key, name)
        listed = self.anonymous[name][1]
        types = expressions.key_types(key)
        entries = [(each.key, each.data) for each in listed if isinstance(each.data, nft.Verdict)]
        return nft.Vmap(key, entries=tuple(sorted(entries, key=lambda entry: _sortable(types, entry[0]))))

    def immediate(self, at: Mapping[int, bytes]) -> None:
        """A verdict, or a constant for later."""
        within = attributes(at[2])
        if _number(at[1]) == 0:
            self.found.append(_verdict(within[2]))
        else:
            self.values[_number(at[1])] = within[1]

    def nat(self, at: Mapping[int, bytes]) -> None:
        """A translation of the destination."""
        if _number(at[1]) != 1:
            raise ValueError("not a translation of the destination")
        if self.chosen:
            key, name = self.chosen
            self._forget()
            self.found.append(self._dnat_map(_FAMILY_OF[_number(at[2])], key, name))
            return
        address = data.decode(nft.addr_type(self.family), self.values[_number(at[3])])
        port = data.decode(DataType.INET_SERVICE, self.values[_number(at[5])]) if 5 in at else 0
        self.found.append(nft.Dnat(str(address), int(port)))

    def _dnat_map(self, family: str, key: nft.Key, name: str) -> nft.DnatMap:
        kind = cast("nft.Family", family)
        if name not in self.anonymous:
            return nft.DnatMap(kind, key, name)
        types = expressions.key_types(key)
        entries = []
        for each in self.anonymous[name][1]:
            if not isinstance(each.data, tuple) or len(each.data) != 2:
                raise ValueError("not addresses and ports")
            entries.append((each.key, (str(each.data[0]), int(each.data[1]))))
        return nft.DnatMap(kind, key, entries=tuple(sorted(entries, key=lambda entry: _sortable(types, entry[0]))))

    def masq(self, at: Mapping[int, bytes]) -> None:
        """A translation of the source."""
        flags = _number(at.get(1, b""))
        self.found.append(nft.Masquerade(random=bool(flags & 4), fully_random=bool(flags & 16)))

    def reject(self, at: Mapping[int, bytes]) -> None:
        """A refusal."""
        reset = _number(at[1]) == 1
        if reset and self.found and self.found[-1] == nft.Match(Field.L4PROTO, ("tcp",)):
            self.found.pop()
        self.found.append(nft.Reject(tcp_reset=reset))

    def dynset(self, at: Mapping[int, bytes]) -> None:
        """An element put into a set."""
        self.found.append(nft.Update(_string(at[1]), self._key()))

    def limit(self, at: Mapping[int, bytes]) -> None:
        """A limit on how often."""
        unit = cast("Literal['second']", _UNITS[_number(at[2])])
        self.found.append(nft.Limit(_number(at[1]), unit, _number(at[3]), bool(_number(at[5]))))

    def counter(self, at: Mapping[int, bytes]) -> None:
        """A counter."""
        self.found.append(nft.Counter(_number(at[2]), _number(at[1])))

    def _set_mark(self, at: Mapping[int, bytes]) -> None:
        if _number(at[2]) != expressions.META_KEYS[Field.MARK]:
            raise ValueError("not the mark")
        if not self.loads:
            self.found.append(nft.SetMark(_host(self.values[_number(at[3])])))
            return
        (part, _), = self.loads  # fmt: skip
        if part is not Field.MARK or not self.masks:
            raise ValueError("not of the mark")
        mask, xor = map(_host, self.masks)
        self._forget()
        if mask == _ALL_BITS:
            self.found.append(nft.SetMark(xor, "^"))
        elif mask == xor ^ _ALL_BITS:
            self.found.append(nft.SetMark(xor, "|"))
        elif not xor:
            self.found.append(nft.SetMark(mask, "&"))
        else:
            raise ValueError("bits kept and flipped")


_HANDLERS: Final = {
    "payload": _Program.payload,
    "meta": _Program.meta,
    "ct": _Program.ct,
    "fib": _Program.fib,
    "numgen": _Program.numgen,
    "bitwise": _Program.bitwise,
    "cmp": _Program.cmp,
    "lookup": _Program.lookup,
    "immediate": _Program.immediate,
    "nat": _Program.nat,
    "masq": _Program.masq,
    "reject": _Program.reject,
    "dynset": _Program.dynset,
    "limit": _Program.limit,
    "counter": _Program.counter,
}


def _comparison(
    part: Field, length: int, negated: bool, value: bytes, masks: tuple[bytes, bytes] | None
) -> nft.Match | nft.MarkMatch:
    if part in expressions.CT_BITS:
        if not masks or any(value):
            raise ValueError("not any of some bits")
        mask = _host(masks[0])
        names = tuple(name for name, bit in expressions.CT_BITS[part].items() if mask & bit)
        return nft.Match(part, names, not negated)
    if part in expressions.FIB_FLAGS:
        return nft.Match(part, (_FIB_TYPES[_host(value)],), negated)
    kind = expressions.field_type(part)
    if part is Field.MARK and masks:
        return nft.MarkMatch(_host(masks[0]), _host(value), negated)
    if kind is DataType.IFNAME and len(value) < 16:
        return nft.Match(part, (value.decode(errors="replace") + "*",), negated)
    size = data.SIZES[kind]
    if masks:
        low = int.from_bytes(value, "big")
        width = (1 << size * 8) - 1 ^ int.from_bytes(masks[0], "big")
        return nft.Match(part, (data.span_text(kind, low, low + width),), negated)
    if length and length < size:
        low = int.from_bytes(value.ljust(size, b"\0"), "big")
        return nft.Match(part, (data.span_text(kind, low, low + (1 << (size - length) * 8) - 1),), negated)
    return nft.Match(part, (data.decode(kind, value),), negated)


def _verdict(body: bytes) -> nft.Verdict:
    found = attributes(body)
    kind = _VERDICTS[int.from_bytes(found[1], "big", signed=True)]
    return nft.Verdict(cast("Literal['jump']", kind), _string(found[2]) if 2 in found else "")


def _sortable(types: Sequence[DataType], key: nft.Values) -> list[int]:
    """The tool's order: the last part counts most."""
    parts = zip(reversed(types), reversed(key), strict=True)
    orders = dict.fromkeys((DataType.MARK,), sys.byteorder)
    return [int.from_bytes(data.encode(kind, part), orders.get(kind, "big")) for kind, part in parts]


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _host(value: bytes) -> int:
    (number,) = struct.unpack_from("=I", value)
    return int(number)


def _value(body: bytes) -> bytes:
    return attributes(body)[1]


def _noted(userdata: bytes) -> dict[int, str]:
    """What the tool wrote beside an object: by kind, as text."""
    found: dict[int, str] = {}
    while len(userdata) >= 2:
        kind, size = userdata[0], userdata[1]
        found[kind] = userdata[2 : 2 + size].rstrip(b"\0").decode(errors="replace")
        userdata = userdata[2 + size :]
    return found
