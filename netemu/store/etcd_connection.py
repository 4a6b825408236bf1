"""Connections to a member of etcd that are kept, for calls: HTTP/1.1 as etcd's gateway speaks it, and no more of it.

Every write of an API server is such a call, so it has to be cheap: a client library for all of HTTP spends on a request
as much as the API server on what the request is about. Here a request is a head that hardly changes and a body, and an
answer comes with its length or in chunks.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from netemu.kernel import netns

_MOST = 64
"""Connections to one member; further calls wait for one of them."""
_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 2.5
"""How long a member may take for an answer before it counts as hung; longer than an election, which is no reason."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes


class Unreachable(Exception):
    """There is no connection to be had, so nothing was asked."""


class Connections:
    """Those to one member. Belongs to the event loop it was made in."""

    def __init__(self, endpoint: str, tls: ssl.SSLContext | None, namespace: str) -> None:
        """See `Gateway`."""
        url = urlsplit(endpoint)
        secure = url.scheme == "https"
        self._host, self._port = url.hostname or "", url.port or (443 if secure else 80)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self._namespace = namespace
        self._head = f" HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        self._room = asyncio.Semaphore(_MOST)
        self._idle: list[_Connection] = []

    async def post(self, path: str, content: bytes) -> Answer:
        """The answer to a call. Raises Unreachable; OSError and EOFError when it was sent and no answer came."""
        request = f"POST {path}{self._head}{len(content)}\r\n\r\n".encode() + content
        async with self._room:
            connection = await self._connection()
            try:
                answer = await connection.ask(request)
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return answer

    async def close(self) -> None:
        """Let go of all that are not in use."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        for connection in idle:
            await connection.closed()

    async def _connection(self) -> _Connection:
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
            connection.close()
        return await self._connected()

    async def _connected(self) -> _Connection:
        """A new one, to the first of the host's addresses that takes it."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(f"{self._host}: {error.strerror}") from error
        problem = ""
        for family, kind, protocol, _, address in found:
            try:
                return await self._over(netns.open_socket(self._namespace, family, kind, protocol), address)
            except OSError as error:
                problem = str(error) or type(error).__name__
        raise Unreachable(f"cannot connect: {problem}")

    async def _over(self, sock: socket.socket, address: Any) -> _Connection:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, address)
            name, patience = (self._host, _ANSWER_SECONDS) if self._tls else (None, None)
            streams = await asyncio.open_connection(
                sock=sock, ssl=self._tls, server_hostname=name, ssl_handshake_timeout=patience
            )
        except BaseException:
            sock.close()
            raise
        return _Connection(*streams)


class _Connection:
    """One of them, which serves one call after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def usable(self) -> bool:
        """Whether the member has not closed it, as far as can be seen."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """Raises OSError, EOFError."""
        self._writer.write(request)
        async with asyncio.timeout(_ANSWER_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await (self._reader.readexactly(int(length[1])) if length else self._chunks())
        return Answer(int(head[9:12]), body)

    async def _chunks(self) -> bytes:
        chunks = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            chunks.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return b"".join(chunks)

    def close(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        """Return when it is closed."""
        with suppress(OSError):
            await self._writer.wait_closed()
