"""Whether a CronJob's schedule can be read: the standard form of `github.com/robfig/cron/v3`, which upstream uses.

Five fields, each a list of `*`, `?`, a value or a range, with or without a step, or one of a few words for all five.
`N/STEP` means from N to the end. Lists may have empty entries, names stand for months and days in any case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from netemu.apiserver.validation.fields import go
from netemu.model.durations import Duration

_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_EVERY = "@every "
_NUMBER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class _Bounds:
    low: int
    high: int
    names: dict[str, int] = field(default_factory=dict)


def _named(first: int, names: str) -> dict[str, int]:
    return {name: first + number for number, name in enumerate(names.split())}


_FIELDS = (
    _Bounds(0, 59),
    _Bounds(0, 23),
    _Bounds(1, 31),
    _Bounds(1, 12, _named(1, "jan feb mar apr may jun jul aug sep oct nov dec")),
    _Bounds(0, 6, _named(0, "sun mon tue wed thu fri sat")),
)
"""Minute, hour, day of the month, month, day of the week."""


def check_schedule(text: str) -> None:
    """Raises ValueError, in upstream's words, for a schedule that cannot be read."""
    if text.startswith("@"):
        _check_descriptor(text)
        return
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")
    for part, bounds in zip(parts, _FIELDS, strict=True):
        for entry in filter(None, part.split(",")):
            _check_entry(entry, bounds)


def _check_descriptor(text: str) -> None:
    if text.startswith(_EVERY):
        duration = text.removeprefix(_EVERY)
        try:
            Duration.parse(duration)
        except ValueError:
            raise ValueError(f"failed to parse duration {text}: time: invalid duration {go(duration)}") from None
    elif text not in _DESCRIPTORS:
        raise ValueError(f"unrecognized descriptor: {text}")


def _check_entry(entry: str, bounds: _Bounds) -> None:
    """One entry of a field's list: `*`, `VALUE` or `FIRST-LAST`, then perhaps `/STEP`."""
    span, *steps = entry.split("/")
    first, *rest = span.split("-")
    if first in ("*", "?"):
        start, end = bounds.low, bounds.high
    else:
        start = end = _value(first, bounds.names)
        if len(rest) > 1:
            raise ValueError(f"too many hyphens: {entry}")
        if rest:
            end = _value(rest[0], bounds.names)
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {entry}")
    step = _value(steps[0], {}) if steps else 1
    if steps and not rest:
        end = bounds.high
    if start < bounds.low:
        raise ValueError(f"beginning of range ({start}) below minimum ({bounds.low}): {entry}")
    if end > bounds.high:
        raise ValueError(f"end of range ({end}) above maximum ({bounds.high}): {entry}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {entry}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {entry}")


def _value(text: str, names: dict[str, int]) -> int:
    if (named := names.get(text.lower())) is not None:
        return named
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"failed to parse int from {text}: strconv.Atoi: parsing {go(text)}: invalid syntax")
    if (number := int(text)) < 0:
        raise ValueError(f"negative number ({number}) not allowed: {text}")
    return number
