"""Connections of one namespace, whole: those that conntrack holds, and what it begins, changes and forgets, as it
happens.

The kernel keeps no events for connections that began before somebody listened, and, with sysctl nf_conntrack_events 2
(the default since Linux 5.19), none while nobody does. Where the socket's buffer overflows, what did not fit is lost,
and counted.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from netemu.kernel import netns as namespaces
from netemu.kernel.nfnetlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    Nfnetlink,
    attribute,
    attributes,
    drain,
    listen,
    message,
    nested,
    refusal,
    split,
)  # fmt: skip
from netemu.model.errors import KernelError
from netemu.model.protocols import NUMBERS, name_of

STATES: Final = (
    "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
    "SYN_SENT2",
)  # fmt: skip
"""Of TCP, by the kernel's numbers."""
SEEN_REPLY, ASSURED, CONFIRMED, SOURCE_NAT, DESTINATION_NAT = 2, 4, 8, 16, 32
_SUBSYSTEM: Final = 1 << 8
_NEW, _GET, _DELETE = 0, 1, 2
_CREATED: Final = 0x600
"""NLM_F_CREATE | NLM_F_EXCL: a message of type "new" with these is one, else a change."""
_GROUPS: Final = (1, 2, 3)
_ERROR: Final = 2
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_COUNTERS_ORIGINAL, _COUNTERS_REPLY, _USE, _ID, _ZONE, _TIMESTAMP = 9, 10, 11, 12, 18, 20
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)
_PROTOCOL, _SOURCE_PORT, _PORT = 1, 2, 3
_ECHO_ID, _ECHO_TYPE, _ECHO_CODE = (4, 7), (5, 8), (6, 9)
_COUNTER_PACKETS, _COUNTER_BYTES = 1, 2
_TIMESTAMP_START: Final = 1

Handle: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class Tuple:
    """Addresses and ports of one direction. An echo's identifier is both its ports."""

    protocol: str
    source: str
    source_port: int
    destination: str
    port: int
    icmp: tuple[int, int] | None = field(default=None, compare=False)
    """Type and code of an echo and its like."""

    @property
    def reversed(self) -> Tuple:
        """The other way."""
        return Tuple(self.protocol, self.destination, self.port, self.source, self.source_port)


@dataclass(frozen=True, slots=True)
class Tracked:
    """A connection as conntrack holds it: `original` is what the sender wrote, `reply` what answers will bear, so the
    one is not the other reversed where it is translated. Packets and bytes are counted with nf_conntrack_acct only."""

    event: Literal["new", "update", "destroy"]
    id: int
    original: Tuple
    reply: Tuple
    status: int
    state: str = ""
    mark: int = 0
    timeout: int = 0
    zone: int = 0
    packets: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    began: int = 0
    """Nanoseconds since the epoch; known with nf_conntrack_timestamp only."""
    use: int = 0
    """References that the kernel holds."""
    handle: Handle = field(default=b"", repr=False, compare=False)
    """What names the entry to the kernel."""


class ConntrackEvents:
    """The events of the namespace `netns`. Calls never block. Raises KernelNotFound, KernelDenied."""

    def __init__(self, netns: str = "") -> None:
        self._socket = listen(netns, _GROUPS)

    def fileno(self) -> int:
        """Readable when something has happened."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Tracked], int]:
        """What has happened since the last call; how often events were lost."""
        told, lost = drain(self._socket)
        return [tracked(kind, flags, payload) for _, kind, flags, payload in told if kind >> 8 == 1], lost

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


def entries(netns: str, *, ipv6: bool = False) -> list[Tracked]:
    """All connections of a family that a namespace tracks. Raises KernelNotFound, KernelDenied."""
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    netlink = Nfnetlink(netns)
    try:
        answers = netlink.ask(_SUBSYSTEM | _GET, family, b"", dump=True, operation="list connections")
    finally:
        netlink.close()
    return [tracked(_SUBSYSTEM | _NEW, 0, bytes(4) + answer) for answer in answers]


def find(netns: str, original: Tuple) -> Tracked | None:
    """The connection that packets with these addresses belong to, in either direction. None where there is none."""
    family = socket.AF_INET6 if ":" in original.source else socket.AF_INET
    with namespaces.entered(netns):
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    with sock:
        body = _tuple_attribute(original)
        sock.send(message(_SUBSYSTEM | _GET, NLM_F_REQUEST | NLM_F_ACK, 1, family, body))
        for sequence, kind, flags, payload in split(sock.recv(1 << 16)):
            if kind != _ERROR:
                return tracked(kind, 0, payload)
            code = refusal(sequence, flags, payload).code
            if code and code != errno.ENOENT:
                raise KernelError.of("find connection", netns, code, os.strerror(code))
    return None


def tracked(kind: int, flags: int, payload: bytes) -> Tracked:
    """One message of ctnetlink."""
    at = attributes(payload, 4)
    counts = [attributes(at.get(each, b"")) for each in (_COUNTERS_ORIGINAL, _COUNTERS_REPLY)]
    created = kind & 0xFF == _NEW and flags & _CREATED
    return Tracked(
        event="destroy" if kind & 0xFF == _DELETE else "new" if created else "update",
        id=_number(at, _ID),
        original=_tuple(at[_ORIGINAL]),
        reply=_tuple(at[_REPLY]),
        status=_number(at, _STATUS),
        state=_state(at.get(_PROTOINFO, b"")),
        mark=_number(at, _MARK),
        timeout=_number(at, _TIMEOUT),
        zone=_number(at, _ZONE),
        packets=(_number(counts[0], _COUNTER_PACKETS), _number(counts[1], _COUNTER_PACKETS)),
        bytes=(_number(counts[0], _COUNTER_BYTES), _number(counts[1], _COUNTER_BYTES)),
        began=_number(attributes(at.get(_TIMESTAMP, b"")), _TIMESTAMP_START),
        use=_number(at, _USE),
        handle=_handle(at),
    )


def _handle(at: dict[int, bytes]) -> bytes:
    """The id keeps a new connection with the same addresses from being taken for the old one."""
    return nested(_ORIGINAL, at[_ORIGINAL]) + b"".join(attribute(kind, at[kind]) for kind in (_ID, _ZONE) if kind in at)


def _state(protoinfo: bytes) -> str:
    tcp = attributes(attributes(protoinfo).get(1, b""))
    number = tcp[1][0] if 1 in tcp else 0
    return STATES[number] if tcp and number < len(STATES) else ""


def _tuple(data: bytes) -> Tuple:
    parts = attributes(data)
    ip, proto = attributes(parts[1]), attributes(parts[2])
    number = proto[_PROTOCOL][0]
    echo = next((_number(proto, kind) for kind in _ECHO_ID if kind in proto), 0)
    kinds = [proto[kind][0] for kind in (*_ECHO_TYPE, *_ECHO_CODE) if kind in proto]
    return Tuple(
        name_of(number),
        _address(ip, _SOURCES),
        _number(proto, _SOURCE_PORT) or echo,
        _address(ip, _DESTINATIONS),
        _number(proto, _PORT) or echo,
        (kinds[0], kinds[1]) if len(kinds) == 2 else None,
    )


def _tuple_attribute(of: Tuple) -> bytes:
    ipv6 = ":" in of.source
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    ip = nested(
        1,
        attribute(_SOURCES[ipv6], socket.inet_pton(family, of.source)),
        attribute(_DESTINATIONS[ipv6], socket.inet_pton(family, of.destination)),
    )
    proto = attribute(_PROTOCOL, bytes((NUMBERS[of.protocol],)))
    if of.protocol.startswith("icmp"):
        proto += attribute(_ECHO_ID[ipv6], of.source_port.to_bytes(2, "big"))
        proto += attribute(_ECHO_TYPE[ipv6], bytes((128 if ipv6 else 8,))) + attribute(_ECHO_CODE[ipv6], b"\0")
    else:
        proto += attribute(_SOURCE_PORT, of.source_port.to_bytes(2, "big"))
        proto += attribute(_PORT, of.port.to_bytes(2, "big"))
    return nested(_ORIGINAL, ip, nested(2, proto))


def _address(ip: dict[int, bytes], kinds: tuple[int, int]) -> str:
    raw = next((ip[kind] for kind in kinds if kind in ip), b"")
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "big")
