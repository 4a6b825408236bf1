"""Event objects go after an hour, as upstream's (`--event-ttl`), or the store would grow for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from netemu.apiserver import deletion
from netemu.apiserver.cacher import Cacher
from netemu.apiserver.writer import Writer
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import ApiError
from netemu.model.resources import EVENTS

log = logging.getLogger(__name__)

EVENT_TTL = timedelta(hours=1)
_PERIOD_SECONDS = 300.0


def last_seen(event: Obj) -> datetime | None:
    """When an event was last heard of; None where nothing in it tells."""
    series: Any = event.get("series")
    stamps = (
        event["metadata"].get("creationTimestamp"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        series.get("lastObservedTime") if isinstance(series, dict) else None,
    )
    moments = []
    for stamp in stamps:
        try:
            moments.append(times.parse(stamp or "").astimezone(UTC))
        except ValueError:
            continue
    return max(moments, default=None)


def stale(events: Iterable[Obj], now: datetime, ttl: timedelta = EVENT_TTL) -> list[Obj]:
    """The events that nobody needs any more."""
    return [event for event in events if (seen := last_seen(event)) is not None and now - seen > ttl]


async def expire_events(cacher: Cacher, writer: Writer) -> None:
    """Delete stale events every few minutes, until cancelled."""
    while True:
        for event in stale(cacher.objects(EVENTS), datetime.now(UTC)):
            metadata = event["metadata"]
            # Only this very revision: an event that is counted up meanwhile is not stale.
            options = deletion.DeleteOptions(resource_version=metadata["resourceVersion"])
            try:
                await writer.delete(EVENTS, metadata["namespace"], metadata["name"], options)
            except ApiError as error:
                log.debug("expiring event %s: %s", metadata["name"], error)
        await asyncio.sleep(_PERIOD_SECONDS)
