"""An API server on loopback, in clear, and a client that shows status, headers and body."""

from __future__ import annotations

import io
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.bootstrap import bootstrap
from netemu.apiserver.http.reach import Reach
from netemu.apiserver.http.server import ApiServer
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.store.base import Store
from netemu.store.sqlite import SqliteStore

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one"},
    "spec": {"containers": [{"name": "c", "image": "nginx"}]},
}
CONFIGMAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
PODS_URL = "/api/v1/namespaces/default/pods"
CONFIGMAPS_URL = "/api/v1/namespaces/default/configmaps"
SERVICES_URL = "/api/v1/namespaces/default/services"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, its JSON body decoded."""

    status: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON values of the body."""
        return msgspec.json.decode(self.raw)


class Http:
    """Requests to a running server."""

    def __init__(self, session: aiohttp.ClientSession, server: ApiServer, client: LocalClient) -> None:
        self.session, self.server, self.client = session, server, client

    async def __call__(
        self, method: str, path: str, body: Any = None, *, content_type: str = "", accept: str = ""
    ) -> Reply:
        """One request; a body that is not bytes goes as JSON. No Content-Type is sent unless given."""
        raw = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        data = None if raw is None else io.BytesIO(raw)
        headers = {name: value for name, value in (("Content-Type", content_type), ("Accept", accept)) if value}
        skipped = ("Content-Type",)
        async with self.session.request(method, path, data=data, headers=headers, skip_auto_headers=skipped) as answer:
            return Reply(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def serving(folder: Path, store: Store | None = None, reach: Reach | None = None) -> AsyncIterator[Http]:
    """A bootstrapped cluster without controllers."""
    store = store or await SqliteStore.open(folder / "store.db")
    schema = Schema.load()
    registry = Registry(store, schema, ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    server, client = ApiServer(registry, schema, reach=reach), LocalClient(registry)
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        await bootstrap(client, api_address="172.18.0.2", api_port=6443)
        await server.start([listener], None)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Http(session, server, client)
    finally:
        await server.close()
        await registry.close()
        await store.close()
