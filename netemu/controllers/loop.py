"""The loop that every controller runs in.

Theory of operation: informers mark keys dirty; workers take one key at a time, ask the controller what to do about it
and do that. A key that is marked while it is worked on is looked at once more afterwards, so nothing is missed and no
key is ever worked on twice at once. A failure (ApiError) brings the key back after a growing pause.

Caches lag behind the server. A controller that decided on a stale copy would create the same Pods twice, so a key is
not looked at again until the informers show everything that was written for it: for creations and patches the revision
that the server answered with, for deletions the object gone or marked as deleted. This takes the place of upstream's
expectations (`controller_utils.go`), and like those it gives up waiting after a while.

A key whose handling took long then rests in proportion. So a Service with thousands of Pods that all become ready in
one second is written a few times, not thousands of times, while a small one is never kept waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Protocol

from netemu.client.base import Client
from netemu.client.events import EventRecorder
from netemu.client.informer import Informer
from netemu.controllers.actions import Action, Again, Create, Delete, Finalize, Patch, Say
from netemu.controllers.cache import Cache
from netemu.model.errors import ApiError, Conflict, Forbidden, NotFound
from netemu.model.resources import NAMESPACES, Resource

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 30.0
_PATIENCE = 30.0
"""How long a key waits for the caches to show its writes; only a broken watch takes longer."""
_FORBIDDEN_PAUSE = 5.0
_QUICK, _REST, _LONGEST_REST = 0.005, 3.0, 0.5
"""Handling that takes longer than `_QUICK` seconds is followed by a rest of `_REST` times as long."""
_AT_ONCE = 16


class Controller(Protocol):
    """What a loop runs."""

    @property
    def name(self) -> str:
        """Component name, as the source of its Events."""
        ...

    @property
    def needs(self) -> Sequence[Resource]:
        """Whose informers must have listed before anything is decided."""
        ...

    def watch(self, queue: Queue) -> None:
        """Register with informers so that they mark keys in `queue`."""

    async def decide(self, key: str) -> Sequence[Action]:
        """What to do now about the object with that key."""
        ...


class Queue:
    """Keys to look at: each at most once, in the order of being marked."""

    def __init__(self) -> None:
        self._dirty: dict[str, None] = {}
        self._working: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def mark(self, key: str) -> None:
        """Look at `key` soon."""
        self._dirty[key] = None
        self._wake.set()

    def mark_after(self, key: str, seconds: float) -> None:
        """Look at `key` in that many seconds; the earliest of several counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, seconds), self._due, key)

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.mark(key)

    async def take(self) -> str:
        """The next key; nobody else gets it until `done`."""
        while True:
            for key in self._dirty:
                if key not in self._working:
                    del self._dirty[key]
                    self._working.add(key)
                    return key
            self._wake.clear()
            await self._wake.wait()

    def done(self, key: str) -> None:
        """The work on `key` is over."""
        self._working.discard(key)
        if key in self._dirty:
            self._wake.set()

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


@dataclass(slots=True)
class _Writes:
    """What was written for a key and has not been seen in the caches yet."""

    since: float
    revisions: dict[Resource, int] = field(default_factory=dict)
    deleted: dict[tuple[Resource, str], str] = field(default_factory=dict)
    """(resource, key) -> uid."""


class Unseen:
    """What was written for each key and is not in the caches yet, as far as `informers` know those resources."""

    def __init__(self, informers: Mapping[Resource, Informer[Any]]) -> None:
        self._informers = informers
        self._writes: dict[str, _Writes] = {}

    def wrote(self, key: str, resource: Resource, version: str) -> None:
        """Something was created or patched for `key`."""
        if resource in self._informers:
            revisions = self._of(key).revisions
            revisions[resource] = max(revisions.get(resource, 0), int(version))

    def deleted(self, key: str, resource: Resource, name: str, uid: str) -> None:
        """The deletion of the object with key `name` was asked for."""
        if resource in self._informers:
            self._of(key).deleted[resource, name] = uid

    def behind(self, key: str) -> tuple[Resource, float] | None:
        """A resource whose cache does not show all that was written for `key`, and how long to wait for it."""
        writes = self._writes.get(key)
        if writes is None:
            return None
        left = writes.since + _PATIENCE - asyncio.get_running_loop().time()
        resource = self._late(writes)
        if left > 0 and resource is not None:
            return resource, left
        del self._writes[key]
        return None

    def _of(self, key: str) -> _Writes:
        writes = self._writes.setdefault(key, _Writes(0.0))
        writes.since = asyncio.get_running_loop().time()
        return writes

    def _late(self, writes: _Writes) -> Resource | None:
        for resource, revision in writes.revisions.items():
            if int(self._informers[resource].resource_version or 0) < revision:
                return resource
        return next((r for (r, name), uid in writes.deleted.items() if self._stands(r, name, uid)), None)

    def _stands(self, resource: Resource, key: str, uid: str) -> bool:
        obj = self._informers[resource].get(key)
        return obj is not None and not obj.deleting and (not uid or obj.metadata.uid == uid)


class Loop:
    """Runs one controller until cancelled."""

    def __init__(self, controller: Controller, client: Client, cache: Cache, *, workers: int = 4) -> None:
        self._controller, self._client, self._workers = controller, client, workers
        self.queue = Queue()
        self._recorder = EventRecorder(client, controller.name)
        self._failures: dict[str, int] = {}
        self._resting: dict[str, float] = {}
        self._informers = {resource: cache.any(resource) for resource in controller.needs}
        self._unseen = Unseen(self._informers)
        self._waiting: dict[Resource, set[str]] = {resource: set() for resource in controller.needs}
        controller.watch(self.queue)
        for resource, informer in self._informers.items():
            informer.on_change(partial(self._progress, resource))

    async def run(self) -> None:
        """Wait for the caches, then work."""
        for informer in self._informers.values():
            await informer.synced.wait()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self._controller.name} {number}")
        finally:
            self.queue.close()
            await self._recorder.close()

    def _progress(self, resource: Resource, *_: object) -> None:
        """A cache moved: whoever waits for it may go on."""
        while self._waiting[resource]:
            self.queue.mark(self._waiting[resource].pop())

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                if self._rested(key) and self._seen(key):
                    started = asyncio.get_running_loop().time()
                    await self._handle(key)
                    self._rest(key, started)
            finally:
                self.queue.done(key)

    def _seen(self, key: str) -> bool:
        """Whether the caches show all that was written for `key`; if not, it is marked when they may."""
        behind = self._unseen.behind(key)
        if behind is None:
            return True
        resource, left = behind
        self._waiting[resource].add(key)
        self.queue.mark_after(key, left)
        return False

    def _rested(self, key: str) -> bool:
        left = self._resting.get(key, 0.0) - asyncio.get_running_loop().time()
        if left > 0:
            self.queue.mark_after(key, left)
            return False
        self._resting.pop(key, None)
        return True

    def _rest(self, key: str, started: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - started > _QUICK:
            self._resting[key] = now + min(_REST * (now - started), _LONGEST_REST)

    async def _handle(self, key: str) -> None:
        try:
            for group in _batches(await self._controller.decide(key)):
                await self._apply_all(key, group)
            self._failures.pop(key, None)
        except Forbidden as error:
            # Nothing can be made in a namespace that ends; its objects will go, and then there is nothing to do.
            log.debug("%s %s: %s", self._controller.name, key, error)
            self.queue.mark_after(key, _FORBIDDEN_PAUSE)
        except ApiError as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(_FIRST_PAUSE * 2 ** min(failures, 20), _LONGEST_PAUSE)
            known = isinstance(error, Conflict | NotFound)  # somebody else was faster: normal
            log.log(logging.DEBUG if known else logging.INFO, "%s %s: %s", self._controller.name, key, error)
            self.queue.mark_after(key, pause)
        except Exception:
            # One object that breaks a decision must not stop the controller for all others.
            log.exception("%s %s", self._controller.name, key)
            self._failures[key] = self._failures.get(key, 0) + 1
            self.queue.mark_after(key, min(0.5 * 2 ** min(self._failures[key], 10), _LONGEST_PAUSE))

    async def _apply_all(self, key: str, group: list[Action]) -> None:
        """Carry out actions of one kind, in batches that double: what fails for one will fail for all
        (`slowStartBatch`)."""
        size = 1 if isinstance(group[0], Create) else _AT_ONCE
        while group:
            batch, group = group[:size], group[size:]
            results = await asyncio.gather(*(self._apply(key, action) for action in batch), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            size = min(2 * size, _AT_ONCE)

    async def _apply(self, key: str, action: Action) -> None:
        match action:
            case Say():
                self._recorder.event(action.about, action.type, action.reason, action.message)
            case Again():
                self.queue.mark_after(key, action.seconds)
            case Create():
                await self._create(key, action)
            case Patch():
                await self._patch(key, action)
            case Delete():
                await self._delete(key, action)
            case Finalize():
                await self._finalize(action.name)

    async def _create(self, key: str, action: Create) -> None:
        try:
            obj = await self._client.create(action.resource, action.obj, action.namespace)
        except ApiError as error:
            self._say(action.failed, error=str(error))
            raise
        self._unseen.wrote(key, action.resource, obj["metadata"]["resourceVersion"])
        self._say(action.done, name=obj["metadata"]["name"])

    async def _patch(self, key: str, action: Patch) -> None:
        patch = dict(action.patch)
        if action.resource_version:
            patch["metadata"] = {**patch.get("metadata", {}), "resourceVersion": action.resource_version}
        obj = await self._client.patch(
            action.resource, action.name, patch, action.namespace, subresource=action.subresource
        )
        self._unseen.wrote(key, action.resource, obj["metadata"]["resourceVersion"])
        self._say(action.done, name=action.name)

    async def _delete(self, key: str, action: Delete) -> None:
        try:
            await self._client.delete(
                action.resource,
                action.name,
                action.namespace,
                uid=action.uid or None,
                propagation_policy=action.propagation_policy,
            )
        except (NotFound, Conflict) as error:  # gone, or another object of that name by now
            log.debug("%s %s: %s", self._controller.name, key, error)
        except ApiError as error:
            self._say(action.failed, name=action.name, error=str(error))
            raise
        name = f"{action.namespace}/{action.name}" if action.namespace else action.name
        self._unseen.deleted(key, action.resource, name, action.uid)
        self._say(action.done, name=action.name)

    async def _finalize(self, name: str) -> None:
        obj = await self._client.get(NAMESPACES, name)
        spec = dict(obj.get("spec") or {})
        spec["finalizers"] = [item for item in spec.get("finalizers") or () if item != "kubernetes"]
        await self._client.update(NAMESPACES, {**obj, "spec": spec}, subresource="finalize")

    def _say(self, say: Say | None, **values: str) -> None:
        if say is not None:
            self._recorder.event(say.about, say.type, say.reason, say.message.format(**values))


def _batches(actions: Sequence[Action]) -> list[list[Action]]:
    """Runs of actions of one kind on one resource, which may be carried out at the same time."""
    key = [(type(action).__name__, getattr(action, "resource", None)) for action in actions]
    runs = groupby(range(len(actions)), key=lambda i: key[i])
    return [[actions[i] for i in run] for _, run in runs]
