"""The client of a command, over WebSocket channels or over SPDY streams.

WebSocket (`v5.channel.k8s.io`, `v4...`): each message begins with a byte that names its channel: 0 stdin, 1 stdout,
2 stderr, 3 the final Status, 4 sizes of the terminal; in v5, 255 and a channel's number closes that channel, which is
how standard input ends. SPDY: a stream per channel, named by its header `streamtype`.
Upstream: apimachinery `util/remotecommand` and `util/httpstream/wsstream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiohttp import WSMsgType, web

from netemu.kubelet.backlog import Backlog
from netemu.kubelet.execution import Wanted
from netemu.kubelet.spdy_session import SpdySession, SpdyStream

CHANNEL_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""Of WebSockets, best first. A client that offers none gets the newest that needs nothing of it, v4."""
SPDY_PROTOCOLS: Final = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
"""Of SPDY. Before v4 a failure is told as text; before v3 terminals have no size."""
_STDIN, _ERROR, _RESIZE, _CLOSE = 0, 3, 4, 255
_OUTPUTS: Final = {"stdout": 1, "stderr": 2}
_PATIENCE = 30.0
"""Seconds within which a client must have opened its streams."""


class _Sizes:
    """Sizes of a terminal, as they come."""

    def __init__(self) -> None:
        self._decoder, self._text = json.JSONDecoder(), ""
        self._queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    def feed(self, data: bytes) -> None:
        """A piece of a sequence of `{"Width": COLUMNS, "Height": ROWS}`; what is none is skipped."""
        self._text = (self._text + data.decode(errors="replace")).lstrip()[-1024:]
        while self._text:
            try:
                size, end = self._decoder.raw_decode(self._text)
            except ValueError:
                return
            self._text = self._text[end:].lstrip()
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                self._queue.put_nowait((int(size.get("Width", 0)), int(size.get("Height", 0))))

    async def each(self) -> AsyncIterator[tuple[int, int]]:
        while True:
            yield await self._queue.get()


class ChannelStreams:
    """See `execution.RemoteStreams`; over a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._stdin, self._sizes, self._closed = Backlog(), _Sizes(), asyncio.Event()

    async def __aenter__(self) -> ChannelStreams:
        self._reading = asyncio.create_task(self._read(), name="websocket")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(message.data.encode())
                elif message.type is WSMsgType.BINARY:
                    await self._take(message.data)
        finally:
            self._closed.set()
            await self._stdin.end()

    async def _take(self, message: bytes) -> None:
        if not message:
            return
        channel, data = message[0], message[1:]
        if channel == _STDIN:
            await self._stdin.put(data)
        elif channel == _RESIZE:
            self._sizes.feed(data)
        elif channel == _CLOSE and data == bytes([_STDIN]):
            await self._stdin.end()

    async def read_stdin(self) -> bytes:
        """See RemoteStreams."""
        return await self._stdin.get()

    def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """See RemoteStreams."""
        return self._sizes.each()

    async def write(self, stream: str, data: bytes) -> None:
        """See RemoteStreams."""
        await self._socket.send_bytes(bytes([_OUTPUTS[stream]]) + data)

    async def gone(self) -> None:
        """See RemoteStreams."""
        await self._closed.wait()

    async def finish(self, status: Mapping[str, Any]) -> None:
        """See RemoteStreams."""
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
            await self._socket.close()


class SpdyStreams:
    """See `execution.RemoteStreams`; over a SPDY connection."""

    def __init__(self, session: SpdySession, protocol: str, streams: Mapping[str, SpdyStream]) -> None:
        self._session, self._protocol, self._streams = session, protocol, streams

    @staticmethod
    async def opened(session: SpdySession, protocol: str, wanted: Wanted) -> SpdyStreams | None:
        """Once the client has opened the streams that it asked for; None if it does not."""
        names = {"error"} | {name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name)}
        if wanted.tty and protocol in SPDY_PROTOCOLS[:2]:
            names.add("resize")
        found: dict[str, SpdyStream] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while names - found.keys():
                    stream = await session.accept()
                    if stream is None:
                        return None
                    found[stream.headers.get("streamtype", "")] = stream
                return SpdyStreams(session, protocol, found)
        return None

    async def read_stdin(self) -> bytes:
        """See RemoteStreams."""
        return await self._streams["stdin"].read()

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """See RemoteStreams."""
        sizes = _Sizes()
        if (stream := self._streams.get("resize")) is None:
            return
        reading = asyncio.create_task(self._feed(stream, sizes))
        try:
            async for size in sizes.each():
                yield size
        finally:
            reading.cancel()

    async def _feed(self, stream: SpdyStream, sizes: _Sizes) -> None:
        while data := await stream.read():
            sizes.feed(data)

    async def write(self, stream: str, data: bytes) -> None:
        """See RemoteStreams."""
        await self._streams[stream].write(data)

    async def gone(self) -> None:
        """See RemoteStreams."""
        await self._session.closed.wait()

    async def finish(self, status: Mapping[str, Any]) -> None:
        """See RemoteStreams."""
        with contextlib.suppress(ConnectionError):
            if self._protocol == SPDY_PROTOCOLS[0]:
                await self._streams["error"].write(json.dumps(status).encode())
            elif status["status"] != "Success":
                await self._streams["error"].write(status["message"].encode())
            for stream in self._streams.values():
                await stream.finish()
            await self._session.goodbye()
