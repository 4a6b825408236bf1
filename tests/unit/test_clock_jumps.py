"""The wall clock of an API server is set back or forward by a day: the order of writes counts, never the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from netemu.apiserver import expiry, writer
from netemu.model import times
from netemu.model.resources import CONFIGMAPS, EVENTS, NAMESPACES, PODS
from netemu.store.sqlite import SqliteStore
from tests.unit.apiserver_kit import CONFIG, NAMESPACE, POD, named, serving

_DAY = 24 * 3600
_REAL = time.time_ns


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the clock, wherever an API server reads it, so many seconds off."""

    def to(seconds: int) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + timedelta(seconds=seconds)

        monkeypatch.setattr(time, "time_ns", lambda: _REAL() + seconds * 10**9)
        monkeypatch.setattr(time, "time", lambda: _REAL() / 10**9 + seconds)
        monkeypatch.setattr(writer, "datetime", Clock)
        monkeypatch.setattr(expiry, "datetime", Clock)

    return to


@pytest.mark.parametrize("seconds", [-_DAY, _DAY], ids=["back", "forward"])
async def test_writes_and_watches_go_on_in_their_order(
    tmp_path: Path, jump: Callable[[int], None], seconds: int
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with serving(store) as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        before = await registry.create(CONFIGMAPS, named(CONFIG, "before"), "shop")
        async with aclosing(registry.watch(CONFIGMAPS, "shop", resource_version=str(registry.revision))) as stream:
            jump(seconds)
            after = await registry.create(CONFIGMAPS, named(CONFIG, "after"), "shop")
            changed = await registry.patch(CONFIGMAPS, "before", {"data": {"a": "2"}}, "shop")
            await registry.delete(CONFIGMAPS, "after", "shop")
            seen = [await anext(stream) for _ in range(3)]

        made = times.parse(after["metadata"]["creationTimestamp"]) - datetime.now(UTC)
        assert abs(made.total_seconds() - seconds) < 60, "the clock did not jump"
        revisions = [int(obj["metadata"]["resourceVersion"]) for obj in (before, after, changed)]
        assert revisions == sorted(set(revisions))
        assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert changed["metadata"]["creationTimestamp"] == before["metadata"]["creationTimestamp"]
    await store.close()

    store = await SqliteStore.open(tmp_path / "store.db")
    async with serving(store) as registry:
        assert (await registry.get(CONFIGMAPS, "before", "shop"))["data"] == {"a": "2"}
        assert registry.revision >= revisions[-1]
    await store.close()


@pytest.mark.parametrize("seconds", [-_DAY, _DAY], ids=["back", "forward"])
async def test_a_pod_that_is_on_its_way_out_still_goes(
    tmp_path: Path, jump: Callable[[int], None], seconds: int
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with serving(store) as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        pod = {**POD, "spec": {**POD["spec"], "nodeName": "one"}}
        await registry.create(PODS, pod, "shop")
        _, gone = await registry.delete(PODS, "p", "shop")
        assert not gone
        jump(seconds)

        _, gone = await registry.delete(PODS, "p", "shop", options={"gracePeriodSeconds": 0})

        assert gone
    await store.close()


async def test_a_clock_that_goes_back_takes_no_young_events_away(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    async with serving(store) as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "shop"}}
        await registry.create(EVENTS, {**event, "reason": "Seen", "message": "m", "type": "Normal"}, "shop")

        assert expiry.stale(registry.objects(EVENTS), datetime.now(UTC) - timedelta(days=1)) == []
    await store.close()
