"""Connections to ports of a Pod, carried over one connection of a client (`kubectl port-forward`).

Over SPDY, raw or inside of a WebSocket, each connection is two streams with the same `requestid`: one for its data, one
on which a failure is told. Over WebSocket channels, as the Python clients have it, there is one connection for each
port asked for: channels 2i and 2i+1, each of which begins with the port's number in two bytes, the low one first.
Connections are made from inside the Pod, to its loopback address. Upstream: `pkg/kubelet/cri/streaming/portforward`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from netemu.kernel import netns
from netemu.kubelet.backlog import Backlog
from netemu.kubelet.remote import CHANNEL_PROTOCOLS
from netemu.kubelet.spdy_session import SpdySession, SpdyStream
from netemu.kubelet.streaming import is_websocket, spdy_of
from netemu.model.errors import NetemuError

_PROTOCOL = "portforward.k8s.io"
_TUNNEL = f"SPDY/3.1+{_PROTOCOL}"
_PIECE = 64 * 1024
_GOODBYE = 5.0
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[int], Awaitable[Connection]]
"""Opens a connection to a port. Raises OSError, NetemuError."""


async def dial(namespace: str, port: int) -> Connection:
    """Connect to a port of the loopback address inside a network namespace, IPv4 first. Raises OSError."""
    problem = OSError(f"failed to connect to localhost:{port}")
    for family, host in _LOOPBACKS:
        try:
            with netns.entered(namespace):
                sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # this family is turned off
            problem = error
            continue
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
            return await asyncio.open_connection(sock=sock)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            if family == socket.AF_INET:
                problem = OSError(f"dial tcp4 {host}:{port}: connect: {os.strerror(error.errno or 0).lower()}")
    raise problem


async def serve_port_forward(request: web.Request, connect: Dial, pod: str) -> web.StreamResponse:
    """Answer a request to `/portForward`. Raises HTTPException."""
    if not is_websocket(request):
        response, session, _ = await spdy_of(request, (_PROTOCOL,))
        await _serve_session(session, connect, pod)
        return response
    protocols = (_TUNNEL, *CHANNEL_PROTOCOLS)
    ports = _ports(request)
    ws = web.WebSocketResponse(protocols=protocols, timeout=_GOODBYE, max_msg_size=0)
    await ws.prepare(request)
    if ws.ws_protocol == _TUNNEL:
        await _serve_session(SpdySession(_Tunnel(ws)), connect, pod)
    else:
        await _Channels(ws, ports, pod).serve(connect)
    return ws


def _ports(request: web.Request) -> list[int]:
    ports = request.query.getall("port", [])
    if not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise web.HTTPBadRequest(text=f"port must be between 1 and 65535, got {', '.join(ports)}")
    return [int(port) for port in ports]


def _failed(port: int, pod: str, error: Exception) -> bytes:
    return f"error forwarding port {port} to pod {pod}: {error}".encode()


# --- SPDY


async def _serve_session(session: SpdySession, connect: Dial, pod: str) -> None:
    """Pair the streams of a session up, until the client leaves."""
    waiting: dict[str, SpdyStream] = {}
    pairs: set[asyncio.Task[None]] = set()
    async with session:
        try:
            while (stream := await session.accept()) is not None:
                request = stream.headers.get("requestid", stream.headers.get("port", ""))
                other = waiting.pop(request, None)
                kinds = {stream.headers.get("streamtype"), other.headers.get("streamtype") if other else "data"}
                if other is None and stream.headers.get("streamtype") in ("data", "error"):
                    waiting[request] = stream
                elif other is None or kinds != {"data", "error"}:
                    await stream.reset()
                else:
                    data, error = (stream, other) if stream.headers["streamtype"] == "data" else (other, stream)
                    pair = asyncio.create_task(_forward(session, data, error, connect, pod))
                    pairs.add(pair)
                    pair.add_done_callback(pairs.discard)
        finally:
            left = list(pairs)
            for pair in left:
                pair.cancel()
            await asyncio.gather(*left, return_exceptions=True)


async def _forward(session: SpdySession, data: SpdyStream, error: SpdyStream, connect: Dial, pod: str) -> None:
    port = data.headers.get("port", "")
    number = int(port) if port.isdecimal() else 0
    with contextlib.suppress(ConnectionError):
        try:
            reader, writer = await connect(number)
        except (OSError, OverflowError, NetemuError) as problem:
            await error.write(_failed(number, pod, problem))
        else:
            await _carry(reader, writer, data)
        await data.finish()
        await error.finish()
    session.forget(data, error)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: SpdyStream) -> None:
    """Both ways, until the Pod has sent everything or the client gave the stream up."""
    sending = asyncio.create_task(_send(data.read, writer))
    receiving = asyncio.create_task(_receive(reader, data.write))
    gone = asyncio.create_task(data.reset_by_client.wait())
    try:
        await asyncio.wait([receiving, gone], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, receiving, gone):
            task.cancel()
        await asyncio.gather(sending, receiving, gone, return_exceptions=True)
        writer.close()


async def _send(read: Callable[[], Awaitable[bytes]], writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await read():
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def _receive(reader: asyncio.StreamReader, write: Callable[[bytes], Awaitable[None]]) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            await write(piece)


class _Tunnel:
    """A Duplex inside the binary messages of a WebSocket."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self._ws = ws

    async def read(self) -> bytes:
        while True:
            message = await self._ws.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return b""
            if message.type is WSMsgType.BINARY and message.data:
                data: bytes = message.data
                return data

    async def write(self, data: bytes) -> None:
        await self._ws.send_bytes(data)

    async def close(self) -> None:
        await self._ws.close()


# --- WebSocket channels


class _Channels:
    """One connection for each port, over channels."""

    def __init__(self, ws: web.WebSocketResponse, ports: list[int], pod: str) -> None:
        self._ws, self._ports, self._pod = ws, ports, pod
        self._inputs = [Backlog() for _ in ports]

    async def serve(self, connect: Dial) -> None:
        """Until every connection has ended, or the client leaves."""
        carrying = [asyncio.create_task(self._carry(index, connect)) for index in range(len(self._ports))]
        ends = asyncio.gather(*carrying)
        reading = asyncio.create_task(self._read())
        try:
            either: set[asyncio.Future[Any]] = {ends, reading}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, *carrying):
                task.cancel()
            await asyncio.gather(reading, *carrying, return_exceptions=True)
            with contextlib.suppress(asyncio.CancelledError):
                await ends
            await self._ws.close()

    async def _read(self) -> None:
        async for message in self._ws:
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            if not data or not isinstance(data, bytes):
                continue
            closing = data[0] == 255 and len(data) > 1
            channel = data[1] if closing else data[0]
            if channel % 2 or channel // 2 >= len(self._inputs):
                continue
            if closing:
                await self._inputs[channel // 2].end()
            else:
                await self._inputs[channel // 2].put(data[1:])

    async def _carry(self, index: int, connect: Dial) -> None:
        port = self._ports[index]
        data, error = bytes([2 * index]), bytes([2 * index + 1])
        with contextlib.suppress(ConnectionError):
            for channel in (data, error):
                await self._ws.send_bytes(channel + port.to_bytes(2, "little"))
            try:
                reader, writer = await connect(port)
            except (OSError, NetemuError) as problem:
                await self._ws.send_bytes(error + _failed(port, self._pod, problem))
                return
            sending = asyncio.create_task(_send(self._inputs[index].get, writer))
            try:
                await _receive(reader, lambda piece: self._ws.send_bytes(data + piece))
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                writer.close()
