"""The cluster IPs and node ports of a Service while it is written: taken before, settled afterwards.

The allocator of this API server knows what every Service here has; values are also claimed in the store (`claims`), so
that no two Services ever have the same. What another server has taken a moment ago, or a user has reserved, is passed
over, and another value picked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from netemu.apiserver.allocation import Value, values_of
from netemu.apiserver.cacher import Cacher
from netemu.apiserver.claims import Claims
from netemu.apiserver.json_values import decode
from netemu.apiserver.rules import Allocator
from netemu.apiserver.watchcache import encode
from netemu.client.base import Obj
from netemu.model.errors import ApiError, Invalid
from netemu.model.resources import SERVICECIDRS, SERVICES
from netemu.store.base import OutcomeUnknown, Store


class ServiceValues:
    """What Services have, for the writer."""

    def __init__(self, store: Store, cacher: Cacher, allocator: Allocator) -> None:
        self._store, self._cacher, self._allocator = store, cacher, allocator
        self._claims = Claims(store, cacher)
        self._cidrs_at = -1

    async def start(self) -> asyncio.Task[None]:
        """Take over what is stored; the task that puts right what an end in the middle of a write left.

        Where nobody else writes, that is done when this returns: then there is no need to wait whether a Service comes.
        """
        self._allocator.load(self._cacher.objects(SERVICES))
        if self._store.shared:
            self._cacher.on_change(SERVICES, self._changed)
        else:
            await self._claims.repair(alone=True)
        return asyncio.create_task(self._claims.run(), name="claims of Services")

    @asynccontextmanager
    async def held(self, new: Obj, old: Obj | None, *, dry_run: bool) -> AsyncIterator[None]:
        """Inside, a Service holds what `new` and `old` have; afterwards what is stored, written or not.

        Fills in what `new` lacks, unless it is `old`. Raises Invalid.
        """
        claimed: set[Value] = set()
        if new is not old:
            claimed = await self._take(new, old, dry_run)
        try:
            yield
        except (asyncio.CancelledError, OutcomeUnknown):
            # Perhaps it was written all the same: holding too much is harmless, giving back too much is not.
            raise
        except BaseException:
            await self._settle(new, claimed)
            raise
        if old or dry_run:  # a new Service that is written has just what it took
            await self._settle(new, claimed | (values_of(old) if old and not dry_run else set()))

    async def _take(self, new: Obj, old: Obj | None, dry_run: bool) -> set[Value]:
        """Allocate, and claim what is new; what was claimed."""
        given = encode(new["spec"])
        elsewhere: set[Value] = set()
        while True:
            self._use_cidrs()
            if errors := self._allocator.allocate(new, old, elsewhere):
                raise Invalid.of_fields(SERVICES.kind, new["metadata"]["name"], errors)
            if dry_run:
                return set()
            try:
                ours, lost = await self._claims.take(values_of(new) - (values_of(old) if old else set()), new)
            except BaseException:
                self._refresh(new)
                raise
            if not lost:
                return ours
            await self._claims.give_back(ours)
            self._refresh(new)
            elsewhere |= lost
            new["spec"] = decode(given)

    def _use_cidrs(self) -> None:
        """Let the allocator know of ServiceCIDRs that came or went."""
        if (changed := self._cacher.changed(SERVICECIDRS)) != self._cidrs_at:
            self._allocator.use(self._cacher.objects(SERVICECIDRS))
            self._cidrs_at = changed

    async def _settle(self, obj: Obj, claimed: set[Value]) -> None:
        if claimed:
            with contextlib.suppress(ApiError):
                await self._cacher.fresh()
                now = self._stored(obj)
                if left := claimed - (values_of(now) if now else set()):
                    await self._claims.give_back(left)
        self._refresh(obj)

    def _refresh(self, obj: Obj) -> None:
        now = self._stored(obj)
        if now is None:
            self._allocator.release(obj)
        else:
            self._allocator.load([now])

    def _stored(self, obj: Obj) -> Obj | None:
        return self._cacher.find(SERVICES, obj["metadata"]["namespace"], obj["metadata"]["name"])

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        """Another API server may have written it."""
        if obj := new or old:
            self._refresh(obj)
