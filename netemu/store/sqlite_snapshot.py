"""Copies of the SQLite store: one file with everything as it was at one revision, and the lab it is from.

A snapshot has the store's own tables and one more row that tells where it is from. Put in place of a store
(`replace_store`), it goes on after the higher of both revisions and forgets the history up to there, as etcd's restore
with `--bump-revision --mark-compacted` does: no revision is given twice, and everybody lists again, also who has seen
the very newest revision of the former store.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from netemu.model.errors import UserError
from netemu.store.base import KeyValue

SCHEMA = """
CREATE TABLE IF NOT EXISTS log (revision INTEGER PRIMARY KEY, previous INTEGER NOT NULL, key TEXT NOT NULL, value BLOB);
CREATE TABLE IF NOT EXISTS current (key TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS compacted (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO compacted VALUES (0, 0);
"""
"""The store's own tables; see `sqlite`."""
_ITEMS = """
SELECT current.key, value, current.revision FROM current JOIN log ON log.revision = current.revision
ORDER BY current.key
"""
_ORIGIN = "CREATE TABLE snapshot (origin TEXT NOT NULL, saved TEXT NOT NULL)"
_REVISION = "SELECT max((SELECT coalesce(max(revision), 0) FROM log), (SELECT revision FROM compacted))"


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """What a snapshot says of itself, and its keys in order."""

    origin: str
    saved: str
    revision: int
    keys: list[str]


def copy_store(store: sqlite3.Connection, target: Path, origin: str) -> int:
    """Write a snapshot of an open store; its revision. Raises sqlite3.Error."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        store.backup(copy)
        # One file, also while it is read.
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("DROP TABLE IF EXISTS snapshot")
        copy.execute(_ORIGIN)
        copy.execute("INSERT INTO snapshot VALUES (?, ?)", (origin, datetime.now(UTC).isoformat(timespec="seconds")))
        revision: int = copy.execute(_REVISION).fetchone()[0]
    return revision


def copy_store_file(path: Path, target: Path, origin: str) -> int:
    """Write a snapshot of a store that nobody has open; its revision. Raises UserError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0)) as store:
            # `backup` would wait for whoever has the store open, for ever; a read is refused.
            store.execute(_REVISION).fetchone()
            return copy_store(store, target, origin)
    except sqlite3.Error as error:
        raise UserError(f"store {path}: {error}") from error


def read_snapshot(path: Path) -> SnapshotFile:
    """What is in a snapshot. Raises UserError where it is none, or damaged."""
    with _opened(path) as db:
        (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise UserError(f"snapshot {path}: damaged: {problem}")
        origin, saved = db.execute("SELECT origin, saved FROM snapshot").fetchone()
        (revision,) = db.execute(_REVISION).fetchone()
        keys = [key for (key,) in db.execute("SELECT key FROM current ORDER BY key")]
    return SnapshotFile(origin, saved, revision, keys)


def read_items(path: Path) -> tuple[int, list[KeyValue]]:
    """The revision of a snapshot, and its keys with their values. Raises UserError."""
    read_snapshot(path)
    with _opened(path) as db:
        (revision,) = db.execute(_REVISION).fetchone()
        return revision, [KeyValue(*row) for row in db.execute(_ITEMS)]


def write_snapshot(path: Path, items: Iterable[KeyValue], revision: int, origin: str) -> None:
    """Write a snapshot of what another kind of store has. Raises sqlite3.Error."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(SCHEMA)
        db.execute(_ORIGIN)
        db.execute("BEGIN")
        for key, value, at in items:
            db.execute("INSERT INTO log VALUES (?, 0, ?, ?)", (at, key, value))
            db.execute("INSERT INTO current VALUES (?, ?)", (key, at))
        db.execute("UPDATE compacted SET revision = ?", (revision,))
        db.execute("INSERT INTO snapshot VALUES (?, ?)", (origin, datetime.now(UTC).isoformat(timespec="seconds")))
        db.execute("COMMIT")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            yield db
    except sqlite3.Error as error:
        raise UserError(f"snapshot {path}: {error}; `netemu snapshot save` makes one") from error


def replace_store(snapshot: Path, path: Path) -> None:
    """Move a snapshot into the place of a store that nobody has open, whole or not at all. Raises sqlite3.Error."""
    former = 0
    if path.exists():
        # Closing the last connection folds the write-ahead log in, so that none is left for the successor.
        with closing(sqlite3.connect(path, timeout=1.0)) as store:
            (former,) = store.execute(_REVISION).fetchone()
    with closing(sqlite3.connect(snapshot)) as db:
        (own,) = db.execute(_REVISION).fetchone()
        db.execute("DELETE FROM log WHERE revision NOT IN (SELECT revision FROM current)")
        db.execute("UPDATE compacted SET revision = ?", (max(own, former) + 1,))
        db.commit()
    os.replace(snapshot, path)
