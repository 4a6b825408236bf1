"""One stored object, several ways to see it.

Event objects have two shapes (`events`). A custom resource may have several versions, of which one is stored; with
conversion strategy None they differ in nothing but apiVersion. What is read is also brought in line with the schema of
the version that is asked for, so that a definition that changes changes what is seen of objects that are older: fields
it no longer declares are gone, and defaults it brings are there, as upstream has it when it reads from its store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import lru_cache

from netemu.apiserver import events
from netemu.apiserver.schema.structural import conformed
from netemu.apiserver.watchcache import RegistryEvent
from netemu.client.base import Obj
from netemu.model.custom import Custom
from netemu.model.resources import EVENTS_V1, Resource

_MOST_KNOWN = 100_000


def stored_as(resource: Resource) -> Resource:
    """The resource under which objects of this one are stored."""
    return events.stored_as(resource)


def seen_as_stored(resource: Resource) -> bool:
    """Whether a resource shows its objects just as they are stored."""
    return resource is not EVENTS_V1 and resource.custom is None


def to_stored(resource: Resource, obj: Obj) -> Obj:
    """An object as it is stored."""
    if custom := resource.custom:
        return {**obj, "apiVersion": f"{resource.group}/{custom.storage_version}"}
    return events.to_stored(resource, obj)


def shown_as(resource: Resource, obj: Obj) -> Obj:
    """A stored object as this resource shows it; the very object where that is no difference."""
    if resource.custom is None:
        return events.shown_as(resource, obj)
    shown = _conformed(resource.custom, obj)
    if shown.get("apiVersion") != resource.api_version:
        shown = {**shown, "apiVersion": resource.api_version}
    return shown


def _conformed(custom: Custom, obj: Obj) -> Obj:
    known, revision = _as_they_are(custom), obj["metadata"].get("resourceVersion")
    if revision in known:
        return obj
    shown: Obj = conformed(custom.schema, obj, embedded=True)
    if shown is obj and revision:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known.add(revision)
    return shown


@lru_cache(maxsize=256)
def _as_they_are(custom: Custom) -> set[str]:
    """The revisions of objects of which a schema keeps everything: nearly all, so that reading them costs a look."""
    return set()


async def shown_stream(
    resource: Resource, stream: AsyncGenerator[RegistryEvent, None]
) -> AsyncGenerator[RegistryEvent, None]:
    """A watch with its objects as this resource shows them."""
    async with aclosing(stream) as changes:
        async for event in changes:
            if event.type == "BOOKMARK":
                yield RegistryEvent(
                    event.type, {**event.object, "apiVersion": resource.api_version, "kind": resource.kind}
                )
                continue
            shown = shown_as(resource, event.object)
            yield event if shown is event.object else RegistryEvent(event.type, shown)
