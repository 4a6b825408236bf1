"""Requests of a kubelet's API that become streams: what a client offers, what it gets, and who carries on from there.

Upstream's streaming servers take SPDY and WebSockets alike; which one a client speaks, its first request tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from netemu.client.upgrade import accept
from netemu.kernel.inside import Stdio
from netemu.kernel.pidfd import Process
from netemu.kubelet.container_logs import entries
from netemu.kubelet.execution import SUCCESS, RemoteStreams, Session, Wanted, execute, write_all
from netemu.kubelet.remote import CHANNEL_PROTOCOLS, SPDY_PROTOCOLS, ChannelStreams, SpdyStreams
from netemu.kubelet.spdy_session import SpdySession
from netemu.runtime.cri import ContainerState, ContainerStatus

_SPDY = "SPDY/3.1"
_PROTOCOL_HEADER = "X-Stream-Protocol-Version"
_GOODBYE = 5.0


async def serve_command(
    request: web.Request,
    wanted: Wanted,
    start: Callable[[Stdio], Awaitable[Process]],
    session: Session | None = None,
) -> web.StreamResponse:
    """Answer a request to `/exec`, or to `/attach` where a command begins with it. Raises HTTPException."""
    response, client = await _client_of(request, wanted)
    async with client as streams:
        if streams is not None:
            await execute(start, wanted, streams, session)
    return response


async def serve_attach(
    request: web.Request,
    wanted: Wanted,
    log: Path | None,
    pipe: Path | None,
    status: Callable[[], Awaitable[ContainerStatus | None]],
) -> web.StreamResponse:
    """Answer a request to `/attach`: what a container writes to its log, until it ends. Raises HTTPException.

    What the client sends goes into the `pipe` that the container reads from, if it has one.
    """
    position = log.stat().st_size if log is not None and log.exists() else 0
    response, client = await _client_of(request, wanted)
    async with client as streams:
        if streams is None:
            return response
        following = asyncio.create_task(_follow(log, position, wanted, status, streams))
        leaving = asyncio.create_task(streams.gone())
        tasks = [following, leaving]
        if wanted.stdin and pipe is not None:
            tasks.append(asyncio.create_task(_feed(pipe, streams)))
        try:
            await asyncio.wait([following, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return response


async def _feed(pipe: Path, client: RemoteStreams) -> None:
    with contextlib.suppress(OSError):  # the container has ended
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while data := await client.read_stdin():
                await write_all(fd, data)
        finally:
            os.close(fd)


async def _follow(
    log: Path | None,
    position: int,
    wanted: Wanted,
    status: Callable[[], Awaitable[ContainerStatus | None]],
    client: RemoteStreams,
) -> None:
    async def running() -> bool:
        now = await status()
        return now is not None and now.state is not ContainerState.EXITED

    if log is not None and log.exists():
        async for entry in entries(log, position, running):
            if entry is not None and getattr(wanted, entry.stream):
                await client.write(entry.stream, entry.output)
    await client.finish(SUCCESS)


async def _client_of(
    request: web.Request, wanted: Wanted
) -> tuple[web.StreamResponse, contextlib.AbstractAsyncContextManager[RemoteStreams | None]]:
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr")
    if is_websocket(request):
        socket = web.WebSocketResponse(protocols=CHANNEL_PROTOCOLS, timeout=_GOODBYE, max_msg_size=0)
        await socket.prepare(request)
        return socket, ChannelStreams(socket)
    response, session, protocol = await spdy_of(request, SPDY_PROTOCOLS)

    @contextlib.asynccontextmanager
    async def streams() -> AsyncIterator[RemoteStreams | None]:
        async with session:
            yield await SpdyStreams.opened(session, protocol, wanted)

    return response, streams()


def is_websocket(request: web.Request) -> bool:
    """Whether a request asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def spdy_of(request: web.Request, known: Sequence[str]) -> tuple[web.StreamResponse, SpdySession, str]:
    """Agree to SPDY, in the first of the `known` protocols that the client offers. Raises HTTPException."""
    if request.headers.get("Upgrade", "").lower() != _SPDY.lower():
        raise web.HTTPBadRequest(text="Upgrade request required")
    offered = ",".join(request.headers.getall(_PROTOCOL_HEADER, [])).split(",")
    offers = {one.strip() for one in offered}
    protocol = next((one for one in known if one in offers), "" if offers != {""} else known[-1])
    if not protocol:
        raise web.HTTPForbidden(text=f"unable to negotiate protocol: client supports {sorted(offers)}, server {known}")
    headers = {"Connection": "Upgrade", "Upgrade": _SPDY, _PROTOCOL_HEADER: protocol}
    response, duplex = await accept(request, headers)
    return response, SpdySession(duplex), protocol
