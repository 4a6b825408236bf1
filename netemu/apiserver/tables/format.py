"""Words of a table's cells that several kinds share.

Upstream: apimachinery `util/duration` and `labels`, `pkg/printers/internalversion`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from netemu.model.times import parse

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def human_duration(seconds: float) -> str:
    """A duration with two or three significant digits: `95s`, `5m10s`, `3h`, `2d4h`, `400d`."""
    if seconds < -1:
        return "<invalid>"
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    # Up to which duration: in which unit, and with which smaller unit beside it.
    for limit, unit, name, smaller, small_name in (
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    ):
        if whole < limit:
            rest = whole % unit // smaller if smaller else 0
            return f"{whole // unit}{name}" + (f"{rest}{small_name}" if rest else "")
    return f"{whole // _YEAR}y"


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago a `Time` or `MicroTime` was; `<unknown>` where there is none."""
    if not timestamp:
        return UNKNOWN
    try:
        moment = parse(timestamp)
    except ValueError:
        return UNKNOWN
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return human_duration((now - moment).total_seconds())


def some_of(words: Iterable[str], limit: int = 3) -> str:
    """The first `limit` words and how many more there are: `a,b,c + 2 more...`."""
    every = list(words)
    text = ",".join(every[:limit])
    return f"{text} + {len(every) - limit} more..." if len(every) > limit else text


def label_text(labels: Mapping[str, str] | None) -> str:
    """`a=1,b=2` in alphabetical order, `<none>` without labels."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def label_selector_text(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as kubectl takes it: `app=web,tier in (a,b)`; `<none>` where it selects everything."""
    if selector is None:
        return NONE
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        key, values = term.get("key", ""), ",".join(sorted(term.get("values") or ()))
        text = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }.get(term.get("operator", ""), key)
        terms.append((key, text))
    return ",".join(text for _, text in sorted(terms)) or NONE


def container_texts(containers: Sequence[Mapping[str, Any]] | None) -> tuple[str, str]:
    """The names and the images of containers, each joined by commas."""
    every = containers or ()
    return ",".join(c.get("name", "") for c in every), ",".join(c.get("image", "") for c in every)
