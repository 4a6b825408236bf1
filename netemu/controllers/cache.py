"""The informers of a process, one per resource, shared by all its controllers."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, cast

from netemu.client.base import Client
from netemu.client.informer import Informer
from netemu.model import resources
from netemu.model.kinds import KINDS
from netemu.model.meta import KubeObject
from netemu.model.resources import Resource

K = TypeVar("K", bound=KubeObject)

UNCACHED = (resources.EVENTS, resources.EVENTS_V1)
"""Many, short-lived, and nobody's owner or property: no controller keeps a copy of Events."""


class Cache:
    """Makes informers when first asked for, and runs them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[Resource, Informer[Any]] = {}

    def of(self, resource: Resource, kind: type[K]) -> Informer[K]:
        """The informer of `resource`, whose objects are of `kind`."""
        return cast("Informer[K]", self.any(resource))

    def any(self, resource: Resource) -> Informer[Any]:
        """The informer of `resource`; objects without a type of their own are plain `KubeObject`s."""
        if resource not in self._informers:
            kind = KINDS.get(resource.kind, KubeObject)
            self._informers[resource] = Informer(self._client, resource, kind)
        return self._informers[resource]

    def get(self, resource: Resource) -> Informer[Any] | None:
        """The informer of `resource` if somebody uses one."""
        return self._informers.get(resource)

    async def run(self) -> None:
        """Keep all informers asked for until now in step with the server, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource, informer in self._informers.items():
                group.create_task(informer.run(), name=f"informer {resource}")
