"""The informers of a process, one per resource, shared by all its controllers.

Most controllers know the few resources that they look at. Some look at everything there is, which may become more or
less while they run: they are told of each resource as it begins and ends (`on_resource`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from netemu.client.base import Client
from netemu.client.informer import Informer
from netemu.model import resources
from netemu.model.custom import CustomResourceDefinition, resources_of
from netemu.model.kinds import KINDS
from netemu.model.meta import KubeObject
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS, Resource
from netemu.model.served import Served

K = TypeVar("K", bound=KubeObject)
Begin = Callable[[Resource, Informer[Any]], None]
End = Callable[[Resource], object]

_UNCACHED = (resources.EVENTS, resources.EVENTS_V1)
"""Many, short-lived, and nobody's owner or property: no controller keeps a copy of Events."""


class Cache:
    """Makes informers when first asked for, and runs them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[Resource, Informer[Any]] = {}
        self._tasks: dict[Resource, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._told: list[tuple[Begin, End]] = []
        self.served = Served()
        """The resources that the API server has."""

    def of(self, resource: Resource, kind: type[K]) -> Informer[K]:
        """The informer of `resource`, whose objects are of `kind`."""
        return cast("Informer[K]", self.any(resource))

    def any(self, resource: Resource) -> Informer[Any]:
        """The informer of `resource`; objects without a type of their own are plain `KubeObject`s."""
        if resource not in self._informers:
            kind = KubeObject if resource.custom else KINDS.get(resource.kind, KubeObject)
            self._informers[resource] = Informer(self._client, resource, kind)
            self._start(resource)
        return self._informers[resource]

    def get(self, resource: Resource) -> Informer[Any] | None:
        """The informer of `resource` if somebody uses one."""
        return self._informers.get(resource)

    def everything(self) -> list[Resource]:
        """What is served at the moment and can be kept: all that can be listed, except Events."""
        return [resource for resource in self.served.listable() if resource not in _UNCACHED]

    def on_resource(self, begin: Begin, end: End) -> None:
        """Tell of each resource of `everything`, of what is there already and of what comes and goes later."""
        self._told.append((begin, end))
        for resource in self.everything():
            begin(resource, self.any(resource))

    def follow_definitions(self) -> None:
        """Let `served` follow the server's CustomResourceDefinitions, and with it what `on_resource` tells."""
        self.of(CUSTOMRESOURCEDEFINITIONS, CustomResourceDefinition).on_change(self._redefined)

    def _redefined(self, old: CustomResourceDefinition | None, new: CustomResourceDefinition | None) -> None:
        before = {str(resource): resource for resource in self._custom()}
        if definition := new or old:
            self.served.define(definition.name, resources_of(definition) if new else [])
        now = {str(resource): resource for resource in self._custom()}
        for name, resource in before.items():
            if name not in now or now[name].version != resource.version:
                self._end(resource)
        for name, resource in now.items():
            if name not in before or before[name].version != resource.version:
                informer = self.any(resource)
                for begin, _ in self._told:
                    begin(resource, informer)

    def _custom(self) -> list[Resource]:
        return [resource for resource in self.served.listable() if resource.custom]

    def _end(self, resource: Resource) -> None:
        for _, end in self._told:
            end(resource)
        for known in [known for known in self._informers if str(known) == str(resource)]:
            del self._informers[known]
            if task := self._tasks.pop(known, None):
                task.cancel()

    async def run(self) -> None:
        """Keep all informers in step with the server, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for resource in list(self._informers):
                self._start(resource)

    def _start(self, resource: Resource) -> None:
        if self._group is not None:
            running = self._informers[resource].run()
            self._tasks[resource] = self._group.create_task(running, name=f"informer {resource}")
