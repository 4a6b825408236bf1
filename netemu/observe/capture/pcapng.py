"""Captured packets as a pcapng file, which Wireshark, tshark, tcpdump and scapy read. Pure: values in, bytes out.

A file is a row of blocks: a section header, an interface description per place that was captured at (its name in the
lab's words, `shop/web-abc eth0`), a name resolution block (what the addresses are called), then enhanced packet blocks,
each naming its interface by number, its time in nanoseconds, and whether it came in or went out; at the end interface
statistics tell what was taken and what was lost. Blocks may be written as packets come, so the same bytes go to a file
or through a pipe. Source: draft-ietf-opsawg-pcapng; everything is little-endian, as the section header says.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

ETHERNET: Final = 1
RAW_IP: Final = 101
"""Link types of interfaces: frames with an Ethernet header, and packets that begin with the IP header."""

_SECTION, _INTERFACE, _NAMES, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 4, 5, 6
_MAGIC: Final = 0x1A2B3C4D
_UNKNOWN_LENGTH: Final = 0xFFFFFFFFFFFFFFFF
_END, _COMMENT = 0, 1
_SHB_OS, _SHB_APPLICATION = 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_RESOLUTION, _IF_FILTER = 2, 3, 9, 11
_NANOSECONDS: Final = b"\x09"
_EPB_FLAGS: Final = 2
_INBOUND, _OUTBOUND = 1, 2
_ISB_START, _ISB_END, _ISB_RECEIVED, _ISB_DROPPED = 2, 3, 4, 5
_NAME_IPV4, _NAME_IPV6 = 1, 2
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")

_HEAD: Final = struct.Struct("<II")
_TAIL: Final = struct.Struct("<I")
_OPTION: Final = struct.Struct("<HH")
_PACKET_HEAD: Final = struct.Struct("<IIIIIII")
_FLAGS_END: Final = {
    outgoing: struct.pack("<HHIHH", _EPB_FLAGS, 4, _OUTBOUND if outgoing else _INBOUND, _END, 0)
    for outgoing in (False, True)
}


@dataclass(frozen=True, slots=True)
class Interface:
    """A place where packets were taken. `filter` is the expression in words that chose them."""

    name: str
    description: str = ""
    link_type: int = ETHERNET
    filter: str = ""


class Packet(NamedTuple):
    """One packet at one interface. `interface` is its number, from 0; `nanoseconds` count from the epoch.

    `length` is that on the wire where `data` was cut off; 0: it was not.
    """

    interface: int
    nanoseconds: int
    data: bytes
    outgoing: bool
    length: int = 0
    comment: str = ""


def head(interfaces: Iterable[Interface], names: Mapping[str, str] | None = None, *, comment: str = "") -> bytes:
    """The beginning of a file: section header, interfaces, and the names of addresses."""
    blocks = [_section(comment), *map(interface_block, interfaces)]
    if names:
        blocks.append(name_block(names))
    return b"".join(blocks)


def interface_block(interface: Interface) -> bytes:
    """A place; it stands before its packets, and is numbered by how many came before it."""
    options = [_option(_IF_NAME, interface.name.encode()), _option(_IF_RESOLUTION, _NANOSECONDS)]
    if interface.description:
        options.append(_option(_IF_DESCRIPTION, interface.description.encode()))
    if interface.filter:
        options.append(_option(_IF_FILTER, b"\0" + interface.filter.encode()))
    body = struct.pack("<HHI", interface.link_type, 0, 0) + b"".join(options) + _option(_END, b"")
    return _block(_INTERFACE, body)


def name_block(names: Mapping[str, str]) -> bytes:
    """What addresses are called; it may also come later in the file, for addresses that are new."""
    records = []
    for address, name in names.items():
        packed = ipaddress.ip_address(address).packed
        kind = _NAME_IPV4 if len(packed) == 4 else _NAME_IPV6
        records.append(_option(kind, packed + name.encode() + b"\0"))
    return _block(_NAMES, b"".join(records) + _option(_END, b""))


def packet_block(packet: Packet) -> bytes:
    """An enhanced packet block."""
    interface, nanoseconds, data, outgoing, length, comment = packet
    size = len(data)
    padded = size + 3 & ~3
    options = (_option(_COMMENT, comment.encode()) if comment else b"") + _FLAGS_END[outgoing]
    total = 32 + padded + len(options)
    begin = _PACKET_HEAD.pack(
        _PACKET, total, interface, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF, size, length or size
    )
    return b"".join((begin, data, _PADDING[size & 3], options, _TAIL.pack(total)))


def statistics_block(interface: int, begin: int, end: int, received: int, dropped: int | None) -> bytes:
    """What became of an interface's packets between two times (nanoseconds): taken, and lost for want of room (None:
    not known of this interface alone)."""
    options = [_option(_ISB_START, _timestamp(begin)), _option(_ISB_END, _timestamp(end))]
    options.append(_option(_ISB_RECEIVED, struct.pack("<Q", received)))
    if dropped is not None:
        options.append(_option(_ISB_DROPPED, struct.pack("<Q", dropped)))
    return _block(
        _STATISTICS, struct.pack("<I", interface) + _timestamp(end) + b"".join([*options, _option(_END, b"")])
    )


def pcapng(
    interfaces: Iterable[Interface],
    packets: Iterable[Packet],
    names: Mapping[str, str] | None = None,
    *,
    comment: str = "",
) -> Iterator[bytes]:
    """A whole file, block by block; packets are put in the order of their times."""
    yield head(interfaces, names, comment=comment)
    yield from map(packet_block, sorted(packets, key=lambda packet: packet.nanoseconds))


def _section(comment: str) -> bytes:
    options = _option(_COMMENT, comment.encode()) if comment else b""
    options += _option(_SHB_OS, b"Linux") + _option(_SHB_APPLICATION, b"netemu") + _option(_END, b"")
    return _block(_SECTION, struct.pack("<IHHQ", _MAGIC, 1, 0, _UNKNOWN_LENGTH) + options)


def _block(kind: int, body: bytes) -> bytes:
    total = 12 + len(body)
    return _HEAD.pack(kind, total) + body + _TAIL.pack(total)


def _option(kind: int, value: bytes) -> bytes:
    size = len(value)
    return _OPTION.pack(kind, size) + value + _PADDING[size & 3]


def _timestamp(nanoseconds: int) -> bytes:
    return _HEAD.pack(nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)
