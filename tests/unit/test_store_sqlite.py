"""What SQLite adds: it is still there after a restart, a kill and a full disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from netemu.model.errors import ServiceUnavailable, UserError
from netemu.store.base import Compacted
from netemu.store.sqlite import SqliteStore

_WRITER = """
import asyncio, sys
from pathlib import Path
from netemu.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    async def write(worker):
        number = 0
        while True:
            key = f"/{worker}/{number}"
            revision = await store.create(key, key.encode() * 20)
            sys.stdout.write(f"{key} {revision}\\n")
            sys.stdout.flush()
            number += 1
    await asyncio.gather(*(write(worker) for worker in range(8)))

asyncio.run(main())
"""


@asynccontextmanager
async def opened(path: Path, retention: int = 10_000) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, retention=retention)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_values_revisions_and_history_survive_a_restart(path: Path) -> None:
    async with opened(path) as store:
        await store.create("/a", b"1")
        await store.update("/a", b"2")

    async with opened(path) as store:
        assert await store.get("/a") == ("/a", b"2", 2)
        async with aclosing(store.watch("/", 1)) as batches:
            assert await anext(batches) == [(2, "/a", b"2", b"1")]
        assert await store.create("/b", b"1") == 3


async def test_the_revision_does_not_go_back_when_the_newest_rows_were_compacted_away(path: Path) -> None:
    async with opened(path) as store:
        await store.create("/a", b"1")
        await store.delete("/a")
        await store.compact(2)

    async with opened(path) as store:
        assert await store.create("/a", b"1") == 3


async def test_what_was_compacted_stays_compacted_after_a_restart(path: Path) -> None:
    async with opened(path) as store:
        for number in range(3):
            await store.create(f"/{number}", b"1")
        await store.compact(2)

    async with opened(path) as store, aclosing(store.watch("/", 1)) as batches:
        with pytest.raises(Compacted):
            await anext(batches)


async def test_old_history_goes_by_itself(path: Path) -> None:
    async with opened(path, retention=100) as store:
        await store.create("/a", b"0")
        await asyncio.gather(*(store.update("/a", b"x" * 100) for _ in range(3000)))
        await store.get("/a")

        async with aclosing(store.watch("/", 1500)) as batches:
            with pytest.raises(Compacted):
                await anext(batches)
        async with aclosing(store.watch("/", 2950)) as batches:
            assert [change.revision for change in await anext(batches)] == list(range(2951, 3002))


async def test_killing_the_process_while_it_writes_loses_no_acknowledged_write(path: Path) -> None:
    acknowledged = await asyncio.to_thread(_killed_while_writing, path)

    async with opened(path) as store:
        snapshot = await store.list("/")
        stored = {item.key: item.revision for item in snapshot.items}

    assert len(acknowledged) >= 500
    assert acknowledged.items() <= stored.items()
    assert snapshot.revision == max(stored.values())


def _killed_while_writing(path: Path) -> dict[str, int]:
    """The keys and revisions that a process was told were written, before it was killed in the middle of it."""
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        told = [child.stdout.readline() for _ in range(500)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    child.wait()
    whole = [line.split() for line in told if line.endswith("\n")]
    return {key: int(revision) for key, revision in whole}


async def test_a_full_disk_refuses_writes_and_serves_reads_and_later_takes_writes_again(path: Path) -> None:
    async with opened(path) as store:
        await store.create("/small", b"x")
        await _limit_pages(store, 40)
        answers = await asyncio.gather(
            *(store.create(f"/{number}", bytes(9000)) for number in range(60)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, ServiceUnavailable)]
        assert refused
        assert await store.get("/small") == ("/small", b"x", 1)

        await _limit_pages(store, 100_000)
        revision = await store.create("/later", b"x")

    async with opened(path) as store:
        kept = await store.list("/")
    assert len(kept.items) == 2 + len(answers) - len(refused)
    assert kept.revision == revision == len(kept.items)


async def test_writes_that_share_a_transaction_with_a_refused_one_are_refused_and_never_told(path: Path) -> None:
    async with opened(path) as store, aclosing(store.watch("/", 0)) as batches:
        assert await anext(batches) == []
        await _limit_pages(store, 8)
        # Both wait while the store is busy, so that they get into one transaction.
        gate = threading.Event()
        busy = asyncio.ensure_future(store._read(lambda _: gate.wait()))
        await asyncio.sleep(0)
        both = asyncio.gather(
            store.create("/small", b"x"), store.create("/big", bytes(100_000)), return_exceptions=True
        )
        await asyncio.sleep(0)
        gate.set()
        await busy
        assert [type(answer) for answer in await both] == [ServiceUnavailable, ServiceUnavailable]

        await _limit_pages(store, 100_000)
        await store.create("/taken", b"x")
        assert [change.key for change in await anext(batches)] == ["/taken"]


async def _limit_pages(store: SqliteStore, pages: int) -> None:
    """What a full disk does, where there is none."""

    def limit(db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA max_page_count = {pages}")

    await store._read(limit)


async def test_a_file_that_is_no_database_is_a_users_error_naming_it(path: Path) -> None:
    path.write_text("this is no database, and long enough to be looked at " * 20)

    with pytest.raises(UserError, match=r"store\.db"):
        await SqliteStore.open(path)


async def test_a_second_process_cannot_open_the_same_store(path: Path) -> None:
    async with opened(path) as store:
        await store.create("/a", b"1")

        with pytest.raises(UserError, match="locked"):
            await SqliteStore.open(path)


async def test_a_write_given_up_by_its_caller_does_not_disturb_the_others(path: Path) -> None:
    async with opened(path) as store:
        given_up = asyncio.create_task(store.create("/a", b"1"))
        await asyncio.sleep(0)
        given_up.cancel()

        await store.create("/b", b"1")

        assert await store.get("/b") is not None
