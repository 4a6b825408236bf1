"""Connections that leave HTTP behind: both ends of an `Upgrade`.

After the answer 101 a connection carries another protocol (WebSocket, SPDY), in both directions until one end closes.
`accept` is the server's end: aiohttp knows upgrades to WebSocket only, so it is told to hand over whatever follows.
`ask` is the client's: a request written by hand over a connection of its own. Both give a `Duplex`, and `relay` joins
two of them, which is all that a proxy needs to know of what they speak.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from aiohttp import web
from multidict import CIMultiDict

_PIECE = 64 * 1024
_LARGEST_HEAD = 64 * 1024
_LARGEST_REFUSAL = 64 * 1024


class Duplex(Protocol):
    """Bytes in both directions."""

    async def read(self) -> bytes:
        """What has come; empty at the end, whoever made it."""
        ...

    async def write(self, data: bytes) -> None:
        """Send, waiting while the other side is slow. Raises ConnectionError."""
        ...

    async def close(self) -> None:
        """End both directions."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a request for an upgrade; `stream` is there if it agreed, else `body` tells why not."""

    status: int
    headers: CIMultiDict[str]
    body: bytes = b""
    stream: Duplex | None = None


def wants_upgrade(request: web.Request) -> bool:
    """Whether a request asks for another protocol."""
    asked = ",".join(request.headers.getall("Connection", []))
    return any(token.strip().lower() == "upgrade" for token in asked.split(","))


class _Hijacked:
    """The server's end. aiohttp feeds it what comes, as it would feed a reader of WebSocket frames."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request, self._response = request, response
        self._reader = asyncio.StreamReader(_PIECE)
        if (transport := request.transport) is not None:
            self._reader.set_transport(transport)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()

    async def read(self) -> bytes:
        return await self._reader.read(_PIECE)

    async def write(self, data: bytes) -> None:
        await self._response.write(data)

    async def close(self) -> None:
        self._response.force_close()
        if (transport := self._request.transport) is not None:
            transport.close()


async def accept(request: web.Request, headers: Mapping[str, str]) -> tuple[web.StreamResponse, Duplex]:
    """Answer 101 with these headers. The response is what the handler must return when it is done."""
    response = web.StreamResponse(status=101, headers=headers)
    response.force_close()
    stream = _Hijacked(request, response)
    # Before the answer: what the client sends next is no HTTP any more.
    request.protocol.set_parser(cast(Any, stream))
    await response.prepare(request)
    return response, stream


class _Streams:
    """The client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_PIECE)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    headers: Iterable[tuple[str, str]],
) -> Answer:
    """Send a request without a body and read the answer's head. Raises OSError, asyncio.IncompleteReadError."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    writer.write("\r\n".join(lines).encode())
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    named = (line.partition(":") for line in head[1:] if line)
    answered = CIMultiDict((name.strip(), value.strip()) for name, _, value in named)
    if status == 101:
        return Answer(status, answered, stream=_Streams(reader, writer))
    try:
        length = min(int(answered.get("Content-Length", "0")), _LARGEST_REFUSAL)
        body = await reader.readexactly(length)
    finally:
        writer.close()
    return Answer(status, answered, body)


async def relay(one: Duplex, other: Duplex) -> None:
    """Carry bytes both ways until either ends; then both are closed."""
    ways = {asyncio.create_task(_carry(one, other)), asyncio.create_task(_carry(other, one))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        try:  # a client that leaves while the server ends is cancelled twice
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            await asyncio.gather(one.close(), other.close(), return_exceptions=True)


async def _carry(source: Duplex, sink: Duplex) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read():
            await sink.write(data)
