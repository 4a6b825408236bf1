"""What the benches that need an API server share: one handler on a port of a network namespace."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from netemu.kernel import netns

API_PORT = 8001


@contextlib.asynccontextmanager
async def served(answer: Callable[[web.Request], Awaitable[web.StreamResponse]], namespace: str) -> AsyncIterator[None]:
    """Every GET is answered by `answer`, in the namespace, on its 127.0.0.1:8001."""
    with netns.entered(namespace):
        listener = socket.create_server(("127.0.0.1", API_PORT))
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield
    finally:
        await runner.cleanup()
