"""What `kubectl logs` shows of a container's log: the last lines, since when, how many bytes, and whether it goes on.

The file has an entry per line in CRI's format. A filter decides entry by entry, without I/O; `read` feeds it, and looks
for more until the container has ended. Upstream: `pkg/kubelet/kuberuntime/logs/logs.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from netemu.model import times

_LOOK = 0.1
"""Seconds between two looks at a log that is followed."""
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """PodLogOptions. `since` is the earliest moment shown; None and -1 mean no limit."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int = -1
    limit: int = -1
    """Bytes in all."""
    since: datetime | None = None

    @staticmethod
    def of(query: Mapping[str, str], now: datetime) -> LogOptions:
        """From a kubelet's URL. Raises ValueError."""
        since = times.parse(query["sinceTime"]) if query.get("sinceTime") else None
        if query.get("sinceSeconds"):
            since = now - timedelta(seconds=int(query["sinceSeconds"]))
        if since is not None and since.tzinfo is None:
            since = since.replace(tzinfo=UTC)
        return LogOptions(
            follow=query.get("follow") == "true",
            previous=query.get("previous") == "true",
            timestamps=query.get("timestamps") == "true",
            tail=int(query.get("tailLines", "-1")),
            limit=int(query.get("limitBytes", "-1")),
            since=since,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file, or the part of a long one (`partial`)."""

    time: str
    stream: str
    partial: bool
    text: bytes

    @property
    def output(self) -> bytes:
        """What the container wrote."""
        return self.text if self.partial else self.text + b"\n"


def entry_of(line: bytes) -> Entry | None:
    """A line of the file without its newline; None where it is none of CRI's format."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    time, stream, tag, text = parts
    return Entry(time.decode(errors="replace"), stream.decode(), tag.startswith(b"P"), text)


class Shown:
    """Turns entries into what the client sees, until `limit` bytes are out. Pure."""

    def __init__(self, options: LogOptions) -> None:
        self._options, self._left = options, options.limit

    @property
    def full(self) -> bool:
        """Whether no more may be sent."""
        return self._left == 0

    def feed(self, entry: Entry) -> bytes:
        """What an entry adds; nothing where it is too old."""
        if self._options.since is not None and not _is_since(entry.time, self._options.since):
            return b""
        out = entry.output
        if self._options.timestamps:
            out = entry.time.encode() + b" " + out
        if self._left >= 0:
            out = out[: self._left]
            self._left -= len(out)
        return out


def _is_since(moment: str, since: datetime) -> bool:
    try:
        return times.parse(moment) >= since
    except ValueError:
        return True


def tail_position(path: Path, lines: int) -> int:
    """Where in the file its last `lines` lines begin; read from the end, however long it is."""
    with path.open("rb") as file:
        end = position = file.seek(0, 2)
        if lines <= 0:
            return end if lines == 0 else 0
        missing = lines + 1  # the newline before the first of them
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            block = file.read(position - start)
            if position == end and not block.endswith(b"\n"):
                missing -= 1
            found = block.count(b"\n")
            if found >= missing:
                index = len(block)
                for _ in range(missing):
                    index = block.rindex(b"\n", 0, index)
                return start + index + 1
            missing -= found
            position = start
        return 0


async def entries(path: Path, position: int, goes_on: Callable[[], Awaitable[bool]]) -> AsyncIterator[Entry | None]:
    """Entries from a position of the file; None whenever all there is has been given and more may come.

    `goes_on` tells whether the container may still write; what it wrote before it ended is given.
    """
    rest = b""
    with path.open("rb") as file:
        file.seek(position)
        while True:
            more = await goes_on()
            while block := file.read(_BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    if (entry := entry_of(line)) is not None:
                        yield entry
            if not more:
                return
            yield None
            await asyncio.sleep(_LOOK)


async def read(path: Path, options: LogOptions, running: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    """The output of a log in pieces; an empty piece now and then while nothing comes."""

    async def goes_on() -> bool:
        return options.follow and await running()

    shown, piece = Shown(options), bytearray()
    async for entry in entries(path, tail_position(path, options.tail), goes_on):
        if entry is not None:
            piece += shown.feed(entry)
        if len(piece) >= _BLOCK or entry is None or shown.full:
            yield bytes(piece)
            piece.clear()
        if shown.full:
            return
    yield bytes(piece)
