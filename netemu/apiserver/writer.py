"""Every write goes through here: decide on a copy, commit against the revision that was seen, or decide again.

`modify` is upstream's GuaranteedUpdate: it reads the object from the cache, lets a pure function say what it should be,
and asks the store to replace exactly the revision it has read. When somebody was faster it starts over with what they
left, unless the request itself names a revision, which then is a Conflict.

Service addresses are taken before the commit and given back when it fails.

Who writes is named by a `Manager`, who from then on owns the fields that the write changed (`managed_fields`). Without
one, metadata.managedFields are taken as they come: for what applies, which has worked them out, and for what upstream
does not track.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from netemu.apiserver import admitted, certificates, deletion, strategy
from netemu.apiserver.admission import REQUESTER
from netemu.apiserver.api_access import mount_api_access
from netemu.apiserver.cacher import Cacher
from netemu.apiserver.defaults_service import settle
from netemu.apiserver.ingress_class import set_default_class
from netemu.apiserver.keys import key_of
from netemu.apiserver.merge import managed_fields
from netemu.apiserver.merge.fieldset import FieldSet, pruned, union
from netemu.apiserver.merge.managed_fields import Manager
from netemu.apiserver.merge.typed import Types
from netemu.apiserver.rules import Allocator, Rules
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.service_values import ServiceValues
from netemu.apiserver.watchcache import stored
from netemu.client.base import Obj
from netemu.model.errors import AlreadyExists, Conflict, FieldError, Forbidden, Invalid, NotFound
from netemu.model.resources import (
    CERTIFICATESIGNINGREQUESTS,
    INGRESSCLASSES,
    INGRESSES,
    NAMESPACES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
    Resource,
)
from netemu.store.base import KeyExists, RevisionMismatch, Store

_ATTEMPTS = 100
"""Lost races after which a write gives up."""
_NAME_ATTEMPTS = 8


class Writer:
    """Creates, changes and deletes the objects of stored resources."""

    def __init__(self, store: Store, cacher: Cacher, allocator: Allocator, schema: Schema, rules: Rules) -> None:
        self._store, self._cacher = store, cacher
        self.values = ServiceValues(store, cacher, allocator)
        """The cluster IPs and node ports of Services."""
        self._schema, self._rules = schema, rules
        self.types = Types(schema)

    async def create(self, resource: Resource, obj: Obj, *, who: Manager | None = None, dry_run: bool = False) -> Obj:
        """Store a new object; `obj` belongs to the writer. See Registry.create."""
        metadata = obj["metadata"]
        unowned, volumes = admitted.unowned(resource, obj), admitted.volume_names(obj)
        base = "" if metadata.get("name") else metadata.get("generateName") or ""
        strategy.begin(resource, obj)
        self._check_namespace(resource, metadata)
        if resource is CERTIFICATESIGNINGREQUESTS:
            certificates.stamp(obj, REQUESTER.get())
        if resource is PODS:
            account = (obj.get("spec") or {}).get("serviceAccountName") or ""
            mount_api_access(obj, self._cacher.find(SERVICEACCOUNTS, metadata.get("namespace", ""), account))
        if resource is INGRESSES:
            set_default_class(obj, self._cacher.objects(INGRESSCLASSES))
        unowned = union(unowned, admitted.mounted(obj, volumes))
        for _ in range(_NAME_ATTEMPTS):
            if base:
                metadata["name"] = strategy.generated_name(base)
            try:
                return await self._insert(resource, obj, who, unowned, dry_run)
            except AlreadyExists:
                if not base:
                    raise
        raise AlreadyExists.named(resource.plural, metadata["name"], resource.group)

    async def _insert(self, resource: Resource, new: Obj, who: Manager | None, unowned: FieldSet, dry_run: bool) -> Obj:
        metadata = new["metadata"]
        if not metadata.get("name"):
            why = "Required value: name or generateName is required"
            missing = FieldError("metadata.name", "FieldValueRequired", why)
            raise Invalid.of_fields(resource.kind, "", [missing], resource.group)
        self._rules.apply_defaults(resource, new)
        self._check_rules(resource, new, None)
        name, namespace = metadata["name"], metadata.get("namespace", "")
        if self._cacher.find(resource, namespace, name) is not None:
            raise AlreadyExists.named(resource.plural, name, resource.group)
        if who:
            self._own_new(resource, new, who, unowned)
        async with self._allocated(resource, new, None, dry_run=dry_run):
            if dry_run:
                return new
            try:
                revision = await self._store.create(key_of(resource, namespace, name), stored(new))
            except KeyExists:
                raise AlreadyExists.named(resource.plural, name, resource.group) from None
            await self._cacher.reached(revision)
        metadata["resourceVersion"] = str(revision)
        return new

    def _own_new(self, resource: Resource, new: Obj, who: Manager, unowned: FieldSet) -> None:
        """Give a new object to who made it, less what the server added of its own."""
        managers = managed_fields.before(new["metadata"].pop("managedFields", None), {}, "")
        seen = {name: value for name, value in new.items() if name != "status" or "status" not in resource.subresources}
        managers = managed_fields.after_update(self.types.root(resource), managers, who, {}, seen)
        if mine := managers.get(who):
            managers = {**managers, who: replace(mine, fields=pruned(mine.fields, unowned))}
        if managers:
            new["metadata"]["managedFields"] = managed_fields.encoded(managers)

    def patched(self, resource: Resource, shown: Obj, patch: Any, content_type: str) -> Obj:
        """The result of a patch. Raises ApiError."""
        return self._rules.apply_patch(self._schema, resource, shown, patch, content_type)

    async def modify(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Obj], Obj],
        *,
        subresource: str = "",
        who: Manager | None = None,
        dry_run: bool = False,
    ) -> tuple[Obj, bool]:
        """Replace an object by `change(object)`, a copy; the result, and whether it is gone by that."""
        for _ in range(_ATTEMPTS):
            old = self._existing(resource, namespace, name)
            new = self._decide(resource, change(old), old, subresource, who)
            if new == old:
                return old, False
            gone = deletion.finished(resource, new)
            try:
                return await self._commit(resource, old, new, gone=gone, dry_run=dry_run), gone
            except RevisionMismatch as error:
                await self._cacher.reached(error.revision)
        raise Conflict.named(resource.plural, name, resource.group)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: deletion.DeleteOptions,
        *,
        dry_run: bool = False,
    ) -> tuple[Obj, bool]:
        """Remove an object or mark it for deletion; what is left, and whether it is gone."""
        dry_run = dry_run or options.dry_run
        for _ in range(_ATTEMPTS):
            old = self._existing(resource, namespace, name)
            deletion.check(resource, old, options)
            new = deletion.after_delete(resource, old, options, datetime.now(UTC))
            if new == old:
                return old, False
            gone = new is None
            try:
                return await self._commit(resource, old, new or old, gone=gone, dry_run=dry_run), gone
            except RevisionMismatch as error:
                await self._cacher.reached(error.revision)
        raise Conflict.named(resource.plural, name, resource.group)

    def _existing(self, resource: Resource, namespace: str, name: str) -> Obj:
        obj = self._cacher.find(resource, namespace, name)
        if obj is None:
            raise NotFound.named(resource.plural, name, resource.group)
        return obj

    def _decide(self, resource: Resource, given: Obj, old: Obj, subresource: str, who: Manager | None) -> Obj:
        """What a change leaves, checked by all rules."""
        metadata, seen = given["metadata"], old["metadata"]
        if (version := metadata.get("resourceVersion")) and version not in ("0", seen["resourceVersion"]):
            raise Conflict.named(resource.plural, seen["name"], resource.group)
        if (uid := metadata.get("uid")) and uid != seen["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {seen['uid']}"
            raise Conflict.named(resource.plural, seen["name"], resource.group, why)
        if subresource == "binding":
            # It changes what the rules call immutable; what it may change is decided where it is made.
            self._check_rules(resource, given, None)
            return managed_fields.kept(given, old)
        entries = metadata.pop("managedFields", None)
        was = managed_fields.bare(old)
        self._rules.apply_defaults(resource, given)
        new = strategy.replace(resource, given, was, subresource)
        if changed := new != was:
            if resource is SERVICES and not subresource:
                # What was allocated once need not be sent again; it must be back before the rules look.
                settle(new, was)
            self._check_rules(resource, new, was)
        if who:
            entries = self._entries(resource, entries, old, new if changed else was, who)
        before = seen.get("managedFields") or []
        if not changed and (entries is before or managed_fields.same(entries or [], before)):
            return old
        return {**new, "metadata": {**new["metadata"], "managedFields": entries}} if entries else new

    def _entries(self, resource: Resource, given: Any, old: Obj, new: Obj, who: Manager) -> managed_fields.Entries:
        """The managedFields of `new`, which `who` made of `old`; the very ones of `old` where they are the same."""
        managers = managed_fields.before(given, old, who.subresource)
        after = managed_fields.after_update(self.types.root(resource), managers, who, managed_fields.bare(old), new)
        before: managed_fields.Entries = old["metadata"].get("managedFields") or []
        return before if after == managed_fields.of(old) else managed_fields.encoded(after)

    async def _commit(self, resource: Resource, old: Obj, new: Obj, *, gone: bool, dry_run: bool) -> Obj:
        """Replace or remove `old`; the result at its new revision. Raises RevisionMismatch."""
        metadata = old["metadata"]
        key, seen = key_of(resource, metadata.get("namespace", ""), metadata["name"]), int(metadata["resourceVersion"])
        async with self._allocated(resource, old if gone else new, old, dry_run=dry_run):
            if dry_run:
                return new
            if gone:
                revision = await self._store.delete(key, seen)
            else:
                revision = await self._store.update(key, stored(new), seen)
            await self._cacher.reached(revision)
        return {**new, "metadata": {**new["metadata"], "resourceVersion": str(revision)}}

    def _check_rules(self, resource: Resource, new: Obj, old: Obj | None) -> None:
        errors = [*self._rules.validate(resource, new, old), *(strategy.finalizer_errors(new, old) if old else ())]
        if errors:
            raise Invalid.of_fields(resource.kind, new["metadata"].get("name", ""), errors, resource.group)

    def _check_namespace(self, resource: Resource, metadata: Obj) -> None:
        if not resource.namespaced:
            return
        name = metadata["namespace"]
        space = self._cacher.find(NAMESPACES, "", name)
        if space is None:
            raise NotFound.named("namespaces", name)
        if space["metadata"].get("deletionTimestamp"):
            new = metadata.get("name") or metadata.get("generateName", "")
            why = f"unable to create new content in namespace {name} because it is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {name} is being terminated"}
            details = {"name": new, "kind": resource.plural, "causes": [{**cause, "field": "metadata.namespace"}]}
            raise Forbidden(f'{resource} "{new}" is forbidden: {why}', details)

    def _allocated(
        self, resource: Resource, new: Obj, old: Obj | None, *, dry_run: bool
    ) -> AbstractAsyncContextManager[None]:
        """Inside, a Service holds what `new` and `old` have."""
        return self.values.held(new, old, dry_run=dry_run) if resource is SERVICES else nullcontext()
