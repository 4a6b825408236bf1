"""Where the `cache` plugin keeps replies: 256 small tables per kind, so that making room is cheap.

A full table gives up one of its replies at random (`coredns/plugin/pkg/cache`); there is no list of what was used last,
because keeping one would cost every hit.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass

from netemu.dns.wire import Response

_TABLES = 256
_LEAST = 4
"""Replies that a table holds whatever the capacity is."""
_FLOOR = 5


@dataclass(slots=True)
class Item:
    """A reply and its life."""

    response: Response
    lifetime: int
    stored: float
    hits: int = 0
    last_hit: float = 0.0

    def ttl(self, now: float) -> int:
        """Seconds left; 0 and less: expired so long ago."""
        return self.lifetime - int(now - self.stored)

    def hit(self, now: float, pause: float) -> int:
        """Count a hit; returns how many there were without a pause."""
        self.hits = self.hits + 1 if now - self.last_hit <= pause else 1
        self.last_hit = now
        return self.hits


class Kind:
    """Settings and contents for answers, or for denials."""

    def __init__(self, name: str, longest: int) -> None:
        self.name, self.longest, self.shortest = name, longest, _FLOOR
        self.capacity = 9984
        self.disabled: tuple[bytes, ...] = ()
        self._tables: list[dict[Hashable, Item]] = [{} for _ in range(_TABLES)]

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def bounded(self, ttl: int) -> int:
        """A lifetime within the bounds."""
        return min(max(ttl, self.shortest), self.longest)

    def get(self, key: Hashable) -> Item | None:
        """What is kept under a key, expired or not."""
        return self._tables[hash(key) % _TABLES].get(key)

    def put(self, key: Hashable, item: Item) -> bool:
        """Keep a reply; returns whether another had to go."""
        table = self._tables[hash(key) % _TABLES]
        full = key not in table and len(table) >= max(_LEAST, self.capacity // _TABLES)
        if full:
            del table[random.choice(list(table))]
        table[key] = item
        return full

    def drop(self, key: Hashable) -> None:
        """Forget a key."""
        self._tables[hash(key) % _TABLES].pop(key, None)
