"""Frames as they cross the links of a namespace: AF_PACKET with a ring of blocks that the kernel fills (TPACKET_V3).

Theory of operation: kernel and process share memory. The kernel writes frames one behind the other into a block and
hands the block over when it is full, or `HAND_OVER_NANOSECONDS` after its first frame; the process copies it, gives it
back and reads the copy. So a thousand frames cost one system call, and what comes while the process is busy waits in
the other blocks; only what finds no block is lost, and counted. The filter (classic BPF) runs before anything is
copied. A ring begins empty, so what came to the socket before it had its filter is not seen.

A frame that crosses two links is seen twice, once on each; on `lo`, where all that goes out comes in again, only what
comes in is told, as libpcap has it. `kernel.tap` is for few frames, each at once.
Source: packet(7), linux/if_packet.h, Documentation/networking/packet_mmap.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from typing import Final, NamedTuple

from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError

ETHERNET: Final = 1
LOOPBACK: Final = 772
"""Kinds of links (ARPHRD) whose frames begin with an Ethernet header."""

HAND_OVER_NANOSECONDS: Final = 20_000_000
"""How long a frame waits at most, in a block that does not fill up, until it can be read."""
LEAST_RING: Final = 1 << 19

_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_SOL_PACKET: Final = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _TPACKET_V3 = 5, 6, 10, 2
_SO_ATTACH_FILTER: Final = 26
_BLOCK: Final = 1 << 17
_FRAME: Final = 1 << 11
_TO_KERNEL, _TO_USER = 0, 1

_REQUEST: Final = struct.Struct("=IIIIIII")
_BLOCK_HEAD: Final = struct.Struct("=8xIIII")
"""Of `tpacket_block_desc`: status, number of frames, where the first is, how much of the block is used."""
_FRAME_HEAD: Final = struct.Struct("=IIIIIIHH20xHHiHBB")
"""`tpacket3_hdr`, then `sockaddr_ll` without the address."""


class Frame(NamedTuple):
    """One frame on one link. `nanoseconds` is the kernel's time since the epoch; `length` that on the wire."""

    nanoseconds: int
    link: int
    """Its index."""
    kind: int
    """Of the link (ARPHRD): where it is neither Ethernet nor loopback, `data` begins with the IP header."""
    outgoing: bool
    length: int
    data: bytes


class Counts(NamedTuple):
    """What passed the filter, and how much of it was lost because every block was full."""

    taken: int
    dropped: int


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """What the socket receives from now on passes the program, an array of `struct sock_filter`."""
    held = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def send_frame(netns: str, link: str, frame: bytes) -> None:
    """Send a frame on a link, as it is. Raises KernelNotFound for a namespace or link that is not there, KernelError
    for a frame that the link does not take (EMSGSIZE, ENETDOWN)."""
    try:
        with namespaces.entered(netns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((link, 0))
            sock.send(frame)
    except OSError as error:
        raise KernelError.of(f"send a frame on {link}", netns, error.errno or 0) from error


class PacketSocket:
    """Every frame of a namespace, or of one of its links, that passes the filter, coming in or going out.

    `program` is classic BPF, an array of `struct sock_filter`; empty: everything. Raises KernelNotFound for a namespace
    or link that is not there, KernelDenied without CAP_NET_RAW.
    """

    def __init__(self, netns: str, link: str = "", program: bytes = b"", ring: int = 4 << 20) -> None:
        where = f"{netns} {link}".strip()
        with namespaces.entered(netns):
            try:
                self._loopback = socket.if_nametoindex("lo")
                protocol = 0 if link else socket.htons(_ETH_P_ALL)  # with 0 it takes nothing until it is bound
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            except OSError as error:
                raise KernelError.of("open packet socket", where, error.errno or 0) from error
        self._link = link
        try:
            if program:
                attach_filter(self._socket, program)
            self._make_ring(max(ring, LEAST_RING) // _BLOCK)
            if link:
                self._socket.bind((link, _ETH_P_ALL))
            self.counts()
        except OSError as error:
            self.close()
            raise KernelError.of("capture", where, error.errno or 0) from error

    def _make_ring(self, blocks: int) -> None:
        self._blocks, self._next = blocks, 0
        patience = HAND_OVER_NANOSECONDS // 1_000_000
        request = _REQUEST.pack(_BLOCK, blocks, _FRAME, _BLOCK // _FRAME * blocks, patience, 0, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        self._ring = mmap.mmap(self._socket.fileno(), _BLOCK * blocks)

    def fileno(self) -> int:
        """For poll: readable when a block was handed over."""
        return self._socket.fileno()

    def read(self) -> list[Frame]:
        """The frames of all blocks that were handed over; never blocks."""
        # A link that goes down leaves an error, and poll returns at once until somebody has asked for it. Once the link
        # is up again the kernel goes on by itself.
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        frames: list[Frame] = []
        for _ in range(self._blocks):
            start = self._next * _BLOCK
            status, count, first, used = _BLOCK_HEAD.unpack_from(self._ring, start)
            if not status & _TO_USER:
                break
            block = self._ring[start : start + used]
            struct.pack_into("=I", self._ring, start + 8, _TO_KERNEL)
            self._next = (self._next + 1) % self._blocks
            frames += self._frames(block, count, first)
        return frames

    def _frames(self, block: bytes, count: int, at: int) -> list[Frame]:
        frames = []
        unpack, loopback = _FRAME_HEAD.unpack_from, self._loopback
        for _ in range(count):
            step, seconds, rest, size, length, _, mac, _, _, _, link, kind, direction, _ = unpack(block, at)
            outgoing = direction == _PACKET_OUTGOING
            if not (outgoing and link == loopback):
                begin = at + mac
                data = block[begin : begin + size]
                frames.append(Frame(seconds * 1_000_000_000 + rest, link, kind, outgoing, length, data))
            at += step
        return frames

    @property
    def gone(self) -> bool:
        """Whether the one link that was asked for went away; another one of that name is not it."""
        return bool(self._link) and not self._socket.getsockname()[0]

    def counts(self) -> Counts:
        """What was taken, and what was lost, since the last call."""
        taken, dropped, _ = struct.unpack("=III", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12))
        return Counts(taken - dropped, dropped)

    def close(self) -> None:
        """Take nothing more."""
        if hasattr(self, "_ring"):
            self._ring.close()
        self._socket.close()
