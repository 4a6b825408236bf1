"""Packets as they cross the links of a network namespace, read by an AF_PACKET socket with a filter of its own.

The kernel runs the filter (classic BPF) before it copies anything, so what nobody asked for costs next to nothing; a
packet that crosses two links is seen twice, once on each. Source: packet(7), linux/filter.h.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from netemu.kernel import netns as namespaces
from netemu.kernel.packet_socket import attach_filter
from netemu.kernel.signature import Signature
from netemu.model.protocols import TCP, UDP

_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_PACKET_STATISTICS: Final = 6
_SOL_PACKET: Final = 263
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("=qq")
_BUFFER: Final = 4 << 20
_LARGEST: Final = 65535
_MOST_AT_ONCE: Final = 256
_ETHERNET: Final = 14
_ETHER_IPV4, _ETHER_IPV6 = 0x0800, 0x86DD

# Opcodes of linux/bpf_common.h: class | size | mode.
_BYTE, _HALF, _HALF_BEHIND_HEADER, _HEADER_LENGTH = 0x30, 0x28, 0x48, 0xB1
_WORD, _WORD_BEHIND_HEADER = 0x20, 0x40
_BYTE_BEHIND_HEADER: Final = 0x50
_FLAGS, _SYN_OR_RST = 13, 0x06  # of TCP's header
_SHIFT_RIGHT, _EQUAL, _ANY_BIT, _RETURN = 0x74, 0x15, 0x45, 0x06

_Step = tuple[str, int, int, str, str]
"""Label, opcode, operand, where to go if it is so, where to go if not; "" is the next step."""


class Frame(NamedTuple):
    """One packet on one link. `data` begins with the IP header, or with Ethernet's where the tap was asked for that;
    `nanoseconds` are the kernel's, since the epoch."""

    nanoseconds: int
    link: str
    outgoing: bool
    data: bytes

    @property
    def seconds(self) -> float:
        """Its time in seconds."""
        return self.nanoseconds / 1e9


def wait_for_stamps(timeout: float = 1.0) -> None:
    """Return once the kernel stamps packets as they come, which it begins to do a moment after a tap asked for it.

    A packet without a stamp gets one when it is read, which is too late. On this process's own loopback a datagram has
    arrived when it is sent, so a stamp that is later than that was made by reading. Where that loopback does not work,
    nothing is waited for.
    """
    deadline = time.monotonic() + timeout
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.bind(("127.0.0.1", 0))
        while time.monotonic() < deadline:
            sock.sendto(b"", sock.getsockname())
            sent = time.time_ns()
            _, ancillary, _, _ = sock.recvmsg(1, 64)
            if _nanoseconds(ancillary) <= sent:
                return
            time.sleep(0.0005)  # a worker of the kernel's turns them on, and tells nobody


def _nanoseconds(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2]) if ancillary else (0, 0)
    return int(seconds * 1_000_000_000 + nanoseconds)


def port_filter(port: int) -> bytes:
    """A program that takes UDP and TCP from or to a port: IPv4 without later fragments, IPv6 without extensions."""
    return _assemble(
        ("", _BYTE, 0, "", ""),
        ("", _SHIFT_RIGHT, 4, "", ""),
        ("", _EQUAL, 4, "", "ipv6"),
        ("", _HALF, 6, "", ""),
        ("", _ANY_BIT, 0x1FFF, "drop", ""),
        ("", _BYTE, 9, "", ""),
        ("", _EQUAL, UDP, "ports", ""),
        ("", _EQUAL, TCP, "ports", "drop"),
        ("ports", _HEADER_LENGTH, 0, "", ""),
        ("", _HALF_BEHIND_HEADER, 0, "", ""),
        ("", _EQUAL, port, "take", ""),
        ("", _HALF_BEHIND_HEADER, 2, "", ""),
        ("", _EQUAL, port, "take", "drop"),
        ("ipv6", _EQUAL, 6, "", "drop"),
        ("", _BYTE, 6, "", ""),
        ("", _EQUAL, UDP, "ports6", ""),
        ("", _EQUAL, TCP, "ports6", "drop"),
        ("ports6", _HALF, 40, "", ""),
        ("", _EQUAL, port, "take", ""),
        ("", _HALF, 42, "", ""),
        ("", _EQUAL, port, "take", "drop"),
        ("take", _RETURN, _LARGEST, "", ""),
        ("drop", _RETURN, 0, "", ""),
    )


def signature_filter(signature: Signature) -> bytes:
    """A program over Ethernet frames that takes one packet (or every beginning), what answers it, and what may be: all
    ICMP, and where the packet is a datagram, all datagrams."""
    ether_type, protocol = (_ETHER_IPV6, _ETHERNET + 6) if signature.ipv6 else (_ETHER_IPV4, _ETHERNET + 9)
    steps: list[_Step] = [
        ("", _HALF, 12, "", ""),
        ("", _EQUAL, ether_type, "", "drop"),
        ("", _BYTE, protocol, "", ""),
        ("", _EQUAL, signature.icmp, "take", ""),
    ]
    if signature.protocol == "tcp" and signature.every:
        load, header = (_BYTE, _ETHERNET + 40) if signature.ipv6 else (_BYTE_BEHIND_HEADER, _ETHERNET)
        steps += [
            ("", _EQUAL, signature.number, "", "drop"),
            ("", _HEADER_LENGTH, _ETHERNET, "", ""),
            ("", load, header + _FLAGS, "", ""),
            ("", _ANY_BIT, _SYN_OR_RST, "take", "drop"),
        ]
    elif signature.protocol == "tcp":
        load, header = (_WORD, _ETHERNET + 40) if signature.ipv6 else (_WORD_BEHIND_HEADER, _ETHERNET)
        at, value = signature.answer
        steps += [
            ("", _EQUAL, signature.number, "", "drop"),
            ("", _HEADER_LENGTH, _ETHERNET, "", ""),
            ("", load, header + signature.offset, "", ""),
            ("", _EQUAL, int.from_bytes(signature.value, "big"), "take", ""),
            ("", load, header + at, "", ""),
            ("", _EQUAL, int.from_bytes(value, "big"), "take", "drop"),
        ]
    else:
        steps.append(("", _EQUAL, signature.number, "take", "drop"))
    return _assemble(*steps, ("take", _RETURN, _LARGEST, "", ""), ("drop", _RETURN, 0, "", ""))


def _assemble(*steps: _Step) -> bytes:
    """A `struct sock_filter` for each step; jumps count the steps to leave out."""
    places = {step[0]: index for index, step in enumerate(steps)}
    program = b""
    for index, (_, code, operand, if_true, if_false) in enumerate(steps):
        jumps = [places[label] - index - 1 if label else 0 for label in (if_true, if_false)]
        program += struct.pack("=HBBI", code, *jumps, operand)
    return program


class Tap:
    """Every packet of a namespace that passes the filter, coming in or going out, on any link.

    With `ethernet`, frames begin with Ethernet's header, for the filter too.
    Raises KernelNotFound for a namespace that is not there, PermissionError without CAP_NET_RAW.
    """

    def __init__(self, netns: str, program: bytes, *, ethernet: bool = False) -> None:
        kind = socket.SOCK_RAW if ethernet else socket.SOCK_DGRAM
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_PACKET, kind | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ALL))
        try:
            attach_filter(self._socket, program)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setblocking(False)
            # What came before the filter was there is unfiltered.
            while self.read():
                pass
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For an event loop: readable when packets wait."""
        return self._socket.fileno()

    def read(self) -> list[Frame]:
        """The packets that wait, at most a few hundred; never blocks."""
        frames = []
        for _ in range(_MOST_AT_ONCE):
            try:
                data, ancillary, _, address = self._socket.recvmsg(_LARGEST, 64)
            except BlockingIOError:
                break
            frames.append(Frame(_nanoseconds(ancillary), address[0], address[2] == _PACKET_OUTGOING, data))
        return frames

    def lost(self) -> int:
        """Packets that found the buffer full since the last call."""
        _, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)

    def close(self) -> None:
        """Take nothing more."""
        self._socket.close()
