"""Shared by the tests of the API server: a registry over the real rules and a store in memory, and objects for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.client.base import Obj
from netemu.model.resources import (
    NAMESPACES,
)
from netemu.store.base import Change, KeyValue, Snapshot, Store
from netemu.testing.store import MemoryStore

NAMESPACE = {"metadata": {"name": "shop"}}
CONFIG = {"metadata": {"name": "c"}, "data": {"a": "1"}}
POD: dict[str, Any] = {
    "metadata": {"name": "p", "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "nginx"}]},
}
SERVICE = {"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
DEPLOYMENT = {
    "metadata": {"name": "d"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD["spec"]},
    },
}


class CountingStore(MemoryStore):
    """Counts who watches it, and who reads from it."""

    watches = reads = 0

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Sequence[Change], None]:
        self.watches += 1
        return super().watch(prefix, after)

    async def list(self, prefix: str) -> Snapshot:
        self.reads += 1
        return await super().list(prefix)

    async def get(self, key: str) -> KeyValue | None:
        self.reads += 1
        return await super().get(key)


@asynccontextmanager
async def serving(store: Store, services: str = "10.96.0.0/16") -> AsyncIterator[Registry]:
    registry = Registry(store, Schema.load(), ServiceAllocator([services]))
    await registry.start()
    try:
        yield registry
    finally:
        await registry.close()


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    memory = MemoryStore()

    yield memory

    await memory.close()


@pytest.fixture
async def registry(store: MemoryStore) -> AsyncIterator[Registry]:
    async with serving(store) as running:
        await running.create(NAMESPACES, NAMESPACE)
        yield running


def named(template: Obj, name: str, **metadata: Any) -> Obj:
    return {**template, "metadata": {**template["metadata"], "name": name, **metadata}}
