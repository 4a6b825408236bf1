"""All resources in memory, following the store.

One task takes the store's changes in order and applies each to its resource's watch cache; `revision` is how far it
has come. A writer waits for its own revision (`reached`), so whoever got an answer also sees it in the next read. Where
other API servers write to the store too, a read first waits for what they have written (`fresh`), as upstream's
consistent reads from cache do.

A store that was away for so long that the changes since are compacted is read anew. What happened to each object in
between is then unknown, so every watch ends, and its client lists again.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing

from netemu.apiserver.keys import ROOT, parts_of
from netemu.apiserver.selection import Selection
from netemu.apiserver.validation.fields import go
from netemu.apiserver.watchcache import (
    HISTORY,
    QUEUE,
    RegistryEvent,
    WatchCache,
    Watcher,
    bookmark,
    change_of,
    read,
)
from netemu.client.base import Obj
from netemu.model.errors import ApiError, BadRequest, Expired, FieldError, Invalid, ServiceUnavailable
from netemu.model.resources import Resource
from netemu.store.base import Change, Compacted, Snapshot, Store, StoreError

log = logging.getLogger(__name__)

_BOOKMARK_SECONDS = 60.0
_RECONNECT_SECONDS = 0.5
_FRESH_SECONDS = 3.0
"""How long a read waits for a revision that is not here yet; upstream's `blockTimeout`."""
_REPLAY = 4 * HISTORY
"""Revisions of the store's history read back at the start: about what the caches' histories hold of them."""


def revision_number(text: str) -> int:
    """A resourceVersion of a request, 0 where there is none. Raises BadRequest unless it is a number of 64 bits."""
    if not text:
        return 0
    if not _REVISION.fullmatch(text) or (number := int(text)) >= 1 << 64:
        raise BadRequest(f"Invalid value: {go(text)}: resourceVersion: invalid number")
    return number


_REVISION = re.compile(r"[0-9]{1,20}")


Told = Callable[[Obj | None, Obj | None], None]
"""Called with an object before and after a change: None, x for a new one; x, None for one that is gone."""


class Cacher:
    """The watch caches of all resources."""

    def __init__(self, store: Store, *, queue: int = QUEUE) -> None:
        """`queue` is how many changes may wait for one watcher before it is cut off."""
        self._store, self._queue = store, queue
        self._caches: dict[tuple[str, str], WatchCache] = {}
        self._told: dict[tuple[str, str], Told] = {}
        self._floor = 0
        self._tiebreak = itertools.count()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._failure: ServiceUnavailable | None = None
        self._behind = False
        self.revision = 0

    def on_change(self, resource: Resource, told: Told) -> None:
        """Tell of every change of a resource's objects, before anybody is told that it is done; one listener each."""
        self._told[resource.group, resource.plural] = told

    def end_watches(self, resource: Resource) -> None:
        """End every watch on a resource."""
        self._of(resource).end()

    async def start(self) -> None:
        """Read everything, then follow."""
        snapshot = await self._store.list(ROOT)
        self.revision = snapshot.revision
        stream, first = await self._recent(snapshot)
        for item in snapshot.items:
            resource, namespace, name = parts_of(item.key)
            self._cache(resource).load(namespace, name, read(item.value, item.revision))
        for change in first:
            if change.revision <= snapshot.revision:
                self._cache(parts_of(change.key)[0]).remember(change)
        self._apply(first)
        for resource, told in self._told.items():
            for obj in self._cache(resource).objects():
                told(None, obj)
        self._task = asyncio.create_task(self._follow(stream), name="watch cache")

    async def _recent(self, snapshot: Snapshot) -> tuple[AsyncGenerator[Sequence[Change], None], Sequence[Change]]:
        """The store's changes, from as far back as the caches can hold; the history comes as the first batch."""
        self._floor = max(0, snapshot.revision - _REPLAY)
        while True:
            stream = self._store.watch(ROOT, self._floor)
            try:
                return stream, await anext(stream)
            except Compacted as error:
                self._floor = error.revision

    async def close(self) -> None:
        """Stop following; every watch ends."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._fail(ServiceUnavailable("the API server is shutting down"))
        for cache in self._caches.values():
            cache.end()

    async def reached(self, revision: int) -> None:
        """Return when the change of that revision is applied. Raises ServiceUnavailable if that never comes."""
        if self.revision >= revision:
            return
        if self._failure:
            raise self._failure
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._tiebreak), waiter))
        await waiter

    async def fresh(self, wanted: str = "") -> None:
        """Return when a read shows what was asked for: "" everything that was written so far by whomever, N at least
        that revision, if it comes; "0" what there is.

        Raises ServiceUnavailable when what was written does not come.
        """
        if not self._store.shared or wanted == "0":
            return
        number = revision_number(wanted)
        revision = number or await self._store.newest()
        if revision <= self.revision:
            return
        try:
            async with asyncio.timeout(_FRESH_SECONDS):
                await self.reached(revision)
        except TimeoutError:
            if not number:  # what the client made up is told apart from what is late by who reads on
                why = f"this API server is behind the store: at revision {self.revision}, not yet at {revision}"
                raise ServiceUnavailable(why) from None

    async def advanced(self, seen: int) -> bool:
        """Whether others wrote something after the revision `seen`; it is here then."""
        if not self._store.shared:
            return False
        await self.fresh()
        return self.revision > seen

    def find(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """One object."""
        return self._of(resource).find(namespace if resource.namespaced else "", name)

    def changed(self, resource: Resource) -> int:
        """The revision of the last change of a resource."""
        return self._of(resource).revision

    def objects(self, resource: Resource, namespace: str = "") -> Iterator[Obj]:
        """All objects of a resource, or of one of its namespaces."""
        return self._of(resource).objects(namespace)

    def select(self, resource: Resource, selection: Selection) -> list[Obj]:
        """The selected objects in the order of their keys."""
        name, namespace = selection.demands("metadata.name"), selection.namespace
        if name and (namespace or not resource.namespaced):
            found = self.find(resource, namespace, name)
            return [found] if found is not None and selection.matches(found) else []
        objects = self.objects(resource, namespace)
        return [obj for obj in objects if selection.matches(obj)] if selection.narrowed else list(objects)

    def as_of(self, resource: Resource, revision: int) -> Iterator[Obj]:
        """All objects of a resource as they were at a revision. Raises Expired, also for one of the future."""
        return self._of(resource).as_of(self._not_future(str(revision)))

    def listable(self, resource: Resource, wanted: str, match: str = "") -> str:
        """The revision that a list tells, if the one that was asked for can be had.

        "" and "0" take what is here, N what is not older, N with `Exact` that very state. Raises Expired for a
        revision of the future: it comes from before a loss of the store, and a client that kept it would never
        notice.
        """
        if match and (problem := _match_problem(wanted, match)):
            raise Invalid.of_fields("ListOptions", "", [problem], "meta.k8s.io")
        if wanted in ("", "0"):
            return str(self.revision)
        number = self._not_future(wanted)
        if match == "Exact":
            if number < self._of(resource).revision or number < self._floor:
                raise Expired(f"The provided resource version {number} is no longer available")
            return str(number)
        return str(self.revision)

    def watch(
        self,
        resource: Resource,
        selection: Selection,
        wanted: str,
        *,
        bookmarks: bool = False,
        initial: bool | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[RegistryEvent, None]:
        """See Registry.watch. Raises BadRequest when called, Expired when iterated."""
        revision_number(wanted)
        return self._stream(resource, Watcher(selection, self._queue), wanted, bookmarks, initial, timeout)

    async def _stream(
        self,
        resource: Resource,
        watcher: Watcher,
        wanted: str,
        bookmarks: bool,
        initial: bool | None,
        timeout: float | None,
    ) -> AsyncGenerator[RegistryEvent, None]:
        cache, loop = self._of(resource), asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        timer: asyncio.TimerHandle | None = None
        try:
            await self.fresh(wanted)
            # Snapshot and registration without an await between them: no change is missed or seen twice.
            events, begun = self._beginning(resource, cache, watcher.selection, wanted, initial), self.revision
            cache.add(watcher)
            for event in events:
                yield event
            if initial:
                yield bookmark(resource.api_version, resource.kind, begun, initial=True)
            while not watcher.cut:
                pause = _BOOKMARK_SECONDS if deadline is None else min(_BOOKMARK_SECONDS, deadline - loop.time())
                timer = timer or loop.call_later(pause, watcher.wake)
                for event in await watcher.take():
                    yield event
                if loop.time() < timer.when() or not watcher.idle:
                    continue
                # Nothing waits, so all up to the cache's revision was told.
                timer = None
                if bookmarks:
                    yield bookmark(resource.api_version, resource.kind, self.revision)
                if deadline is not None and loop.time() >= deadline:
                    return
        finally:
            cache.discard(watcher)
            if timer:
                timer.cancel()

    def _beginning(
        self, resource: Resource, cache: WatchCache, selection: Selection, wanted: str, initial: bool | None
    ) -> list[RegistryEvent]:
        number = self._not_future(wanted)
        if initial or (initial is None and not number):
            return [RegistryEvent("ADDED", obj) for obj in self.select(resource, selection)]
        if not number:
            return []
        seen = (change_of(written).seen_through(selection) for written in cache.since(number))
        return [event for event in seen if event is not None]

    def _not_future(self, wanted: str) -> int:
        if (number := revision_number(wanted)) > self.revision:
            raise Expired(f"too large resource version: {number}, current: {self.revision}")
        return number

    async def _follow(self, stream: AsyncGenerator[Sequence[Change], None]) -> None:
        """Apply the store's changes until it closes; whatever ends this, nobody may wait for it any longer."""
        try:
            while not await self._followed(stream):
                await asyncio.sleep(_RECONNECT_SECONDS)
                stream = self._resumed()
        except Exception:
            log.exception("the store cannot be followed any more")
            raise
        finally:
            self._fail(ServiceUnavailable("the store is no longer followed"))

    async def _followed(self, stream: AsyncGenerator[Sequence[Change], None]) -> bool:
        """Whether the stream came to its proper end; false where the store went away and may come back."""
        try:
            async with aclosing(stream) as batches:
                async for batch in batches:
                    self._apply(batch)
        except ApiError as error:
            log.warning("following the store: %s; again in %.1f s", error, _RECONNECT_SECONDS)
            return False
        except Compacted as error:
            log.warning("following the store from revision %d: %s; reading all of it", self.revision, error)
            self._behind = True
            return False
        return True

    async def _resumed(self) -> AsyncGenerator[Sequence[Change], None]:
        """The store's changes from where the caches are, or from where they are after reading all of it."""
        if self._behind:
            await self._reload()
            self._behind = False
        async with aclosing(self._store.watch(ROOT, self.revision)) as batches:
            async for batch in batches:
                yield batch

    async def _reload(self) -> None:
        """Begin again with caches that know nothing of the past. Raises StoreError if the store is older than they."""
        snapshot = await self._store.list(ROOT)
        if snapshot.revision < self.revision:
            why = "it was restored; start the API server again"
            raise StoreError(f"the store went back from revision {self.revision} to {snapshot.revision}: {why}")
        former, self._caches = self._caches, {}
        known = {resource: former[resource].by_key() for resource in self._told if resource in former}
        self._floor = self.revision = snapshot.revision
        for item in snapshot.items:
            resource, namespace, name = parts_of(item.key)
            self._cache(resource).load(namespace, name, read(item.value, item.revision))
        for resource, told in self._told.items():
            old, new = known.get(resource, {}), self._cache(resource).by_key()
            for key in {**old, **new}:
                told(old.get(key), new.get(key))
        for cache in former.values():
            cache.end()
        self._wake()

    def _apply(self, batch: Sequence[Change]) -> None:
        for change in batch:
            if change.revision > self.revision:
                resource, namespace, name = parts_of(change.key)
                self.revision = change.revision
                old = self._cache(resource).find(namespace, name)
                self._cache(resource).apply(namespace, name, change)
                if told := self._told.get(resource):
                    told(old, self._cache(resource).find(namespace, name))
        self._wake()

    def _wake(self) -> None:
        """Let go who waited for a revision that is reached."""
        while self._waiters and self._waiters[0][0] <= self.revision:
            waiter = heapq.heappop(self._waiters)[2]
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: ServiceUnavailable) -> None:
        self._failure = error
        for _, _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters = []

    def _of(self, resource: Resource) -> WatchCache:
        return self._cache((resource.group, resource.plural))

    def _cache(self, resource: tuple[str, str]) -> WatchCache:
        cache = self._caches.get(resource)
        if cache is None:
            cache = self._caches[resource] = WatchCache(self._floor)
        return cache


def _match_problem(wanted: str, match: str) -> FieldError | None:
    path = "resourceVersionMatch"
    if match not in ("Exact", "NotOlderThan"):
        supported = 'supported values: "Exact", "NotOlderThan"'
        return FieldError(path, "FieldValueNotSupported", f'Unsupported value: "{match}": {supported}')
    if not wanted:
        why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        return FieldError(path, "FieldValueForbidden", why)
    if match == "Exact" and wanted == "0":
        why = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        return FieldError(path, "FieldValueForbidden", why)
    return None
