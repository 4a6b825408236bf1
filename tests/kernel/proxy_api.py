"""An API server as small as kube-proxy can do with: plain http, JSON, lists and watches; and able to misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable

import msgspec
from aiohttp import web

from netemu.client.base import Obj
from netemu.model.meta import KubeObject
from netemu.model.objects import EndpointSlice, Node, Service

PATHS = {
    Service: "/api/v1/services",
    EndpointSlice: "/apis/discovery.k8s.io/v1/endpointslices",
    Node: "/api/v1/nodes",
}
TROUBLES = ("away", "410", "garbage", "half a line")


class PlainServer:
    """Serves what was `put`; what else is asked for is 404. `listener` makes the socket to listen on."""

    def __init__(self, listener: Callable[[], socket.socket], *objects: KubeObject) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.posted: list[Obj] = []
        self.trouble = ""
        self._listener, self._revision = listener, 4
        self._held: dict[str, dict[str, Obj]] = {path: {} for path in PATHS.values()}
        self._watches: set[asyncio.Event] = set()
        self._runner: web.AppRunner | None = None
        for obj in objects:
            self.put(obj)

    def put(self, obj: KubeObject) -> None:
        """Add or replace; watchers hear of it."""
        self._revision += 1
        body = msgspec.to_builtins(obj)
        body["metadata"]["resourceVersion"] = str(self._revision)
        self._held[PATHS[type(obj)]][obj.key] = body
        self._wake()

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener()).start()

    async def stop(self) -> None:
        """End every connection; nobody listens any more."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def begin(self, trouble: str) -> None:
        """One of TROUBLES, for every watch that is open and every request from now on."""
        self.trouble = trouble
        if trouble == "away":
            await self.stop()
        self._wake()

    async def end(self) -> None:
        """All is well again; whoever watches is told what came meanwhile."""
        if self.trouble == "away":
            await self.start()
        self.trouble = ""
        self._wake()

    def _wake(self) -> None:
        for watch in self._watches:
            watch.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.query)))
        if request.method == "POST":
            self.posted.append(await request.json())
            return web.json_response(self.posted[-1], status=201)
        held = self._held.get(request.path)
        if held is None:
            return web.json_response({"kind": "Status", "status": "Failure", "code": 404}, status=404)
        if self.trouble == "garbage":
            return web.Response(text="<html>Bad gateway</html>", content_type="application/json")
        if "watch" in request.query:
            return await self._watch(request, held)
        return web.json_response({"metadata": {"resourceVersion": str(self._revision)}, "items": list(held.values())})

    async def _watch(self, request: web.Request, held: dict[str, Obj]) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        seen, changed = int(request.query.get("resourceVersion") or 0), asyncio.Event()
        self._watches.add(changed)
        try:
            while True:
                if self.trouble and self._revision > seen:
                    await stream.write(_spoilt(self.trouble))
                    return stream
                fresh = [obj for obj in held.values() if int(obj["metadata"]["resourceVersion"]) > seen]
                for obj in fresh:
                    await stream.write(json.dumps({"type": "MODIFIED", "object": obj}).encode() + b"\n")
                seen = self._revision
                changed.clear()
                await changed.wait()
        finally:
            self._watches.discard(changed)


def _spoilt(trouble: str) -> bytes:
    gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}
    return {
        "410": json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n",
        "garbage": b"<html>Bad gateway</html>\n",
        "half a line": b'{"type": "MODIFIED", "object": {"metadata": {"na',
    }.get(trouble, b"")
