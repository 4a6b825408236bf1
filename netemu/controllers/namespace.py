"""The end of namespaces: everything in a terminating one goes, then the namespace itself
(`pkg/controller/namespace/deletion`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netemu.client.base import Client, Obj
from netemu.client.informer import Informer
from netemu.controllers.actions import Action, Actions, Again, Delete, Finalize
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.errors import NotFound
from netemu.model.meta import KubeObject
from netemu.model.objects import Namespace
from netemu.model.resources import EVENTS_V1, NAMESPACES, Resource

_SOON, _LATER = 0.1, 2.0
"""Seconds until the next look: after deletions, and while others still work on what was deleted."""


def reconcile(namespace: Namespace, contents: Mapping[Resource, Sequence[Obj]]) -> Actions:
    """Deletions of what is in a terminating namespace, or its finalization once nothing is."""
    if not namespace.deleting or "kubernetes" not in namespace.spec.finalizers:
        return []
    actions: Actions = []
    left = 0
    for resource, objects in contents.items():
        for obj in objects:
            meta = obj["metadata"]
            left += 1
            if not meta.get("deletionTimestamp"):
                actions.append(Delete(resource, meta["name"], namespace.name, meta["uid"], "Background"))
    if not left:
        return [Finalize(namespace.name)]
    return [*actions, Again(_SOON if actions else _LATER)]


class NamespaceController:
    """Watches Namespaces, and the contents of those that are ending."""

    name = "namespace-controller"
    needs = (NAMESPACES,)

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client = client
        self._namespaces = cache.of(NAMESPACES, Namespace)
        self._cache = cache

    def watch(self, queue: Queue) -> None:
        """Terminating namespaces, and each time something in them is gone."""

        def of_namespace(_: Namespace | None, new: Namespace | None) -> None:
            if new is not None and new.deleting:
                queue.mark(new.name)

        def of_content(old: KubeObject | None, new: KubeObject | None) -> None:
            if old is not None and new is None:
                namespace = self._namespaces.get(old.namespace)
                if namespace is not None and namespace.deleting:
                    queue.mark(namespace.name)

        def begin(resource: Resource, informer: Informer[Any]) -> None:
            if resource.namespaced:
                informer.on_change(of_content)

        self._namespaces.on_change(of_namespace)
        self._cache.on_resource(begin, lambda _: None)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller. The server is asked, not the caches: what was created a moment ago must go too."""
        namespace = self._namespaces.get(key)
        if namespace is None or not namespace.deleting:
            return ()
        contents: dict[Resource, Sequence[Obj]] = {}
        # Owners come later among the resources: they go before what they would replace.
        for resource in reversed(self._cache.served.listable()):
            if resource.namespaced and resource != EVENTS_V1:
                try:
                    contents[resource] = (await self._client.list(resource, key)).items
                except NotFound:  # not served by this API server
                    continue
        return reconcile(namespace, contents)
