"""Questions to another DNS server: one UDP socket that is used again, TCP where that is asked for.

Every question gets an id of its own, drawn at random; a reply counts only with that id, from that server, to that
question.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct

from netemu.dns import wire
from netemu.dns.wire import Message, WireError


class UpstreamError(Exception):
    """No usable reply: refused, timed out, or garbage."""


class Upstream:
    """One server, `address` and `port`."""

    def __init__(self, address: str, port: int = 53) -> None:
        self.address, self.port = address, port
        self._waiting: dict[int, tuple[bytes, asyncio.Future[Message]]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._opening = asyncio.Lock()

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    async def ask(
        self,
        name: bytes,
        qtype: int,
        *,
        tcp: bool,
        timeout: float,
        flags: int = wire.RD,
        edns_size: int = 0,
        do: bool = False,
    ) -> Message:
        """The server's reply. Raises UpstreamError."""
        try:
            async with asyncio.timeout(timeout):
                ident = self._free_id()
                packet = wire.build_query(ident, name, qtype, flags=flags, edns_size=edns_size, do=do)
                question = name.lower() + struct.pack("!HH", qtype, 1)
                return await (self._tcp(packet) if tcp else self._udp(ident, packet, question))
        except TimeoutError as error:
            raise UpstreamError(f"read udp->{self}: i/o timeout" if not tcp else f"tcp {self}: i/o timeout") from error
        except (OSError, WireError, asyncio.IncompleteReadError) as error:
            raise UpstreamError(f"{self}: {error}") from error

    def _free_id(self) -> int:
        while (ident := random.getrandbits(16)) in self._waiting:
            pass
        return ident

    async def _udp(self, ident: int, packet: bytes, question: bytes) -> Message:
        transport = await self._open()
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[ident] = (question, future)
        try:
            transport.sendto(packet)
            return await future
        finally:
            self._waiting.pop(ident, None)

    async def _open(self) -> asyncio.DatagramTransport:
        async with self._opening:
            if self._transport is None or self._transport.is_closing():
                self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Replies(self._waiting), remote_addr=(self.address, self.port)
                )
            return self._transport

    async def _tcp(self, packet: bytes) -> Message:
        reader, writer = await asyncio.open_connection(self.address, self.port)
        try:
            writer.write(struct.pack("!H", len(packet)) + packet)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            message = wire.parse_message(await reader.readexactly(length))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if message.id != int.from_bytes(packet[:2], "big"):
            raise UpstreamError(f"{self}: a reply to another question")
        return message

    def close(self) -> None:
        """Close the socket; whoever waits gets no reply."""
        if self._transport:
            self._transport.abort()
            self._transport = None


class _Replies(asyncio.DatagramProtocol):
    def __init__(self, waiting: dict[int, tuple[bytes, asyncio.Future[Message]]]) -> None:
        self.waiting = waiting

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Hand a reply to whoever asked; drop what nobody asked for."""
        entry = self.waiting.get(int.from_bytes(data[:2], "big"))
        if entry is None:
            return
        try:
            message = wire.parse_message(data)
        except WireError:
            return
        question, future = entry
        if message.flags & wire.QR and message.question.lower() in (question, b"") and not future.done():
            future.set_result(message)

    def error_received(self, exc: Exception) -> None:
        """ICMP says that nobody listens: everything on the way is lost."""
        for _, future in self.waiting.values():
            if not future.done():
                future.set_exception(exc)
