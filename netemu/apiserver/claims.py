"""Who has which cluster IP and node port, where several API servers give them to Services at the same time.

A value is claimed in the store before a Service that has it is written: a key per value, which only one can create. The
claim bears a name of its writing alone, so a value that is claimed is somebody else's, whoever's Service it is for.
What became of a write is not always known, and who claimed may have died since; so now and then the claims are
compared with the Services there are: a claim that is missing is made, one that no Service has is removed when it is
found so a second time. Upstream keeps a bitmap per range under one key, and repairs it in the same way
(`pkg/registry/core/service/{ipallocator,portallocator}/controller`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Set
from typing import NamedTuple

from netemu.apiserver.allocation import Value, values_of
from netemu.apiserver.cacher import Cacher
from netemu.apiserver.keys import key_of
from netemu.apiserver.watchcache import stored
from netemu.model.errors import ApiError
from netemu.model.resources import SERVICES, Resource
from netemu.model.uids import new_uid
from netemu.store.base import KeyExists, OutcomeUnknown, RevisionMismatch, Store

log = logging.getLogger(__name__)

_RANGES = {
    name: Resource("ranges", "v1", "RangeAllocation", name, False) for name in ("serviceips", "servicenodeports")
}
"""What no client sees, under `/registry/ranges/`."""
_REPAIR_SECONDS = 180.0


class _Claim(NamedTuple):
    by: str
    revision: int


class Claims:
    """The claims in a store that API servers share."""

    def __init__(self, store: Store, cacher: Cacher) -> None:
        self._store, self._cacher = store, cacher
        self._unheld: dict[Value, _Claim] = {}

    async def take(self, values: Iterable[Value]) -> tuple[set[Value], set[Value]]:
        """Claim values; those that are ours now, and those that are not to be had.

        Raises ApiError, with nothing claimed but what is repaired later.
        """
        wanted, writing = list(values), new_uid()
        done = await asyncio.gather(*(self._claim(value, writing) for value in wanted), return_exceptions=True)
        failed = [result for result in done if isinstance(result, BaseException)]
        taken = {value for value, ours in zip(wanted, done, strict=True) if ours is True}
        if failed:
            await self.give_back(taken)
            raise failed[0]
        return taken, set(wanted) - taken

    async def give_back(self, values: Iterable[Value]) -> None:
        """Let go of values; what does not succeed is repaired later."""
        with contextlib.suppress(ApiError):
            await asyncio.gather(*map(self._drop, list(values)))

    async def run(self) -> None:
        """Repair now and then, until cancelled."""
        while True:
            try:
                await self.repair()
            except ApiError as error:
                log.info("claims of Services not repaired: %s", error)
            await asyncio.sleep(_REPAIR_SECONDS)

    async def repair(self) -> None:
        """Make the claims that are missing, and remove those that were unheld the last time too. Raises ApiError."""
        await self._cacher.fresh()
        held: Set[Value] = {value for service in self._cacher.objects(SERVICES) for value in values_of(service)}
        claims = {
            (name, claim["metadata"]["name"]): _Claim(claim["by"], int(claim["metadata"]["resourceVersion"]))
            for name, resource in _RANGES.items()
            for claim in self._cacher.objects(resource)
        }
        await self.take(held - claims.keys())
        unheld = {value: claim for value, claim in claims.items() if value not in held}
        for value, claim in unheld.items():
            if self._unheld.get(value) == claim:
                log.info("no Service has %s %s any more", *value)
                with contextlib.suppress(RevisionMismatch):
                    await self._store.delete(_key(value), claim.revision)
        self._unheld = unheld

    async def _claim(self, value: Value, writing: str) -> bool:
        """Whether the value is ours now."""
        kind = _RANGES[value[0]].kind
        claim = {"apiVersion": "v1", "kind": kind, "metadata": {"name": value[1]}, "by": writing}
        try:
            await self._store.create(_key(value), stored(claim))
        except KeyExists:
            return False
        except OutcomeUnknown:
            return False  # perhaps it is: then nobody has the value until that is repaired
        return True

    async def _drop(self, value: Value) -> None:
        with contextlib.suppress(RevisionMismatch):
            await self._store.delete(_key(value))


def _key(value: Value) -> str:
    return key_of(_RANGES[value[0]], "", value[1])
