"""CustomResourceDefinitions at work: their resources are served, their status is kept, their end takes all with it.

The cacher tells of every change of a definition before the write that made it is answered, so its resources are served,
or no longer served, from then on (`model.custom.resources_of`); watches on what goes end. The same happens in every API
server that follows the store.

The rest is a controller's work, one definition at a time:

- names (`status.acceptedNames`): each name that nobody in its group has, be it built in, is accepted; when all are, the
  definition is established, and stays so;
- the end: a definition that is deleted carries a finalizer (`deletion`) until none of its objects is left.

Upstream: `apiextensions-apiserver/pkg/controller/{status,establish,finalizer,apiapproval}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from netemu.apiserver.cacher import Cacher
from netemu.apiserver.deletion import CLEANUP, DeleteOptions
from netemu.apiserver.merge.managed_fields import bare, updater
from netemu.apiserver.validation.crd import approval
from netemu.apiserver.writer import Writer
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.custom import CustomResourceDefinition, resources_of
from netemu.model.errors import ApiError, NotFound
from netemu.model.meta import decode
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS, Resource
from netemu.model.served import Served

log = logging.getLogger(__name__)

_WHO = updater("kube-apiserver", CUSTOMRESOURCEDEFINITIONS.api_version, "status")
_AT_ONCE = 64
_AGAIN = 0.2
"""Seconds until the next look at objects that are on their way out, and after a failure."""
_NAMES = ("plural", "singular", "shortNames", "kind", "listKind", "categories")
_KINDS = frozenset({"kind", "listKind"})


class Definitions:
    """Keeps the served resources, and the status of their definitions."""

    def __init__(self, cacher: Cacher, writer: Writer, served: Served) -> None:
        self._cacher, self._writer, self._served = cacher, writer, served
        self._dirty: asyncio.Queue[str] = asyncio.Queue()
        cacher.on_change(CUSTOMRESOURCEDEFINITIONS, self._changed)

    async def run(self) -> None:
        """Work on definitions as they change, until cancelled."""
        while True:
            name = await self._dirty.get()
            try:
                await self._work(name)
            except NotFound:
                continue
            except ApiError as error:
                log.info("customresourcedefinition %s: %s; again in %.1f s", name, error, _AGAIN)
                self._later(name)

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        if obj is None:
            return
        name, group = obj["metadata"]["name"], (obj.get("spec") or {}).get("group")
        if _what_is_served(old) != _what_is_served(new):
            self._serve(obj, _resources(new) if new else [])
        self._dirty.put_nowait(name)
        if old is None or new is None or _accepted(old) != _accepted(new):
            # A name that is free again may be what another definition has been waiting for.
            for other in self._cacher.objects(CUSTOMRESOURCEDEFINITIONS):
                if (other.get("spec") or {}).get("group") == group and other["metadata"]["name"] != name:
                    self._dirty.put_nowait(other["metadata"]["name"])

    def _serve(self, obj: Obj, resources: list[Resource]) -> None:
        before = [one for one in self._served if one.custom and (one.group, one.plural) == _group_and_plural(obj)]
        self._served.define(obj["metadata"]["name"], resources)
        if {one.version for one in before} - {one.version for one in resources}:
            self._cacher.end_watches(before[0])

    def _later(self, name: str) -> None:
        asyncio.get_running_loop().call_later(_AGAIN, self._dirty.put_nowait, name)

    async def _work(self, name: str) -> None:
        obj = self._cacher.find(CUSTOMRESOURCEDEFINITIONS, "", name)
        if obj is None:
            return
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp") and CLEANUP in (metadata.get("finalizers") or ()):
            await self._finish(obj)
            return
        await self._set_status(name, lambda found: named(found, self._others(found), self._served.builtin))

    def _others(self, obj: Obj) -> Iterable[Obj]:
        mine = obj["metadata"]["name"]
        return (one for one in self._cacher.objects(CUSTOMRESOURCEDEFINITIONS) if one["metadata"]["name"] != mine)

    async def _set_status(self, name: str, change: Callable[[Obj], Obj]) -> None:
        def changed(obj: Obj) -> Obj:
            return change(bare(obj))

        await self._writer.modify(CUSTOMRESOURCEDEFINITIONS, "", name, changed, subresource="status", who=_WHO)

    async def _finish(self, obj: Obj) -> None:
        """Delete the objects of a definition that is deleted; once there are none, let it go."""
        name, resource = obj["metadata"]["name"], _stored_resource(obj)
        if _condition(obj, "Terminating").get("reason") == "InstanceDeletionPending":
            why = ("InstanceDeletionInProgress", "CustomResource deletion is in progress")
            await self._set_status(name, lambda found: with_condition(found, "Terminating", "True", *why))
        # One that was never established has no objects; those of its name are somebody else's.
        if _condition(obj, "Established").get("status") == "True" and await self._left(resource):
            self._later(name)
            return
        who = _WHO._replace(subresource="")
        await self._writer.modify(CUSTOMRESOURCEDEFINITIONS, "", name, _without_cleanup, who=who)

    async def _left(self, resource: Resource) -> bool:
        """Delete every object; whether some are still there, because somebody else has to let them go."""
        metadata = [one["metadata"] for one in self._cacher.objects(resource)]
        todo = [one for one in metadata if not one.get("deletionTimestamp")]
        for start in range(0, len(todo), _AT_ONCE):
            await asyncio.gather(*(self._delete(resource, one) for one in todo[start : start + _AT_ONCE]))
        return any(self._cacher.objects(resource))

    async def _delete(self, resource: Resource, metadata: Obj) -> None:
        with contextlib.suppress(NotFound):
            await self._writer.delete(resource, metadata.get("namespace", ""), metadata["name"], DeleteOptions())


def named(obj: Obj, others: Iterable[Obj], builtin: Iterable[Resource]) -> Obj:
    """A definition with its names accepted as far as nobody else of its group has them. Pure."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    wanted, accepted = spec.get("names") or {}, dict(status.get("acceptedNames") or {})
    resources, kinds = _taken(spec.get("group"), others, builtin)
    problem = ("", "")
    for field in _NAMES:
        ours = _words(accepted, field)
        used = () if field == "categories" else kinds if field in _KINDS else resources
        clashes = [word for word in _words(wanted, field) if word not in ours and word in used]
        if clashes:
            reason = f"{field[0].upper()}{field[1:]}Conflict"
            texts = ", ".join(f'"{word}" is already in use' for word in clashes)
            problem = (reason, texts if len(clashes) == 1 else f"[{texts}]")
        elif field in wanted:
            accepted[field] = wanted[field]
        else:
            accepted.pop(field, None)
    obj = {**obj, "status": {**status, "acceptedNames": accepted}}
    if problem[0]:
        obj = with_condition(obj, "NamesAccepted", "False", *problem)
    else:
        obj = with_condition(obj, "NamesAccepted", "True", "NoConflicts", "no conflicts found")
    if _condition(obj, "Established").get("status") != "True":
        if problem[0]:
            obj = with_condition(obj, "Established", "False", "NotAccepted", "not all names are accepted")
        else:
            why = ("InitialNamesAccepted", "the initial names have been accepted")
            obj = with_condition(obj, "Established", "True", *why)
    if verdict := approval(obj):
        obj = with_condition(obj, "KubernetesAPIApprovalPolicyConformant", *verdict)
    return obj


def _taken(group: Any, others: Iterable[Obj], builtin: Iterable[Resource]) -> tuple[set[str], set[str]]:
    """The names of resources, and of kinds, that a group has already."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        if (other.get("spec") or {}).get("group") == group:
            names = _accepted(other)
            for field in _NAMES[:-1]:
                (kinds if field in _KINDS else resources).update(_words(names, field))
    for resource in builtin:
        if resource.group == group:
            resources |= {resource.plural, resource.singular, *resource.short_names}
            kinds |= {resource.kind, resource.list_kind}
    return resources, kinds


def _words(names: Mapping[str, Any], field: str) -> list[str]:
    value = names.get(field) or []
    return [value] if isinstance(value, str) else list(value)


def _accepted(obj: Obj) -> Mapping[str, Any]:
    return (obj.get("status") or {}).get("acceptedNames") or {}


def _condition(obj: Obj, kind: str) -> Obj:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def with_condition(obj: Obj, kind: str, status: str, reason: str, message: str) -> Obj:
    """A definition with a condition, whose time is that of its last change of status."""
    conditions = list((obj.get("status") or {}).get("conditions") or ())
    before = _condition(obj, kind)
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    new = {"type": kind, "status": status, "reason": reason, "message": message}
    new["lastTransitionTime"] = since or times.now()
    if before:
        conditions[conditions.index(before)] = new
    else:
        conditions.append(new)
    return {**obj, "status": {**(obj.get("status") or {}), "conditions": conditions}}


def _resources(obj: Obj) -> list[Resource]:
    try:
        return resources_of(decode(obj, CustomResourceDefinition))
    except ValueError:  # written by somebody else into the store
        log.exception("customresourcedefinition %s cannot be read", obj["metadata"]["name"])
        return []


def _what_is_served(obj: Obj | None) -> Any:
    """All of a definition that decides what it brings."""
    if obj is None:
        return None
    ends = bool(obj["metadata"].get("deletionTimestamp"))
    return obj.get("spec"), _accepted(obj), _condition(obj, "Established").get("status"), ends


def _group_and_plural(obj: Obj) -> tuple[str, str]:
    spec = obj.get("spec") or {}
    return spec.get("group", ""), (spec.get("names") or {}).get("plural", "")


def _stored_resource(obj: Obj) -> Resource:
    """The resource of a definition whether it is served or not."""
    group, plural = _group_and_plural(obj)
    spec = obj["spec"]
    version = next((one["name"] for one in spec["versions"] if one.get("storage")), "")
    return Resource(group, version, spec["names"]["kind"], plural, spec.get("scope") == "Namespaced")


def _without_cleanup(obj: Obj) -> Obj:
    obj = bare(obj)
    kept = [name for name in obj["metadata"].get("finalizers") or () if name != CLEANUP]
    return {**obj, "metadata": {**obj["metadata"], "finalizers": kept}}
