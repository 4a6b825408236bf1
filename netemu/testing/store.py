"""A cluster store in a dictionary: same contract as the real ones, nothing on disk.

While `full` is set, every write is refused, as by a full disk. `cut` breaks every watch, as a network does. `shared`
says whether it takes part as a store of several API servers; then `hold` keeps changes from watches, as a slow member
does, until `let_go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from netemu.model.errors import ServiceUnavailable
from netemu.store.base import Change, Compacted, KeyExists, KeyValue, RevisionMismatch, Snapshot


class MemoryStore:
    """Implements `Store`."""

    def __init__(self) -> None:
        self.full = self.shared = False
        self.revision = 0
        self._current: dict[str, KeyValue] = {}
        self._log: list[Change] = []
        self._compacted = 0
        self._closed = False
        self._cuts = 0
        self._news = asyncio.Event()
        self._held: int | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def newest(self) -> int:
        """See Store."""
        self._check()
        return self.revision

    async def get(self, key: str) -> KeyValue | None:
        """See Store."""
        self._check()
        return self._current.get(key)

    async def list(self, prefix: str) -> Snapshot:
        """See Store."""
        self._check()
        return Snapshot([self._current[key] for key in sorted(self._current) if key.startswith(prefix)], self.revision)

    async def create(self, key: str, value: bytes) -> int:
        """See Store."""
        if key in self._current:
            raise KeyExists(key)
        return await self._write(key, value)

    async def update(self, key: str, value: bytes, revision: int = 0) -> int:
        """See Store."""
        self._demand(key, revision)
        return await self._write(key, value)

    async def delete(self, key: str, revision: int = 0) -> int:
        """See Store."""
        self._demand(key, revision)
        return await self._write(key, None)

    async def put_for(self, key: str, value: bytes, seconds: int) -> None:
        """See EtcdStore."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        await self._write(key, value)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._expire, key)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Sequence[Change], None]:
        """See Store."""
        self._check()
        if after < self._compacted:
            raise Compacted(self._compacted)
        first, cuts = True, self._cuts
        while True:
            news, seen = self._news, self.revision if self._held is None else self._held
            if self._cuts > cuts:
                raise ServiceUnavailable("the connection to the store is lost")
            batch = [
                change for change in self._log if after < change.revision <= seen and change.key.startswith(prefix)
            ]
            if batch or first:
                yield batch
            after, first = seen, False
            if self._closed:
                return
            if seen == (self.revision if self._held is None else self._held):
                await news.wait()

    def hold(self) -> None:
        """Tell watches nothing more for now."""
        self._held = self.revision

    def let_go(self) -> None:
        """Tell watches what they have missed."""
        self._held = None
        self._tell()

    def cut(self) -> None:
        """Let every watch fail before it tells anything more."""
        self._cuts += 1
        self._tell()

    async def compact(self, revision: int) -> None:
        """See Store."""
        self._check()
        self._compacted = max(self._compacted, min(revision, self.revision))
        self._log = [change for change in self._log if change.revision > self._compacted]

    async def close(self) -> None:
        """See Store."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._tell()

    def _check(self) -> None:
        if self._closed:
            raise ServiceUnavailable("the store is closed")

    def _demand(self, key: str, revision: int) -> None:
        found = self._current[key].revision if key in self._current else 0
        if not found or revision not in (0, found):
            raise RevisionMismatch(key, found, self.revision)

    async def _write(self, key: str, value: bytes | None) -> int:
        self._check()
        if self.full:
            raise ServiceUnavailable("the store cannot serve this: database or disk is full")
        written = self._put(key, value)
        await asyncio.sleep(0)  # others run between a write and its answer, as with a real store
        return written

    def _put(self, key: str, value: bytes | None) -> int:
        self.revision += 1
        old = self._current.pop(key, None)
        if value is not None:
            self._current[key] = KeyValue(key, value, self.revision)
        self._log.append(Change(self.revision, key, value, old.value if old else None))
        self._tell()
        return self.revision

    def _expire(self, key: str) -> None:
        del self._timers[key]
        if key in self._current:
            self._put(key, None)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
