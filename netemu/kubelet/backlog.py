"""What has come for somebody who has not read it yet."""

from __future__ import annotations

import asyncio
from collections import deque

_LIMIT = 8 * 1024 * 1024
"""Bytes that may wait for a slow reader before everything else on the same connection waits with them."""


class Backlog:
    """A queue of pieces with an end."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def put(self, data: bytes) -> None:
        """Add a piece, waiting while too much is there. What comes after the end is dropped."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < _LIMIT or self._ended)
            if data and not self._ended:
                self._pieces.append(data)
                self._size += len(data)
                self._changed.notify_all()

    async def end(self) -> None:
        """Nothing more will come."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def get(self) -> bytes:
        """The next piece; empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces or self._ended)
            if not self._pieces:
                return b""
            data = self._pieces.popleft()
            self._size -= len(data)
            self._changed.notify_all()
            return data
