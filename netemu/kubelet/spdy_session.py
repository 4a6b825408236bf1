"""Streams over one SPDY connection, from the side of the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from netemu.client.upgrade import Duplex
from netemu.kubelet import spdy
from netemu.kubelet.backlog import Backlog

log = logging.getLogger(__name__)

_PIECE = 64 * 1024
_GOODBYE = 5.0
"""Seconds that a client gets to read the end and leave."""


class SpdyStream:
    """One stream that the client opened."""

    def __init__(self, number: int, headers: Mapping[str, str], duplex: Duplex) -> None:
        self.number, self.headers, self._duplex = number, headers, duplex
        self.received = Backlog()
        self.reset_by_client = asyncio.Event()
        """Set once the client gave it up."""
        self._ended = False

    async def read(self) -> bytes:
        """What the client sent; empty at the end."""
        return await self.received.get()

    async def write(self, data: bytes) -> None:
        """Send. Raises ConnectionError; after `finish`, nothing is sent."""
        for start in range(0, len(data), _PIECE):
            if not self._ended:
                await self._duplex.write(spdy.data_frame(self.number, data[start : start + _PIECE]))

    async def finish(self) -> None:
        """Nothing more will be sent."""
        if not self._ended:
            self._ended = True
            await self._duplex.write(spdy.data_frame(self.number, b"", ended=True))

    async def reset(self) -> None:
        """Give it up, in both directions."""
        self._ended = True
        await self.received.end()
        await self._duplex.write(spdy.rst_stream(self.number))


class SpdySession:
    """Reads a connection until it ends."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._streams: dict[int, SpdyStream] = {}
        self._opened: asyncio.Queue[SpdyStream | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        """Set once the connection is of no use any more."""

    async def __aenter__(self) -> SpdySession:
        self._reading = asyncio.create_task(self._read(), name="spdy")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._duplex.close()

    async def accept(self) -> SpdyStream | None:
        """The next stream that the client opens; None when there will be none."""
        return await self._opened.get()

    def forget(self, *streams: SpdyStream) -> None:
        """They are done with."""
        for stream in streams:
            self._streams.pop(stream.number, None)

    async def goodbye(self) -> None:
        """Say that no more streams are taken, and let the client leave first, so that it has read everything."""
        with contextlib.suppress(OSError, TimeoutError):
            await self._duplex.write(spdy.goaway(max(self._streams, default=0)))
            await asyncio.wait_for(self.closed.wait(), _GOODBYE)

    async def _read(self) -> None:
        try:
            while data := await self._duplex.read():
                for event in self._decoder.feed(data):
                    await self._handle(event)
        except spdy.SpdyError as error:
            log.info("a connection is closed: %s", error)
        except OSError:
            pass
        finally:
            self.closed.set()
            self._opened.put_nowait(None)
            for stream in self._streams.values():
                await stream.received.end()

    async def _handle(self, event: spdy.Event) -> None:
        if isinstance(event, spdy.Pinged):
            await self._duplex.write(event.frame)
        elif isinstance(event, spdy.Opened):
            stream = self._streams[event.stream] = SpdyStream(event.stream, event.headers, self._duplex)
            await self._duplex.write(self._encoder.syn_reply(event.stream))
            if event.ended:
                await stream.received.end()
            self._opened.put_nowait(stream)
        elif isinstance(event, spdy.Received) and (known := self._streams.get(event.stream)):
            await known.received.put(event.data)
            if event.ended:
                await known.received.end()
        elif isinstance(event, spdy.Reset) and (gone := self._streams.pop(event.stream, None)):
            gone.reset_by_client.set()
            await gone.received.end()
