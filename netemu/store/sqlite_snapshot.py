"""Copies of the SQLite store: one file with everything as it was at one revision, and the lab it is from.

A snapshot has the store's own tables and one more row that tells where it is from. Put in place of a store
(`replace_store`), it goes on from the higher of both revisions and forgets the history before it, as etcd's restore
with `--bump-revision --mark-compacted` does: no revision is given twice, and whoever has seen one that is gone now
lists again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from netemu.model.errors import UserError

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
        db.execute("UPDATE compacted SET revision = ?", (max(own, former),))
        db.commit()
    os.replace(snapshot, path)
