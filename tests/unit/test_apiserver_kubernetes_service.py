"""Where the API servers are, as Service `kubernetes` tells it: those that live, soon after any other is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from netemu.apiserver.kubernetes_service import EndpointReconciler, publish
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.model.resources import ENDPOINTS, ENDPOINTSLICES, NAMESPACES
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import serving, store

__all__ = ["store"]


class ApiServers:
    """API servers on one store, by their addresses."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._running: dict[str, asyncio.Task[None]] = {}
        self._reconcilers: dict[str, EndpointReconciler] = {}

    def start(self, address: str, registry: Registry) -> None:
        client = LocalClient(registry, "kube-apiserver")
        self._reconcilers[address] = EndpointReconciler(client, registry, self._store, address, 6443)
        self._running[address] = asyncio.create_task(self._reconcilers[address].run())

    async def kill(self, address: str) -> None:
        task = self._running.pop(address)
        task.cancel()
        await asyncio.wait({task})

    async def stop(self, address: str) -> None:
        await self.kill(address)
        await self._reconcilers[address].withdraw()

    async def close(self) -> None:
        for address in list(self._running):
            await self.kill(address)


@asynccontextmanager
async def three(store: MemoryStore) -> AsyncIterator[tuple[ApiServers, Registry]]:
    store.shared = True
    servers = ApiServers(store)
    async with serving(store) as a, serving(store) as b, serving(store) as c:
        await a.create(NAMESPACES, {"metadata": {"name": "default"}})
        for address, registry in (("172.18.0.10", a), ("172.18.0.2", b), ("172.18.0.3", c)):
            servers.start(address, registry)
        await asyncio.sleep(1)
        yield servers, c
        await servers.close()


async def endpoints(registry: Registry) -> list[str]:
    """The addresses, which EndpointSlice and Endpoints tell alike."""
    found = await registry.get(ENDPOINTSLICES, "kubernetes", "default")
    addresses = [endpoint["addresses"][0] for endpoint in found["endpoints"]]
    older = await registry.get(ENDPOINTS, "kubernetes", "default")
    assert [address["ip"] for address in older["subsets"][0]["addresses"]] == addresses
    return addresses


@pytest.mark.looptime
async def test_all_that_live_are_endpoints_in_order(store: MemoryStore, looptime: Any) -> None:
    async with three(store) as (_, registry):
        assert await endpoints(registry) == ["172.18.0.2", "172.18.0.3", "172.18.0.10"]


@pytest.mark.looptime
async def test_one_that_dies_is_gone_when_its_lease_ends(store: MemoryStore, looptime: Any) -> None:
    async with three(store) as (servers, registry):
        await servers.kill("172.18.0.2")
        await asyncio.sleep(4)
        assert "172.18.0.2" in await endpoints(registry)
        await asyncio.sleep(12)

        assert await endpoints(registry) == ["172.18.0.3", "172.18.0.10"]
        await asyncio.sleep(60)
        assert await endpoints(registry) == ["172.18.0.3", "172.18.0.10"]


@pytest.mark.looptime
async def test_one_that_stops_is_gone_at_once(store: MemoryStore, looptime: Any) -> None:
    async with three(store) as (servers, registry):
        await servers.stop("172.18.0.10")

        assert await endpoints(registry) == ["172.18.0.2", "172.18.0.3"]


@pytest.mark.looptime
async def test_what_somebody_else_writes_there_is_put_right(store: MemoryStore, looptime: Any) -> None:
    async with three(store) as (_, registry):
        await publish(LocalClient(registry), ["192.0.2.1"], 6443)
        assert await endpoints(registry) == ["192.0.2.1"]
        await asyncio.sleep(11)

        assert await endpoints(registry) == ["172.18.0.2", "172.18.0.3", "172.18.0.10"]


@pytest.mark.looptime
async def test_the_last_one_leaves_its_endpoint(store: MemoryStore, looptime: Any) -> None:
    async with three(store) as (servers, registry):
        for address in ("172.18.0.2", "172.18.0.3", "172.18.0.10"):
            await servers.stop(address)

        assert await endpoints(registry) == ["172.18.0.10"]
