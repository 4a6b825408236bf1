"""The endpoints of Service `kubernetes`: where the API servers of this cluster are.

Where there is one API server, they are its address, written when it starts. Where there are several, each keeps a
lease on a key of the store with its address; the endpoints are the addresses that have one. An API server that ends
gives its lease up; one that dies is gone from the endpoints when its lease ends, whoever is left seeing to that.
Upstream: `pkg/controlplane/reconcilers/lease.go`, whose keys and timings these are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from netemu.apiserver.keys import key_of
from netemu.apiserver.registry import Registry
from netemu.apiserver.watchcache import stored
from netemu.client.base import Client, Obj
from netemu.model.errors import AlreadyExists, ApiError, Conflict, NotFound
from netemu.model.objects import SERVICE_NAME_LABEL
from netemu.model.resources import ENDPOINTS, ENDPOINTSLICES, Resource
from netemu.store.base import RevisionMismatch, Store

log = logging.getLogger(__name__)

NAME, NAMESPACE = "kubernetes", "default"
MASTER_LEASES = Resource("", "v1", "Endpoints", "masterleases", False)
"""What no client sees: one object for each API server that is alive, named after its address."""
_LEASE_SECONDS, _INTERVAL_SECONDS = 15, 10.0


class LeasingStore(Store, Protocol):
    """A store that lets keys go by themselves."""

    async def put_for(self, key: str, value: bytes, seconds: int) -> None:
        """Put a key that goes after so many seconds, unless it is put again."""
        ...


async def publish(client: Client, addresses: Sequence[str], port: int) -> None:
    """Make these addresses, of one family, the endpoints. Raises Conflict where somebody else did so just now."""
    for resource, labels, content in _contents(addresses, port):
        try:
            found = await client.get(resource, NAME, NAMESPACE)
        except NotFound:
            metadata: Obj = {"name": NAME, "labels": labels}
            whole = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **content}
            with contextlib.suppress(AlreadyExists):
                await client.create(resource, whole, NAMESPACE)
            continue
        if any(found.get(field) != value for field, value in content.items()):
            seen = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}}
            await client.patch(resource, NAME, {**content, **seen}, NAMESPACE)


def _contents(addresses: Sequence[str], port: int) -> Sequence[tuple[Resource, dict[str, str], Obj]]:
    """EndpointSlice and Endpoints: their labels, and the fields that say where the API servers are."""
    ordered = sorted(addresses, key=ipaddress.ip_address)
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in ordered]
    subsets = [{"addresses": [{"ip": address} for address in ordered], "ports": ports}] if ordered else []
    family = "IPv6" if any(":" in address for address in ordered) else "IPv4"
    return (
        (
            ENDPOINTSLICES,
            {SERVICE_NAME_LABEL: NAME},
            {"addressType": family, "endpoints": endpoints, "ports": ports},
        ),
        # Whoever mirrors Endpoints into slices must leave these alone: their slice is the one above.
        (ENDPOINTS, {"endpointslice.kubernetes.io/skip-mirror": "true"}, {"subsets": subsets}),
    )


class EndpointReconciler:
    """Keeps one API server of several among the endpoints, and those that are gone out of them."""

    def __init__(self, client: Client, registry: Registry, store: LeasingStore, address: str, port: int) -> None:
        self._client, self._registry, self._store = client, registry, store
        self._address, self._port = address, port
        self._key = key_of(MASTER_LEASES, "", address)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(self._follow())

    async def withdraw(self) -> None:
        """Leave the endpoints at once. Raises ApiError."""
        with contextlib.suppress(RevisionMismatch):
            await self._store.delete(self._key)
        await self._reconcile()

    async def _renew(self) -> None:
        metadata = {"name": self._address}
        value = stored({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata})
        while True:
            await self._quietly(lambda: self._store.put_for(self._key, value, _LEASE_SECONDS))
            # Also when nothing changed: somebody may have written something else there.
            await self._quietly(self._reconcile)
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def _follow(self) -> None:
        while True:
            await self._quietly(self._follow_once)
            await asyncio.sleep(1.0)

    async def _follow_once(self) -> None:
        changes = self._registry.watch(MASTER_LEASES, resource_version=str(self._registry.revision))
        async with contextlib.aclosing(changes):
            async for event in changes:
                if event.type in ("ADDED", "DELETED"):
                    await self._reconcile()

    async def _reconcile(self) -> None:
        while alive := [lease["metadata"]["name"] for lease in self._registry.objects(MASTER_LEASES)]:
            with contextlib.suppress(Conflict):  # another API server saw to it at the same time; look again
                await publish(self._client, alive, self._port)
                return

    @staticmethod
    async def _quietly(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except ApiError as error:
            log.info("endpoints of the API servers: %s", error)
