"""Sockets of the server: UDP datagrams and TCP connections in, replies out.

UDP is read straight off the socket, many datagrams per wake-up. The address a question came to travels along
(IP_PKTINFO), because the reply must come from it: resolvers drop replies from elsewhere, and a machine may have
several. TCP follows RFC 7766: any number of questions per connection, at once, answered in any order, closed when idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from netemu.model.errors import UserError

_BATCH = 64
_TRIES = 20
_LARGEST = 65535
_BUFFER = 4 << 20
"""Octets a socket may queue while the loop is busy; the kernel caps it at net.core.rmem_max."""
IDLE = 10.0
"""Seconds after which a silent connection is closed, as CoreDNS does."""
_MOST_WAITING = 100
"""Questions of one connection that may be unanswered before it is read no further."""


class Reply(Protocol):
    """Sends a message to whoever asked, and more messages of the same reply where there are any (TCP only)."""

    def __call__(self, data: bytes, *more: bytes) -> None:
        """An empty message means that nothing is to come."""


Handler = Callable[[bytes, str, tuple[str, int], Reply], None]
"""Called with (packet, `udp` or `tcp`, client, reply). Must not block; `reply` may be called later, or never."""

_IP_PKTINFO = 8


def open_sockets(addresses: tuple[str, ...], port: int) -> list[socket.socket]:
    """UDP and TCP sockets on each address (none: all of both families), all on one port. Raises UserError.

    Port 0 means any that is free on all of them.
    """
    for tries_left in reversed(range(1 if port else _TRIES)):
        try:
            return _open_all(addresses, port)
        except UserError:
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _open_all(addresses: tuple[str, ...], port: int) -> list[socket.socket]:
    wanted = [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in addresses]
    every = not wanted
    found: list[socket.socket] = []
    for family, address in wanted or [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            number = port or (found[0].getsockname()[1] if found else 0)
            try:
                found.append(_open(family, kind, address, number))
            except OSError as error:
                if every and family == socket.AF_INET6 and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue  # no IPv6 here
                for sock in found:
                    sock.close()
                protocol = "udp" if kind == socket.SOCK_DGRAM else "tcp"
                raise UserError(f"cannot listen on {address} {protocol} port {number}: {error.strerror}") from error
    return found


def _open(family: int, kind: int, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


Finished = Callable[[bytes], bytes | None]
"""The whole reply to a packet, if it is known already."""


class UdpListener:
    """Reads one UDP socket. `finished` is asked first and answers without further ado."""

    def __init__(self, sock: socket.socket, handler: Handler, finished: Finished) -> None:
        self._sock, self._handler, self._finished = sock, handler, finished
        self._inet6 = sock.family == socket.AF_INET6
        asyncio.get_running_loop().add_reader(sock, self._read)

    def close(self) -> None:
        """Stop reading and close the socket."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _read(self) -> None:
        receive, send, finished = self._sock.recvmsg, self._sock.sendmsg, self._finished
        for _ in range(_BATCH):
            try:
                data, control, _, client = receive(_LARGEST, 64)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for an earlier reply
            try:
                if (reply := finished(data)) is not None:
                    send((reply,), self._source(control), 0, client)
                    continue
            except OSError:
                continue
            self._handler(data, "udp", client[:2], self._answer(client, control))

    def _answer(self, client: tuple[str, int], control: list[tuple[int, int, bytes]]) -> Reply:
        def reply(data: bytes, *_: bytes) -> None:
            # A full socket loses the reply, as UDP may; the client asks again.
            with contextlib.suppress(OSError):
                self._sock.sendmsg((data,), self._source(control), 0, client)

        return reply

    def _source(self, control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
        """Ancillary data that makes a reply leave from the address its question came to."""
        for level, kind, value in control:
            if not self._inet6 and level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                return [(level, kind, b"\0\0\0\0" + value[8:12] + b"\0\0\0\0")]
            if self._inet6 and level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                # Only link-local addresses mean nothing without their interface.
                interface = value[16:20] if value[0] == 0xFE and value[1] & 0xC0 == 0x80 else b"\0\0\0\0"
                return [(level, kind, value[:16] + interface)]
        return []


class TcpConnection(asyncio.Protocol):
    """One connection: length-prefixed messages both ways."""

    def __init__(self, handler: Handler, connections: set[TcpConnection]) -> None:
        self._handler, self._connections = handler, connections
        self._buffer = bytearray()
        self._waiting = 0
        self._transport: asyncio.Transport | None = None
        self._client = ("", 0)
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._client = (transport.get_extra_info("peername") or ("", 0))[:2]
        self._connections.add(self)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._connections.discard(self)
        if self._idle:
            self._idle.cancel()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._buffer += data
        self._rest()
        self._take()

    def _take(self) -> None:
        """Hand over whole messages while not too many wait."""
        at, buffer = 0, self._buffer
        while self._waiting < _MOST_WAITING and len(buffer) - at >= 2:
            (length,) = struct.unpack_from("!H", buffer, at)
            if len(buffer) - at - 2 < length:
                break
            message = bytes(buffer[at + 2 : at + 2 + length])
            at += 2 + length
            self._waiting += 1
            self._handler(message, "tcp", self._client, self._reply)
        del buffer[:at]
        if self._transport and not self._transport.is_closing():
            (self._transport.pause_reading if self._waiting >= _MOST_WAITING else self._transport.resume_reading)()

    def _reply(self, data: bytes, *more: bytes) -> None:
        """See Reply."""
        self._waiting -= 1
        if self._transport is None or self._transport.is_closing():
            return
        if data:
            for each in (data, *more):
                self._transport.write(struct.pack("!H", len(each)) + each)
            self._rest()
        if self._buffer and self._waiting == _MOST_WAITING - 1:
            asyncio.get_running_loop().call_soon(self._take)

    def _rest(self) -> None:
        """Begin to count idle time anew."""
        if self._idle:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE, self.close)

    def close(self) -> None:
        """End the connection."""
        if self._transport:
            self._transport.close()
