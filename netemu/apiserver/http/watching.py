"""Watch streams: one JSON line per event until the timeout, the client or the server ends it.

The registry makes the line of a change once for all watchers; only watchers that want tables or metadata cost an
encoding of their own. A failure of the stream itself (history compacted) is sent as an ERROR event inside the 200
answer, as upstream does. Without `timeoutSeconds` a watch lives 30 to 60 minutes, chosen at random so that clients do
not come back all at once.

A client that takes nothing for a minute loses its connection. Its events do not wait that long (`watchcache` cuts off a
watcher that does not keep up), but nothing else of it should stay either.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from netemu.apiserver.http.negotiation import Form
from netemu.apiserver.tables.table import partial_metadata, table
from netemu.client.base import Obj
from netemu.model.errors import ApiError
from netemu.model.resources import Resource

if TYPE_CHECKING:
    from netemu.apiserver.registry import RegistryEvent

_MIN_SECONDS = 1800
_PATIENCE = 60.0
"""Seconds in which a client must take something of what is sent to it."""
_AT_ONCE = 32768
"""Bytes that a connection takes without waiting, if nothing else waits there: half of what asyncio buffers."""


def timeout_of(seconds: int) -> float:
    """How long a watch may last."""
    return float(seconds) if seconds > 0 else random.uniform(_MIN_SECONDS, 2 * _MIN_SECONDS)


class Watches:
    """The open watches of a server. `close` ends them at once, each with a proper end of stream."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._tasks)

    def close(self) -> None:
        """End all of them, and every later one as it begins."""
        self._closing = True
        self.end()

    def end(self) -> None:
        """End all of them, so that their clients begin again, here or at another server."""
        self._ended |= self._tasks
        for task in self._tasks:
            task.cancel()

    async def serve(
        self,
        request: web.Request,
        events: AsyncGenerator[RegistryEvent, None],
        encode: Callable[[RegistryEvent], bytes],
    ) -> web.StreamResponse:
        """Answer a request with a stream of events."""
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # The generator must be closed wherever this ends, or its queue goes on filling.
            async with aclosing(events) as stream:
                await response.prepare(request)
                await self._copy(stream, response, encode, request.transport)
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            response.force_close()
        except ConnectionError:
            pass  # the client left between two events
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._tasks.discard(task)
            self._ended.discard(task)
        return response

    async def _copy(
        self,
        stream: AsyncGenerator[RegistryEvent, None],
        response: web.StreamResponse,
        encode: Callable[[RegistryEvent], bytes],
        transport: asyncio.Transport | None,
    ) -> None:
        if self._closing or transport is None:
            return
        try:
            async for event in stream:
                data = encode(event)
                # A timer costs as much as the rest, and hardly any client needs one.
                waits = transport.get_write_buffer_size() or len(data) > _AT_ONCE
                async with asyncio.timeout(_PATIENCE) if waits else nullcontext():
                    await response.write(data)
        except ApiError as error:
            await response.write(line("ERROR", error.status()))


def line(kind: str, obj: Obj) -> bytes:
    """One event as it goes over the wire."""
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def encoder(form: Form, resource: Resource, include: str) -> Callable[[RegistryEvent], bytes]:
    """What makes the line of an event in the form that the client accepts."""
    if form == "object":
        return lambda event: event.line
    if form == "metadata":
        return lambda event: line(event.type, partial_metadata(event.object))
    first = True

    def as_table(event: RegistryEvent) -> bytes:
        nonlocal first
        columns, first = first, False
        version = {"resourceVersion": event.object["metadata"].get("resourceVersion", "")}
        # A bookmark is a table without rows whose metadata holds the revision.
        objects = [] if event.type == "BOOKMARK" else [event.object]
        return line(event.type, table(resource, objects, version, include, columns=columns))

    return as_table
