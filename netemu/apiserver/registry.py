"""The registry: what the API server does with a request once HTTP is out of the way.

Reads and watches are answered by the cacher, an in-memory copy of the store that is never behind a write that was
answered. Writes are decided by pure functions (rules.py, strategy.py, deletion.py, subresources.py) and committed by
the writer, which compares revisions, so two writers of one object never overwrite each other. What exists in several
groups or versions is stored in one of them and converted on the way in and out (`versions`).

Which resources there are (`served`) follows the stored CustomResourceDefinitions (`custom_definitions`).

For the front end:
- Objects that come out are shared and must not be changed; objects that go in are copied.
- `watch` checks its parameters when called (BadRequest, Invalid); the stream itself may raise Expired when first
  iterated, which upstream sends as an ERROR event. It ends cleanly after `timeout`, or when the watcher is too slow.
- The events of a watch are `RegistryEvent`s: `type`, `object`, and `line`, the finished JSON line as bytes, which is
  made once for all watchers of the same change.
- Failures are ApiErrors whose `status()` goes over the wire.

Where several API servers share the store, a write may be refused because of what another one has changed meanwhile (a
name that is free by now, a namespace that is there by now). Such a refusal is decided once more on what is in the store
(`_on_fresh`); whatever is accepted is committed against the revision that was seen, and needs no second look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from netemu.apiserver import deletion, strategy, subresources, versions
from netemu.apiserver.cacher import Cacher, revision_number
from netemu.apiserver.custom_definitions import Definitions
from netemu.apiserver.eviction import EVICTIONS, evict
from netemu.apiserver.expiry import expire_events
from netemu.apiserver.http.paging import ListResult, Pages, Place, page
from netemu.apiserver.json_values import copied
from netemu.apiserver.merge.managed_fields import bare, updater
from netemu.apiserver.merge.server_side_apply import Application, applied, scale_application
from netemu.apiserver.rules import Allocator, Rules
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.selection import Selection
from netemu.apiserver.watchcache import RegistryEvent
from netemu.apiserver.writer import Writer
from netemu.client.base import MERGE_PATCH, Obj
from netemu.model.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
)
from netemu.model.resources import PODS, Resource
from netemu.model.served import Served
from netemu.store.base import Store

__all__ = ["ListResult", "Registry", "RegistryEvent"]


_UNKNOWN = "unknown"
"""Who writes when nobody says."""
_WRITABLE = frozenset({"", "approval", "status", "scale", "finalize", "ephemeralcontainers"})


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _on_fresh(
    method: Callable[Concatenate[Registry, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[Registry, _P], Coroutine[Any, Any, _R]]:
    """Let a write that is refused be decided again, if what it was decided on was not the newest."""

    @wraps(method)
    async def deciding(self: Registry, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        seen = self.revision
        try:
            return await method(self, *args, **kwargs)
        except (AlreadyExists, Conflict, Forbidden, Invalid, NotFound):
            if not await self._cacher.advanced(seen):
                raise
        return await method(self, *args, **kwargs)

    return deciding


class Registry:
    """All resources of one cluster. `start` before use, `close` after; the store stays the caller's."""

    def __init__(self, store: Store, schema: Schema, allocator: Allocator, *, rules: Rules | None = None) -> None:
        self._cacher, self._schema = Cacher(store), schema
        self.served = Served()
        """The resources that there are."""
        self._writer = Writer(store, self._cacher, allocator, schema, rules or Rules.upstream())
        self._pages = Pages()
        self._definitions = Definitions(self._cacher, self._writer, self.served)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the store and follow it from now on."""
        await self._cacher.start()
        claims = await self._writer.values.start()
        self._tasks = [
            claims,
            asyncio.create_task(expire_events(self._cacher, self._writer), name="event expiry"),
            asyncio.create_task(self._definitions.run(), name="custom resource definitions"),
        ]

    async def close(self) -> None:
        """Stop following the store; every watch ends."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._cacher.close()

    @property
    def revision(self) -> int:
        """The newest revision reflected here."""
        return self._cacher.revision

    def changed(self, *resources: Resource) -> tuple[int, ...]:
        """For each resource, the revision of its last change; equal ones tell that nothing has changed since."""
        return tuple(self._cacher.changed(resource) for resource in resources)

    def objects(self, resource: Resource, namespace: str = "") -> Iterator[Obj]:
        """All objects of a resource, or of one of its namespaces, in the order of their keys."""
        return self._cacher.objects(resource, namespace)

    def find(self, resource: Resource, name: str, namespace: str = "") -> Obj | None:
        """One object, None where it is not there: `get` for those who decide and do not answer."""
        return self._cacher.find(resource, namespace, name)

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "", resource_version: str = ""
    ) -> Obj:
        """One object, or its `status` or `scale`, not older than a revision. Raises NotFound, BadRequest, Expired."""
        await self._cacher.fresh(resource_version)
        self._cacher.listable(resource, resource_version)
        obj = self._cacher.find(versions.stored_as(resource), namespace, name)
        if obj is None:
            raise NotFound.named(resource.plural, name, resource.group)
        return _seen(resource, obj, subresource)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> ListResult:
        """Matching objects in the order of their keys. Raises BadRequest, Invalid, Expired."""
        selection = Selection.parse(resource, namespace, label_selector, field_selector)
        stored = versions.stored_as(resource)
        if continue_:
            if revision_number(resource_version):
                raise BadRequest("specifying resource version is not allowed when using continue")
            found = await self._continued(stored, selection, Place.parse(continue_), limit)
        else:
            await self._cacher.fresh(resource_version)
            revision = self._cacher.listable(stored, resource_version, resource_version_match)
            matching = self._cacher.select(stored, selection)
            # As upstream, revision "0" is answered from the cache and ignores the limit.
            found = page(matching, revision, 0 if resource_version == "0" else limit, selection)
            if found.continue_:
                self._pages.keep(stored, selection, int(revision), matching)
        if not versions.seen_as_stored(resource):
            found = found.with_items([versions.shown_as(resource, obj) for obj in found.items])
        return found

    async def _continued(self, resource: Resource, selection: Selection, place: Place, limit: int) -> ListResult:
        """The page at a place. Raises Expired."""
        await self._cacher.fresh(str(place.revision or ""))
        revision = place.revision or self._cacher.revision
        items = self._pages.kept(resource, selection, revision)
        if items is None:
            try:
                items = [obj for obj in self._cacher.as_of(resource, revision) if selection.matches(obj)]
            except Expired:
                raise place.expired() from None
            self._pages.keep(resource, selection, revision, items)
        return page(items, str(revision), limit, selection, place.after)

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        bookmarks: bool = False,
        send_initial_events: bool | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[RegistryEvent, None]:
        """Changes after a revision; see the module's docstring.

        After none ("" or "0") every object comes first as ADDED. With `send_initial_events` that is so after any
        revision, and a marked bookmark ends them; if it is False, they never come.
        """
        selection = Selection.parse(resource, namespace, label_selector, field_selector)
        stream = self._cacher.watch(
            versions.stored_as(resource),
            selection,
            resource_version,
            bookmarks=bookmarks,
            initial=send_initial_events,
            timeout=timeout,
        )
        return stream if versions.seen_as_stored(resource) else versions.shown_stream(resource, stream)

    @_on_fresh
    async def create(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        namespace: str = "",
        *,
        manager: str = _UNKNOWN,
        dry_run: bool = False,
    ) -> Obj:
        """A new object as stored. Raises AlreadyExists, Invalid, Forbidden, NotFound (of its namespace)."""
        new = strategy.accept(self._schema, resource, obj, namespace)
        kept_as = versions.stored_as(resource)
        who = updater(manager, kept_as.api_version)
        stored = await self._writer.create(kept_as, versions.to_stored(resource, new), who=who, dry_run=dry_run)
        return versions.shown_as(resource, stored)

    @_on_fresh
    async def update(
        self,
        resource: Resource,
        name: str,
        obj: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
        manager: str = _UNKNOWN,
        dry_run: bool = False,
    ) -> Obj:
        """Replace an object, its `status`, its `scale`, or a Namespace's finalizers (`finalize`). Raises Conflict."""

        def replaced(_: Obj) -> Mapping[str, Any]:
            if subresource != "scale":  # only now: of what is not there, a client is told that
                strategy.check_conditional(resource, name, obj)
            return obj

        return await self._change(resource, namespace, name, subresource, replaced, manager, dry_run)

    @_on_fresh
    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        subresource: str = "",
        content_type: str = MERGE_PATCH,
        manager: str = _UNKNOWN,
        dry_run: bool = False,
    ) -> Obj:
        """Change an object or subresource by a patch; a resourceVersion in the result is a precondition."""

        def patched(shown: Obj) -> Mapping[str, Any]:
            shape = subresources.SCALES if subresource == "scale" else resource
            return self._writer.patched(shape, shown, patch, content_type)

        # A patch that names no entry neither tests nor changes one; what it leaves out stays as it is.
        metadata = patch.get("metadata") if isinstance(patch, dict) else None
        entries = not isinstance(patch, dict) or (isinstance(metadata, dict) and "managedFields" in metadata)
        return await self._change(resource, namespace, name, subresource, patched, manager, dry_run, entries)

    @_on_fresh
    async def apply(
        self,
        resource: Resource,
        name: str,
        config: Mapping[str, Any],
        namespace: str = "",
        *,
        manager: str,
        subresource: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> tuple[Obj, bool]:
        """Server-side apply: the object as stored, and whether it is new. Raises Conflict, BadRequest, Invalid."""
        kept_as = versions.stored_as(resource)
        application = Application(resource, copied(config), manager, subresource, force)
        if subresource == "scale":
            application = scale_application(application)
        while True:
            try:
                if subresource or self._cacher.find(kept_as, namespace, name):
                    return await self._apply(application, name, namespace, dry_run), False
            except NotFound:
                if subresource:
                    raise
            new = applied(self._writer.types.root(resource), application, {})
            accepted = strategy.accept(self._schema, resource, new, namespace, name)
            with contextlib.suppress(AlreadyExists):  # somebody else was faster: apply to what they made
                stored = await self._writer.create(kept_as, versions.to_stored(resource, accepted), dry_run=dry_run)
                return versions.shown_as(resource, stored), True

    async def _apply(self, application: Application, name: str, namespace: str, dry_run: bool) -> Obj:
        """An apply to an object that there is. Raises NotFound."""
        resource, subresource = application.resource, application.subresource
        self._check_writable(resource, subresource)

        def changed(old: Obj) -> Obj:
            new = applied(self._writer.types.root(resource), application, versions.shown_as(resource, old))
            return versions.to_stored(resource, strategy.accept(self._schema, resource, new, namespace, name))

        kept_as = versions.stored_as(resource)
        stored, _ = await self._writer.modify(
            kept_as, namespace, name, changed, subresource=subresource, dry_run=dry_run
        )
        return _seen(resource, stored, subresource)

    @_on_fresh
    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        options: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> tuple[Obj, bool]:
        """The object as it was left, and whether it is gone at once. Raises NotFound, Conflict, Forbidden."""
        decision = self._decision(options)
        stored, gone = await self._writer.delete(
            versions.stored_as(resource), namespace, name, decision, dry_run=dry_run
        )
        return versions.shown_as(resource, stored), gone

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        options: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> ListResult:
        """Delete every matching object; the answer lists them as they were left."""
        found = await self.list(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        decision, stored, left = self._decision(options), versions.stored_as(resource), []
        for item in found.items:
            meta = item["metadata"]
            try:
                obj, _ = await self._writer.delete(
                    stored, meta.get("namespace", ""), meta["name"], decision, dry_run=dry_run
                )
            except NotFound:  # somebody else was faster
                continue
            left.append(versions.shown_as(resource, obj))
        return ListResult(left, str(self.revision))

    @_on_fresh
    async def create_subresource(
        self,
        resource: Resource,
        name: str,
        subresource: str,
        body: Mapping[str, Any],
        namespace: str = "",
        *,
        dry_run: bool = False,
    ) -> Obj:
        """POST to `pods/NAME/binding` or `pods/NAME/eviction`, which answer with a Status.

        Raises Conflict where a Pod is bound already, TooManyRequests where its disruption budget is used up.
        """
        if resource is not PODS or subresource not in ("binding", "eviction"):
            raise MethodNotAllowed(f"{resource.plural}/{subresource} cannot be created")
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        if subresource == "eviction":
            await self._evict(name, namespace, body, dry_run)
            return done
        binding = self._schema.decoded(subresources.BINDINGS, copied(body))
        await self._writer.modify(
            resource, namespace, name, lambda pod: subresources.bound(bare(pod), binding), subresource=subresource,
            dry_run=dry_run,
        )  # fmt: skip
        return done

    async def _evict(self, name: str, namespace: str, body: Mapping[str, Any], dry_run: bool) -> None:
        eviction = self._schema.decoded(EVICTIONS, copied(body))
        if (eviction.get("metadata") or {}).get("name", name) != name:
            raise BadRequest("name in URL does not match name in Eviction object")
        options = self._decision(eviction.get("deleteOptions"))
        options = replace(options, dry_run=options.dry_run or dry_run)
        await self._cacher.fresh()  # a budget that another server has just stored counts
        await evict(self._cacher, self._writer, namespace, name, options)

    async def _change(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
        change: Any,
        manager: str,
        dry_run: bool,
        entries: bool = False,
    ) -> Obj:
        """Replace what a request sees of an object by `change(seen)`, however the object is stored.

        `entries` tells that the change may look at metadata.managedFields, which are large and mostly left alone.
        """
        self._check_writable(resource, subresource)

        def replaced(old: Obj) -> Obj:
            if subresource == "scale":
                scale = copied(change(_seen(resource, old, subresource)))
                return subresources.scaled(old, self._schema.decoded(subresources.SCALES, scale), resource.custom)
            given = change(versions.shown_as(resource, old if entries else bare(old)))
            return versions.to_stored(resource, strategy.accept(self._schema, resource, given, namespace, name))

        kept_as = versions.stored_as(resource)
        who = updater(manager, kept_as.api_version, subresource)
        stored, _ = await self._writer.modify(
            kept_as, namespace, name, replaced, subresource=subresource, who=who, dry_run=dry_run
        )
        return _seen(resource, stored, subresource)

    @staticmethod
    def _check_writable(resource: Resource, subresource: str) -> None:
        if subresource and subresource not in resource.subresources:
            raise NotFound(f"{resource.plural} have no subresource {subresource}")
        if subresource not in _WRITABLE:
            raise MethodNotAllowed(f"{resource.plural}/{subresource} can only be created")

    def _decision(self, options: Mapping[str, Any] | None) -> deletion.DeleteOptions:
        return deletion.parse(self._schema.decoded(deletion.DELETE_OPTIONS, copied(options or {}, "DeleteOptions")))


def _seen(resource: Resource, stored: Obj, subresource: str) -> Obj:
    """A stored object as a request for it, or for one of its subresources, sees it."""
    shown = versions.shown_as(resource, stored)
    return subresources.scale_of(shown, resource.custom) if subresource == "scale" else shown
