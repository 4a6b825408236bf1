"""IP packets as bytes: what one says of itself, and one made to be followed. Pure.

By hand rather than with scapy, whose import alone takes longer than a whole trace. Anybody's bytes may come in: what
is cut short or not known gives less, never an error.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from msgspec import Struct

from netemu.kernel.signature import Signature
from netemu.model.errors import UserError
from netemu.model.protocols import ICMP, ICMPV6, TCP, UDP, WITH_PORTS, name_of
from netemu.observe.trace.evidence import Headers, Packet

ETHERNET: Final = 14
"""How long a frame's own header is."""
_HOP_LIMIT: Final = 64
_SYN, _RST, _ACK, _FIN = 0x02, 0x04, 0x10, 0x01
_UNREACHABLE: Final = {
    0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
    9: "network prohibited", 10: "host prohibited", 13: "communication prohibited",
}  # fmt: skip
_UNREACHABLE6: Final = {
    0: "no route to destination", 1: "communication prohibited", 2: "beyond scope", 3: "address unreachable",
    4: "port unreachable", 5: "source address failed policy", 6: "route rejected",
}  # fmt: skip
_UNREACHABLE_TYPE, _TIME_EXCEEDED, _TOO_BIG6, _UNREACHABLE_TYPE6, _TIME_EXCEEDED6 = 3, 11, 2, 1, 3
_FRAGMENTATION_NEEDED: Final = 4
_ECHO: Final = {
    (ICMP, 8): "echo request", (ICMP, 0): "echo reply", (ICMPV6, 128): "echo request", (ICMPV6, 129): "echo reply",
}  # fmt: skip
_MAXIMUM_SEGMENT: Final = 1460


def parse_frame(frame: bytes) -> Headers | None:
    """The IP packet of an Ethernet frame; None for what is none."""
    return parse(frame[ETHERNET:]) if frame[12:14] in (b"\x08\x00", b"\x86\xdd") else None


def parse(packet: bytes) -> Headers | None:
    """A packet that begins with its IP header, whole or only its beginning; None for what is none."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return _transport(packet, packet[9], (packet[0] & 0xF) * 4)
    if version == 6 and len(packet) >= 40:
        return _transport(packet, packet[6], 40)
    return None


def _transport(packet: bytes, number: int, begin: int) -> Headers:
    source, destination = _addresses(packet)
    v6 = packet[0] >> 4 == 6
    ttl, length = packet[7 if v6 else 8], int.from_bytes(packet[4:6] if v6 else packet[2:4], "big") + 40 * v6
    body = packet[begin:]
    source_port, port, what, about = 0, 0, "", None
    if number in WITH_PORTS.values() and len(body) >= 4:
        source_port, port = struct.unpack_from(">HH", body)
        what = _flags(body) if number == TCP else "datagram" if number == UDP else ""
    elif number in (ICMP, ICMPV6) and len(body) >= 4:
        what = _ECHO.get((number, body[0]), "")
        if what:
            source_port = int.from_bytes(body[4:6], "big")
        else:
            what, about = _error(number, body), parse(body[8:])
    return Headers(
        protocol=name_of(number), source=source, destination=destination, source_port=source_port,
        port=port, what=what, length=length, ttl=ttl, about=about,
    )  # fmt: skip


def _addresses(packet: bytes) -> tuple[str, str]:
    if packet[0] >> 4 == 6:
        return socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])
    return socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20])


def _flags(segment: bytes) -> str:
    if len(segment) < 14:
        return "segment"
    flags = segment[13]
    named = [name for bit, name in ((_SYN, "SYN"), (_FIN, "FIN"), (_RST, "RST")) if flags & bit]
    if "RST" in named:
        return "RST"  # its ACK only says which segment it is about
    return "-".join([*named, *(["ACK"] if flags & _ACK else [])])


def _error(number: int, body: bytes) -> str:
    kind, code = body[0], body[1]
    if number == 58:
        if kind == _TOO_BIG6:
            return f"packet too big, mtu {int.from_bytes(body[4:8], 'big')}"
        if kind == _TIME_EXCEEDED6:
            return "time exceeded"
        return _UNREACHABLE6.get(code, "unreachable") if kind == _UNREACHABLE_TYPE6 else f"icmpv6 type {kind}"
    if kind == _UNREACHABLE_TYPE and code == _FRAGMENTATION_NEEDED:
        return f"fragmentation needed, mtu {int.from_bytes(body[6:8], 'big')}"
    if kind == _TIME_EXCEEDED:
        return "time exceeded"
    return _UNREACHABLE.get(code, "unreachable") if kind == _UNREACHABLE_TYPE else f"icmp type {kind}"


# --- the packet to follow --------------------------------------------------------------------------------------------


class Crafted(Struct, frozen=True):
    """A packet ready to be sent, and what tells it from all others."""

    data: bytes
    signature: Signature


def craft(packet: Packet, secret: bytes) -> Crafted:
    """The packet, from its source and source port. `secret`: eight bytes at least that nobody else sends.

    Raises UserError for a size that is too small for its headers and what tells it from all others.
    """
    v6 = packet.ipv6
    fill = max(packet.size - (40 if v6 else 20) - (24 if packet.protocol == "tcp" else 8), 0)
    if packet.protocol == "tcp":
        sequence = int.from_bytes(secret[:4], "big")
        body, signature = _syn(packet, sequence) + bytes(fill), Signature.tcp(sequence, ipv6=v6)
    else:
        carried = packet.payload if packet.protocol == "udp" and packet.payload else secret
        carried += bytes(max(fill - len(carried), 0))
        body = _datagram(packet, carried) if packet.protocol == "udp" else _echo(packet, carried)
        signature = Signature.payload(packet.protocol, carried, ipv6=v6)
    data = _ip(packet, signature.number, body)
    if packet.size and packet.size < len(data):
        raise UserError(f"--size {packet.size}: this packet has at least {len(data)} bytes")
    return Crafted(data, signature)


def _syn(packet: Packet, sequence: int) -> bytes:
    offset, window = 6 << 4, 64240
    head = struct.pack(">HHIIBBHHH", packet.source_port, packet.port, sequence, 0, offset, _SYN, window, 0, 0)
    return head + struct.pack(">BBH", 2, 4, _MAXIMUM_SEGMENT)


def _datagram(packet: Packet, carried: bytes) -> bytes:
    return struct.pack(">HHHH", packet.source_port, packet.port, 8 + len(carried), 0) + carried


def _echo(packet: Packet, carried: bytes) -> bytes:
    return struct.pack(">BBHHH", 128 if packet.ipv6 else 8, 0, 0, packet.source_port, 1) + carried


def _ip(packet: Packet, number: int, body: bytes) -> bytes:
    family = socket.AF_INET6 if packet.ipv6 else socket.AF_INET
    ends = socket.inet_pton(family, packet.source) + socket.inet_pton(family, packet.destination)
    if packet.ipv6:
        covered = ends + struct.pack(">IxxxB", len(body), number) + body
        head = struct.pack(">IHBB", 6 << 28, len(body), number, _HOP_LIMIT) + ends
        return head + _with_checksum(body, number, checksum(covered))
    covered = (ends + struct.pack(">xBH", number, len(body)) if number != ICMP else b"") + body
    dont_fragment = 0x4000
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, dont_fragment, _HOP_LIMIT, number, 0) + ends
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + _with_checksum(body, number, checksum(covered))


def _with_checksum(body: bytes, number: int, value: int) -> bytes:
    at = {TCP: 16, UDP: 6}.get(number, 2)
    value = value or (0xFFFF if number == UDP else 0)  # 0 would mean that there is none
    return body[:at] + value.to_bytes(2, "big") + body[at + 2 :]


def checksum(data: bytes) -> int:
    """The Internet's, RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
