"""Events go after an hour."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from netemu.apiserver.expiry import stale
from netemu.apiserver.keys import key_of
from netemu.model import times
from netemu.model.resources import EVENTS
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import serving, store

__all__ = ["store"]

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
OLD, RECENT = "2026-01-02T10:59:59Z", "2026-01-02T11:00:01Z"


def event(name: str = "e", created: str = OLD, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": created}, **fields}


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        pytest.param({}, True, id="made long ago"),
        pytest.param({"created": RECENT}, False, id="made lately"),
        pytest.param({"lastTimestamp": RECENT}, False, id="counted up lately"),
        pytest.param({"eventTime": "2026-01-02T11:00:01.000006Z"}, False, id="of the newer shape"),
        pytest.param({"series": {"lastObservedTime": "2026-01-02T11:00:01.000006Z"}}, False, id="a series"),
        pytest.param({"created": "whenever"}, False, id="of unknown age"),
    ],
)
def test_an_event_is_stale_an_hour_after_it_was_last_seen(fields: dict[str, Any], gone: bool) -> None:
    assert bool(stale([event(**fields)], NOW)) == gone


async def test_the_registry_removes_stale_events_and_leaves_the_others(store: MemoryStore) -> None:
    for name, created in (("old", "2001-01-01T00:00:00Z"), ("new", times.now())):
        await store.create(key_of(EVENTS, "shop", name), msgspec.json.encode(event(name, created)))

    async with serving(store) as registry, asyncio.timeout(5):
        async with aclosing(registry.watch(EVENTS, resource_version="2")) as changes:
            assert (await anext(changes)).type == "DELETED"
        left = (await registry.list(EVENTS)).items

    assert [item["metadata"]["name"] for item in left] == ["new"]
