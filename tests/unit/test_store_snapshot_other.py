"""Snapshots of a store that is no file: the same form of file, and back by ordinary writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from netemu.store.base import Compacted
from netemu.store.snapshot import restore, save
from netemu.store.sqlite import SqliteStore
from netemu.store.sqlite_snapshot import read_snapshot, replace_store
from netemu.testing.store import MemoryStore


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    memory = MemoryStore()
    await memory.create("/r/a", b"1")
    await memory.create("/r/b", b"1")
    await memory.create("/r/own/x", b"1")

    yield memory

    await memory.close()


async def saved(store: MemoryStore, folder: Path) -> Path:
    assert await save(store, "/r/", lambda key: "own" not in key, folder / "file", "shop") == store.revision
    return folder / "file"


async def test_a_snapshot_has_the_objects_and_says_where_it_is_from(store: MemoryStore, tmp_path: Path) -> None:
    found = read_snapshot(await saved(store, tmp_path))

    assert (found.origin, found.revision, found.keys) == ("shop", 3, ["/r/a", "/r/b"])


async def test_a_restored_store_is_as_it_was_and_never_goes_back(store: MemoryStore, tmp_path: Path) -> None:
    file = await saved(store, tmp_path)
    await store.update("/r/a", b"2")
    await store.delete("/r/b")
    await store.create("/r/c", b"1")
    before = store.revision

    await restore(store, "/r/", file)

    snapshot = await store.list("/r/")
    assert {item.key: item.value for item in snapshot.items} == {"/r/a": b"1", "/r/b": b"1"}
    assert snapshot.revision > before
    async with aclosing(store.watch("/r/", before)) as batches:
        with pytest.raises(Compacted):
            await anext(batches)


async def test_a_new_store_goes_on_from_the_revision_of_the_snapshot(store: MemoryStore, tmp_path: Path) -> None:
    for number in range(100):
        await store.update("/r/a", str(number).encode())
    file, new = await saved(store, tmp_path), MemoryStore()

    await restore(new, "/r/", file)

    assert new.revision >= store.revision
    assert [item.key for item in (await new.list("/")).items] == ["/r/a", "/r/b"]
    await new.close()


async def test_sqlite_takes_it_too(store: MemoryStore, tmp_path: Path) -> None:
    replace_store(await saved(store, tmp_path), tmp_path / "store.db")

    sqlite = await SqliteStore.open(tmp_path / "store.db")
    assert [(item.key, item.value) for item in (await sqlite.list("/")).items] == [("/r/a", b"1"), ("/r/b", b"1")]
    assert await sqlite.create("/r/c", b"1") == 5
    await sqlite.close()
