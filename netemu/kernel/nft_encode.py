"""A transaction as messages of nf_tables.

Every operation becomes one message or more: a rule with a list of values is preceded by that list as a set, and the
elements of a set that follow each other travel together, as many as an attribute of 64 KiB holds. `Batch.owner` says
which operation a message belongs to, so that a refusal can name it.
"""

from __future__ import annotations

import errno
import itertools
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from netemu.kernel import nft_data as data
from netemu.kernel import nft_elements as elements
from netemu.kernel import nft_expressions as expressions
from netemu.kernel.nfnetlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    attribute,
    be32,
    be64,
    message,
    nested,
    text,
)
from netemu.kernel.nft_elements import HeldSet, comment_attribute, user_data
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.model.nft import DataType

SUBSYSTEM: Final = 10
FAMILIES: Final = {"ip": 2, "ip6": 10}
HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
NEW_TABLE, DEL_TABLE, NEW_CHAIN, DEL_CHAIN, NEW_RULE, DEL_RULE = 0, 2, 3, 5, 6, 8
NEW_SET, DEL_SET, NEW_ELEMENT, DEL_ELEMENT = 9, 11, 12, 14
DESTROY_TABLE, DESTROY_CHAIN, DESTROY_RULE, DESTROY_SET, DESTROY_ELEMENT = 26, 27, 28, 29, 30
ANONYMOUS, CONSTANT, INTERVAL, MAP, TIMEOUT, EVAL, CONCAT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x80
SET_FLAGS: Final = {"constant": CONSTANT, "interval": INTERVAL, "timeout": TIMEOUT, "dynamic": EVAL}
_BYTE_ORDER, _DATA_BYTE_ORDER, _SET_COMMENT = 0, 1, 7
_BIG_ENDIAN, _HOST, _NO_ORDER = 2, 1, 0
_HOST_ORDER: Final = (DataType.MARK, DataType.IFNAME)
# For a name with %d the kernel parses the names of all sets to find a free number: too slow where there are thousands.
_MAKER: Final = f"-{os.urandom(4).hex()}-"
_NUMBERS: Final = itertools.count()
_HEADER, _ATTRIBUTE = 20, 4  # bytes
_ELEMENTS_PER_MESSAGE: Final = 60000  # bytes; an attribute holds 65535


_CREATE_FLAGS: Final = {
    nft.Add: NLM_F_REQUEST | NLM_F_CREATE,
    nft.Create: NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL,
}


class Batch:
    """The messages of one transaction. `set_of` tells the types of a named set that the transaction does not make."""

    def __init__(self, table: nft.Table, set_of: Callable[[str], HeldSet]) -> None:
        self.messages: list[bytes] = []
        self.sets: dict[str, HeldSet] = {}
        self._table = table
        self._family = FAMILIES[table.family]
        self._name = text(1, table.name)
        self._set_of = set_of
        self._starts: list[int] = []
        self._owners: list[int] = []
        self._anonymous = 0
        self._at = 0
        self._shared: dict[int, tuple[int, Sequence[bytes], Sequence[int]]] = {}

    def add_all(self, operations: Sequence[nft.Operation]) -> None:
        """Encode operations in order. Raises KernelError (EINVAL) for what no message can say."""
        index, count = 0, len(operations)
        while index < count:
            self._starts.append(len(self.messages))
            self._owners.append(index)
            operation = operations[index]
            end = _run_of_elements(operations, index) if type(operation.object) is nft.Element else index + 1
            self._at = index
            try:
                self._add(operation, operations[index:end])
            except ValueError as error:
                what = nft.operation_text(self._table, operations[self._at])
                raise KernelError.of(what, "", errno.EINVAL, str(error)) from error
            index = end

    def owner(self, sequence: int, offset: int = 0) -> int:
        """The index of the operation that message number `sequence` (from 1) belongs to; where it carries elements of
        several operations, `offset` tells them apart."""
        if offset and sequence in self._shared:
            at, encoded, owners = self._shared[sequence]
            ends = itertools.accumulate(map(len, encoded), initial=at)
            return owners[max(bisect_right(list(ends), offset, hi=len(encoded)) - 1, 0)]
        return self._owners[bisect_right(self._starts, sequence - 1) - 1]

    def _add(self, operation: nft.Operation, run: Sequence[nft.Operation]) -> None:
        held = operation.object
        match operation:
            case nft.Add() | nft.Create() | nft.Insert() | nft.Replace():
                self._put(operation, held, run)
            case nft.Flush():
                self._flush(held)
            case _:
                self._remove(held, run, destroy=isinstance(operation, nft.Destroy))

    def _put(self, operation: nft.Operation, held: nft.Object, run: Sequence[nft.Operation]) -> None:
        flags = _CREATE_FLAGS.get(type(operation), NLM_F_REQUEST)
        match held:
            case nft.Rule():
                self._rule(operation, held)
            case nft.Chain():
                self._send(NEW_CHAIN, flags, _chain(held))
            case nft.Element():
                self._named_elements(NEW_ELEMENT, flags, run)
            case nft.Set() | nft.Map():
                self.sets[held.name] = held
                self._anonymous += 1
                self._send(NEW_SET, flags, _set(held, self._anonymous))
            case nft.Table():
                self._send(NEW_TABLE, flags, be32(2, 0) + comment_attribute(6, 0, held.comment))

    def _flush(self, held: nft.Object) -> None:
        match held:
            case nft.Chain():
                self._send(DEL_RULE, NLM_F_REQUEST, _chain_name(held.name))
            case nft.Set() | nft.Map():
                self._send(DEL_ELEMENT, NLM_F_REQUEST, text(2, held.name))
            case _:
                self._send(DEL_RULE, NLM_F_REQUEST, b"")

    def _remove(self, held: nft.Object, run: Sequence[nft.Operation], *, destroy: bool) -> None:
        match held:
            case nft.Table():
                self._send(DESTROY_TABLE if destroy else DEL_TABLE, NLM_F_REQUEST, b"")
            case nft.Chain():
                self._send(DESTROY_CHAIN if destroy else DEL_CHAIN, NLM_F_REQUEST, text(3, held.name))
            case nft.Rule():
                body = _chain_name(held.chain) + be64(3, held.handle)
                self._send(DESTROY_RULE if destroy else DEL_RULE, NLM_F_REQUEST, body)
            case nft.Set() | nft.Map():
                self._send(DESTROY_SET if destroy else DEL_SET, NLM_F_REQUEST, text(2, held.name))
            case nft.Element():
                self._named_elements(DESTROY_ELEMENT if destroy else DEL_ELEMENT, NLM_F_REQUEST, run)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        number = len(self.messages) + 1
        self.messages.append(message(SUBSYSTEM << 8 | kind, flags, number, self._family, self._name + body))

    def _rule(self, operation: nft.Operation, rule: nft.Rule) -> None:
        family = self._table.family
        body = b"".join([expressions.encode(family, each, self._anonymous_set) for each in rule.expressions])
        parts = _chain_name(rule.chain) + nested(4, body)
        flags = NLM_F_REQUEST | NLM_F_CREATE
        if isinstance(operation, nft.Replace):
            flags = NLM_F_REQUEST | NLM_F_REPLACE
            parts += be64(3, rule.handle)
        elif isinstance(operation, nft.Add):
            flags |= NLM_F_APPEND
        if rule.position:
            parts += be64(6, rule.position)
        self._send(NEW_RULE, flags, parts + comment_attribute(7, 0, rule.comment))

    def _anonymous_set(self, held: HeldSet, key_number: int, entries: expressions.Entries) -> bytes:
        self._anonymous += 1
        number = be32(10, self._anonymous)
        shown = f"__{'map' if isinstance(held, nft.Map) else 'set'}{_MAKER}{next(_NUMBERS):x}"
        name = text(2, shown)
        if "interval" in held.flags:
            encoded = elements.spans(held, [entry[0][0] for entry in entries])
        else:
            encode = elements.writer(held)
            encoded = [encode(key, value) for key, value in entries]
        size = nested(9, be32(1, len(encoded)))
        flags = ANONYMOUS | CONSTANT | _flags(held)
        body = name + be32(3, flags) + _types(held, key_number) + number + size + _set_userdata(held)
        self._send(NEW_SET, NLM_F_REQUEST | NLM_F_CREATE, body)
        self._elements(NEW_ELEMENT, NLM_F_REQUEST | NLM_F_CREATE, name, encoded)
        return text(1, shown)

    def _named_elements(self, kind: int, flags: int, run: Sequence[nft.Operation]) -> None:
        first = run[0].object
        assert isinstance(first, nft.Element)
        held = self.sets.get(first.set) or self._set_of(first.set)
        adding, start = kind == NEW_ELEMENT, self._at
        encoded: list[bytes] = []
        owners: list[int] = []
        encode = elements.writer(held)
        for self._at, operation in enumerate(run, start):
            each = operation.object
            assert isinstance(each, nft.Element)
            value, comment, timeout = (each.data, each.comment, each.timeout) if adding else (None, "", 0)
            if "interval" in held.flags:
                encoded += elements.interval(held, each.key, value, comment, timeout)
            else:
                encoded.append(encode(each.key, value, comment, timeout))
            owners += [self._at] * (len(encoded) - len(owners))
        self._elements(kind, flags, text(2, first.set), encoded, owners)

    def _elements(
        self, kind: int, flags: int, which: bytes, encoded: Sequence[bytes], owners: Sequence[int] = ()
    ) -> None:
        """As many as fit into one message, and the rest into others. `owners`: the operation that each belongs to."""
        start = 0
        for end in _portions(encoded):
            if owners:
                at = _HEADER + len(self._name) + len(which) + _ATTRIBUTE
                self._shared[len(self.messages) + 1] = at, encoded[start:end], owners[start:end]
            self._send(kind, flags, which + nested(3, *encoded[start:end]))
            start = end


def _portions(encoded: Sequence[bytes]) -> Iterator[int]:
    """Where the elements of one message end, for all messages."""
    size = 0
    for index, each in enumerate(encoded):
        if size + len(each) > _ELEMENTS_PER_MESSAGE:
            yield index
            size = 0
        size += len(each)
    if encoded:
        yield len(encoded)


def _run_of_elements(operations: Sequence[nft.Operation], start: int) -> int:
    """Where a run of the same operation on elements of the same set ends."""
    kind, first = type(operations[start]), operations[start].object
    assert isinstance(first, nft.Element)
    end = start + 1
    while end < len(operations):
        held = operations[end].object
        if type(operations[end]) is not kind or type(held) is not nft.Element or held.set != first.set:
            break
        end += 1
    return end


@lru_cache(1024)
def _chain_name(name: str) -> bytes:
    return text(2, name)


def _chain(chain: nft.Chain) -> bytes:
    parts = text(3, chain.name)
    if chain.hook:
        hook = nested(4, be32(1, HOOKS.index(chain.hook)), be32(2, chain.priority))
        parts += text(7, chain.type) + be32(5, int(chain.policy == "accept")) + hook
    return parts + comment_attribute(12, 0, chain.comment)


def _flags(held: HeldSet) -> int:
    flags = MAP if isinstance(held, nft.Map) else 0
    for flag in held.flags:
        flags |= SET_FLAGS[flag]
    return flags | (CONCAT if "interval" in held.flags and len(held.type) > 1 else 0)


def _types(held: HeldSet, key_number: int) -> bytes:
    parts = be32(4, key_number) + be32(5, data.key_size(held.type))
    if not isinstance(held, nft.Map):
        return parts
    if held.data == (DataType.VERDICT,):
        return parts + be32(6, data.VERDICT) + be32(7, 0)
    number = data.key_number([data.TYPE_NUMBERS[kind] for kind in held.data])
    return parts + be32(6, number) + be32(7, data.key_size(held.data))


def _set(held: HeldSet, number: int) -> bytes:
    parts = text(2, held.name) + be32(3, _flags(held))
    parts += _types(held, data.key_number([data.TYPE_NUMBERS[kind] for kind in held.type])) + be32(10, number)
    described = be32(1, held.size) if held.size else b""
    if _flags(held) & CONCAT:
        fields = (nested(1, be32(1, data.SIZES[kind])) for kind in held.type)
        described += nested(2, *fields)
    parts += nested(9, described) if described else b""
    parts += be64(11, held.timeout * 1000) if held.timeout else b""
    return parts + _set_userdata(held)


def _order(types: Sequence[DataType]) -> int:
    if len(types) > 1:
        return _NO_ORDER
    return _HOST if types[0] in _HOST_ORDER else _BIG_ENDIAN


def _set_userdata(held: HeldSet) -> bytes:
    """What only the tool reads: the order of bytes, and the comment."""
    noted = user_data(_BYTE_ORDER, _order(held.type).to_bytes(4, "little"))
    if isinstance(held, nft.Map):
        order = _NO_ORDER if held.data == (DataType.VERDICT,) else _order(held.data)
        noted += user_data(_DATA_BYTE_ORDER, order.to_bytes(4, "little"))
    if held.comment:
        noted += user_data(_SET_COMMENT, held.comment.encode() + b"\0")
    return attribute(13, noted)
