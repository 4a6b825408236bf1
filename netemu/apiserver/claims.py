"""Who has which cluster IP and node port, so that nobody ever gives one of them twice.

A value is claimed in the store before a Service that has it is written: a key per value, which only one can create. The
claim of a cluster IP is an IPAddress, which names the Service, as upstream's allocator makes it (`pkg/registry/core/
service/ipallocator`); users may make some of their own, and so reserve addresses. The claim of a node port is seen by
nobody; it is made only where several API servers give them at the same time, for upstream has nothing but a bitmap.

What became of a write is not always known, and who claimed may have died since; so at the start and now and then the
claims are compared with the Services there are: one that is missing is made, one that leads to no Service is removed
when it is found so a second time, or at the start where nobody else can be about to write the Service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from netemu.apiserver.allocation import IPS, NODE_PORTS, Value, values_of
from netemu.apiserver.cacher import Cacher
from netemu.apiserver.keys import key_of
from netemu.apiserver.watchcache import stored
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import ApiError
from netemu.model.objects import IP_ALLOCATOR, IP_FAMILY, MANAGED_BY
from netemu.model.resources import IPADDRESSES, SERVICES, Resource
from netemu.model.uids import new_uid
from netemu.store.base import KeyExists, OutcomeUnknown, RevisionMismatch, Store

log = logging.getLogger(__name__)

_RESOURCES = {IPS: IPADDRESSES, NODE_PORTS: Resource("ranges", "v1", "RangeAllocation", NODE_PORTS, False)}
"""Node ports stand under `/registry/ranges/`."""
_REPAIR_SECONDS = 180.0
_FIELDS: Obj = {
    "f:metadata": {"f:labels": {".": {}, f"f:{IP_FAMILY}": {}, f"f:{MANAGED_BY}": {}}},
    "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
}


class _Claim(NamedTuple):
    uid: str
    revision: int


class Claims:
    """The claims in a store."""

    def __init__(self, store: Store, cacher: Cacher) -> None:
        self._store, self._cacher = store, cacher
        self._idle: dict[Value, _Claim] = {}

    async def take(self, values: Iterable[Value], service: Obj) -> tuple[set[Value], set[Value]]:
        """Claim values for a Service; those that are its now, and those that are not to be had.

        Raises ApiError, with nothing claimed but what is repaired later.
        """
        wanted = self._claimable(values)
        if len(wanted) == 1:  # as with most Services: no need for a task
            return (set(wanted), set()) if await self._claim(wanted[0], service) else (set(), set(wanted))
        done = await asyncio.gather(*(self._claim(value, service) for value in wanted), return_exceptions=True)
        failed = [result for result in done if isinstance(result, BaseException)]
        taken = {value for value, ours in zip(wanted, done, strict=True) if ours is True}
        if failed:
            await self.give_back(taken)
            raise failed[0]
        return taken, set(wanted) - taken

    async def give_back(self, values: Iterable[Value]) -> None:
        """Let go of values; what does not succeed is repaired later."""
        with contextlib.suppress(ApiError):
            await asyncio.gather(*map(self._drop, self._claimable(values)))

    async def run(self) -> None:
        """Repair now and then, until cancelled."""
        while True:
            await self.repair()
            await asyncio.sleep(_REPAIR_SECONDS)

    async def repair(self, *, alone: bool = False) -> None:
        """Make the claims that are missing, and remove those that led nowhere the last time too; `alone`: at once."""
        try:
            await self._cacher.fresh()
            held = {value: each for each in self._cacher.objects(SERVICES) for value in values_of(each)}
            idle = self._idle_claims(held)
            for value, claim in idle.items():
                if alone or self._idle.get(value) == claim:
                    log.info("no Service has %s %s any more", *value)
                    with contextlib.suppress(RevisionMismatch):
                        await self._cacher.reached(await self._store.delete(_key(value), claim.revision))
            self._idle = idle
            for value in self._claimable(held):
                if self._found(value) is None:
                    await self.take([value], held[value])
        except ApiError as error:
            log.info("claims of Services not repaired: %s", error)

    def _idle_claims(self, held: Mapping[Value, Obj]) -> dict[Value, _Claim]:
        """The claims that are of no Service, or of another than the one that has the value."""
        found: dict[Value, _Claim] = {}
        for name, resource in _RESOURCES.items():
            for obj in self._cacher.objects(resource):
                value, metadata = (name, obj["metadata"]["name"]), obj["metadata"]
                right = value in held and obj["spec"].get("parentRef") == _reference(held[value])
                if _ours(obj) and not right:
                    found[value] = _Claim(metadata["uid"], int(metadata["resourceVersion"]))
        return found

    def _claimable(self, values: Iterable[Value]) -> list[Value]:
        return [value for value in values if self._store.shared or value[0] == IPS]

    async def _claim(self, value: Value, service: Obj) -> bool:
        """Whether the value is ours now."""
        try:
            await self._store.create(_key(value), stored(_object(value, service)))
        except KeyExists:
            return False
        except OutcomeUnknown:
            return False  # perhaps it is: then nobody has the value until that is repaired
        return True

    async def _drop(self, value: Value) -> None:
        found = self._found(value)
        if found is None or _ours(found):
            with contextlib.suppress(RevisionMismatch):
                await self._cacher.reached(await self._store.delete(_key(value)))

    def _found(self, value: Value) -> Obj | None:
        return self._cacher.find(_RESOURCES[value[0]], "", value[1])


def _ours(claim: Obj) -> bool:
    """Whether an allocator made it; what users made is theirs."""
    return (claim["metadata"].get("labels") or {}).get(MANAGED_BY) == IP_ALLOCATOR


def _reference(service: Obj) -> Obj:
    metadata = service["metadata"]
    return {"resource": "services", "namespace": metadata["namespace"], "name": metadata["name"]}


def _object(value: Value, service: Obj) -> Obj:
    """The claim of a Service; of an address, the IPAddress as upstream's allocator makes it."""
    (kind, name), now = value, times.now()
    family = {IP_FAMILY: "IPv6" if ":" in name else "IPv4"} if kind == IPS else {}
    entry = {"manager": "kube-apiserver", "operation": "Update", "apiVersion": IPADDRESSES.api_version, "time": now}
    return {
        "apiVersion": _RESOURCES[kind].api_version,
        "kind": _RESOURCES[kind].kind,
        "metadata": {
            "name": name,
            "uid": new_uid(),
            "creationTimestamp": now,
            "labels": {**family, MANAGED_BY: IP_ALLOCATOR},
            "managedFields": [{**entry, "fieldsType": "FieldsV1", "fieldsV1": _FIELDS}],
        },
        "spec": {"parentRef": _reference(service)},
    }


def _key(value: Value) -> str:
    return key_of(_RESOURCES[value[0]], "", value[1])
