"""Event objects have two shapes, core/v1 and events.k8s.io/v1, and one store.

They are stored as core/v1. Field names after `pkg/apis/events/v1/conversion.go`.
"""

from __future__ import annotations

from netemu.client.base import Obj
from netemu.model.resources import EVENTS, EVENTS_V1, Resource

_TO_CORE = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_FROM_CORE = {core: new for new, core in _TO_CORE.items()}


def stored_as(resource: Resource) -> Resource:
    """The resource under which objects of this one are stored."""
    return EVENTS if resource is EVENTS_V1 else resource


def to_stored(resource: Resource, obj: Obj) -> Obj:
    """An object as it is stored."""
    return _renamed(obj, EVENTS, _TO_CORE) if resource is EVENTS_V1 else obj


def shown_as(resource: Resource, obj: Obj) -> Obj:
    """A stored object as this resource shows it."""
    if resource is not EVENTS_V1:
        return obj
    shown = _renamed(obj, EVENTS_V1, _FROM_CORE)
    # A required field: typed clients refuse an Event that lacks it, null is fine.
    shown.setdefault("eventTime", None)
    return shown


def _renamed(obj: Obj, resource: Resource, names: dict[str, str]) -> Obj:
    renamed = {names.get(key, key): value for key, value in obj.items()}
    return {**renamed, "apiVersion": resource.api_version, "kind": resource.kind}
