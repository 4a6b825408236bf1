"""One resource in memory: its objects, its recent changes, its watchers.

Objects are decoded once per change and shared by everyone. The history keeps changes as bytes and decodes them again
when a watch resumes in the past, which is rare, so it costs little memory. A change is turned into at most three
events (an object that enters a watcher's selection is ADDED there, one that leaves is DELETED), and each event is
encoded at most once, however many watchers want it.

Watchers that demand one name, node or namespace wait in a bucket of that value, so a change is shown only to those
it may concern. A watcher that does not keep up is cut off: its stream ends, and its client resumes from where it was.
Follows `apiserver/pkg/storage/cacher`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from netemu.apiserver.keys import parts_of
from netemu.apiserver.merge.fieldset import known_as
from netemu.apiserver.selection import Selection
from netemu.client.base import Obj, WatchEvent
from netemu.model.errors import Expired
from netemu.model.selectors import field_text
from netemu.store import base

HISTORY = 2048
"""Changes kept per resource."""
QUEUE = 4096
"""Changes that may wait for one watcher before it is cut off."""
_INDEXED = ("metadata.name", "spec.nodeName", "metadata.namespace")

encode = msgspec.json.encode
_decode = msgspec.json.decode


class RegistryEvent(WatchEvent):
    """A watch event that knows its JSON line."""

    _line: bytes | None = None

    @property
    def line(self) -> bytes:
        """`{"type":...,"object":{...}}` and a newline, made once."""
        if self._line is None:
            self._line = encode({"type": self.type, "object": self.object}) + b"\n"
        return self._line


def read(value: bytes, revision: int) -> Obj:
    """A stored value as an object of that revision."""
    text, _, entries = value.partition(_ENTRIES)
    obj: Obj = _decode(text)
    metadata = obj["metadata"]
    metadata["resourceVersion"] = str(revision)
    if entries:
        metadata["managedFields"] = [entry.shown() for entry in _entries_decoder.decode(entries)]
    return obj


def stored(obj: Obj) -> bytes:
    """The value that `read` reads: without the revision, which the store itself knows.

    managedFields stand behind the rest, on a line of their own. They are about as large, but few of their sets differ,
    so that most need not be decoded.
    """
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    entries = metadata.pop("managedFields", None)
    value = encode({**obj, "metadata": metadata})
    return value + _ENTRIES + encode(entries) if entries else value


class _Entry(msgspec.Struct, omit_defaults=True):
    """One of metadata.managedFields as it is stored."""

    manager: str
    operation: str
    apiVersion: str  # noqa: N815
    fieldsV1: msgspec.Raw  # noqa: N815
    time: str = ""
    subresource: str = ""

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"manager": self.manager, "operation": self.operation, "apiVersion": self.apiVersion}
        if self.time:
            shown["time"] = self.time
        shown["fieldsType"] = "FieldsV1"
        shown["fieldsV1"] = known_as(bytes(self.fieldsV1))
        if self.subresource:
            shown["subresource"] = self.subresource
        return shown


_entries_decoder: msgspec.json.Decoder[list[_Entry]] = msgspec.json.Decoder(list[_Entry])
_ENTRIES = b"\n"


def bookmark(api_version: str, kind: str, revision: int, *, initial: bool = False) -> RegistryEvent:
    """The event that only tells how far the watch has come; `initial` marks the end of the initial events."""
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return RegistryEvent("BOOKMARK", {"kind": kind, "apiVersion": api_version, "metadata": metadata})


class Change:
    """One write as watchers see it."""

    __slots__ = ("_events", "new", "old", "revision")

    def __init__(self, revision: int, old: Obj | None, new: Obj | None) -> None:
        self.revision, self.old, self.new = revision, old, new
        self._events: dict[str, RegistryEvent] = {}

    def seen_through(self, selection: Selection) -> RegistryEvent | None:
        """What a watcher with that selection is told."""
        before = self.old is not None and selection.matches(self.old)
        after = self.new is not None and selection.matches(self.new)
        if after:
            return self._event("MODIFIED" if before else "ADDED")
        return self._event("DELETED") if before else None

    def _event(self, kind: str) -> RegistryEvent:
        event = self._events.get(kind)
        if event is None:
            obj = self.new
            if kind == "DELETED" or obj is None:
                # The last state, at the revision at which it went away.
                last = self.old or {"metadata": {}}
                obj = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.revision)}}
            event = self._events[kind] = RegistryEvent(kind, obj)
        return event

    def buckets(self) -> set[tuple[str, str]]:
        """Where watchers wait whom this may concern."""
        found: set[tuple[str, str]] = set()
        for obj in (self.old, self.new):
            if obj is not None:
                found.update((path, field_text(obj, path)) for path in _INDEXED)
        return found


class Watcher:
    """The queue between the cache and one stream."""

    def __init__(self, selection: Selection, limit: int) -> None:
        self.selection, self._limit = selection, limit
        self.bucket = next(((path, value) for path in _INDEXED if (value := selection.demands(path))), None)
        self._waiting: list[RegistryEvent] = []
        self._waiter: asyncio.Future[None] | None = None
        self.cut = False

    def offer(self, change: Change) -> None:
        """Queue what this watcher is told of a change; never waits."""
        event = change.seen_through(self.selection)
        if event is None or self.cut:
            return
        if len(self._waiting) >= self._limit:
            self.end()
            return
        self._waiting.append(event)
        self.wake()

    def end(self) -> None:
        """Drop what waits and let the stream end."""
        self.cut = True
        self._waiting = []
        self.wake()

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def wake(self) -> None:
        """Let `take` return."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[RegistryEvent]:
        """All that waits, after waiting for it; empty after a `wake` without events."""
        if not self._waiting and not self.cut:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        batch, self._waiting = self._waiting, []
        return batch


class WatchCache:
    """The objects of one resource, by namespace and name."""

    def __init__(self, floor: int, *, history: int = HISTORY) -> None:
        self._objects: dict[str, dict[str, Obj]] = {}
        self._history: deque[base.Change] = deque()
        self._length = history
        self._floor = floor
        self._watchers: dict[tuple[str, str] | None, set[Watcher]] = {}
        self.revision = floor
        """Of the last change to this resource, if there was one after `floor`."""

    def find(self, namespace: str, name: str) -> Obj | None:
        """One object."""
        return self._objects.get(namespace, {}).get(name)

    def objects(self, namespace: str = "") -> Iterator[Obj]:
        """All objects, of one namespace or of all, in the order of their keys."""
        for space in (namespace,) if namespace else sorted(self._objects):
            names = self._objects.get(space, {})
            for name in sorted(names):
                yield names[name]

    def by_key(self) -> dict[tuple[str, str], Obj]:
        """All objects by namespace and name, in the order of their keys."""
        return {(space, name): names[name] for space, names in sorted(self._objects.items()) for name in sorted(names)}

    def load(self, namespace: str, name: str, obj: Obj) -> None:
        """Take over an object as it was when the cache began."""
        self._objects.setdefault(namespace, {})[name] = obj

    def remember(self, written: base.Change) -> None:
        """Append to the history."""
        self._history.append(written)
        self.revision = written.revision
        if len(self._history) > self._length:
            self._floor = self._history.popleft().revision

    def apply(self, namespace: str, name: str, written: base.Change) -> None:
        """Take in a change and tell the watchers."""
        old = self.find(namespace, name)
        new = None if written.value is None else read(written.value, written.revision)
        if new is not None:
            self.load(namespace, name, new)
        elif old is not None:
            del self._objects[namespace][name]
            if not self._objects[namespace]:
                del self._objects[namespace]
        self.remember(written)
        if not self._watchers:
            return
        change = Change(written.revision, old, new)
        for bucket in (None, *change.buckets()):
            for watcher in tuple(self._watchers.get(bucket, ())):
                watcher.offer(change)

    def since(self, revision: int) -> list[base.Change]:
        """The changes after a revision, as they were written. Raises Expired."""
        if revision < self._floor:
            raise Expired(f"too old resource version: {revision} ({self._floor})")
        late = []
        for written in reversed(self._history):
            if written.revision <= revision:
                break
            late.append(written)
        return late[::-1]

    def as_of(self, revision: int) -> Iterator[Obj]:
        """All objects as they were at a revision, in the order of their keys. Raises Expired when called.

        Of one that has changed since, the revision is told if the history goes back to it, else the one asked for:
        what matters is that it is not the present one.
        """
        then: dict[str, bytes | None] = {}
        revisions: dict[str, int] = {}
        for change in self.since(revision):
            then.setdefault(change.key, change.previous)
        for change in self._history:
            if change.revision <= revision and change.key in then:
                revisions[change.key] = change.revision
        objects = self.by_key()
        for key, value in then.items():
            place = parts_of(key)[1:]
            objects.pop(place, None)
            if value is not None:
                objects[place] = read(value, revisions.get(key, revision))
        return iter([objects[place] for place in sorted(objects)])

    def add(self, watcher: Watcher) -> None:
        """Tell `watcher` of changes from now on."""
        self._watchers.setdefault(watcher.bucket, set()).add(watcher)

    def discard(self, watcher: Watcher) -> None:
        """Tell it no more."""
        waiting = self._watchers.get(watcher.bucket, set())
        waiting.discard(watcher)
        if not waiting:
            self._watchers.pop(watcher.bucket, None)

    def end(self) -> None:
        """End every stream."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.end()


def change_of(written: base.Change) -> Change:
    """A change of the history as watchers see it."""
    revision = written.revision
    # The revision of what was replaced is not kept; nobody sees it, since a DELETED event bears the deletion's.
    old = None if written.previous is None else read(written.previous, revision)
    return Change(revision, old, None if written.value is None else read(written.value, revision))
