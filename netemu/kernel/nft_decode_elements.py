"""Elements of sets and maps as the kernel tells them, and what else more than one kind of message is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, cast

from msgspec import Struct

from netemu.kernel import nft_data as data
from netemu.kernel import nft_expressions as expressions
from netemu.kernel.nfnetlink import attribute_header, attribute_list, attributes
from netemu.kernel.nft_elements import INTERVAL_END, HeldSet
from netemu.model import nft
from netemu.model.nft import DataType

_VERDICTS: Final = {code: kind for kind, code in expressions.VERDICT_CODES.items()}
_ONE, _CARRIED = 1, 3
"""An element in a list of them; the list in a message."""


class FoundSet(Struct, frozen=True):
    """A set as the kernel has it; `held` is None where its types are unknown here."""

    name: str
    anonymous: bool
    held: HeldSet | None


def elements(found: FoundSet, bodies: Sequence[bytes]) -> tuple[nft.Element, ...]:
    """All elements of a set from the answers to the question for them."""
    if found.held is None:
        return ()
    listed = [
        each for body in bodies for carried in attribute_list(body, _CARRIED) for each in attribute_list(carried, _ONE)
    ]
    if "interval" in found.held.flags and len(found.held.type) == 1:
        return tuple(_spans(found.held, [attributes(each) for each in listed]))
    read = _reader(found.held)
    return tuple([read(each) for each in listed])


def _reader(held: HeldSet) -> Callable[[bytes], nft.Element]:
    """Reads elements of a set. Those of nothing but a key, or a key and data, all look alike, and are read at once."""
    name, key = held.name, data.key_decoder(held.type)
    key_head, key_size = _frame(1, held.type)
    target = held.data if isinstance(held, nft.Map) and DataType.VERDICT not in held.data else ()
    data_head, data_size = _frame(2, target)
    decode = data.key_decoder(target)

    def read(body: bytes) -> nft.Element:
        if body.startswith(key_head):
            if len(body) == key_size:
                return nft.Element(name, key(body[8:]))
            if target and len(body) == key_size + data_size and body.startswith(data_head, key_size):
                return nft.Element(name, key(body[8:]), decode(body[key_size + 8 :]))
        return _element(held, attributes(body))

    return read


def _frame(kind: int, types: Sequence[DataType]) -> tuple[bytes, int]:
    """What a value of some types begins with as an attribute of an element, and its size."""
    size = data.key_size(types) if types else 0
    whole = 8 + data.words(size)
    return attribute_header(whole, kind) + attribute_header(4 + size, 1), whole


def _element(held: HeldSet, found: Mapping[int, bytes]) -> nft.Element:
    first = value_of(found[1])
    if 10 in found:
        last = value_of(found[10])
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
    comment = notes(found.get(6, b"")).get(0, "")
    timeout = as_number(found.get(4, b"")) // 1000
    value: nft.Verdict | nft.Values | None = None
    if 2 in found and isinstance(held, nft.Map):
        within = attributes(found[2])
        value = verdict_of(within[2]) if 2 in within else data.decode_key(held.data, within[1])
    return value, comment, 0 if timeout == held.timeout else timeout


def _spans(held: HeldSet, listed: Sequence[Mapping[int, bytes]]) -> list[nft.Element]:
    kind = held.type[0]
    size = data.SIZES[kind]
    marks = []
    for found in listed:
        end = bool(as_number(found.get(3, b"")) & INTERVAL_END)
        marks.append((int.from_bytes(value_of(found[1])[:size], "big"), not end, found))
    marks.sort(key=lambda mark: mark[:2])
    spans: list[nft.Element] = []
    for index, (low, starts, found) in enumerate(marks):
        if not starts:
            continue
        high = marks[index + 1][0] - 1 if index + 1 < len(marks) else (1 << size * 8) - 1
        spans.append(nft.Element(held.name, (data.span_text(kind, low, high),), *_extras(held, found)))
    return spans


def verdict_of(body: bytes) -> nft.Verdict:
    """The verdict within data."""
    found = attributes(body)
    kind = _VERDICTS[int.from_bytes(found[1], "big", signed=True)]
    return nft.Verdict(cast("Literal['jump']", kind), as_text(found[2]) if 2 in found else "")


def as_text(value: bytes) -> str:
    """A string attribute."""
    return value.rstrip(b"\0").decode(errors="replace")


def as_number(value: bytes) -> int:
    """A number in network order."""
    return int.from_bytes(value, "big")


def value_of(body: bytes) -> bytes:
    """The value within data."""
    return attributes(body)[1]


def notes(userdata: bytes) -> dict[int, str]:
    """What the tool wrote beside an object: by kind, as text."""
    found: dict[int, str] = {}
    while len(userdata) >= 2:
        kind, size = userdata[0], userdata[1]
        found[kind] = userdata[2 : 2 + size].rstrip(b"\0").decode(errors="replace")
        userdata = userdata[2 + size :]
    return found
