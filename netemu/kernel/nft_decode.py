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
from typing import Final, Literal, TypeVar, cast

from netemu.kernel import nft_data as data
from netemu.kernel import nft_encode as wire
from netemu.kernel import nft_expressions as expressions
from netemu.kernel.nfnetlink import attribute_list, attributes
from netemu.kernel.nft_decode_elements import FoundSet, as_number, as_text, notes, value_of, verdict_of
from netemu.kernel.nft_elements import HeldSet
from netemu.model import nft
from netemu.model.nft import DataType, Field

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
_T = TypeVar("_T")
_ONE = 1
"""An expression in a list of them."""


Anonymous = Mapping[str, tuple[FoundSet, Sequence[nft.Element]]]


def table(body: bytes, family: nft.Family) -> nft.Table:
    """A table from its message."""
    found = attributes(body)
    return nft.Table(family, as_text(found[1]), notes(found.get(6, b"")).get(0, ""))


def chain(body: bytes, of_table: str) -> nft.Chain | None:
    """A chain from its message; None for one of another table."""
    found = attributes(body)
    if as_text(found[1]) != of_table:
        return None
    comment = notes(found.get(12, b"")).get(0, "")
    if 4 not in found:
        return nft.Chain(as_text(found[3]), comment=comment)
    hook = attributes(found[4])
    return nft.Chain(
        name=as_text(found[3]),
        type=cast("Literal['filter', 'nat', 'route']", as_text(found[7])),
        hook=cast("Literal['prerouting']", wire.HOOKS[as_number(hook[1])]),
        priority=int.from_bytes(hook[2], "big", signed=True),
        policy="accept" if as_number(found[5]) else "drop",
        comment=comment,
    )


def a_set(body: bytes, of_table: str) -> FoundSet | None:
    """A set or map from its message; None for one of another table."""
    found = attributes(body)
    if as_text(found[1]) != of_table:
        return None
    name, flags = as_text(found[2]), as_number(found.get(3, b""))
    anonymous = bool(flags & wire.ANONYMOUS)
    try:
        types = data.key_types(as_number(found[4]))
        held = _held(name, types, flags, found)
    except (ValueError, KeyError):
        return FoundSet(name, anonymous, None)
    return FoundSet(name, anonymous, held)


def _held(name: str, types: tuple[DataType, ...], flags: int, found: Mapping[int, bytes]) -> HeldSet:
    words = frozenset(word for word, bit in wire.SET_FLAGS.items() if flags & bit)
    size = as_number(attributes(found.get(9, b"")).get(1, b""))
    timeout = as_number(found.get(11, b"")) // 1000
    comment = notes(found.get(13, b"")).get(7, "")
    if not flags & wire.MAP:
        return nft.Set(name, types, words, timeout, size, comment)
    number = as_number(found[6])
    kinds = (DataType.VERDICT,) if number == data.VERDICT else data.key_types(number)
    return nft.Map(name, types, kinds, words, timeout, size, comment)


def generation(body: bytes) -> int:
    """The number of the generation in force."""
    return as_number(attributes(body)[1])


def rule(body: bytes, of_table: nft.Table, anonymous: Anonymous) -> nft.Rule | None:
    """A rule from its message; None for one of another table."""
    found = attributes(body)
    if as_text(found[1]) != of_table.name:
        return None
    reader = _Program(of_table.family, anonymous)
    for each in attribute_list(found.get(4, b""), _ONE):
        reader.read(*_instruction(each))
    comment = notes(found.get(7, b"")).get(0, "")
    return nft.Rule(as_text(found[2]), reader.finish(), comment, as_number(found[3]))


@lru_cache(4096)
def _instruction(body: bytes) -> tuple[str, Mapping[int, bytes]]:
    """Its name and its attributes; a rule set says the same things over and over."""
    parts = attributes(body)
    return as_text(parts[1]), attributes(parts.get(2, b""))


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
        self.loads.append((_PAYLOADS[as_number(at[2]), as_number(at[3])], as_number(at[4])))

    def meta(self, at: Mapping[int, bytes]) -> None:
        """A load of what belongs to the packet, or a change of its mark."""
        if 3 in at:
            self._set_mark(at)
        else:
            self.loads.append((_META[as_number(at[2])], 0))

    def ct(self, at: Mapping[int, bytes]) -> None:
        """A load of what belongs to the connection."""
        self.loads.append((_CT[as_number(at[2])], 0))

    def fib(self, at: Mapping[int, bytes]) -> None:
        """A load of what routing says of an address."""
        if as_number(at[2]) != 3:
            raise ValueError("not an address type")
        self.loads.append((_FIB[as_number(at[3])], 0))

    def numgen(self, at: Mapping[int, bytes]) -> None:
        """A load of a random number."""
        if as_number(at[3]) != 1 or as_number(at.get(4, b"")):
            raise ValueError("not random from 0")
        self.loads.append((nft.Numgen(as_number(at[2])), 0))

    def bitwise(self, at: Mapping[int, bytes]) -> None:
        """A mask over the last load."""
        self.masks = value_of(at[4]), value_of(at[5])

    def cmp(self, at: Mapping[int, bytes]) -> None:
        """A comparison of the last load."""
        ((part, length),) = self.loads
        operator, value, masks = as_number(at[2]), value_of(at[3]), self.masks
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
        name, negated, key = as_text(at[1]), bool(as_number(at.get(5, b""))), self._key()
        if 3 in at and as_number(at[3]):
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
        entries = [(each.key, each.data) for each in listed if isinstance(each.data, nft.Verdict)]
        return nft.Vmap(key, entries=_in_order(key, entries))

    def immediate(self, at: Mapping[int, bytes]) -> None:
        """A verdict, or a constant for later."""
        within = attributes(at[2])
        if as_number(at[1]) == 0:
            self.found.append(verdict_of(within[2]))
        else:
            self.values[as_number(at[1])] = within[1]

    def nat(self, at: Mapping[int, bytes]) -> None:
        """A translation of the destination."""
        if as_number(at[1]) != 1:
            raise ValueError("not a translation of the destination")
        if self.chosen:
            key, name = self.chosen
            self._forget()
            self.found.append(self._dnat_map(_FAMILY_OF[as_number(at[2])], key, name))
            return
        address = data.decode(nft.addr_type(self.family), self.values[as_number(at[3])])
        port = data.decode(DataType.INET_SERVICE, self.values[as_number(at[5])]) if 5 in at else 0
        self.found.append(nft.Dnat(str(address), int(port)))

    def _dnat_map(self, family: str, key: nft.Key, name: str) -> nft.DnatMap:
        kind = cast("nft.Family", family)
        if name not in self.anonymous:
            return nft.DnatMap(kind, key, name)
        entries = []
        for each in self.anonymous[name][1]:
            if not isinstance(each.data, tuple) or len(each.data) != 2:
                raise ValueError("not addresses and ports")
            entries.append((each.key, (str(each.data[0]), int(each.data[1]))))
        return nft.DnatMap(kind, key, entries=_in_order(key, entries))

    def masq(self, at: Mapping[int, bytes]) -> None:
        """A translation of the source."""
        flags = as_number(at.get(1, b""))
        self.found.append(nft.Masquerade(random=bool(flags & 4), fully_random=bool(flags & 16)))

    def reject(self, at: Mapping[int, bytes]) -> None:
        """A refusal."""
        reset = as_number(at[1]) == 1
        if reset and self.found and self.found[-1] == nft.Match(Field.L4PROTO, ("tcp",)):
            self.found.pop()
        self.found.append(nft.Reject(tcp_reset=reset))

    def dynset(self, at: Mapping[int, bytes]) -> None:
        """An element put into a set."""
        self.found.append(nft.Update(as_text(at[1]), self._key()))

    def limit(self, at: Mapping[int, bytes]) -> None:
        """A limit on how often."""
        unit = cast("Literal['second']", _UNITS[as_number(at[2])])
        self.found.append(nft.Limit(as_number(at[1]), unit, as_number(at[3]), bool(as_number(at[5]))))

    def counter(self, at: Mapping[int, bytes]) -> None:
        """A counter."""
        self.found.append(nft.Counter(as_number(at[2]), as_number(at[1])))

    def _set_mark(self, at: Mapping[int, bytes]) -> None:
        if as_number(at[2]) != expressions.META_KEYS[Field.MARK]:
            raise ValueError("not the mark")
        if not self.loads:
            self.found.append(nft.SetMark(_host(self.values[as_number(at[3])])))
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


def _in_order(key: nft.Key, entries: Sequence[tuple[nft.Values, _T]]) -> tuple[tuple[nft.Values, _T], ...]:
    """The tool's order: the last part of a key counts most."""
    types = expressions.key_types(key)
    if types == (DataType.MARK,):
        return tuple(sorted(entries, key=lambda entry: entry[0]))

    def sortable(values: nft.Values) -> list[int]:
        parts = zip(reversed(types), reversed(values), strict=True)
        orders = dict.fromkeys((DataType.MARK,), sys.byteorder)
        return [int.from_bytes(data.encode(kind, part), orders.get(kind, "big")) for kind, part in parts]

    return tuple(sorted(entries, key=lambda entry: sortable(entry[0])))


def _host(value: bytes) -> int:
    (number,) = struct.unpack_from("=I", value)
    return int(number)
