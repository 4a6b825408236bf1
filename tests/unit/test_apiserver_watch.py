"""Watches: where they begin, what each watcher is told, how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netemu.apiserver import watchcache
from netemu.apiserver.cacher import Cacher
from netemu.apiserver.keys import key_of
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.selection import Selection
from netemu.client.informer import Informer, wait_synced
from netemu.model.errors import BadRequest, Expired, ServiceUnavailable
from netemu.model.pods import Pod
from netemu.model.resources import CONFIGMAPS, EVENTS, EVENTS_V1, NAMESPACES, PODS
from netemu.store.sqlite import SqliteStore
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import CONFIG, NAMESPACE, POD, CountingStore, named, registry, serving, store

__all__ = ["registry", "store"]

Told = tuple[str, str]


async def told(registry: Registry, count: int, resource: Any = CONFIGMAPS, **query: Any) -> list[Told]:
    """Type and name of the first `count` events of a watch."""
    found: list[Told] = []
    async with asyncio.timeout(10), aclosing(registry.watch(resource, **query)) as events:
        async for event in events:
            found.append((event.type, event.object["metadata"].get("name", "")))
            if len(found) == count:
                break
    return found


class Watching:
    """A watch that runs beside the test, from before the test's first write."""

    def __init__(self, registry: Registry, resource: Any, **query: Any) -> None:
        self._events = registry.watch(resource, resource_version=str(registry.revision), **query)
        self._task = asyncio.create_task(self._collect())
        self.told: list[Told] = []
        self._news = asyncio.Event()
        self.ended = False

    async def _collect(self) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                self.told.append((event.type, event.object["metadata"].get("name", "")))
                self._news.set()
        self.ended = True
        self._news.set()

    async def until(self, *expected: Told) -> None:
        """Return when exactly that was told."""
        async with asyncio.timeout(5):
            while self.told != list(expected):
                self._news.clear()
                await self._news.wait()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


# --- where a watch begins


async def test_a_watch_from_a_revision_tells_what_came_after_it(registry: Registry) -> None:
    made = await registry.create(CONFIGMAPS, CONFIG, "shop")
    await registry.patch(CONFIGMAPS, "c", {"data": {"a": "2"}}, "shop")
    await registry.delete(CONFIGMAPS, "c", "shop")

    assert await told(registry, 2, resource_version=made["metadata"]["resourceVersion"]) == [
        ("MODIFIED", "c"),
        ("DELETED", "c"),
    ]


@pytest.mark.parametrize("revision", ["", "0"])
async def test_a_watch_from_nowhere_begins_with_everything(registry: Registry, revision: str) -> None:
    for name in ("b", "a"):
        await registry.create(CONFIGMAPS, named(CONFIG, name), "shop")

    assert await told(registry, 2, resource_version=revision) == [("ADDED", "a"), ("ADDED", "b")]


async def test_initial_events_end_with_a_marked_bookmark_at_the_lists_revision(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    async with aclosing(registry.watch(CONFIGMAPS, send_initial_events=True, bookmarks=True)) as events:
        added, mark = await anext(events), await anext(events)

    assert (added.type, mark.type) == ("ADDED", "BOOKMARK")
    assert mark.object == {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "2", "annotations": {"k8s.io/initial-events-end": "true"}},
    }


async def test_a_watch_of_the_future_is_expired(registry: Registry) -> None:
    with pytest.raises(Expired, match="too large resource version"):
        await told(registry, 1, resource_version="999")


async def test_a_watch_from_before_the_history_is_expired(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    for number in range(watchcache.HISTORY + 1):
        await registry.patch(CONFIGMAPS, "c", {"data": {"a": f"n{number}"}}, "shop")

    with pytest.raises(Expired, match="too old resource version"):
        await told(registry, 1, resource_version="2")


@pytest.mark.parametrize(
    "query", [{"resource_version": "x"}, {"field_selector": "spec.x=y"}, {"label_selector": "a in"}], ids=str
)
async def test_a_watch_that_cannot_be_understood_is_refused_when_it_is_asked_for(
    registry: Registry, query: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest):
        registry.watch(PODS, **query)


async def test_a_watch_goes_on_across_a_restart_from_the_revision_last_seen(tmp_path: Path) -> None:
    database = await SqliteStore.open(tmp_path / "store.db")
    async with serving(database) as first:
        await first.create(NAMESPACES, NAMESPACE)
        seen = await first.create(CONFIGMAPS, CONFIG, "shop")
        await first.patch(CONFIGMAPS, "c", {"metadata": {"labels": {"x": "y"}}}, "shop")
        await first.delete(CONFIGMAPS, "c", "shop")
    await database.close()

    database = await SqliteStore.open(tmp_path / "store.db")
    async with serving(database) as second:
        since = seen["metadata"]["resourceVersion"]
        assert await told(second, 2, resource_version=since) == [("MODIFIED", "c"), ("DELETED", "c")]
        assert await told(second, 2, resource_version=since, label_selector="x=y") == [("ADDED", "c"), ("DELETED", "c")]
    await database.close()


async def test_what_the_store_compacted_before_a_restart_is_expired(store: MemoryStore) -> None:
    async with serving(store) as first:
        await first.create(NAMESPACES, NAMESPACE)
        seen = await first.create(CONFIGMAPS, CONFIG, "shop")
        await first.patch(CONFIGMAPS, "c", {"data": {"a": "2"}}, "shop")
        await store.compact(3)

    async with serving(store) as second:
        with pytest.raises(Expired, match="too old resource version"):
            await told(second, 1, resource_version=seen["metadata"]["resourceVersion"])


async def test_what_was_compacted_while_the_store_was_away_ends_watches_and_is_listed_again(
    registry: Registry, store: MemoryStore
) -> None:
    seen = await registry.create(CONFIGMAPS, CONFIG, "shop")
    since = seen["metadata"]["resourceVersion"]
    watch = registry.watch(CONFIGMAPS, "shop", resource_version=since)
    later = asyncio.gather(anext(watch, None))
    await asyncio.sleep(0)

    store.cut()
    await store.delete(key_of(CONFIGMAPS, "shop", "c"))
    there = await store.create(key_of(CONFIGMAPS, "shop", "d"), msgspec.json.encode({"metadata": {"name": "d"}}))
    await store.compact(there)

    assert (await later)[0] is None
    found = await registry.list(CONFIGMAPS, "shop")
    assert [item["metadata"]["name"] for item in found.items] == ["d"]
    assert found.resource_version == str(there)
    with pytest.raises(Expired, match="too old resource version"):
        await told(registry, 1, resource_version=since)
    assert (await registry.create(CONFIGMAPS, CONFIG, "shop"))["metadata"]["resourceVersion"] == str(there + 1)


# --- what a watcher is told


async def test_an_object_entering_a_selection_is_added_and_leaving_it_deleted(registry: Registry) -> None:
    watch = Watching(registry, CONFIGMAPS, label_selector="x=y")
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    for value in ("y", "z", "y"):
        await registry.patch(CONFIGMAPS, "c", {"metadata": {"labels": {"x": value}}}, "shop")
    await registry.delete(CONFIGMAPS, "c", "shop")

    await watch.until(("ADDED", "c"), ("DELETED", "c"), ("ADDED", "c"), ("DELETED", "c"))
    await watch.close()


async def test_a_replayed_watch_tells_the_same_as_a_live_one(registry: Registry) -> None:
    begin = str(registry.revision)
    watch = Watching(registry, PODS, field_selector="spec.nodeName=n1")
    for name, node in (("p", "n1"), ("q", "n2")):
        await registry.create(PODS, named(POD, name), "shop")
        await registry.create_subresource(PODS, name, "binding", {"target": {"name": node}}, "shop")
        await registry.patch(PODS, name, {"status": {"phase": "Running"}}, "shop", subresource="status")
        await registry.delete(PODS, name, "shop", options={"gracePeriodSeconds": 0})

    await watch.until(("ADDED", "p"), ("MODIFIED", "p"), ("DELETED", "p"))
    replayed = await told(registry, 3, PODS, resource_version=begin, field_selector="spec.nodeName=n1")
    assert replayed == watch.told
    await watch.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"namespace": "shop"}, [("ADDED", "c")], id="one namespace"),
        pytest.param({"field_selector": "metadata.name=d"}, [("ADDED", "d")], id="one name in all namespaces"),
        pytest.param({}, [("ADDED", "c"), ("ADDED", "d")], id="everything"),
    ],
)
async def test_a_watch_is_narrowed_by_namespace_and_name(
    registry: Registry, query: dict[str, str], expected: list[Told]
) -> None:
    await registry.create(NAMESPACES, {"metadata": {"name": "other"}})
    watch = Watching(registry, CONFIGMAPS, **query)
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    await registry.create(CONFIGMAPS, named(CONFIG, "d"), "other")

    await watch.until(*expected)
    await watch.close()


async def test_a_deleted_object_is_told_with_its_last_state_and_the_deletions_revision(registry: Registry) -> None:
    begin = str((await registry.create(CONFIGMAPS, CONFIG, "shop"))["metadata"]["resourceVersion"])
    await registry.delete(CONFIGMAPS, "c", "shop")

    async with aclosing(registry.watch(CONFIGMAPS, resource_version=begin)) as events:
        deleted = await anext(events)

    assert (deleted.object["data"], deleted.object["metadata"]["resourceVersion"]) == (CONFIG["data"], "3")


async def test_the_line_of_an_event_is_its_json_and_is_made_once_for_all(registry: Registry) -> None:
    begin = str(registry.revision)
    streams = [registry.watch(CONFIGMAPS, resource_version=begin) for _ in range(2)]
    waiting = [asyncio.create_task(anext(stream)) for stream in streams]
    await asyncio.sleep(0)
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    one, two = [await task for task in waiting]

    assert msgspec.json.decode(one.line) == {"type": "ADDED", "object": one.object}
    assert one.line.endswith(b"}\n")
    assert one.line is two.line
    for stream in streams:
        await stream.aclose()


async def test_a_watch_of_the_newer_event_shape_sees_what_was_written_in_the_older(registry: Registry) -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "shop"}}
    await registry.create(EVENTS, {**event, "message": "hello", "reason": "r", "type": "Normal"}, "shop")

    async with aclosing(registry.watch(EVENTS_V1, send_initial_events=True)) as events:
        added, mark = await anext(events), await anext(events)

    assert (added.object["apiVersion"], added.object["note"]) == ("events.k8s.io/v1", "hello")
    assert mark.object["apiVersion"] == "events.k8s.io/v1"


# --- how a watch ends


@pytest.mark.looptime
async def test_bookmarks_come_every_minute_and_just_before_the_end(registry: Registry) -> None:
    loop = asyncio.get_running_loop()
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    begin, told_at = loop.time(), []

    async with aclosing(registry.watch(PODS, resource_version="2", bookmarks=True, timeout=150)) as events:
        async for event in events:
            told_at.append((event.type, event.object["metadata"]["resourceVersion"], round(loop.time() - begin)))

    assert told_at == [("BOOKMARK", "2", 60), ("BOOKMARK", "2", 120), ("BOOKMARK", "2", 150)]


@pytest.mark.looptime
async def test_a_watch_that_did_not_ask_for_bookmarks_gets_none(registry: Registry) -> None:
    async with aclosing(registry.watch(PODS, resource_version="1", timeout=150)) as events:
        assert [event async for event in events] == []


@pytest.mark.looptime
async def test_a_bookmark_never_overtakes_an_event(registry: Registry) -> None:
    events = registry.watch(CONFIGMAPS, resource_version=str(registry.revision), bookmarks=True, timeout=70)
    first = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    await first
    # The consumer is busy when the minute is over, and meanwhile something else happens.
    await asyncio.sleep(65)
    await registry.create(CONFIGMAPS, named(CONFIG, "d"), "shop")

    rest = [(event.type, event.object["metadata"]["resourceVersion"]) async for event in events]

    assert rest[:2] == [("ADDED", "3"), ("BOOKMARK", "3")]


async def test_a_slow_watcher_is_cut_off_and_others_are_told_everything(store: MemoryStore) -> None:
    cache = Cacher(store, queue=5)
    await cache.start()
    slow, quick = (cache.watch(CONFIGMAPS, Selection(), "0", bookmarks=False) for _ in range(2))
    waiting = asyncio.create_task(anext(slow))
    told_quickly = []
    for number in range(20):
        next_event = asyncio.create_task(anext(quick))
        await asyncio.sleep(0)
        value = msgspec.json.encode({"metadata": {"name": f"c{number}"}})
        await store.create(key_of(CONFIGMAPS, "shop", f"c{number}"), value)
        told_quickly.append((await next_event).object["metadata"]["name"])

    assert told_quickly == [f"c{number}" for number in range(20)]
    assert (await waiting).object["metadata"]["name"] == "c0"
    assert [event async for event in slow] == []
    await quick.aclose()
    await cache.close()


async def test_thousands_of_watchers_cost_the_store_nothing_and_a_slow_one_holds_up_nobody() -> None:
    store, many, changes = CountingStore(), 2000, 8
    cache = Cacher(store, queue=changes - 3)
    await cache.start()
    reads = store.reads
    slow, *quick = (cache.watch(CONFIGMAPS, Selection(), "0", bookmarks=False) for _ in range(1 + many))
    waiting = asyncio.create_task(anext(slow))  # and for nothing after that
    for number in range(changes):
        coming = asyncio.gather(*map(anext, quick))
        await asyncio.sleep(0)
        value = msgspec.json.encode({"metadata": {"name": f"c{number}"}})
        await store.create(key_of(CONFIGMAPS, "shop", f"c{number}"), value)
        lines = {event.line for event in await coming}
        assert [f"c{number}"] == [msgspec.json.decode(line)["object"]["metadata"]["name"] for line in lines]

    assert (await waiting).object["metadata"]["name"] == "c0"
    assert [event async for event in slow] == []
    assert (store.watches, store.reads) == (1, reads)
    await cache.close()


async def test_a_store_that_went_away_refuses_writes_and_keeps_nobody_waiting(
    registry: Registry, store: MemoryStore
) -> None:
    await store.close()

    with pytest.raises(ServiceUnavailable):
        await registry.create(CONFIGMAPS, CONFIG, "shop")


async def test_watches_end_when_the_registry_closes(store: MemoryStore) -> None:
    async with serving(store) as running:
        await running.create(NAMESPACES, NAMESPACE)
        watch = Watching(running, NAMESPACES)
        await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.wait([watch._task])
    assert watch.ended


async def test_an_abandoned_watch_leaves_nothing_behind(registry: Registry) -> None:
    watch = Watching(registry, CONFIGMAPS)
    await asyncio.sleep(0)
    await watch.close()

    assert registry._cacher._of(CONFIGMAPS)._watchers == {}


# --- in-process clients


@pytest.fixture
async def pods(registry: Registry) -> AsyncIterator[Informer[Pod]]:
    informer = Informer(LocalClient(registry), PODS, Pod, field_selector="spec.nodeName!=")
    task = asyncio.create_task(informer.run())
    await wait_synced(informer)

    yield informer

    task.cancel()
    await asyncio.wait([task])


async def test_an_informer_follows_the_registry_without_http(registry: Registry, pods: Informer[Pod]) -> None:
    client = LocalClient(registry)
    changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def heard(old: Pod | None, new: Pod | None) -> None:
        changes.put_nowait((old.status.phase if old else "", new.status.phase if new else ""))

    pods.on_change(heard)
    await client.create(PODS, POD, "shop")
    await client.create_subresource(PODS, "p", "binding", {"target": {"name": "n1"}}, "shop")
    await client.patch(PODS, "p", {"status": {"phase": "Running"}}, "shop", subresource="status")
    await client.delete(PODS, "p", "shop", grace_period_seconds=0)

    async with asyncio.timeout(5):
        assert [await changes.get() for _ in range(3)] == [("", "Pending"), ("Pending", "Running"), ("Running", "")]
    assert pods.objects == {}


async def test_a_watch_that_wants_no_initial_events_begins_with_the_next_change(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    async with aclosing(registry.watch(CONFIGMAPS, send_initial_events=False)) as events:
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await registry.create(CONFIGMAPS, named(CONFIG, "later"), "shop")
        event = await following

    assert (event.type, event.object["metadata"]["name"]) == ("ADDED", "later")
