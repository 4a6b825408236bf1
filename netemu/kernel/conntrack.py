"""Connections that the kernel tracks in one namespace: list them, forget some. ctnetlink by hand.

Theory of operation: a flow has an original tuple (what the sender wrote) and a reply tuple (what answers will carry).
Where the reply's source is not the original destination, the flow is translated, and it stays so as long as the entry
lives, whatever the rules say now. The library for this would cost 0.3 s of start-up; the two messages needed are short.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError
from netemu.model.protocols import NAMES

_NETLINK_NETFILTER = 12
_CTNETLINK, _GET, _DELETE = 1 << 8, 1, 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE = 1, 2, 12, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)
_PROTO_NUM, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_TYPE_MASK = 0x3FFF
_NESTED = 0x8000


@dataclass(frozen=True, slots=True)
class Flow:
    """One tracked connection; `reply_*` is where answers come from, so what a DNAT chose."""

    protocol: str
    source: str
    source_port: int
    destination: str
    port: int
    reply_source: str
    reply_port: int
    handle: bytes = field(default=b"", repr=False, compare=False)
    """What names the entry to the kernel."""


class Entry(Protocol):
    """What can be forgotten: a `Flow`, or a `conntrack_events.Tracked`."""

    @property
    def handle(self) -> bytes:
        """What names the entry to the kernel."""
        ...


class Conntrack(Protocol):
    """The flows of one namespace. Implemented by `ConntrackNetlink` and `netemu.testing.conntrack.FakeConntrack`."""

    def flows(self, protocol: str = "udp", *, ipv6: bool = False) -> list[Flow]:
        """All flows of a protocol. Raises KernelError."""
        ...

    def delete(self, flows: Iterable[Flow], *, ipv6: bool = False) -> int:
        """Forget flows; how many were still there. Absent is success. Raises KernelError."""
        ...


class ConntrackNetlink:
    """The kernel's. Calls block shortly; use a worker thread."""

    def __init__(self, netns: str = "") -> None:
        self._netns = netns

    def flows(self, protocol: str = "udp", *, ipv6: bool = False) -> list[Flow]:
        """See Conntrack."""
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        with self._socket() as sock:
            self._send(sock, _GET, _REQUEST | _DUMP, family, b"")
            return [f for body in self._answers(sock, "list flows") if (f := _flow(body)) and f.protocol == protocol]

    def delete(self, flows: Iterable[Entry], *, ipv6: bool = False) -> int:
        """See Conntrack."""
        family, deleted = socket.AF_INET6 if ipv6 else socket.AF_INET, 0
        with self._socket() as sock:
            for flow in flows:
                self._send(sock, _DELETE, _REQUEST | _ACK, family, flow.handle)
                try:
                    for _ in self._answers(sock, "delete flow"):
                        pass
                    deleted += 1
                except KernelError as error:
                    if error.code != errno.ENOENT:
                        raise
        return deleted

    def _socket(self) -> socket.socket:
        with namespaces.entered(self._netns):
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)

    def _send(self, sock: socket.socket, message: int, flags: int, family: int, attributes: bytes) -> None:
        body = struct.pack("=BBH", family, 0, 0) + attributes
        sock.send(struct.pack("=IHHII", 16 + len(body), _CTNETLINK | message, flags, 1, 0) + body)

    def _answers(self, sock: socket.socket, operation: str) -> Iterator[bytes]:
        while True:
            data = sock.recv(1 << 20)
            while len(data) >= 16:
                length, kind, _, _, _ = struct.unpack_from("=IHHII", data)
                body, data = data[16:length], data[(length + 3) & ~3 :]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    if code:
                        raise KernelError.of(operation, self._netns, -code, os.strerror(-code))
                    return
                yield body


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & _TYPE_MASK] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _flow(body: bytes) -> Flow | None:
    attributes = _attributes(body[4:])
    protocol, source, source_port, destination, port = _tuple(attributes[_TUPLE_ORIG])
    _, reply_source, reply_port, _, _ = _tuple(attributes[_TUPLE_REPLY])
    if not protocol:
        return None
    # The id keeps a new flow with the same tuple from being taken for the old one, unless it got the old one's memory.
    handle = _attribute(_TUPLE_ORIG | _NESTED, attributes[_TUPLE_ORIG])
    handle += b"".join(_attribute(kind, attributes[kind]) for kind in (_ID, _ZONE) if kind in attributes)
    return Flow(protocol, source, source_port, destination, port, reply_source, reply_port, handle)


def _tuple(data: bytes) -> tuple[str, str, int, str, int]:
    parts = _attributes(data)
    ip, proto = _attributes(parts[_TUPLE_IP]), _attributes(parts[_TUPLE_PROTO])
    source = next((ip[kind] for kind in _SOURCES if kind in ip), b"")
    destination = next((ip[kind] for kind in _DESTINATIONS if kind in ip), b"")
    protocol = NAMES.get(proto[_PROTO_NUM][0], "")
    ports = (int.from_bytes(proto.get(kind, b""), "big") for kind in (_SOURCE_PORT, _DESTINATION_PORT))
    source_port, port = ports
    return protocol, _address(source), source_port, _address(destination), port


def _address(raw: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)
