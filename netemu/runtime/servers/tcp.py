"""One TCP port that speaks whatever the client does.

The first bytes decide: the HTTP/2 preface, an HTTP/1 request line, or anything else, which is answered with a line that
says who answers and then echoed. A client that sends nothing and half-closes gets the line too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, cast

from netemu.runtime.servers.answers import greeting, http_answer
from netemu.runtime.servers.http1 import BadMessage, Request, RequestReader, Response, looks_like_http
from netemu.runtime.servers.identity import Identity, plain

if TYPE_CHECKING:
    import ssl

    from netemu.runtime.servers.http2 import Http2Server

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class TcpServer:
    """A listening socket and its connections."""

    def __init__(self, sock: socket.socket, program: str, who: Identity, tls: ssl.SSLContext | None = None) -> None:
        """`sock` is bound and listening; `program` as in `images.Listener`."""
        self.program, self.who, self._tls = program, who, tls
        self.port: int = sock.getsockname()[1]
        self._sock = sock
        self._server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.draining = False
        self._emptied = asyncio.Event()

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), sock=self._sock, backlog=1024, ssl=self._tls)

    async def drain(self, timeout: float) -> None:
        """Close idle connections, let the others finish for `timeout` seconds (meanwhile serve on), then close."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_if_idle()
        if self.connections and timeout > 0:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), timeout)
        self.close()

    def close(self) -> None:
        """Stop at once."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()

    def forget(self, connection: Connection) -> None:
        """Called by a connection that ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._emptied.set()


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: TcpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._client: tuple[str, int] = ("", 0)
        self._first: bytes | None = b""
        """What came so far, until the protocol is known; None from then on."""
        self._reader: RequestReader | None = None
        self._http2: Http2Server | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        self._client = (plain(peer[0]), peer[1])
        self._server.connections.add(self)
        if self._server.program == "serve-hostname-tcp":
            self._transport.write(self._server.who.hostname.encode() + b"\n")
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._server.forget(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._first is not None:
            data = self._sniff(self._first + data)
            if self._first is not None:
                return
        if self._http2 is not None:
            if not self._http2.receive(data):
                self._close()
        elif self._reader is not None:
            self._reader.feed(data)
            self._serve()
        else:
            self._write(data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol."""
        if self._first is not None:
            self._greet()
            self._write(self._first)
        return False  # close once everything is written

    def pause_writing(self) -> None:
        """A client that does not read is not read from either."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._transport is not None:
            self._transport.resume_reading()

    def close_if_idle(self) -> None:
        """Close a connection on which nothing is under way: nothing said yet, or between two requests."""
        waiting = self._first == b""
        between = self._reader is not None and self._reader.empty
        if waiting or between or (self._http2 is not None and self._http2.idle):
            self._close()

    def abort(self) -> None:
        """Close, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _sniff(self, data: bytes) -> bytes:
        """Settle the protocol if `data` is enough to tell (then `_first` is None). Returns what to process."""
        self._first = data
        if _PREFACE.startswith(data[: len(_PREFACE)]):
            if len(data) < len(_PREFACE):
                return b""
            from netemu.runtime.servers.http2 import Http2Server  # h2 costs 30 ms and 4 MB: only where spoken

            self._http2 = Http2Server(self._write, self._answer)
        else:
            http = looks_like_http(data)
            if http is None:
                return b""
            if http:
                self._reader = RequestReader()
            else:
                self._greet()
        self._first = None
        return data

    def _serve(self) -> None:
        assert self._reader is not None
        try:
            while (request := self._reader.next()) is not None:
                close = self._server.draining or not request.keep_alive
                self._write(self._answer(request).encode(head_only=request.method == "HEAD", close=close))
                if close:
                    self._close()
                    return
            if self._reader.expects_continue():
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        except BadMessage as error:
            self._write(Response(400, f"{error}\n".encode()).encode(head_only=False, close=True))
            self._close()

    def _answer(self, request: Request) -> Response:
        return http_answer(self._server.program, self._server.who, request, self._client, self._server.port)

    def _greet(self) -> None:
        self._write(greeting(self._server.who, self._client, self._server.port, "TCP"))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
