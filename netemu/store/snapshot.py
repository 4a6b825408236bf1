"""Snapshots of a store that is not one file, etcd: written into a file of `sqlite_snapshot`'s form, and back.

Back means ordinary writes: what the snapshot does not have is deleted, what differs is put. Revisions go on from the
store's own, raised to the snapshot's by empty writes where that is higher, and the history before is forgotten; so no
revision is given twice, and whoever watched lists again. Nobody else may write meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from netemu.store.base import RevisionMismatch, Store
from netemu.store.sqlite_snapshot import read_items, write_snapshot

log = logging.getLogger(__name__)

_AT_ONCE = 32


async def save(store: Store, prefix: str, kept: Callable[[str], bool], path: Path, origin: str) -> int:
    """Write what is under a prefix, as far as it is `kept`, to a new file; its revision. Raises ServiceUnavailable."""
    snapshot = await store.list(prefix)
    items = [item for item in snapshot.items if kept(item.key)]
    await asyncio.to_thread(write_snapshot, path, items, snapshot.revision, origin)
    return snapshot.revision


async def restore(store: Store, prefix: str, path: Path) -> None:
    """Make what is under a prefix the same as in a file. Begun again, it goes on.

    Raises UserError, ServiceUnavailable.
    """
    revision, items = await asyncio.to_thread(read_items, path)
    wanted = {item.key: item.value for item in items}
    present = {item.key: item.value for item in (await store.list(prefix)).items}
    await _all(store.delete(key) for key in present.keys() - wanted.keys())
    await _all(
        store.update(key, value) if key in present else store.create(key, value)
        for key, value in wanted.items()
        if present.get(key) != value
    )
    if missing := revision - await store.newest():
        await _raise(store, f"{prefix}ranges/revisions/raised", missing)
    await store.compact(await store.newest())
    log.info("restored %d keys of revision %d", len(wanted), revision)


async def _raise(store: Store, key: str, count: int) -> None:
    """Let the store's revision rise, by writes that leave nothing."""
    if count > 0:
        await store.create(key, b"{}")
        await _all(store.update(key, b"{}") for _ in range(count))
        await store.delete(key)


async def _all(writes: Iterable[Coroutine[Any, Any, int]]) -> None:
    """Many at a time. A key that goes by itself meanwhile is gone."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(write: Coroutine[Any, Any, int]) -> None:
        async with turn:
            try:
                await write
            except RevisionMismatch:
                log.info("a key went by itself")

    async with asyncio.TaskGroup() as tasks:
        for write in writes:
            tasks.create_task(one(write))
