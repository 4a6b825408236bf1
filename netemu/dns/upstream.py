"""Questions to another DNS server: one UDP socket that is used again, TCP connections that are kept for the next one.

Every question gets an id of its own, drawn at random; replies with another id, or from another address, are dropped.
A reply under the right id counts whatever it says: whether it is about the question is the asker's to check. Bytes that
are no message end the wait at once. Source of behaviour: `coredns/plugin/pkg/proxy`.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from netemu.dns import wire
from netemu.dns.wire import Message, WireError
from netemu.model.hosts import endpoint_text


class UpstreamError(Exception):
    """No usable reply: refused, timed out, or garbage."""


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Upstream:
    """One server, `address` and `port`. Sockets that nobody used for `expire` seconds are not used again."""

    def __init__(self, address: str, port: int = 53, *, expire: float = 10.0) -> None:
        self.address, self.port, self.expire = address, port, expire
        self.on_socket: Callable[[str, bool], None] = lambda _, __: None
        """Told of each question's protocol, and whether a socket was at hand."""
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._used = 0.0
        self._opening = asyncio.Lock()
        self._idle: list[tuple[float, _Connection]] = []

    def __str__(self) -> str:
        return endpoint_text(self.address, self.port)

    async def ask(
        self,
        name: bytes,
        qtype: int,
        *,
        tcp: bool,
        timeout: float,
        cls: int = 1,
        flags: int = wire.RD,
        edns_size: int = 0,
        do: bool = False,
        options: bytes = b"",
    ) -> Message:
        """The server's reply. Raises UpstreamError."""
        protocol = "tcp" if tcp else "udp"
        try:
            async with asyncio.timeout(timeout):
                ident = self._free_id()
                packet = wire.build_query(
                    ident, name, qtype, cls=cls, flags=flags, edns_size=edns_size, do=do, options=options
                )
                return await (self._tcp(packet) if tcp else self._udp(ident, packet))
        except TimeoutError as error:
            raise UpstreamError(f"read {protocol} {self}: i/o timeout") from error
        except (OSError, WireError, asyncio.IncompleteReadError) as error:
            raise UpstreamError(f"{protocol} {self}: {error}") from error

    def _free_id(self) -> int:
        while (ident := random.getrandbits(16)) in self._waiting:
            pass
        return ident

    async def _udp(self, ident: int, packet: bytes) -> Message:
        transport = await self._open()
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[ident] = future
        try:
            transport.sendto(packet)
            return await future
        finally:
            self._waiting.pop(ident, None)

    async def _open(self) -> asyncio.DatagramTransport:
        async with self._opening:
            now = time.monotonic()
            if self._transport and not self._waiting and now - self._used >= self.expire:
                self._transport.abort()  # as CoreDNS: translations along the way do not live for ever either
            self._used = now
            at_hand = self._transport is not None and not self._transport.is_closing()
            self.on_socket("udp", at_hand)
            if self._transport is None or not at_hand:
                self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Replies(self._waiting), remote_addr=(self.address, self.port)
                )
            return self._transport

    async def _tcp(self, packet: bytes) -> Message:
        while connection := self._at_hand():
            self.on_socket("tcp", True)
            try:
                return await self._over(connection, packet)
            except (asyncio.IncompleteReadError, ConnectionError):
                continue  # the server closed it while it was idle; that says nothing about the question
        self.on_socket("tcp", False)
        return await self._over(_Connection(*await asyncio.open_connection(self.address, self.port)), packet)

    def _at_hand(self) -> _Connection | None:
        """An idle connection, the one used last."""
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < self.expire and not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return None

    async def _over(self, connection: _Connection, packet: bytes) -> Message:
        reader, writer = connection
        try:
            writer.write(struct.pack("!H", len(packet)) + packet)
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                message = wire.parse_message(await reader.readexactly(length))
                if message.id == int.from_bytes(packet[:2], "big"):
                    break
        except BaseException:
            writer.close()  # what comes next on it would be a reply to this question
            raise
        self._idle.append((time.monotonic(), connection))
        return message

    def close(self) -> None:
        """Close all sockets; whoever waits gets no reply."""
        if self._transport:
            self._transport.abort()
            self._transport = None
        for _, connection in self._idle:
            connection.writer.close()
        self._idle.clear()


class _Replies(asyncio.DatagramProtocol):
    def __init__(self, waiting: dict[int, asyncio.Future[Message]]) -> None:
        self.waiting = waiting

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Hand a reply to whoever asked; drop what nobody asked for."""
        future = self.waiting.get(int.from_bytes(data[:2], "big"))
        if future is None or future.done() or len(data) < 12:
            return
        try:
            future.set_result(wire.parse_message(data))
        except WireError as error:
            future.set_exception(error)

    def error_received(self, exc: Exception) -> None:
        """ICMP says that nobody listens: everything on the way is lost."""
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(exc)


def about(message: Message, name: bytes, qtype: int) -> bool:
    """Whether a message is a reply to the question of that lower-case name and that type."""
    question = message.question
    asked = question[:-4].lower() == name and question[-4:-2] == qtype.to_bytes(2, "big")
    return bool(message.flags & wire.QR and asked)


def nameservers(text: str) -> list[str]:
    """The addresses that a resolv.conf file names, zones of link-local ones left out."""
    words = [line.split() for line in text.splitlines()]
    return [line[1].split("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver"]
