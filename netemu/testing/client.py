"""An API server in a dictionary: `FakeClient` implements `Client` without network, validation or defaults.

It keeps the contracts that components rely on: one revision counter for everything, watches that resume from a
revision, optimistic locking, `generateName`, `generation`, merge and JSON-free status patches, graceful deletion of
bound Pods, finalizers, and deletion policies. What it stores is copied on the way in and shared on the way out.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from netemu.client.base import MERGE_PATCH, Obj, ObjectList, WatchEvent
from netemu.model import times
from netemu.model.errors import AlreadyExists, BadRequest, Conflict, Expired, NotFound
from netemu.model.resources import EVENTS_V1, PODS, Resource
from netemu.model.selectors import FieldSelector, LabelSelector

_POLICY_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class FakeClient:
    """Implements `Client` in memory. `lag` seconds pass between a write and its watch event.

    `writes` lists every write as (verb, resource name, key), so that tests can also tell how much work was done;
    `after_write` are functions to call after each, for what must hold at every moment.
    """

    def __init__(self, *, lag: float = 0.0) -> None:
        self.lag = lag
        self.revision = 0
        self.writes: list[tuple[str, str, str]] = []
        self.after_write: list[Callable[[], None]] = []
        self._stored: dict[Resource, dict[str, Obj]] = {}
        self._history: list[tuple[int, Resource, WatchEvent]] = []
        self._forgotten = 0
        self._changed = asyncio.Event()
        self._names = random.Random(1)

    # --- reading

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Obj:
        """See Client."""
        return self._existing(resource, name, namespace)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> ObjectList:
        """See Client."""
        wanted = _filter(namespace, label_selector, field_selector)
        return ObjectList([obj for obj in self._of(resource).values() if wanted(obj)], str(self.revision))

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncGenerator[WatchEvent, None]:
        """See Client. Objects that stop or start matching a selector come as DELETED and ADDED only if they do so
        by being deleted or created; components of ours select nothing that changes."""
        wanted = _filter(namespace, label_selector, field_selector)
        seen = int(resource_version or self.revision)
        if seen < self._forgotten:
            raise Expired(f"too old resource version: {seen} ({self._forgotten})")
        position = next((i for i, (at, _, _) in enumerate(self._history) if at > seen), len(self._history))
        forgotten = self._forgotten
        while True:
            while position < len(self._history):
                _, of, event = self._history[position]
                position += 1
                if of == resource and wanted(event.object):
                    yield event
            await self._changed.wait()
            if self.lag:
                await asyncio.sleep(self.lag)
            if forgotten != self._forgotten:
                raise Expired("the history was compacted")

    def stored(self, resource: Resource) -> Sequence[Obj]:
        """All objects of `resource`, in the order of their creation."""
        return list(self._of(resource).values())

    async def changed(self) -> None:
        """Return after the next write."""
        await self._changed.wait()

    def compact(self) -> None:
        """Forget all history: every watch ends with Expired at the next change."""
        self._forgotten, self._history = self.revision, []
        self._notify()

    # --- writing

    async def create(self, resource: Resource, obj: Mapping[str, Any], namespace: str = "") -> Obj:
        """See Client."""
        new: Obj = _copy(obj)
        meta = new.setdefault("metadata", {})
        if resource.namespaced:
            meta["namespace"] = meta.get("namespace") or namespace
        if not meta.get("name"):
            if not meta.get("generateName"):
                raise BadRequest("name or generateName is required")
            meta["name"] = meta["generateName"] + "".join(self._names.choices(_ALPHABET, k=5))
        if _key(new) in self._of(resource):
            raise AlreadyExists.named(resource.plural, meta["name"], resource.group)
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        meta |= {
            "uid": str(uuid.UUID(int=self._names.getrandbits(128))),
            "creationTimestamp": times.now(),
            "generation": 1,
        }
        if resource == PODS:
            new.setdefault("status", {}).setdefault("phase", "Pending")
        return self._write("create", "ADDED", resource, new)

    async def update(self, resource: Resource, obj: Mapping[str, Any], *, subresource: str = "") -> Obj:
        """See Client."""
        meta = obj["metadata"]
        old = self._existing(resource, meta["name"], meta.get("namespace", ""))
        self._match(resource, old, meta.get("resourceVersion"), meta.get("uid"))
        if subresource == "status":
            new = {**old, "status": _copy(obj.get("status"))}
        else:
            new = {**_copy(obj), "status": old.get("status", {})}
        return self._replace("update", resource, old, new)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "",
        *,
        subresource: str = "",
        content_type: str = MERGE_PATCH,
    ) -> Obj:
        """See Client. Merge patches only."""
        if content_type != MERGE_PATCH or not isinstance(patch, Mapping):
            raise BadRequest(f"the fake reads merge patches only, not {content_type}")
        old = self._existing(resource, name, namespace)
        meta = patch.get("metadata") or {}
        self._match(resource, old, meta.get("resourceVersion"), meta.get("uid"))
        merged = _merge(old, patch)
        keep = (
            ("status",) if subresource != "status" else tuple(key for key in old if key not in ("status", "metadata"))
        )
        new = {**merged, **{key: old[key] for key in keep if key in old}}
        return self._replace("patch", resource, old, new)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
        uid: str | None = None,
    ) -> None:
        """See Client. Bound Pods wait for their kubelet (a delete with no grace), others go at once."""
        old = self._existing(resource, name, namespace)
        self._match(resource, old, None, uid)
        meta = dict(old["metadata"])
        if finalizer := _POLICY_FINALIZERS.get(propagation_policy or ""):
            meta["finalizers"] = [*meta.get("finalizers", ()), finalizer]
        grace = 0
        if resource == PODS and (old.get("spec") or {}).get("nodeName"):
            grace = 30 if grace_period_seconds is None else grace_period_seconds
        if grace or meta.get("finalizers") or (old.get("spec") or {}).get("finalizers"):
            if not meta.get("deletionTimestamp"):
                meta |= {"deletionTimestamp": times.now(), "deletionGracePeriodSeconds": grace}
                self._write("delete", "MODIFIED", resource, {**old, "metadata": meta})
            return
        self._write("delete", "DELETED", resource, old)

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: Mapping[str, Any], namespace: str = ""
    ) -> Obj:
        """See Client. `pods/binding` sets `spec.nodeName` and the condition PodScheduled."""
        old = self._existing(resource, name, namespace)
        if resource != PODS or subresource != "binding":
            raise NotFound.named(f"{resource.plural}/{subresource}", name)
        if old["spec"].get("nodeName"):
            raise Conflict.named("pods/binding", name, why=f"pod {name} is already assigned to a node")
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": times.now()}
        status = {**old.get("status", {}), "conditions": [scheduled]}
        spec = {**old["spec"], "nodeName": body["target"]["name"]}
        self._write("bind", "MODIFIED", resource, {**old, "spec": spec, "status": status})
        return {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}

    # --- inside

    def _of(self, resource: Resource) -> dict[str, Obj]:
        if resource == EVENTS_V1:
            raise NotFound("the fake serves events of core/v1 only")
        return self._stored.setdefault(resource, {})

    def _existing(self, resource: Resource, name: str, namespace: str) -> Obj:
        key = f"{namespace}/{name}" if resource.namespaced else name
        if key not in self._of(resource):
            raise NotFound.named(resource.plural, name, resource.group)
        return self._of(resource)[key]

    def _match(self, resource: Resource, old: Obj, version: str | None, uid: str | None) -> None:
        meta = old["metadata"]
        if version and version != meta["resourceVersion"]:
            raise Conflict.named(resource.plural, meta["name"], resource.group)
        if uid and uid != meta["uid"]:
            why = f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']})"
            raise Conflict.named(resource.plural, meta["name"], resource.group, f"Precondition failed: {why}")

    def _replace(self, verb: str, resource: Resource, old: Obj, new: Obj) -> Obj:
        """Store `new` unless it changes nothing; gone when its last finalizer went while deleting."""
        fixed = ("uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "generation")
        meta = {key: value for key, value in new["metadata"].items() if key not in fixed}
        meta |= {key: old["metadata"][key] for key in fixed if key in old["metadata"]}
        new = {**new, "metadata": meta}
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            meta["generation"] += 1
        finalizers = meta.get("finalizers") or (new.get("spec") or {}).get("finalizers")
        gone = meta.get("deletionTimestamp") and not finalizers and not meta.get("deletionGracePeriodSeconds")
        return self._write(verb, "DELETED" if gone else "MODIFIED", resource, new)

    def _write(self, verb: str, event: str, resource: Resource, obj: Obj) -> Obj:
        self.revision += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        if event == "DELETED":
            del self._of(resource)[_key(obj)]
        else:
            self._of(resource)[_key(obj)] = obj
        self.writes.append((verb, str(resource), _key(obj)))
        self._history.append((self.revision, resource, WatchEvent(event, obj)))
        self._notify()
        for observe in self.after_write:
            observe()
        return obj

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _copy(value: Any) -> Any:
    """What arrives at a server: JSON values and nothing else."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _key(obj: Obj) -> str:
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _filter(namespace: str, labels: str, fields: str) -> Any:
    by_label, by_field = LabelSelector.parse(labels), FieldSelector.parse(fields)

    def wanted(obj: Obj) -> bool:
        meta = obj["metadata"]
        if namespace and meta.get("namespace") != namespace:
            return False
        return by_label.matches(meta.get("labels")) and by_field.matches(obj)

    return wanted


def _merge(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return _copy(patch)
    base = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = _merge(base.get(key), value)
    return base
