"""Members of an etcd cluster die under writes: what was acknowledged stays, and whoever watches learns of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from netemu.model.errors import ServiceUnavailable
from netemu.store.base import Change, Compacted, KeyExists, OutcomeUnknown, Store
from netemu.store.etcd import EtcdStore
from tests.kernel.etcd_members import Members, members

_COUNT = 3
_WRITERS = 6


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Members]:
    with members(tmp_path, _COUNT) as cluster:
        yield cluster


@pytest.fixture
async def store(etcd: Members) -> AsyncIterator[EtcdStore]:
    engine = await EtcdStore.open(etcd.endpoints)
    yield engine
    await engine.close()


class Load:
    """Writers that create, change and delete keys of their own until they are stopped."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.stopped = False
        self.acknowledged: list[int] = []
        """Revisions in the order in which one writer after the other was told of them."""
        self.values: dict[str, tuple[bytes | None, int]] = {}
        """What each key was left at, and since which revision, by the last answer."""
        self.unsure: set[str] = set()
        self.progress = asyncio.Event()

    async def run(self) -> None:
        await asyncio.gather(*(self._write(writer) for writer in range(_WRITERS)))

    async def _write(self, writer: int) -> None:
        number, last = 0, 0
        while not self.stopped:
            key = f"/load/{writer}/{number}"
            try:
                for value in (b"new", b"changed", None)[: 1 + number % 3]:
                    before = self.values.get(key, (None, 0))[1]
                    revision = await self._once(key, value, before)
                    assert revision > last, "a revision went back"
                    last = revision
                    self.values[key] = value, revision
                    self.acknowledged.append(revision)
                    self.progress.set()
            except OutcomeUnknown:
                self.unsure.add(key)
            number += 1

    async def _once(self, key: str, value: bytes | None, before: int) -> int:
        while True:
            try:
                if value is None:
                    return await self._store.delete(key, before)
                if before:
                    return await self._store.update(key, value, before)
                return await self._store.create(key, value)
            except OutcomeUnknown:
                raise
            except ServiceUnavailable:
                assert not self.stopped, "the cluster stayed away"

    async def more(self, count: int) -> None:
        """Return when that many more writes were acknowledged."""
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            self.progress.clear()
            await self.progress.wait()


class Watching:
    """A watch of everything from the beginning."""

    def __init__(self, store: Store) -> None:
        self.changes: list[Change] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run(store))

    async def _run(self, store: Store) -> None:
        async with aclosing(store.watch("/load/", 0)) as batches:
            async for batch in batches:
                self.changes += batch
                self._news.set()

    async def reached(self, revision: int) -> None:
        while not self.changes or self.changes[-1].revision < revision:
            assert not self._task.done(), "the watch ended"
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def _check(store: Store, load: Load, watching: Watching) -> None:
    """No acknowledged write is missing, in the store or in the watch; no watch is stuck."""
    async with asyncio.timeout(20):
        await watching.reached(max(load.acknowledged))
    told = {change.revision: change for change in watching.changes}
    revisions = [change.revision for change in watching.changes]
    assert revisions == sorted(set(revisions))
    assert set(load.acknowledged) <= told.keys()
    stored = {item.key: (item.value, item.revision) for item in (await store.list("/load/")).items}
    for key in load.values.keys() - load.unsure:
        value, revision = load.values[key]
        assert stored.get(key) == (None if value is None else (value, revision)), key
        assert told[revision].value == value
    assert len(load.acknowledged) == len(set(load.acknowledged))
    assert len(load.unsure) <= _WRITERS


@pytest.mark.timeout(180)
async def test_killing_any_member_at_any_moment_loses_no_acknowledged_write(etcd: Members, store: EtcdStore) -> None:
    chance = random.Random(7)
    load, watching = Load(store), Watching(store)
    writing = asyncio.create_task(load.run())
    for member in (0, 1, 2, *chance.choices(range(_COUNT), k=3)):
        async with asyncio.timeout(30):
            await load.more(chance.randrange(20, 200))
            etcd.kill(member)
            await load.more(100)
        etcd.start(member)
        await asyncio.to_thread(etcd.wait_healthy, member)
    load.stopped = True
    await writing

    await _check(store, load, watching)
    await watching.close()


@pytest.mark.timeout(120)
async def test_a_member_that_hangs_holds_up_neither_writes_nor_watches(
    etcd: Members, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The watch shall not need its own silence to find out: the writes tell.
    monkeypatch.setattr("netemu.store.etcd_watch._QUIET_SECONDS", 1000.0)
    load, watching = Load(store), Watching(store)
    writing = asyncio.create_task(load.run())
    await load.more(50)
    # The store asks the first member, which keeps its connections open and never answers again.
    etcd.freeze(0)
    async with asyncio.timeout(30):
        await load.more(100)
        await watching.reached(max(load.acknowledged))
    load.stopped = True
    await writing

    await _check(store, load, watching)
    await watching.close()


@pytest.mark.timeout(120)
async def test_a_watch_notices_a_member_that_hangs_while_nobody_here_writes(etcd: Members, store: EtcdStore) -> None:
    await store.create("/load/a", b"1")
    watching = Watching(store)
    await watching.reached(1)
    etcd.freeze(0)
    other = await EtcdStore.open(etcd.endpoints[1:])
    written = await other.create("/load/b", b"1")
    await other.close()

    async with asyncio.timeout(30):
        await watching.reached(written)
    await watching.close()


@pytest.mark.timeout(120)
async def test_a_watch_survives_the_loss_of_all_members_and_what_was_written_meanwhile(
    etcd: Members, store: EtcdStore
) -> None:
    await store.create("/load/a", b"1")
    watching = Watching(store)
    await watching.reached(1)
    for member in range(_COUNT):
        etcd.kill(member)
    for member in range(_COUNT):
        etcd.start(member)
    for member in range(_COUNT):
        await asyncio.to_thread(etcd.wait_healthy, member)
    other = await EtcdStore.open(etcd.endpoints[::-1])
    written = await other.create("/load/b", b"1")
    await other.close()

    async with asyncio.timeout(20):
        await watching.reached(written)
    assert [change.key for change in watching.changes] == ["/load/a", "/load/b"]
    await watching.close()


@pytest.mark.timeout(120)
async def test_a_watch_that_was_away_during_a_compaction_says_so(etcd: Members, store: EtcdStore) -> None:
    begin = await store.create("/load/a", b"1")
    async with aclosing(store.watch("/load/", begin)) as batches:
        assert await anext(batches) == []
        # The watch asks the first member; while that is gone, the others go on and forget.
        etcd.kill(0)
        other = await EtcdStore.open(etcd.endpoints[1:])
        for _ in range(5):
            last = await other.update("/load/a", b"2")
        await other.compact(last)
        await other.close()

        with pytest.raises(Compacted) as refusal:
            await anext(batches)

    assert refusal.value.revision == last


@pytest.mark.timeout(120)
async def test_without_a_majority_writes_are_refused_and_nothing_is_written(
    etcd: Members, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netemu.store.etcd_gateway.PATIENCE", 0.5)
    monkeypatch.setattr("netemu.store.etcd.PATIENCE", 0.5)
    await store.create("/load/a", b"1")
    etcd.kill(1)
    etcd.kill(2)

    with pytest.raises(ServiceUnavailable):
        await store.create("/load/b", b"1")

    etcd.start(1)
    await asyncio.to_thread(etcd.wait_healthy, 1)
    with pytest.raises(KeyExists):
        await store.create("/load/a", b"2")
