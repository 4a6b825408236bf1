"""Who set which field: metadata.managedFields as a write leaves it.

A write that is no apply gives its manager all that differs from before, and takes it from everybody else. An entry is
the manager's for one operation, API version and subresource; what applies has one entry whatever the version. Objects
that have no entries (written before there were any, or stripped by writing `[{}]`) stay so until somebody applies.

    [{}]     in a write of the object itself strips all entries
    []       or nothing, or what cannot be read, leaves them: many clients do not know the field
    else     the entries are what the client says they are

A write that changes nothing but the time of an entry changes nothing.
Upstream: apimachinery `util/managedfields/internal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from netemu.apiserver.merge.fieldset import EMPTY, FieldSet, difference, is_field_set, known, of_paths, union
from netemu.apiserver.merge.typed import Typed
from netemu.apiserver.merge.typed_sets import Unfit, compared
from netemu.client.base import Obj
from netemu.model import times

Entries = list[dict[str, Any]]
"""metadata.managedFields."""

MAX_UPDATE_MANAGERS = 10
"""Above, the oldest entries of updates become one."""
_ANCIENT = "ancient-changes"

_TYPE = frozenset({"apiVersion", "kind"})
_METADATA = frozenset(
    {
        "clusterName", "creationTimestamp", "generation", "managedFields", "name", "namespace", "resourceVersion",
        "selfLink", "uid",
    }
)  # fmt: skip
"""With the type: the fields that the server keeps and nobody owns."""
_NOBODYS = union(
    of_paths([["f:metadata"], *(["f:" + name] for name in _TYPE)]),
    of_paths(["f:metadata", f"f:{name}"] for name in _METADATA),
)


class Manager(NamedTuple):
    """Whose fields an entry holds."""

    name: str
    operation: str
    """`Apply` or `Update`."""
    api_version: str
    """Empty for Apply, whose fields are the manager's in every version."""
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Managed:
    """The fields of one manager."""

    fields: FieldSet
    api_version: str
    time: str = ""


Managers = dict[Manager, Managed]


def updater(name: str, api_version: str, subresource: str = "") -> Manager:
    """Who changes an object by anything but an apply."""
    return Manager(name, "Update", api_version, subresource)


def applier(name: str, subresource: str = "") -> Manager:
    """Who applies."""
    return Manager(name, "Apply", "", subresource)


def owned(fields: FieldSet) -> FieldSet:
    """Less what nobody owns."""
    return difference(fields, _NOBODYS)


def _ownable(obj: Obj) -> Obj:
    """An object without the fields that nobody owns."""
    metadata = {name: value for name, value in obj.get("metadata", EMPTY).items() if name not in _METADATA}
    return {name: value for name, value in obj.items() if name not in _TYPE} | {"metadata": metadata}


def decoded(entries: Any) -> Managers | None:
    """Entries by their managers; None if they are not what managedFields can be."""
    managers: Managers = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("operation") not in ("Apply", "Update"):
            return None
        fields, version = entry.get("fieldsV1") or EMPTY, entry.get("apiVersion") or ""
        if entry.get("fieldsType") != "FieldsV1" or not version or not is_field_set(fields):
            return None
        apply = entry["operation"] == "Apply"
        who = Manager(
            entry.get("manager") or "", entry["operation"], "" if apply else version, entry.get("subresource") or ""
        )
        managers[who] = Managed(fields, version, entry.get("time") or "")
    return managers


def _trusted(entries: Entries) -> Managers:
    """Entries that are stored: they were looked at when they came in."""
    return {
        Manager(
            entry.get("manager", ""),
            entry["operation"],
            "" if entry["operation"] == "Apply" else entry["apiVersion"],
            entry.get("subresource", ""),
        ): Managed(entry.get("fieldsV1", EMPTY), entry["apiVersion"], entry.get("time", ""))
        for entry in entries
    }


def encoded(managers: Mapping[Manager, Managed]) -> Entries:
    """The entries in upstream's order: appliers first, then by time."""

    def rank(one: tuple[Manager, Managed]) -> tuple[str, ...]:
        who, managed = one
        return (who.operation, managed.time, who.name, managed.api_version, who.subresource)

    return [_entry(who, managed) for who, managed in sorted(managers.items(), key=rank)]


def _entry(who: Manager, managed: Managed) -> dict[str, Any]:
    entry: dict[str, Any] = {"manager": who.name, "operation": who.operation, "apiVersion": managed.api_version}
    if managed.time:
        entry["time"] = managed.time
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": known(managed.fields)}
    if who.subresource:
        entry["subresource"] = who.subresource
    return entry


def of(obj: Obj) -> Managers:
    """Of a stored object."""
    entries = obj["metadata"].get("managedFields")
    return _trusted(entries) if entries else {}


def bare(obj: Obj) -> Obj:
    """An object without its entries."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}


def kept(new: Obj, old: Obj) -> Obj:
    """`new` with the entries of `old`."""
    entries = old["metadata"].get("managedFields")
    return {**new, "metadata": {**new["metadata"], "managedFields": entries}} if entries else new


def is_reset(entries: Any) -> bool:
    """Whether a client asks to strip all entries."""
    return isinstance(entries, list) and len(entries) == 1 and not entries[0]


def before(given: Any, old: Obj, subresource: str) -> Managers:
    """The managers that a write starts from: what the client says in `given`, or the object's own."""
    stored = old["metadata"].get("managedFields") if old else None
    if subresource or not given or given == stored:
        return _trusted(stored) if stored else {}
    if is_reset(given):
        return {}
    return decoded(given) or (_trusted(stored) if stored else {})


def after_update(typed: Typed, managers: Managers, who: Manager, old: Obj, new: Obj) -> Managers:
    """The managers after `who` made `new` of `old` (empty for an object that is created)."""
    if not managers and old:
        return managers
    try:
        changed, removed = compared(typed, _ownable(old), _ownable(new))
    except Unfit:
        return managers
    if not changed and not removed:
        return managers
    left = taken(managers, union(changed, removed))
    if changed:
        mine = managers.get(who)
        fields = union(difference(mine.fields, removed), changed) if mine else changed
        left[who] = Managed(fields, who.api_version, times.now())
    return capped(left)


def taken(managers: Managers, fields: FieldSet, but: Manager | None = None) -> Managers:
    """Managers less the fields that somebody else changed; who has none left is gone."""
    result: Managers = {}
    for who, managed in managers.items():
        left = managed.fields if who == but else difference(managed.fields, fields)
        if left:
            result[who] = managed if left is managed.fields else replace(managed, fields=left)
    return result


def capped(managers: Managers) -> Managers:
    """Few enough entries of updates: of the oldest, those of one version become one."""
    updates = [who for who in managers if who.operation == "Update"]
    excess = len(updates) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return managers
    result, first = dict(managers), dict[str, Manager]()
    for who in sorted(updates, key=lambda one: (managers[one].time, one)):
        if excess <= 0:
            break
        bucket = updater(_ANCIENT, who.api_version)
        if who.api_version not in first:
            first[who.api_version] = who
            continue
        if bucket not in result:
            result[bucket] = result.pop(first[who.api_version])
        if who != bucket:
            mine = result.pop(who)
            result[bucket] = replace(mine, fields=union(mine.fields, result[bucket].fields))
        excess -= 1
    return result


def same(new: Entries, old: Entries) -> bool:
    """Whether entries differ in nothing but times."""
    return len(new) == len(old) and sorted(map(_timeless, new)) == sorted(map(_timeless, old))


def _timeless(entry: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({**entry, "time": ""}, order="sorted")
