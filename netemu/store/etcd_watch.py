"""All changes of an etcd cluster after a revision, in order and without a gap, whichever members come and go.

A watch asks one member. When it goes away, the next one is asked for what follows the last revision that was told.
A member that lives but is cut off from the others looks just like a quiet one, so a watch that hears nothing asks now
and then for the cluster's revision; one that has not come that far by the next time is given up for another member.

The whole key space is watched, and the prefix is picked here: each revision then has an event, so it is known when the
history has been told up to a revision.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from netemu.model.errors import ServiceUnavailable
from netemu.store.base import Change, Compacted
from netemu.store.etcd_gateway import Gateway, WatchAnswer

log = logging.getLogger(__name__)

_QUIET_SECONDS = 3.0
"""How long a watch hears nothing before the cluster's revision is asked for."""
_PAUSE_SECONDS = 0.2
_FIRST = asyncio.FIRST_COMPLETED
EVERYTHING = base64.b64encode(b"\0").decode()
"""As `key` and as `range_end`: all keys."""


class Feed:
    """One consumer's changes. `seen` is the revision of the last one told."""

    def __init__(
        self, gateway: Gateway, newest: Callable[[], Awaitable[int]], closing: asyncio.Future[None], after: int
    ) -> None:
        """`newest` tells the cluster's revision; `changes` ends when `closing` is done."""
        self._gateway, self._newest, self._closing = gateway, newest, closing
        self.seen = after

    async def changes(self) -> AsyncGenerator[Sequence[Change], None]:
        """Batches of changes, none of them empty. Raises Compacted."""
        while not self._closing.done():
            try:
                async with (
                    self._gateway.stream("watch", _request(self.seen)) as answers,
                    aclosing(self._heard(answers)) as batches,
                ):
                    async for texts in batches:
                        if changes := self._new(texts):
                            self.seen = changes[-1].revision
                            yield changes
            except ServiceUnavailable as error:
                log.warning("watching etcd from revision %d: %s; asking another member", self.seen, error)
            await asyncio.wait({self._closing}, timeout=_PAUSE_SECONDS)

    async def _heard(self, answers: AsyncGenerator[list[bytes], None]) -> AsyncGenerator[list[bytes], None]:
        """What comes, until the stream ends or the store closes. Raises ServiceUnavailable when too little comes."""
        expected = 0
        while True:
            coming = asyncio.ensure_future(_next(answers))
            either: set[asyncio.Future[Any]] = {coming, self._closing}
            try:
                while not (await asyncio.wait(either, timeout=_QUIET_SECONDS, return_when=_FIRST))[0]:
                    if self.seen < expected:
                        raise ServiceUnavailable(f"nothing came, and the cluster is at revision {expected}")
                    expected = await self._newest()
            finally:
                if not coming.done():
                    coming.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await coming
            texts = None if self._closing.done() else coming.result()
            if texts is None:
                return
            yield texts

    def _new(self, texts: Sequence[bytes]) -> list[Change]:
        found: list[Change] = []
        for text in texts:
            answer = msgspec.json.decode(text, type=WatchAnswer, strict=False)
            if answer.compact_revision:
                raise Compacted(answer.compact_revision)
            if answer.canceled:
                raise ServiceUnavailable(answer.cancel_reason or "the watch was canceled")
            found += [
                Change(
                    event.kv.mod_revision,
                    event.kv.key.decode(),
                    None if event.type == "DELETE" else event.kv.value,
                    event.prev_kv.value if event.prev_kv else None,
                )
                for event in answer.events
                if event.kv.mod_revision > self.seen
            ]
        return found


async def _next(answers: AsyncGenerator[list[bytes], None]) -> list[bytes] | None:
    return await anext(answers, None)


def _request(seen: int) -> dict[str, Any]:
    # From `seen` itself, which is dropped again: etcd refuses a watch only from before the compacted revision, and at
    # that revision it has forgotten the deletions.
    return {
        "create_request": {
            "key": EVERYTHING,
            "range_end": EVERYTHING,
            "start_revision": str(max(seen, 1)),
            "prev_kv": True,
        }
    }
