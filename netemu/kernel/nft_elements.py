"""Elements of sets and maps as nf_tables has them: a key, what it leads to, a comment, a timeout.

A set of intervals is different: an element says where one begins, and another where it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Protocol

from netemu.kernel import nft_data as data
from netemu.kernel import nft_expressions as expressions
from netemu.kernel.nfnetlink import NESTED, attribute, attribute_header, be32, be64, nested
from netemu.model import nft
from netemu.model.nft import DataType

HeldSet = nft.Set | nft.Map
Data = nft.Verdict | nft.Values | None
INTERVAL_END: Final = 1
_VALUE, _KEY, _DATA = 1, 1, 2


class Writer(Protocol):
    """Writes one element after another. Raises ValueError."""

    def __call__(self, key: nft.Values, value: Data = None, comment: str = "", timeout: int = 0) -> bytes:
        """The element as an attribute of a list."""
        ...


@lru_cache(64)
def writer(held: HeldSet) -> Writer:
    """For elements of a set without intervals. What all of them begin with is made once: there may be thousands."""
    framed, extras = _framed(_KEY, held.type), _extras(held)
    size = 12 + data.words(data.key_size(held.type))
    bare = attribute_header(size, 1 | NESTED)

    def write(key: nft.Values, value: Data = None, comment: str = "", timeout: int = 0) -> bytes:
        more = extras(value, comment, timeout)
        return (attribute_header(size + len(more), 1 | NESTED) if more else bare) + framed(key) + more

    return write


def _framed(kind: int, types: tuple[DataType, ...]) -> Callable[[nft.Values], bytes]:
    """A value of some types as an attribute of an element."""
    size, encode = data.key_size(types), data.key_encoder(types)
    padding = bytes(-size % 4)
    head = attribute_header(8 + size + len(padding), kind | NESTED) + attribute_header(4 + size, _VALUE)
    return lambda values: head + encode(values) + padding


def _extras(held: HeldSet) -> Callable[[Data, str, int], bytes]:
    """What an element has besides its key."""
    target = _framed(_DATA, held.data) if isinstance(held, nft.Map) and DataType.VERDICT not in held.data else None

    def extras(value: Data, comment: str, timeout: int) -> bytes:
        parts = b""
        if isinstance(value, nft.Verdict):
            parts = nested(_DATA, expressions.verdict_data(value))
        elif value is not None and target:
            parts = target(value)
        if timeout:
            parts += be64(4, timeout * 1000)
        return parts + comment_attribute(6, 0, comment) if comment else parts

    return extras


def interval(held: HeldSet, key: nft.Values, value: Data = None, comment: str = "", timeout: int = 0) -> list[bytes]:
    """A key of a set with intervals: where it begins and, as an element of its own, where it is over."""
    extras = _extras(held)(value, comment, timeout)
    if len(key) != len(held.type):
        raise ValueError(f"{key!r} does not have {len(held.type)} parts")
    spans = [data.bounds(kind, part) if kind is not DataType.INET_PROTO else _point(part)
             for kind, part in zip(held.type, key, strict=True)]  # fmt: skip
    if len(key) > 1:
        first, last = (
            b"".join(_padded(span[end], kind) for span, kind in zip(spans, held.type, strict=True)) for end in (0, 1)
        )
        return [nested(1, nested(1, attribute(1, first)), nested(10, attribute(1, last)), extras)]
    ((low, high),) = spans
    return [nested(1, nested(1, attribute(1, _number(low, held))), extras), *_ending(high, held)]


def _point(value: nft.Value) -> tuple[int, int]:
    number = data.encode(DataType.INET_PROTO, value)[0]
    return number, number


def _padded(number: int, kind: DataType) -> bytes:
    size = data.SIZES[kind]
    return number.to_bytes(size, "big") + bytes(-size % 4)


def _number(number: int, held: HeldSet) -> bytes:
    return number.to_bytes(data.SIZES[held.type[0]], "big")


def _ending(high: int, held: HeldSet) -> list[bytes]:
    if high + 1 >> data.SIZES[held.type[0]] * 8:
        return []  # reaches to the last address: nothing comes after it
    return [nested(1, be32(3, INTERVAL_END), nested(1, attribute(1, _number(high + 1, held))))]


def spans(held: HeldSet, values: Sequence[nft.Value]) -> list[bytes]:
    """The elements of a list of intervals within a rule."""
    merged = data.merged([data.bounds(held.type[0], value) for value in values])
    found = [] if merged[0][0] == 0 else [nested(1, be32(3, INTERVAL_END), nested(1, attribute(1, _number(0, held))))]
    for low, high in merged:
        found.append(nested(1, nested(1, attribute(1, _number(low, held)))))
        found += _ending(high, held)
    return found


def user_data(kind: int, payload: bytes) -> bytes:
    """What only the tools read, as one of its kinds. Raises ValueError."""
    if len(payload) > 255:
        raise ValueError(f"a comment of {len(payload)} bytes is too long")
    return bytes((kind, len(payload))) + payload


def comment_attribute(kind: int, udata_kind: int, comment: str) -> bytes:
    """A comment on an object, nothing where there is none. Raises ValueError."""
    return attribute(kind, user_data(udata_kind, comment.encode() + b"\0")) if comment else b""
