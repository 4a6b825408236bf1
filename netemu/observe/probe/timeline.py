"""What became of attempts over time, and what happened meanwhile: counted per interval, and drawn. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from netemu.observe.probe.result import Attempt

INTERVAL: Final = 0.1
_WIDTH: Final = 100
_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in seconds since the probing began."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """The attempts that began in one interval, and how many of them were lost: got no answer, of whatever kind."""

    at: float
    attempts: int
    lost: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """All intervals of a probing, one after the other without a gap."""

    interval: float
    buckets: tuple[Bucket, ...]
    events: tuple[Event, ...]

    @property
    def lost(self) -> int:
        """In all."""
        return sum(bucket.lost for bucket in self.buckets)


def timeline(attempts: Sequence[Attempt], events: Sequence[Event], interval: float = INTERVAL) -> Timeline:
    """Count attempts by the interval in which they began."""
    last = max([attempt.begun for attempt in attempts] + [event.at for event in events], default=0.0)
    made, lost = [0] * (int(last / interval) + 1), [0] * (int(last / interval) + 1)
    for attempt in attempts:
        made[int(attempt.begun / interval)] += 1
        lost[int(attempt.begun / interval)] += not attempt.answer
    counted = zip(made, lost, strict=True)
    buckets = (Bucket(round(number * interval, 3), *both) for number, both in enumerate(counted))
    return Timeline(interval, tuple(buckets), tuple(events))


def draw(line: Timeline) -> Iterator[str]:
    """A bar per interval for what was answered and for what was lost, and a mark where something happened."""
    highest = max((bucket.attempts for bucket in line.buckets), default=0)
    for begin in range(0, len(line.buckets), _WIDTH):
        part = line.buckets[begin : begin + _WIDTH]
        answered = "".join(_bar(bucket.attempts - bucket.lost, highest, " ") for bucket in part)
        yield f"{part[0].at:8.1f} s  answered  {answered}"
        yield f"{'':10}  lost      {''.join(_bar(bucket.lost, highest, '·') for bucket in part)}"
        for event in line.events:
            if begin <= int(event.at / line.interval) < begin + _WIDTH:
                yield f"{'':22}{' ' * (int(event.at / line.interval) - begin)}^ {event.at:.2f} s {event.what}"
    yield f"{'':22}a bar is {line.interval * 1000:.0f} ms; the highest is {highest} attempts"


def _bar(number: int, highest: int, none: str) -> str:
    """A single loss among thousands of attempts shows too."""
    return _BARS[-(-number * len(_BARS) // highest) - 1] if number else none
