"""The cluster store in one SQLite file.

Two tables. `log` has one row per revision: key, value (NULL for a deletion) and the revision it replaced. `current`
points from each key to its newest row, so a value is written once. Compacting up to C removes the rows that were
replaced at or before C, and deletions up to C; what every key was at C stays, and with it the `previous` of all later
changes. The store's revision is the last row's, or C when that row is gone: it never goes back.

One thread owns the connection and does everything in the order asked. It takes all writes that wait and commits
them in one transaction, and answers them only then (group commit): the busier the store, the cheaper a write. In WAL
mode with synchronous=NORMAL a commit is in the file cache when it returns, so it survives the death of the process,
though not that of the machine. A transaction that fails (a full disk) is rolled back whole, all its writes are
refused, and the next one starts from what is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

from netemu.model.errors import ServiceUnavailable, UserError
from netemu.store.base import Change, Compacted, KeyExists, KeyValue, RevisionMismatch, Snapshot, StoreError, prefix_end
from netemu.store.sqlite_snapshot import SCHEMA, copy_store

log = logging.getLogger(__name__)

_BATCH = 512
"""Most writes in one transaction: bounds how long the first of them waits for the last."""
_LOCK_SECONDS = 1.0
"""How long to wait for a predecessor that is still closing the file."""
_NEW = -1
_COMPACT_EVERY = 1000
"""Revisions between automatic compactions: each then takes a few milliseconds."""


class _Write(NamedTuple):
    key: str
    value: bytes | None
    revision: int
    """What the key must be at; 0: anything, but it must exist; `_NEW`: it must not."""
    answer: asyncio.Future[int]


class _Read(NamedTuple):
    run: Callable[[sqlite3.Connection], Any]
    answer: asyncio.Future[Any]


_Work = _Write | _Read | None


class SqliteStore:
    """Implements `Store`. Belongs to the event loop it was opened in."""

    def __init__(self, connection: sqlite3.Connection, revision: int, compacted: int, retention: int) -> None:
        self._engine = _Engine(connection, revision, compacted, retention, self._deliver)
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Work] = []
        self._work: SimpleQueue[list[_Work]] = SimpleQueue()
        self._watches: set[_Watch] = set()
        self._closed = False
        # Daemon, so that a process that forgets `close` can end; what was answered is committed anyway.
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, path: Path, *, retention: int = 10_000) -> Self:
        """Open or create the file; `retention` is how many revisions of history are kept. Raises UserError."""
        try:
            connection, revision, compacted = await asyncio.to_thread(_connect, path)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"store {path}: {error}") from error
        return cls(connection, revision, compacted, retention)

    @property
    def shared(self) -> bool:
        """See Store. Only one process has the file open."""
        return False

    async def newest(self) -> int:
        """See Store."""
        newest: int = await self._read(lambda _: self._engine.revision)
        return newest

    async def get(self, key: str) -> KeyValue | None:
        """See Store."""
        row = await self._read(lambda db: db.execute(f"{_CURRENT} WHERE current.key = ?", (key,)).fetchone())
        return KeyValue(*row) if row else None

    async def list(self, prefix: str) -> Snapshot:
        """See Store."""

        def run(db: sqlite3.Connection) -> Snapshot:
            rows = db.execute(
                f"{_CURRENT} WHERE current.key >= ? AND current.key < ? ORDER BY current.key",
                (prefix, prefix_end(prefix)),
            )
            return Snapshot([KeyValue(*row) for row in rows], self._engine.revision)

        snapshot: Snapshot = await self._read(run)
        return snapshot

    async def create(self, key: str, value: bytes) -> int:
        """See Store."""
        return await self._write(key, value, _NEW)

    async def update(self, key: str, value: bytes, revision: int = 0) -> int:
        """See Store."""
        return await self._write(key, value, revision)

    async def delete(self, key: str, revision: int = 0) -> int:
        """See Store."""
        return await self._write(key, None, revision)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Sequence[Change], None]:
        """See Store."""
        watch = _Watch(prefix)
        # Registered before the history is read, so nothing falls between; what comes twice is dropped by revision.
        self._watches.add(watch)
        try:
            history, seen = await self._read(lambda db: self._engine.history(prefix, after))
            yield history
            while batch := await watch.take():
                if fresh := [change for change in batch if change.revision > seen]:
                    yield fresh
        finally:
            self._watches.discard(watch)

    async def compact(self, revision: int) -> None:
        """See Store."""
        await self._read(lambda db: self._engine.compact(revision))

    async def save(self, path: Path, origin: str) -> int:
        """Write a snapshot to a new file; its revision. See `sqlite_snapshot`."""
        revision: int = await self._read(lambda db: copy_store(db, path, origin))
        return revision

    async def close(self) -> None:
        """See Store."""
        if self._closed:
            return
        self._closed = True
        self._gather(None)
        await asyncio.to_thread(self._thread.join)
        for watch in self._watches:
            watch.end()

    async def _write(self, key: str, value: bytes | None, revision: int) -> int:
        written: int = await self._submit(lambda answer: _Write(key, value, revision, answer))
        return written

    async def _read(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self._submit(lambda answer: _Read(run, answer))

    def _submit(self, work: Callable[[asyncio.Future[Any]], _Work]) -> asyncio.Future[Any]:
        if self._closed:
            raise ServiceUnavailable("the store is closed")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._gather(work(answer))
        return answer

    def _gather(self, work: _Work) -> None:
        """Hand work over to the thread, with all else that this turn of the loop brings: it need not wake for each."""
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(work)

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._work.put(gathered)

    def _serve(self) -> None:
        """The thread: take what waits, do it, answer."""
        running = True
        while running:
            batch = self._work.get()
            with contextlib.suppress(Empty):
                while len(batch) < _BATCH:
                    batch += self._work.get_nowait()
            running = None not in batch
            self._engine.run([work for work in batch if work is not None])
        self._engine.close()

    def _deliver(self, changes: Sequence[Change], answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
        # The loop may be gone when a process ends without `close`; the writes are committed all the same.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._publish, changes, answers)

    def _publish(self, changes: Sequence[Change], answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
        # Watches first: a reader that follows the watch has seen a write before its writer goes on.
        if changes:
            for watch in self._watches:
                watch.offer(changes)
        for future, answer in answers:
            if not future.done():
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)


class _Watch:
    """Changes on their way to one consumer."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._waiting: list[Change] = []
        self._ended = False
        self._wake = asyncio.Event()

    def offer(self, changes: Sequence[Change]) -> None:
        self._waiting += [change for change in changes if change.key.startswith(self._prefix)]
        if self._waiting:
            self._wake.set()

    def end(self) -> None:
        self._ended = True
        self._wake.set()

    async def take(self) -> list[Change]:
        """All that waits; empty when the store was closed."""
        await self._wake.wait()
        batch, self._waiting = self._waiting, []
        if not self._ended:
            self._wake.clear()
        return batch


_CURRENT = "SELECT current.key, value, current.revision FROM current JOIN log ON log.revision = current.revision"
_HISTORY = """
SELECT new.revision, new.key, new.value, old.value FROM log AS new LEFT JOIN log AS old ON old.revision = new.previous
WHERE new.revision > ? AND new.key >= ? AND new.key < ? ORDER BY new.revision
"""


def _connect(path: Path) -> tuple[sqlite3.Connection, int, int]:
    db = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # One process per store: two API servers on one file would each serve a stale cache.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(SCHEMA)
        (compacted,) = db.execute("SELECT revision FROM compacted").fetchone()
        (newest,) = db.execute("SELECT coalesce(max(revision), 0) FROM log").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db, max(newest, compacted), compacted


class _Engine:
    """What happens on the thread: transactions over the two tables."""

    def __init__(
        self,
        db: sqlite3.Connection,
        revision: int,
        compacted: int,
        retention: int,
        deliver: Callable[[Sequence[Change], Sequence[tuple[asyncio.Future[Any], Any]]], None],
    ) -> None:
        self.db, self.revision, self.compacted = db, revision, compacted
        self._retention, self._deliver = retention, deliver

    def run(self, batch: Sequence[_Write | _Read]) -> None:
        """Do the work in order; neighbouring writes share a transaction."""
        writes: list[_Write] = []
        for work in batch:
            if isinstance(work, _Write):
                writes.append(work)
                continue
            self._commit(writes)
            writes = []
            self._deliver((), [(work.answer, self._answer(work.run))])
        self._commit(writes)
        if self.revision - self.compacted >= self._retention + _COMPACT_EVERY:
            problem = self._answer(lambda db: self.compact(self.revision - self._retention))
            if problem is not None:
                log.warning("automatic compaction: %s", problem)

    def _answer(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return run(self.db)
        except sqlite3.Error as error:
            return _refusal(error)
        except StoreError as error:
            return error

    def _commit(self, writes: Sequence[_Write]) -> None:
        if not writes:
            return
        before, changes = self.revision, list[Change]()
        try:
            self.db.execute("BEGIN IMMEDIATE")
            answers: list[tuple[asyncio.Future[Any], Any]] = [
                (write.answer, self._apply(write, changes)) for write in writes
            ]
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            self.revision, changes = before, []
            refusal = _refusal(error)
            log.warning("%d writes refused: %s", len(writes), refusal)
            answers = [(write.answer, refusal) for write in writes]
        self._deliver(changes, answers)

    def _apply(self, write: _Write, changes: list[Change]) -> int | StoreError:
        new, found, previous = self.revision + 1, 0, None
        if write.revision == _NEW:
            created = self.db.execute("INSERT OR IGNORE INTO current VALUES (?, ?)", (write.key, new))
            if not created.rowcount:
                return KeyExists(write.key)
        else:
            row = self.db.execute(f"{_CURRENT} WHERE current.key = ?", (write.key,)).fetchone()
            _, previous, found = row or (write.key, None, 0)
            if not row or write.revision not in (0, found):
                return RevisionMismatch(write.key, found, self.revision)
            if write.value is None:
                self.db.execute("DELETE FROM current WHERE key = ?", (write.key,))
            else:
                self.db.execute("UPDATE current SET revision = ? WHERE key = ?", (new, write.key))
        self.db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (new, found, write.key, write.value))
        self.revision = new
        changes.append(Change(new, write.key, write.value, previous))
        return new

    def history(self, prefix: str, after: int) -> tuple[list[Change], int]:
        """The changes under `prefix` after a revision, and the revision they reach to. Raises Compacted."""
        if after < self.compacted:
            raise Compacted(self.compacted)
        rows = self.db.execute(_HISTORY, (after, prefix, prefix_end(prefix)))
        return [Change(*row) for row in rows], self.revision

    def compact(self, revision: int) -> None:
        """Remove what was replaced up to `revision`."""
        revision = min(revision, self.revision)
        if revision <= self.compacted:
            return
        span = (self.compacted, revision)
        try:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute(
                "DELETE FROM log WHERE revision IN (SELECT previous FROM log WHERE revision > ? AND revision <= ?)",
                span,
            )
            self.db.execute("DELETE FROM log WHERE revision > ? AND revision <= ? AND value IS NULL", span)
            self.db.execute("UPDATE compacted SET revision = ?", (revision,))
            self.db.execute("COMMIT")
        except sqlite3.Error:
            self._rollback()
            raise
        self.compacted = revision

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in."""
        try:
            self.db.close()
        except sqlite3.Error as error:
            log.warning("closing the store: %s", error)

    def _rollback(self) -> None:
        # SQLite rolls back by itself on some errors, and then refuses to do it again.
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")


def _refusal(error: sqlite3.Error) -> ServiceUnavailable:
    return ServiceUnavailable(f"the store cannot serve this: {error}")
