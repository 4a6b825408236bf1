"""The store on a real etcd keeps the contract of all stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from netemu.model.errors import UserError
from netemu.store.base import Compacted, Store
from netemu.store.etcd import EtcdStore
from tests.kernel.etcd_members import Members, members
from tests.unit.store_contract import *  # noqa: F403
from tests.unit.store_contract import changes


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        yield cluster


@pytest.fixture
async def store(etcd: Members) -> AsyncIterator[Store]:
    engine = await EtcdStore.open(etcd.endpoints)
    for item in (await engine.list("/")).items:
        await engine.delete(item.key)

    yield engine

    await engine.close()


async def test_a_list_of_many_pages_is_of_one_revision(store: Store) -> None:
    count = 2500
    for number in range(0, count, 50):
        await asyncio.gather(*(store.create(f"/many/{key:04}", b"x") for key in range(number, number + 50)))

    writing = asyncio.gather(*(store.delete(f"/many/{key:04}") for key in range(0, count, 25)))
    snapshot = await store.list("/many/")
    await writing

    assert [item.key for item in snapshot.items] == sorted(item.key for item in snapshot.items)
    assert max(item.revision for item in snapshot.items) <= snapshot.revision
    later = 100 - (count - len(snapshot.items))
    async with aclosing(store.watch("/many/", snapshot.revision)) as batches:
        assert len(await anext(batches)) == later


async def test_old_history_goes_by_itself(etcd: Members, store: Store) -> None:
    engine = await EtcdStore.open(etcd.endpoints, retention=100)
    try:
        begin = await engine.create("/a", b"0")
        for _ in range(1200):
            last = await engine.update("/a", b"x")
        await engine.close()

        async with aclosing(store.watch("/", begin + 1)) as batches:
            with pytest.raises(Compacted):
                await anext(batches)
        assert await changes(store, "/", last - 1, 1) == [(last, "/a", b"x", b"x")]
    finally:
        await engine.close()


async def test_no_member_to_be_found_is_a_users_error_naming_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netemu.store.etcd_gateway.PATIENCE", 0.1)

    with pytest.raises(UserError, match=r"store http://127\.0\.0\.1:1, http://127\.0\.0\.1:2"):
        await EtcdStore.open(["http://127.0.0.1:1", "http://127.0.0.1:2"])


async def test_the_watch_of_a_cluster_that_nobody_has_written_to_begins_at_once(tmp_path: Path) -> None:
    with members(tmp_path, 1) as empty:
        engine = await EtcdStore.open(empty.endpoints)
        async with aclosing(engine.watch("/", 0)) as batches:
            first = await asyncio.wait_for(anext(batches), 5)
        await engine.close()

    assert first == []
