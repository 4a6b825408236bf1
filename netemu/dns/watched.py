"""Files that plugins read again when they change: hosts files, zone files, weights."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path


class Watched:
    """Looks at a file every `interval` seconds (0: never) and calls `changed` when it is another than before.

    Time of change, size and inode say so; a file that goes away, or comes, has changed too. The first look is at the
    time of construction, so read the file after that.
    """

    def __init__(self, path: Path, interval: float, changed: Callable[[], None]) -> None:
        self.path, self.interval, self.changed = path, interval, changed
        self._stamp = _stamp(path)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; needs a running loop."""
        if self.interval:
            self._task = asyncio.create_task(self._watch(), name=f"dns watch {self.path}")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            stamp = _stamp(self.path)
            if stamp != self._stamp:
                self._stamp = stamp
                self.changed()

    async def close(self) -> None:
        """Look no more."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
