"""Sockets of the server: UDP datagrams and TCP connections in, replies out.

UDP is read many datagrams at a time (`datagrams.py`). TCP follows RFC 7766: any number of questions per connection, at
once, answered in any order, closed when idle. Both look among the finished replies first and hand over only what is
not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from netemu.dns.datagrams import QUESTION, REPLY, SLOTS, Batch, Envelope, want_destination
from netemu.dns.finished import Finished, FinishedReplies
from netemu.model.errors import UserError

_BATCHES = 4
"""Batches of datagrams that are read before others have their turn."""
_TRIES = 20
_BUFFER = 4 << 20
"""Octets a socket may queue while the loop is busy; the kernel caps it at net.core.rmem_max."""
IDLE = 10.0
"""Seconds after which a silent connection is closed, as CoreDNS does."""
_MOST_WAITING = 100
"""Questions of one connection that may be unanswered before it is read no further."""
_TOGETHER = 65536
"""Octets of replies that are written at once."""
MOST_CONNECTIONS = 1000
"""Connections that are open at once; a process may usually have 1024 files."""


class Reply(Protocol):
    """Sends a message to whoever asked, and more messages of the same reply where there are any (TCP only)."""

    def __call__(self, data: bytes, *more: bytes) -> None:
        """An empty message means that nothing is to come."""


Handler = Callable[[bytes, str, tuple[str, int], Reply], None]
"""Called with (packet, `udp` or `tcp`, client, reply). Must not block; `reply` may be called later, or never."""

FinishedFor = Callable[[tuple[str, int]], FinishedReplies]
"""The finished replies for a TCP client."""


class ListenError(UserError):
    """A socket could not be opened on `address`, empty for all."""

    def __init__(self, why: str, address: str) -> None:
        super().__init__(why)
        self.address = address


def open_sockets(addresses: tuple[str, ...], port: int) -> list[socket.socket]:
    """UDP and TCP sockets on each address (empty, or none at all: all of both families), all on one port.

    Port 0 means any that is free on all of them. Beside those of all addresses the kernel prefers an address's own.
    Raises ListenError.
    """
    for tries_left in reversed(range(1 if port else _TRIES)):
        try:
            return _open_all(addresses, port)
        except UserError:
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _open_all(addresses: tuple[str, ...], port: int) -> list[socket.socket]:
    shared = "" in addresses and len(addresses) > 1
    found: list[socket.socket] = []
    for family, address, every in _places(addresses or ("",)):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            number = port or (found[0].getsockname()[1] if found else 0)
            try:
                found.append(_open(family, kind, address, number, shared=shared))
            except OSError as error:
                if every and family == socket.AF_INET6 and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue  # no IPv6 here
                for sock in found:
                    sock.close()
                protocol = "udp" if kind == socket.SOCK_DGRAM else "tcp"
                why = f"cannot listen on {address} {protocol} port {number}: {error.strerror}"
                raise ListenError(why, "" if every else address) from error
    return found


def _places(addresses: tuple[str, ...]) -> Iterator[tuple[int, str, bool]]:
    """(family, address, whether it stands for all)."""
    for address in addresses:
        if address:
            yield socket.AF_INET6 if ":" in address else socket.AF_INET, address, False
        else:
            yield socket.AF_INET, "0.0.0.0", True
            yield socket.AF_INET6, "::", True


def _open(family: int, kind: int, address: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            want_destination(sock)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


class UdpListener:
    """Reads one UDP socket. What is in `finished` is answered without further ado."""

    def __init__(self, sock: socket.socket, handler: Handler, finished: FinishedReplies) -> None:
        self._sock, self._handler, self._finished = sock, handler, finished
        self._batch = Batch(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read)

    def close(self) -> None:
        """Stop reading."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _read(self) -> None:
        for _ in range(_BATCHES):
            began = time.perf_counter()
            try:
                lengths = self._batch.receive()
            except OSError:
                continue  # an ICMP error for an earlier reply
            if lengths:
                self._answer(lengths, began)
            if len(lengths) < SLOTS:
                return

    def _answer(self, lengths: list[int], began: float) -> None:
        """Answer a batch: slots without a reply at once are left out of what is sent."""
        batch, known = self._batch, self._finished.by_packet.get
        octets, put = batch.octets(len(lengths)), batch.put
        now = time.monotonic()
        first = at = hits = 0
        last: Finished | None = None
        for slot, length in enumerate(lengths):
            found = known(octets[at + 2 : at + length])
            if found is not None and found.until > now and not found.era.over and len(found.body) <= REPLY:
                found.hits += 1
                hits += 1
                last = found
                put(slot, found.next_body())
            elif not self._ask(slot, octets[at : at + length]):
                batch.send(first, slot)
                first = slot + 1
            at += QUESTION
        batch.send(first, len(lengths))
        if last is not None:
            # All of them waited for the whole batch; zones other than the last one's are not worth telling apart here.
            last.series.durations.add(time.perf_counter() - began, hits)

    def _ask(self, slot: int, packet: bytes) -> bool:
        """Have a question answered. Returns whether the reply stands in its slot already."""
        reply = _SlotReply(self._sock, self._batch, slot)
        self._handler(packet, "udp", self._batch.client(slot), reply)
        return reply.leave_slot()


class _SlotReply:
    """Sends a reply through its question's slot, or, once the slot belongs to another, by itself."""

    __slots__ = ("_batch", "_envelope", "_filled", "_slot", "_sock")

    def __init__(self, sock: socket.socket, batch: Batch, slot: int) -> None:
        self._sock, self._batch, self._slot = sock, batch, slot
        self._filled = False
        self._envelope: Envelope | None = None

    def leave_slot(self) -> bool:
        """The handler has returned. Whether the slot holds a reply; if not, what a later one needs is copied."""
        if not self._filled and self._envelope is None:
            self._envelope = self._batch.envelope(self._slot)
        return self._filled

    def __call__(self, data: bytes, *_: bytes) -> None:
        """See Reply."""
        if self._envelope is None and len(data) - 2 <= REPLY:
            self._batch.put(self._slot, data[2:])
            self._filled = True
            return
        control, client = self._envelope = self._envelope or self._batch.envelope(self._slot)
        # A full socket loses the reply, as UDP may; the client asks again.
        with contextlib.suppress(OSError):
            self._sock.sendmsg((data,), control, 0, client)


class TcpConnection(asyncio.Protocol):
    """One connection: length-prefixed messages both ways. Replies to what arrived together leave together."""

    def __init__(self, handler: Handler, connections: Connections, finished: FinishedFor) -> None:
        self._handler, self._connections, self._finished_for = handler, connections, finished
        self._finished = FinishedReplies()
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._out_size = self._unsent = 0
        self._waiting = 0
        self._taking = self._clogged = False
        self._transport: asyncio.Transport | None = None
        self._client = ("", 0)
        self.active = 0.0
        """When something last came or went."""
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._client = (transport.get_extra_info("peername") or ("", 0))[:2]
        self._finished = self._finished_for(self._client)
        self.active = time.monotonic()
        self._connections.add(self)
        self._idle = asyncio.get_running_loop().call_later(IDLE, self._rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._connections.discard(self)
        if self._idle:
            self._idle.cancel()
        self._transport = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol: a client that does not read its replies may ask no more."""
        self._clogged = True
        if self._transport:
            self._unsent = self._transport.get_write_buffer_size()
        self._listen()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._clogged = False
        self.active = time.monotonic()
        self._take()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._buffer += data
        self.active = time.monotonic()
        self._take()

    def _take(self) -> None:
        """Answer whole messages while not too many wait."""
        began = time.perf_counter()
        now, at, hits, octets = time.monotonic(), 0, 0, bytes(self._buffer)
        known, last = self._finished.by_packet.get, None
        self._taking = True
        while self._waiting < _MOST_WAITING and not self._clogged and len(octets) - at >= 2:
            end = at + 2 + (octets[at] << 8 | octets[at + 1])
            if len(octets) < end:
                break
            found = known(octets[at + 4 : end])
            if found is not None and found.until > now and not found.era.over:
                found.hits += 1
                hits += 1
                last = found
                body = found.next_body()
                self._send(octets[at + 2 : at + 4] + body)
            else:
                self._waiting += 1
                self._handler(octets[at + 2 : end], "tcp", self._client, self._reply)
            at = end
        self._taking = False
        del self._buffer[:at]
        self._flush()
        if last is not None:
            last.series.durations.add(time.perf_counter() - began, hits)
        self._listen()

    def _listen(self) -> None:
        """Read on, or not for now."""
        if self._transport and not self._transport.is_closing():
            pause = self._clogged or self._waiting >= _MOST_WAITING
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def _reply(self, data: bytes, *more: bytes) -> None:
        """See Reply."""
        self._waiting -= 1
        if data:
            for each in (data, *more):
                self._send(each)
        if self._taking:
            return
        self._flush()
        self.active = time.monotonic()
        if self._buffer and self._waiting == _MOST_WAITING - 1:
            asyncio.get_running_loop().call_soon(self._take)

    def _send(self, message: bytes) -> None:
        self._out += (len(message).to_bytes(2, "big"), message)
        self._out_size += len(message)
        if self._out_size > _TOGETHER:
            self._flush()  # and hear at once if that is more than the client takes

    def _flush(self) -> None:
        if self._out and self._transport and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_size = 0

    def _rest(self) -> None:
        """Close if nothing has come or gone for long enough, else look again when it may be so."""
        if self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self.active = time.monotonic()  # slow, but it reads
        self._unsent = unsent
        left = self.active + IDLE - time.monotonic()
        if left > 0:
            self._idle = asyncio.get_running_loop().call_later(left, self._rest)
        else:
            # Not close(): a client that reads nothing would hold it open with what is still to be sent.
            self._transport.abort() if unsent else self._transport.close()

    def close(self) -> None:
        """End the connection."""
        if self._transport:
            self._transport.close()


class Connections(set[TcpConnection]):
    """Open connections. When there are too many, the one that has been silent longest makes room."""

    def add(self, connection: TcpConnection) -> None:
        """Admit a connection."""
        if len(self) >= MOST_CONNECTIONS:
            oldest = min(self, key=lambda each: each.active)
            self.discard(oldest)
            oldest.close()
        super().add(connection)
