"""Values of nftables as the kernel holds them: addresses, ports, protocols, marks, names, and back.

Every part of a key or of data takes whole words of four bytes; a set tells its types with numbers that only the tools
understand (`datatype.h` of nftables), six bits each.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from ipaddress import ip_address, ip_network
from typing import Final

from netemu.model.nft import DataType, Field, Value, Values
from netemu.model.protocols import OF_NFT

TYPE_NUMBERS: Final = {
    DataType.IPV4_ADDR: 7,
    DataType.IPV6_ADDR: 8,
    DataType.INET_PROTO: 12,
    DataType.INET_SERVICE: 13,
    DataType.MARK: 19,
    DataType.IFNAME: 41,
}
SIZES: Final = {
    DataType.IPV4_ADDR: 4,
    DataType.IPV6_ADDR: 16,
    DataType.INET_PROTO: 1,
    DataType.INET_SERVICE: 2,
    DataType.MARK: 4,
    DataType.IFNAME: 16,
}
INTEGER: Final = 4
"""The number of the type that `numgen` has, which has no word."""
VERDICT: Final = 0xFFFFFF00
_PROTOCOL_NAMES: Final = {number: name for name, number in OF_NFT.items()}
FIELD_TYPES: Final = {
    Field.IP_SADDR: DataType.IPV4_ADDR,
    Field.IP_DADDR: DataType.IPV4_ADDR,
    Field.IP6_SADDR: DataType.IPV6_ADDR,
    Field.IP6_DADDR: DataType.IPV6_ADDR,
    Field.L4PROTO: DataType.INET_PROTO,
    Field.TH_SPORT: DataType.INET_SERVICE,
    Field.TH_DPORT: DataType.INET_SERVICE,
    Field.TCP_DPORT: DataType.INET_SERVICE,
    Field.UDP_DPORT: DataType.INET_SERVICE,
    Field.SCTP_DPORT: DataType.INET_SERVICE,
    Field.MARK: DataType.MARK,
    Field.IIFNAME: DataType.IFNAME,
    Field.OIFNAME: DataType.IFNAME,
}
_ADDRESSES: Final = (DataType.IPV4_ADDR, DataType.IPV6_ADDR)
_PORT: Final = struct.Struct(">H")
_MARK: Final = struct.Struct("=I")
_Encoder = Callable[[Value], bytes]
_Decoder = Callable[[bytes], Value]


def words(size: int) -> int:
    """A size rounded up to whole words."""
    return size + 3 & ~3


def _address(family: socket.AddressFamily, kind: DataType) -> _Encoder:
    def encoded(value: Value) -> bytes:
        try:
            return socket.inet_pton(family, value)  # type: ignore[arg-type]
        except (OSError, TypeError):
            return _refuse(kind, value)

    return encoded


def _service(value: Value) -> bytes:
    return _PORT.pack(int(value)) if 0 <= int(value) <= 0xFFFF else _refuse(DataType.INET_SERVICE, value)


def _protocol(value: Value) -> bytes:
    number = OF_NFT.get(value, -1) if isinstance(value, str) else value
    return bytes((number,)) if 0 <= number <= 255 else _refuse(DataType.INET_PROTO, value)


def _mark(value: Value) -> bytes:
    return _MARK.pack(int(value)) if 0 <= int(value) <= 0xFFFFFFFF else _refuse(DataType.MARK, value)


def _name(value: Value) -> bytes:
    name = str(value).encode()
    return name.ljust(16, b"\0") if 0 < len(name) < 16 else _refuse(DataType.IFNAME, value)


def _refuse(kind: DataType, value: Value) -> bytes:
    raise ValueError(f"{value!r} is no {kind.value}")


_ENCODERS: Final[Mapping[DataType, _Encoder]] = {
    DataType.IPV4_ADDR: _address(socket.AF_INET, DataType.IPV4_ADDR),
    DataType.IPV6_ADDR: _address(socket.AF_INET6, DataType.IPV6_ADDR),
    DataType.INET_SERVICE: _service,
    DataType.INET_PROTO: _protocol,
    DataType.MARK: _mark,
    DataType.IFNAME: _name,
    DataType.VERDICT: partial(_refuse, DataType.VERDICT),
}


def encode(kind: DataType, value: Value) -> bytes:
    """One value, not padded. Raises ValueError for what is none of that type."""
    return _ENCODERS[kind](value)


def _no_value(data: bytes) -> Value:
    raise ValueError("a verdict is no value")


_DECODERS: Final[Mapping[DataType, _Decoder]] = {
    DataType.IPV4_ADDR: lambda data: socket.inet_ntop(socket.AF_INET, data[:4]),
    DataType.IPV6_ADDR: lambda data: socket.inet_ntop(socket.AF_INET6, data[:16]),
    DataType.INET_SERVICE: lambda data: data[0] << 8 | data[1],
    DataType.INET_PROTO: lambda data: _PROTOCOL_NAMES.get(data[0], data[0]),
    DataType.MARK: lambda data: int(_MARK.unpack_from(data)[0]),
    DataType.IFNAME: lambda data: data[:16].split(b"\0")[0].decode(errors="replace"),
    DataType.VERDICT: _no_value,
}


def decode(kind: DataType, data: bytes) -> Value:
    """The inverse of encode; bytes behind the value are ignored."""
    return _DECODERS[kind](data)


def encode_key(types: Sequence[DataType], values: Values) -> bytes:
    """A key or data: its only part as it is, several parts each padded to words. Raises ValueError."""
    return key_encoder(tuple(types))(values)


@lru_cache(64)
def key_encoder(types: tuple[DataType, ...]) -> Callable[[Values], bytes]:
    """Encodes keys, or data, of these types; for whoever has many. It raises ValueError."""
    encoders = [_ENCODERS[kind] for kind in types]
    paddings = [bytes(-SIZES[kind] % 4) for kind in types]

    def several(values: Values) -> bytes:
        if len(values) != len(encoders):
            raise ValueError(f"{values!r} does not have {len(types)} parts")
        return b"".join([encode(value) + pad for encode, value, pad in zip(encoders, values, paddings, strict=True)])

    def single(values: Values) -> bytes:
        return encoders[0](values[0]) if len(values) == 1 else several(values)

    return single if len(types) == 1 else several


def decode_key(types: Sequence[DataType], data: bytes) -> Values:
    """The inverse of encode_key."""
    return key_decoder(tuple(types))(data)


@lru_cache(64)
def key_decoder(types: tuple[DataType, ...]) -> Callable[[bytes], Values]:
    """Decodes keys, or data, of these types; for whoever has many."""
    parts, start = [], 0
    for kind in types:
        parts.append((_DECODERS[kind], start))
        start += words(SIZES.get(kind, 0))
    return lambda data: tuple([decode(data[start:]) for decode, start in parts])


def key_size(types: Sequence[DataType]) -> int:
    """The length that a set declares for a key or data of these types."""
    return SIZES[types[0]] if len(types) == 1 else sum(words(SIZES[kind]) for kind in types)


def key_number(numbers: Sequence[int]) -> int:
    """The number of a concatenated type."""
    total = 0
    for number in numbers:
        total = total << 6 | number
    return total


def key_types(number: int) -> tuple[DataType, ...]:
    """The types in a concatenated type's number. Raises ValueError for one that is unknown here."""
    found: list[DataType] = []
    while number:
        found.insert(0, _by_number(number & 0x3F))
        number >>= 6
    return tuple(found)


def _by_number(number: int) -> DataType:
    if number == INTEGER:
        return DataType.MARK
    for kind, known in TYPE_NUMBERS.items():
        if known == number:
            return kind
    raise ValueError(f"unknown data type {number}")


def bounds(kind: DataType, value: Value) -> tuple[int, int]:
    """First and last of a value, a prefix or a range, as numbers. Raises ValueError."""
    shown = str(value)
    if "/" in shown and kind in _ADDRESSES:
        network = ip_network(shown, strict=False)
        if network.max_prefixlen != SIZES[kind] * 8:
            raise ValueError(f"{value!r} is no {kind.value}")
        return int(network.network_address), int(network.broadcast_address)
    first, _, last = shown.partition("-") if isinstance(value, str) else (shown, "", "")
    low = _number(kind, first)
    high = _number(kind, last) if last else low
    if high < low:
        raise ValueError(f"{value!r} ends before it begins")
    return low, high


def _number(kind: DataType, value: str) -> int:
    if kind in _ADDRESSES:
        return int.from_bytes(encode(kind, value), "big")
    if kind is DataType.INET_SERVICE:
        return int.from_bytes(encode(kind, int(value)), "big")
    raise ValueError(f"no intervals of {kind.value} here")


def merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order; those that overlap or touch become one, as the tool does within braces."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def span_text(kind: DataType, low: int, high: int) -> Value:
    """A span as the tool writes it: a value, a prefix where it is one, a range."""
    size = SIZES[kind]
    first = decode(kind, low.to_bytes(size, "big"))
    if low == high:
        return first
    width = high - low + 1
    if kind in _ADDRESSES and not width & (width - 1) and not low % width:
        return f"{first}/{size * 8 - width.bit_length() + 1}"
    return f"{first}-{decode(kind, high.to_bytes(size, 'big'))}"


def is_interval(value: Value) -> bool:
    """Whether a value stands for more than itself."""
    return isinstance(value, str) and ("/" in value or "-" in value) and ip_like(value)


def ip_like(value: str) -> bool:
    """Whether text with a slash or dash is of addresses or ports, and not a name."""
    first = value.replace("/", "-").split("-")[0]
    if first.isdigit():
        return True
    try:
        ip_address(first)
    except ValueError:
        return False
    return True
