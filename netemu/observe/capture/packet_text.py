"""What a captured packet says, in tcpdump's words: who to whom, over what, and the rest in one short text. Pure.

Reads what a lab's links carry (Ethernet; ARP; IPv4 and IPv6 with extension headers; TCP, UDP, SCTP, ICMP of both
families; the first line of HTTP, the question and outcome of DNS) and names the rest by number. A packet that ends too
early is told as far as it goes. Wireshark knows a thousand protocols more: `-w` is for it.
"""

from __future__ import annotations

import re
import socket
import struct
from typing import Final

import msgspec

from netemu.dns import names, wire
from netemu.dns.wire import WireError
from netemu.model.protocols import ICMP, ICMPV6, SCTP, TCP, UDP, name_of

_DNS: Final = 53
_ARP, _VLAN, _IPV4, _IPV6 = 0x0806, 0x8100, 0x0800, 0x86DD
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _OPTIONS = 0, 43, 44, 60
_TCP_FLAGS: Final = "FSRP.UEW"
_SCTP_CHUNKS: Final = {
    0: "DATA", 1: "INIT", 2: "INIT ACK", 3: "SACK", 4: "HEARTBEAT", 5: "HEARTBEAT ACK", 6: "ABORT", 7: "SHUTDOWN",
    8: "SHUTDOWN ACK", 9: "ERROR", 10: "COOKIE ECHO", 11: "COOKIE ACK", 14: "SHUTDOWN COMPLETE",
}  # fmt: skip
_UNREACHABLE: Final = {0: "net", 1: "host", 2: "protocol", 3: "port", 9: "net", 10: "host", 13: "administratively"}
_UNREACHABLE6: Final = {0: "route", 1: "administratively", 3: "address", 4: "port"}
_NEIGHBOUR: Final = {133: "router solicitation", 134: "router advertisement"}
_HTTP: Final = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT) [^\r\n]* HTTP/1|HTTP/1\.[01] \d{3}")


class Told(msgspec.Struct, frozen=True, rename="camel"):
    """A packet in words. Addresses are text; without IP or ARP there are none. Port 0 is no port."""

    protocol: str
    """tcp, udp, sctp, icmp, icmpv6, arp, or the number of what is none of these."""
    source: str = ""
    source_port: int = 0
    destination: str = ""
    port: int = 0
    info: str = ""


class _ShortError(Exception):
    """The packet ends before what its headers promise."""


def read_frame(data: bytes, *, ethernet: bool = True) -> Told:
    """A frame, or a packet that begins with the IP header."""
    try:
        if not ethernet:
            return _ip(data)
        kind, at = _half(data, 12), 14
        if kind == _VLAN:
            kind, at = _half(data, 16), 18
        if kind in (_IPV4, _IPV6):
            return _ip(data[at:])
        return _arp(data[at:]) if kind == _ARP else Told(f"0x{kind:04x}", info=f"length {len(data) - at}")
    except (_ShortError, struct.error, IndexError):
        return Told("unknown", info="cut off")


def _ip(data: bytes) -> Told:
    if data[0] >> 4 == 4:
        return _ipv4(data)
    return _ipv6(data)


def _ipv4(data: bytes) -> Told:
    header, length, fragment, protocol = (data[0] & 15) * 4, _half(data, 2), _half(data, 6), data[9]
    source, destination = _address(data[12:16]), _address(data[16:20])
    body = data[header : max(length, header) if length else None]  # 0: segments that the link will cut (TSO)
    if fragment & 0x1FFF:
        info = f"fragment at {(fragment & 0x1FFF) * 8}, length {len(body)}"
        return Told(name_of(protocol), source, 0, destination, 0, info)
    return _upper(protocol, source, destination, body)


def _ipv6(data: bytes) -> Told:
    length, protocol = _half(data, 4), data[6]
    source, destination = _address(data[8:24]), _address(data[24:40])
    body = data[40 : 40 + length] if length else data[40:]
    while protocol in (_HOP_BY_HOP, _ROUTING, _OPTIONS, _FRAGMENT):
        if protocol == _FRAGMENT and (place := _half(body, 2) & 0xFFF8):
            return Told(name_of(body[0]), source, 0, destination, 0, f"fragment at {place}, length {len(body) - 8}")
        size = 8 if protocol == _FRAGMENT else 8 * (body[1] + 1)
        protocol, body = body[0], body[size:]
    return _upper(protocol, source, destination, body)


def _upper(protocol: int, source: str, destination: str, body: bytes) -> Told:
    try:
        source_port, port = (_half(body, 0), _half(body, 2)) if protocol in (TCP, UDP, SCTP) else (0, 0)
    except _ShortError:
        return Told(name_of(protocol), source, 0, destination, 0, "cut off")
    readers = {TCP: _tcp, UDP: _udp, SCTP: _sctp, ICMP: _icmp, ICMPV6: _icmpv6}
    reader = readers.get(protocol)
    try:
        info = reader(body) if reader else f"length {len(body)}"
    except (_ShortError, struct.error, IndexError):
        info = "cut off"
    return Told(name_of(protocol), source, source_port, destination, port, info)


def _tcp(body: bytes) -> str:
    sequence, acknowledged, offset, flags, window = struct.unpack_from("!IIBBH", body, 4)
    payload = body[(offset >> 4) * 4 :]
    shown = "".join(letter for bit, letter in enumerate(_TCP_FLAGS) if flags >> bit & 1) or "none"
    span = f"{sequence}:{sequence + len(payload)}" if payload else f"{sequence}"
    parts = [f"Flags [{shown}]", f"seq {span}", f"win {window}", f"length {len(payload)}"]
    if flags & 0x10:
        parts.insert(2, f"ack {acknowledged}")
    ports = _half(body, 0), _half(body, 2)
    if _DNS in ports and len(payload) > 14:
        parts.append(_dns(payload[2:]))
    elif _HTTP.match(payload):
        parts.append(payload.partition(b"\r\n")[0][:120].decode("ascii", "replace"))
    return ", ".join(part for part in parts if part)


def _udp(body: bytes) -> str:
    length = _half(body, 4) - 8
    said = _dns(body[8:]) if _DNS in (_half(body, 0), _half(body, 2)) else ""
    return f"{said}, length {length}" if said else f"length {length}"


def _dns(message: bytes) -> str:
    """The question of a query, question and outcome of an answer; "" for what is no DNS message."""
    try:
        name, at = wire.read_name(message, 12)
        asked = f"{wire.type_name(_half(message, at))}? {names.text(name)}"
    except (WireError, IndexError, _ShortError):
        return ""
    if not message[2] & 0x80:
        return f"DNS {asked}"
    count = _half(message, 6)
    return f"DNS {asked} {wire.rcode_name(message[3] & 15)}, {count} answer{'' if count == 1 else 's'}"


def _sctp(body: bytes) -> str:
    return _SCTP_CHUNKS.get(body[12], f"chunk {body[12]}")


def _icmp(body: bytes) -> str:
    kind, code = body[0], body[1]
    if kind in (0, 8):
        return _echo(body, request=kind == 8)
    if kind == 3:
        if code == 4:
            return f"fragmentation needed, mtu {_half(body, 6)}, {_about(body[8:])}"
        return f"{_UNREACHABLE.get(code, f'code {code}')} unreachable, {_about(body[8:])}"
    return f"time exceeded, {_about(body[8:])}" if kind == 11 else f"type {kind} code {code}"


def _icmpv6(body: bytes) -> str:
    kind, code = body[0], body[1]
    if kind in (128, 129):
        return _echo(body, request=kind == 128)
    if kind == 1:
        return f"{_UNREACHABLE6.get(code, f'code {code}')} unreachable, {_about(body[8:])}"
    if kind == 2:
        return f"packet too big, mtu {struct.unpack_from('!I', body, 4)[0]}, {_about(body[8:])}"
    if kind in (135, 136):
        verb = "solicitation, who has" if kind == 135 else "advertisement, is"
        return f"neighbour {verb} {_address(body[8:24])}"
    return f"time exceeded, {_about(body[8:])}" if kind == 3 else _NEIGHBOUR.get(kind, f"type {kind} code {code}")


def _about(quoted: bytes) -> str:
    """The packet that an error is about, whose first bytes it quotes."""
    told = _ip(quoted)
    ports = [f" port {port}" if port else "" for port in (told.source_port, told.port)]
    return f"about {told.protocol} {told.source}{ports[0]} > {told.destination}{ports[1]}"


def _echo(body: bytes, *, request: bool) -> str:
    return f"echo {'request' if request else 'reply'}, id {_half(body, 4)}, seq {_half(body, 6)}, length {len(body)}"


def _arp(body: bytes) -> Told:
    source, destination = _address(body[14:18]), _address(body[24:28])
    if _half(body, 6) == 1:
        return Told("arp", source, 0, destination, 0, f"who has {destination}, tell {source}")
    return Told("arp", source, 0, destination, 0, f"{source} is at {body[8:14].hex(':')}")


def _half(data: bytes, at: int) -> int:
    if len(data) < at + 2:
        raise _ShortError
    return data[at] << 8 | data[at + 1]


def _address(raw: bytes) -> str:
    if len(raw) not in (4, 16):
        raise _ShortError
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
