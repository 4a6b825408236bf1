"""An API server that is not alone on its store: what another one wrote a moment ago counts here too."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from netemu.apiserver.keys import key_of
from netemu.apiserver.registry import Registry
from netemu.apiserver.watchcache import stored
from netemu.client.base import Obj
from netemu.model.errors import AlreadyExists, Expired, NotFound, ServiceUnavailable
from netemu.model.resources import CONFIGMAPS
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import CONFIG, named, registry, store

__all__ = ["registry", "store"]


@pytest.fixture
def shared(store: MemoryStore, registry: Registry) -> MemoryStore:
    """The store of `registry`, which hears of nothing new until it is let go."""
    store.shared = True
    store.hold()
    return store


async def elsewhere(store: MemoryStore, name: str, value: str) -> int:
    """Another API server creates or changes a ConfigMap; the revision."""
    key = key_of(CONFIGMAPS, "shop", name)
    obj = {**named(CONFIG, name, namespace="shop", uid=f"uid-{name}"), "data": {"a": value}}
    whole = stored({"apiVersion": "v1", "kind": "ConfigMap", **obj})
    return await (store.update(key, whole) if await store.get(key) else store.create(key, whole))


async def told(shared: MemoryStore, request: Coroutine[Any, Any, Any]) -> Any:
    """What comes of a request that is not answered before the store has told all."""
    task = asyncio.create_task(request)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    shared.let_go()
    return await task


async def test_a_read_shows_what_another_server_has_acknowledged(registry: Registry, shared: MemoryStore) -> None:
    await elsewhere(shared, "new", "2")

    found = await told(shared, registry.get(CONFIGMAPS, "new", "shop"))

    assert found["data"] == {"a": "2"}


async def test_a_list_not_older_than_a_revision_waits_for_it(registry: Registry, shared: MemoryStore) -> None:
    revision = await elsewhere(shared, "new", "2")

    page = await told(shared, registry.list(CONFIGMAPS, "shop", resource_version=str(revision)))

    assert [item["metadata"]["name"] for item in page.items] == ["new"]


async def test_whatever_is_here_is_told_at_once(registry: Registry, shared: MemoryStore) -> None:
    await elsewhere(shared, "new", "2")

    assert (await registry.list(CONFIGMAPS, "shop", resource_version="0")).items == []


async def test_a_watch_goes_on_after_a_revision_that_another_server_gave(
    registry: Registry, shared: MemoryStore
) -> None:
    revision = await elsewhere(shared, "a", "1")
    await elsewhere(shared, "b", "1")
    stream = registry.watch(CONFIGMAPS, "shop", resource_version=str(revision))

    event = await told(shared, anext(stream))

    assert (event.type, event.object["metadata"]["name"]) == ("ADDED", "b")
    await stream.aclose()


async def test_a_name_that_another_server_freed_can_be_taken(registry: Registry, shared: MemoryStore) -> None:
    shared.let_go()
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    shared.hold()
    await shared.delete(key_of(CONFIGMAPS, "shop", "c"))

    assert (await told(shared, registry.create(CONFIGMAPS, CONFIG, "shop")))["metadata"]["name"] == "c"


async def test_what_another_server_made_can_be_changed_at_once(registry: Registry, shared: MemoryStore) -> None:
    await elsewhere(shared, "new", "2")

    async def patch() -> Obj:
        return await registry.patch(CONFIGMAPS, "new", {"data": {"b": "3"}}, "shop")

    assert (await told(shared, patch()))["data"] == {"a": "2", "b": "3"}


async def test_a_revision_that_another_server_gave_is_no_conflict(registry: Registry, shared: MemoryStore) -> None:
    shared.let_go()
    await elsewhere(shared, "c", "1")
    await registry.get(CONFIGMAPS, "c", "shop")
    shared.hold()
    version = str(await elsewhere(shared, "c", "2"))
    changed = {**CONFIG, "metadata": {"name": "c", "resourceVersion": version}, "data": {"a": "3"}}

    assert (await told(shared, registry.update(CONFIGMAPS, "c", changed, "shop")))["data"] == {"a": "3"}


async def test_a_refusal_that_holds_is_given_without_waiting(registry: Registry, store: MemoryStore) -> None:
    store.shared = True
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    with pytest.raises(AlreadyExists):
        await registry.create(CONFIGMAPS, CONFIG, "shop")
    with pytest.raises(NotFound):
        await registry.delete(CONFIGMAPS, "none", "shop")


@pytest.mark.looptime
async def test_a_server_that_is_cut_off_from_the_changes_does_not_tell_old_ones(
    registry: Registry,
    shared: MemoryStore,
    looptime: Any,
) -> None:
    await elsewhere(shared, "new", "2")

    with pytest.raises(ServiceUnavailable, match="behind the store"):
        await registry.get(CONFIGMAPS, "new", "shop")
    with pytest.raises(Expired, match="too large resource version"):
        await registry.list(CONFIGMAPS, "shop", resource_version="999")

    assert looptime == 6.0
