"""Snapshots of the SQLite store: whole, of one revision, and never a step back."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing
from pathlib import Path

import pytest

from netemu.model.errors import UserError
from netemu.store.base import Compacted
from netemu.store.sqlite import SqliteStore
from netemu.store.sqlite_snapshot import copy_store_file, read_snapshot, replace_store


async def test_a_snapshot_has_everything_as_of_one_revision_and_says_where_it_is_from(tmp_path: Path) -> None:
    store, file = await SqliteStore.open(tmp_path / "store.db"), tmp_path / "copy"
    for key in ("/b", "/a", "/c"):
        await store.create(key, b"x")
    await store.delete("/c")
    saving = asyncio.create_task(store.save(file, "shop"))
    await asyncio.sleep(0)
    await store.create("/late", b"x")

    assert await saving == 4
    found = read_snapshot(file)
    assert (found.origin, found.revision, found.keys) == ("shop", 4, ["/a", "/b"])
    await store.close()


async def test_a_restored_store_goes_on_after_the_higher_revision_and_nobody_resumes_before(tmp_path: Path) -> None:
    path, file = tmp_path / "store.db", tmp_path / "copy"
    store = await SqliteStore.open(path)
    await store.create("/a", b"1")
    await store.save(file, "shop")
    await store.update("/a", b"2")
    await store.create("/b", b"1")
    await store.close()

    replace_store(file, path)
    store = await SqliteStore.open(path)

    snapshot = await store.list("/")
    assert (snapshot.items, snapshot.revision) == ([("/a", b"1", 1)], 4)
    async with aclosing(store.watch("/", 3)) as batches:  # the former store's newest: whoever saw it knows of /b
        with pytest.raises(Compacted):
            await anext(batches)
    assert await store.update("/a", b"3", 1) == 5
    async with aclosing(store.watch("/", 4)) as batches:
        assert await anext(batches) == [(5, "/a", b"3", b"1")]
    await store.close()


async def test_a_snapshot_of_more_revisions_than_the_store_keeps_its_own(tmp_path: Path) -> None:
    busy, file = await SqliteStore.open(tmp_path / "busy.db"), tmp_path / "copy"
    await busy.create("/a", b"1")
    await busy.update("/a", b"2")
    await busy.save(file, "shop")
    await busy.close()

    replace_store(file, tmp_path / "new.db")
    store = await SqliteStore.open(tmp_path / "new.db")

    assert (await store.list("/")).revision == 3
    assert await store.create("/b", b"1") == 4
    await store.close()


async def test_what_a_killed_process_left_is_saved_with_its_write_ahead_log(tmp_path: Path) -> None:
    path, file = tmp_path / "store.db", tmp_path / "copy"
    store = await SqliteStore.open(path)
    await store.create("/a", b"1")
    # What kill -9 leaves: the file and its log as they are now.
    for suffix in ("", "-wal"):
        (tmp_path / f"left.db{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    await store.close()

    assert copy_store_file(tmp_path / "left.db", file, "shop") == 1
    assert read_snapshot(file).keys == ["/a"]


async def test_a_store_in_use_cannot_be_copied_from_outside(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.create("/a", b"1")

    with pytest.raises(UserError, match="locked"):
        copy_store_file(tmp_path / "store.db", tmp_path / "copy", "shop")
    await store.close()


def test_what_is_no_snapshot_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "file"

    with pytest.raises(UserError, match=rf"snapshot {file}: unable to open .*netemu snapshot save"):
        read_snapshot(file)
    file.write_text("not a database " * 100)
    with pytest.raises(UserError, match=rf"snapshot {file}: file is not a database"):
        read_snapshot(file)
    file.unlink()
    sqlite3.connect(file).executescript("CREATE TABLE other (x)").connection.close()
    with pytest.raises(UserError, match=rf"snapshot {file}: no such table: snapshot"):
        read_snapshot(file)


async def test_a_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    store, file = await SqliteStore.open(tmp_path / "store.db"), tmp_path / "copy"
    for number in range(200):
        await store.create(f"/{number}", bytes(2000))
    await store.save(file, "shop")
    await store.close()
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * 40960)

    with pytest.raises(UserError, match=f"snapshot {file}: "):
        read_snapshot(file)
