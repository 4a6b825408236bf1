"""First packets of connections as bytes, and what arrives read back: IPv4 and IPv6; TCP, UDP, SCTP; ICMP errors.

Each packet carries a token that no translation touches: the sequence number of a SYN, the payload of a datagram, the
initiate tag of an SCTP INIT. ICMP errors quote the packet that they are about, so they carry it too.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from functools import cache

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES = {number: name for name, number in PROTOCOLS.items()}
SYN, RST, _ACK = 0x02, 0x04, 0x10
_ICMP, _ICMP6 = 1, 58
_UNREACHABLE = {(_ICMP, 3, 3), (_ICMP6, 1, 4)}
"""(protocol, type, code) of "port unreachable", what REJECT answers in both families."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet that arrived; with `error` it is an ICMP error about the one that these fields describe."""

    token: int
    source: str
    source_port: int
    destination: str
    port: int
    error: bool = False


def first_packet(
    source: str, source_port: int, destination: str, port: int, protocol: str, token: int, flags: int = SYN
) -> bytes:
    """An IP packet that opens a connection; with TCP flags other than SYN, one that belongs to none."""
    body = _BODIES[protocol](source_port, port, token)
    if protocol == "tcp":
        body = body[:13] + bytes([flags]) + body[14:]
    if protocol != "sctp":
        at = 16 if protocol == "tcp" else 6
        body = _with_checksum(
            body, at, _sum16(_pseudo_header(source, destination, len(body), PROTOCOLS[protocol]) + body)
        )
    return _header(source, destination, PROTOCOLS[protocol], len(body)) + body


def read(packet: bytes) -> Seen | None:
    """An IP packet that arrived; None for what is none of ours."""
    if packet[:1] and packet[0] >> 4 == 4:
        length = (packet[0] & 15) * 4
        source, destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        return read_body(packet[9], source, destination, packet[length:])
    if len(packet) > 40 and packet[0] >> 4 == 6:
        source, destination = (socket.inet_ntop(socket.AF_INET6, packet[i : i + 16]) for i in (8, 24))
        return read_body(packet[6], source, destination, packet[40:])
    return None


def read_body(protocol: int, source: str, destination: str, body: bytes) -> Seen | None:
    """What follows the IP header."""
    if protocol in (_ICMP, _ICMP6):
        about = read(body[8:]) if (protocol, body[0], body[1]) in _UNREACHABLE else None
        return about and Seen(about.token, about.source, about.source_port, about.destination, about.port, error=True)
    name = _NAMES.get(protocol)
    if name is None or len(body) < 12 or (name == "tcp" and len(body) > 13 and body[13] & _ACK):
        return None
    source_port, port = struct.unpack("!HH", body[:4])
    (token,) = struct.unpack_from("!I", body, {"tcp": 4, "udp": 8, "sctp": 16}[name])
    return Seen(token, source, source_port, destination, port)


def _syn(source_port: int, port: int, token: int) -> bytes:
    return struct.pack("!HHIIBBHHH", source_port, port, token, 0, 5 << 4, SYN, 64240, 0, 0)


def _datagram(source_port: int, port: int, token: int) -> bytes:
    return struct.pack("!HHHHI", source_port, port, 12, 0, token)


def _init(source_port: int, port: int, token: int) -> bytes:
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, token, 65536, 1, 1, token)
    head = struct.pack("!HHI", source_port, port, 0)
    # SCTP's checksum is the one field of a network packet that is little endian.
    return head + struct.pack("<I", _crc32c(head + bytes(4) + chunk)) + chunk


_BODIES = {"tcp": _syn, "udp": _datagram, "sctp": _init}


def _header(source: str, destination: str, protocol: int, length: int) -> bytes:
    if ":" in destination:
        addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
        return struct.pack("!IHBB", 6 << 28, length, protocol, 64) + addresses
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, protocol, 0) + addresses
    return _with_checksum(head, 10, _sum16(head))


def _pseudo_header(source: str, destination: str, length: int, protocol: int) -> bytes:
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    return addresses + struct.pack("!II", length, protocol)


def _sum16(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _with_checksum(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _crc_table()[(value ^ byte) & 0xFF]
    return value ^ 0xFFFF_FFFF
