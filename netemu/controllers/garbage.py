"""Garbage collection: what an object owns goes when the object goes (`pkg/controller/garbagecollector`).

Three ways, as the deletion asked for: in the *background* dependents go after their owner is gone; in the *foreground*
the owner waits, with the finalizer `foregroundDeletion`, until dependents that block it are gone; *orphan* takes the
owner's name off its dependents first. Before something is deleted because its owner is missing, the API server is
asked for that owner: a cache that is behind must never cost anybody an object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netemu.client.base import Client
from netemu.client.index import Index
from netemu.client.informer import Informer
from netemu.controllers.actions import Action, Actions, Delete, Patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.errors import NotFound
from netemu.model.meta import KubeObject, OwnerReference, encode
from netemu.model.resources import Resource

_REMEMBERED = 500
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


@dataclass(frozen=True, slots=True)
class Item:
    """An object and where it lives."""

    resource: Resource
    obj: KubeObject

    @property
    def key(self) -> str:
        """`RESOURCE KEY`, unique among all objects."""
        return f"{self.resource} {self.obj.key}"


@dataclass(frozen=True, slots=True)
class _Followed:
    """A resource, its objects, and these by the uids of their owners."""

    resource: Resource
    informer: Informer[Any]
    owned: Index[Any]


OwnerState = str
"""`solid`, `waiting` (deleting in the foreground) or `gone`."""


def reconcile(item: Item, owners: Mapping[str, OwnerState], dependents: Sequence[Item]) -> Actions:
    """What to do with `item`. `owners`: the state of each owner by uid; `dependents`: what it owns itself."""
    obj = item.obj
    if obj.deleting:
        if ORPHAN in obj.metadata.finalizers:
            return [*(_disown(d, {obj.metadata.uid}) for d in dependents), _release(item, ORPHAN)]
        if FOREGROUND in obj.metadata.finalizers:
            return _foreground(item, dependents)
        return []
    bad = {uid for uid, state in owners.items() if state != "solid"}
    if not bad:
        return []
    if len(bad) < len(owners):
        return [_disown(item, bad)]
    waited_for = "waiting" in owners.values()
    return [_delete(item, "Foreground" if waited_for and dependents else _policy(obj))]


def owner_state(reference: OwnerReference, owner: KubeObject | None) -> OwnerState:
    """What the owner of that reference is like, given the object found under its name."""
    if owner is None or owner.metadata.uid != reference.uid:
        return "gone"
    waits = owner.deleting and FOREGROUND in owner.metadata.finalizers
    return "waiting" if waits and reference.block_owner_deletion else "solid"


def _foreground(item: Item, dependents: Sequence[Item]) -> Actions:
    """Delete what blocks; when nothing does any more, let the owner go."""
    blocking = [d for d in dependents if _blocks(d, item.obj.metadata.uid)]
    if not blocking:
        return [_release(item, FOREGROUND)]
    return [_delete(d, "Foreground") for d in blocking if not d.obj.deleting]


def _blocks(dependent: Item, uid: str) -> bool:
    return any(ref.uid == uid and ref.block_owner_deletion for ref in dependent.obj.metadata.owner_references)


def _policy(obj: KubeObject) -> str:
    if ORPHAN in obj.metadata.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in obj.metadata.finalizers else "Background"


def _delete(item: Item, policy: str) -> Delete:
    meta = item.obj.metadata
    return Delete(item.resource, meta.name, meta.namespace, meta.uid, policy)


def _disown(item: Item, uids: set[str]) -> Patch:
    kept = [encode(ref) for ref in item.obj.metadata.owner_references if ref.uid not in uids]
    return _patch_meta(item, {"ownerReferences": kept or None})


def _release(item: Item, finalizer: str) -> Patch:
    kept = [name for name in item.obj.metadata.finalizers if name != finalizer]
    return _patch_meta(item, {"finalizers": kept or None})


def _patch_meta(item: Item, change: Mapping[str, Any]) -> Patch:
    meta = item.obj.metadata
    patch = {"metadata": {"uid": meta.uid, **change}}
    return Patch(item.resource, meta.name, patch, meta.namespace, resource_version=meta.resource_version)


class GarbageCollector:
    """Watches every resource except Events."""

    name = "garbage-collector-controller"

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client, self._cache = client, cache
        self.needs: tuple[Resource, ...] = tuple(cache.everything())
        self._followed: dict[str, _Followed] = {}
        """By the name of the resource."""
        self._gone: dict[str, None] = {}
        """Uids of owners that were seen to go: their kind may go with them, and nobody could ask for them then."""

    def watch(self, queue: Queue) -> None:
        """Objects with owners, objects on their way out, and what they own."""

        def begin(resource: Resource, informer: Informer[Any]) -> None:
            def change(old: KubeObject | None, new: KubeObject | None) -> None:
                if new is not None and self._concerns(old, new):
                    queue.mark(Item(resource, new).key)
                if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
                    self._remember(old.metadata.uid)
                    for item in [*self._dependents(old.metadata.uid), *self._waiting_owners(old)]:
                        queue.mark(item.key)

            owned = Index(informer, lambda obj: {ref.uid for ref in obj.metadata.owner_references})
            self._followed[str(resource)] = _Followed(resource, informer, owned)
            informer.on_change(change)

        def end(resource: Resource) -> None:
            # Nobody tells any more of what went with the resource.
            for obj in self._followed[str(resource)].informer.objects.values():
                self._remember(obj.metadata.uid)
                for item in self._dependents(obj.metadata.uid):
                    queue.mark(item.key)
            del self._followed[str(resource)]

        self._cache.on_resource(begin, end)

    def _remember(self, uid: str) -> None:
        if self._dependents(uid):
            self._gone[uid] = None
            if len(self._gone) > _REMEMBERED:
                del self._gone[next(iter(self._gone))]

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        name, _, object_key = key.partition(" ")
        followed = self._followed.get(name)
        obj = followed.informer.get(object_key) if followed else None
        if followed is None or obj is None:
            return ()
        item = Item(followed.resource, obj)
        owners = {}
        if not obj.deleting:
            owners = {ref.uid: await self._state(obj, ref) for ref in obj.metadata.owner_references}
        return reconcile(item, owners, self._dependents(obj.metadata.uid))

    def _dependents(self, uid: str) -> list[Item]:
        return [Item(one.resource, obj) for one in self._followed.values() for obj in one.owned[uid]]

    def _cached(self, obj: KubeObject, ref: OwnerReference) -> Item | None:
        resource = self._cache.served.by_kind(ref.api_version, ref.kind)
        followed = self._followed.get(str(resource)) if resource else None
        if resource is None or followed is None:
            return None
        owner = followed.informer.get(f"{obj.namespace}/{ref.name}" if resource.namespaced else ref.name)
        return Item(followed.resource, owner) if owner is not None and owner.metadata.uid == ref.uid else None

    def _concerns(self, old: KubeObject | None, new: KubeObject) -> bool:
        """Whether an object that is new or changed needs a look: on its way out, or an owner is not to be seen."""
        meta = new.metadata
        if new.deleting:
            return FOREGROUND in meta.finalizers or ORPHAN in meta.finalizers
        if old is not None and old.metadata.owner_references == meta.owner_references:
            return False
        return any(self._cached(new, ref) is None for ref in meta.owner_references)

    def _waiting_owners(self, gone: KubeObject) -> list[Item]:
        """Owners that may have been waiting for the end of `gone`."""
        owners = (self._cached(gone, ref) for ref in gone.metadata.owner_references)
        return [owner for owner in owners if owner and owner.obj.deleting]

    async def _state(self, obj: KubeObject, ref: OwnerReference) -> OwnerState:
        if cached := self._cached(obj, ref):
            return owner_state(ref, cached.obj)
        resource = self._cache.served.by_kind(ref.api_version, ref.kind)
        if ref.uid in self._gone:
            return "gone"
        if resource is None:
            return "solid"  # of a kind that we do not know: not ours to judge
        try:
            found = await self._client.get(resource, ref.name, obj.namespace if resource.namespaced else "")
        except NotFound:
            return "gone"
        return "solid" if found["metadata"].get("uid") == ref.uid else "gone"
