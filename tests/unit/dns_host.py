"""A DNS server without sockets: packets go straight to the port that would have read them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

from netemu.client.base import ObjectList
from netemu.dns import chain, corefile, wire
from netemu.dns.metrics import Metrics
from netemu.dns.plugin import Page, Plugin
from netemu.dns.port import Port
from netemu.dns.wire import Message, Query, Response
from netemu.model.resources import ENDPOINTSLICES, NAMESPACES, PODS, SERVICES
from netemu.testing.client import FakeClient
from tests.unit.dns_cluster import NAMESPACES as NAMES
from tests.unit.dns_cluster import PODS as POD_OBJECTS
from tests.unit.dns_cluster import SERVICES as SERVICE_OBJECTS
from tests.unit.dns_cluster import SLICES

LOCAL = ("10.0.9.53",)
"""The address of the server, which `kube-dns` lists as its endpoint."""


async def world() -> FakeClient:
    """An API server that holds the cluster of `dns_cluster`."""
    client = FakeClient()
    for name in NAMES:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
    for resource, items in ((SERVICES, SERVICE_OBJECTS), (ENDPOINTSLICES, SLICES), (PODS, POD_OBJECTS)):
        for item in items:
            await client.create(resource, item, item["metadata"]["namespace"])
    return client


class Silent(FakeClient):
    """An API server that never answers."""

    async def list(self, *args: Any, **options: Any) -> ObjectList:
        """See Client."""
        await asyncio.Event().wait()
        return await super().list(*args, **options)


class Offline:
    """Implements `plugin.Host` for the server blocks of one Corefile; all of it is port 53."""

    corefile: Path | None = None

    def __init__(self, text: str, client: FakeClient) -> None:
        self.metrics = Metrics()
        self.given, self.cause = client, ""
        self.pages: dict[str, Page] = {}
        blocks = corefile.parse(text)
        chains = [(block, chain.build(block, self)[0]) for block in blocks]
        zones = {zone: built for block, built in chains for zone, _ in block.keys}
        self.plugins: list[Plugin] = [plugin for _, built in chains for plugin in built.plugins]
        self.port = Port(zones, self.metrics)

    async def __aenter__(self) -> Offline:
        for plugin in self.plugins:
            await plugin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.port.close()
        for plugin in self.plugins:
            await plugin.close()

    async def ready(self) -> None:
        """Return when every plugin is ready."""
        while self.not_ready():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)

    async def exchange(self, packet: bytes, transport: str = "udp", client: str = "127.0.0.1") -> bytes:
        """The reply to a packet."""
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.port.handle(packet, transport, (client, 4711), lambda data, *_: reply.set_result(data))
        return await reply

    async def ask(self, packet: bytes, transport: str = "udp") -> Message:
        """The reply to a packet, read back."""
        return wire.parse_message(await self.exchange(packet, transport))

    # --- plugin.Host

    async def client(self, credentials: object) -> FakeClient:
        """See Host."""
        return self.given

    async def resolve(self, query: Query, port: int) -> Response:
        """See Host."""
        where = self.port.route(query)
        return await where[1].serve(query) if where else Response(wire.REFUSED, aa=False)

    def local_addresses(self) -> tuple[str, ...]:
        """See Host."""
        return LOCAL

    def invalidate(self, changed: Collection[bytes] | None = None) -> None:
        """See Host."""
        self.port.invalidate(changed)

    def fail(self, cause: str) -> None:
        """See Host."""
        self.cause = cause

    def page(self, address: str, path: str, page: Page) -> None:
        """See Host."""
        self.pages[path] = page

    def say(self, kind: str, reason: str, message: str) -> None:
        """See Host."""

    def not_ready(self) -> list[str]:
        """See Host."""
        return [plugin.name for plugin in self.plugins if not plugin.ready]

    async def reload(self) -> None:
        """See Host."""
