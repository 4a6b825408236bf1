"""One UDP port. Replies leave from the address that was asked, as IP_PKTINFO tells it.

A plain `sendto` on an unbound socket lets the kernel choose the source; a node, or a Pod asked on loopback, has
several addresses, and a client drops answers from the wrong one. asyncio's datagram transports hide ancillary data,
so the socket is read directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from netemu.runtime.servers.answers import udp_answer
from netemu.runtime.servers.identity import Identity, plain

_IN_PKTINFO = struct.Struct("=I4s4s")
_IN6_PKTINFO = struct.Struct("=16sI")
_SPACE = socket.CMSG_SPACE(_IN6_PKTINFO.size)
_AT_ONCE = 64
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # the constant came to Python's socket module with 3.12


class UdpServer:
    """A bound datagram socket."""

    def __init__(self, sock: socket.socket, program: str, who: Identity) -> None:
        self.program, self.who, self._sock = program, who, sock
        self.port: int = sock.getsockname()[1]
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    async def start(self) -> None:
        """Answer datagrams."""
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

    async def drain(self, timeout: float) -> None:
        """Nothing is ever under way."""
        self.close()

    def close(self) -> None:
        """Stop at once."""
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):  # not until empty: other Pods share this loop
            try:
                data, ancillary, _, sender = self._sock.recvmsg(65535, _SPACE)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for an earlier reply
                continue
            answer = udp_answer(self.program, self.who, data, (plain(sender[0]), sender[1]), self.port)
            if answer:
                self._send(answer, ancillary, sender)

    def _send(self, answer: bytes, ancillary: list[tuple[int, int, bytes]], to: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # no route back, or a full queue: a datagram may be lost
            self._sock.sendmsg([answer[:65507]], _reply_from(ancillary), 0, to)


def _reply_from(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The ancillary data that makes a reply leave from the address its question came to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, local, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
            return [(level, kind, _IN_PKTINFO.pack(0, local, b"\0\0\0\0"))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            address, _ = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
            return [(level, kind, _IN6_PKTINFO.pack(address, 0))]
    return []
