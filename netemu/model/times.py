"""Kubernetes' two time formats.

`Time` is RFC 3339 with whole seconds, `MicroTime` has exactly six fractional digits (Go clients refuse others).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache


def now() -> str:
    """The present as `Time`: `2026-01-02T03:04:05Z`."""
    return _second_text(int(time.time()))


@lru_cache(maxsize=4)
def _second_text(seconds: int) -> str:
    # Every write tells the time; within a second it is the same text.
    return time_text(datetime.fromtimestamp(seconds, UTC))


def micro_now() -> str:
    """The present as `MicroTime`: `2026-01-02T03:04:05.000006Z`."""
    seconds, micro = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second_text(seconds)[:-1]}.{micro:06}Z"


def time_text(moment: datetime) -> str:
    """A moment as `Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> datetime:
    """Either format back. Raises ValueError."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds_since(text: str) -> float:
    """How long ago that was, in seconds."""
    return (datetime.now(UTC) - parse(text)).total_seconds()
