"""A typed, always current copy of a collection, and handlers that hear of each change.

Theory of operation (`client-go/tools/cache`): list once, then watch from the list's revision. When a watch ends, resume
from the last revision seen. When that revision is gone (410), list again and tell handlers only what differs, so
they see a gap as a burst of ordinary changes. While the server is away, answers nonsense or ends every watch at once,
keep the copy and retry with growing pauses. What cannot be read stays as it was last read, until it is deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from netemu.client.base import Client, Obj, ObjectList, Paged
from netemu.model.errors import ApiError, Expired, NetemuError
from netemu.model.meta import KubeObject, decode
from netemu.model.resources import Resource

log = logging.getLogger(__name__)

_SHORT_WATCH = 1.0
"""Seconds; a watch that ends sooner without a word has failed."""

K = TypeVar("K", bound=KubeObject)
Handler = Callable[[K | None, K | None], None]
"""Called with (old, new): None, x for an addition; x, None for a deletion."""


class Informer(Generic[K]):
    """Keeps `objects` (key -> typed object) in step with the server while `run` runs.

    Handlers are plain functions called in the order of events, after `objects` was changed; they must not block.
    `resource_version` is the newest revision reflected here, bookmarks included. `transform` makes of each object what
    is kept and told of it: without what nobody here looks at, many objects take less memory. So does a list in pieces
    of `page` objects (0: all at once), where the client can do that.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        kind: type[K],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[K], K] | None = None,
        page: int = 0,
        retry: tuple[float, float] = (0.2, 10.0),
    ) -> None:
        self.client, self.resource, self.kind = client, resource, kind
        self._scope = {"label_selector": label_selector, "field_selector": field_selector}
        self._namespace, self._transform = namespace, transform
        self._page = page
        self._first_pause, self._longest_pause = retry
        self._handlers: list[Handler[K]] = []
        self._objects: dict[str, K] = {}
        self._unreadable: dict[str, str] = {}
        """Why, by key: each is told once."""
        self.resource_version = ""
        self.synced = asyncio.Event()
        self.tried = asyncio.Event()
        """Set once the server has answered the first list, be it that it has no such collection."""
        self.trouble = ""
        """Why the last attempt to list or watch failed, "" where it did not."""

    @property
    def objects(self) -> Mapping[str, K]:
        """Key to object; do not change it."""
        return self._objects

    def get(self, key: str) -> K | None:
        """The object of that key (`namespace/name`, or `name`)."""
        return self._objects.get(key)

    def on_change(self, handler: Handler[K]) -> None:
        """Tell `handler` of every later change, and of what is here already."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            handler(None, obj)

    async def run(self) -> None:
        """List and watch until cancelled."""
        pause = self._first_pause
        while True:
            try:
                if not self.resource_version:
                    await self._list()
                if await self._watch():
                    pause = self._first_pause
                    continue
                why = "the watch ended at once"
            except Expired as error:
                self.resource_version, why = "", str(error)
                if pause == self._first_pause:  # the first time it is history that is gone, and no trouble
                    pause *= 2
                    continue
            except ApiError as error:
                why = str(error)
                self.tried.set()
            self.trouble = why
            log.debug("%s: %s; again in %.1f s", self.resource, why, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._longest_pause)

    async def _list(self) -> None:
        fresh: dict[str, K | None] = {}
        revision = ""
        async with aclosing(self._pages()) as pages:
            async for page in pages:
                fresh |= {_key(item): self._decode(item) for item in page.items}
                revision = page.resource_version
        for key in [key for key in self._objects if key not in fresh]:
            self._apply(key, None)
        self._unreadable = {key: why for key, why in self._unreadable.items() if key in fresh}
        for key, obj in fresh.items():
            if obj is not None:
                self._apply(key, obj)
        self.resource_version = revision
        self.synced.set()
        self.tried.set()
        self.trouble = ""

    async def _pages(self) -> AsyncGenerator[ObjectList, None]:
        if not self._page or not isinstance(self.client, Paged):
            yield await self.client.list(self.resource, self._namespace, **self._scope)
            return
        pages = self.client.pages(self.resource, self._namespace, limit=self._page, **self._scope)
        async with aclosing(pages):
            async for page in pages:
                yield page

    async def _watch(self) -> bool:
        """Follow the changes until the server ends the watch; whether it lived, or said anything."""
        begin, heard = asyncio.get_running_loop().time(), False
        events = self.client.watch(
            self.resource, self._namespace, resource_version=self.resource_version, **self._scope
        )
        async with aclosing(events) as stream:
            async for event in stream:
                heard = True
                if event.type == "DELETED":
                    self._unreadable.pop(_key(event.object), None)
                    self._apply(_key(event.object), None)
                elif event.type != "BOOKMARK" and (obj := self._decode(event.object)) is not None:
                    self._apply(obj.key, obj)
                self.resource_version = _revision(event.object) or self.resource_version
        return heard or asyncio.get_running_loop().time() - begin >= _SHORT_WATCH

    def _decode(self, item: Obj) -> K | None:
        key = _key(item)
        try:
            obj = decode(item, self.kind)
            if not obj.name:
                raise ValueError("it has no name")
        except ValueError as error:  # one strange object must not hide the others
            if self._unreadable.get(key) != str(error):
                log.warning("%s: cannot read %s: %s", self.resource, key, error)
            self._unreadable[key] = str(error)
            return None
        self._unreadable.pop(key, None)
        return self._transform(obj) if self._transform else obj

    def _apply(self, key: str, new: K | None) -> None:
        old = self._objects.get(key)
        if new is None:
            if old is None:
                return
            del self._objects[key]
        else:
            if old is not None and old.metadata.resource_version == new.metadata.resource_version:
                return
            self._objects[key] = new
        for handler in self._handlers:
            handler(old, new)


def _metadata(item: Obj) -> Obj:
    found = item.get("metadata")
    return found if isinstance(found, dict) else {}


def _key(item: Obj) -> str:
    """As `KubeObject.key`, of what need not be readable."""
    found = _metadata(item)
    namespace, name = found.get("namespace"), found.get("name")
    return f"{namespace}/{name}" if namespace else f"{name or ''}"


def _revision(item: Obj) -> str:
    return str(_metadata(item).get("resourceVersion") or "")


async def wait_synced(*informers: Informer[Any], within: float = 30.0) -> None:
    """Return when every informer has listed once. Raises NetemuError naming those that have not."""
    try:
        async with asyncio.timeout(within):
            for informer in informers:
                await informer.synced.wait()
    except TimeoutError as error:
        late = ", ".join(str(informer.resource) for informer in informers if not informer.synced.is_set())
        raise NetemuError(f"no list of {late} within {within:.0f} s") from error
