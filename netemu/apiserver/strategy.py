"""What a write may set and what the server sets: metadata, status, generation.

Pure functions over plain JSON, after `apiserver/pkg/registry/rest/{create,update}.go` and the strategies of
`pkg/registry/*/*/strategy.go`. Objects that come in are copied by `accept`; from then on the copy belongs to the write.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from netemu.apiserver import certificates
from netemu.apiserver.json_values import copied
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.validation.fields import forbidden, go
from netemu.apiserver.validation.pod import UPDATES
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import BadRequest, Conflict, FieldError, Invalid
from netemu.model.resources import (
    CERTIFICATESIGNINGREQUESTS,
    CONTROLLERREVISIONS,
    CUSTOMRESOURCEDEFINITIONS,
    IPADDRESSES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICATIONCONTROLLERS,
    SERVICECIDRS,
    Resource,
)
from netemu.model.uids import new_uid

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""apimachinery `util/rand`: no vowels, no digits that look like letters."""
_LONGEST_BASE = 58
"""So that base and suffix make a DNS label."""
_NO_GENERATION = frozenset(
    {"", "coordination.k8s.io", "node.k8s.io", "events.k8s.io", "certificates.k8s.io", "rbac.authorization.k8s.io"}
)
"""Groups whose objects have no metadata.generation."""
_SERVER_SET = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")

MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a mirror Pod."""


def accept(schema: Schema, resource: Resource, obj: Mapping[str, Any], namespace: str, name: str = "") -> Obj:
    """A copy of what came in, decoded, with kind, namespace and (for updates) name as the request says.

    Raises BadRequest, for wrong types among others.
    """
    new = schema.decoded(resource, copied(obj))
    for field, right in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if new.get(field, right) not in (right, ""):
            raise BadRequest(f"{field} {go(new[field])} does not match the request's {go(right)}")
    metadata: Obj = new.setdefault("metadata", {})
    if resource.namespaced:
        if metadata.get("namespace", namespace) not in (namespace, ""):
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        if not namespace:
            raise BadRequest("an empty namespace may not be set during creation")
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    if name:
        if metadata.get("name", name) != name:
            raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
        metadata["name"] = name
    return {"apiVersion": resource.api_version, "kind": resource.kind} | {
        key: value for key, value in new.items() if key not in ("apiVersion", "kind")
    }


def to_create(resource: Resource, name: str, obj: Mapping[str, Any]) -> Obj:
    """What is made of an object that was meant to replace one that is not there. Raises BadRequest, Conflict."""
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "resourceVersion"}
    if metadata.get("name", name) != name:
        raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    if uid := metadata.get("uid"):
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
        raise Conflict.named(resource.plural, name, resource.group, why=why)
    return {**obj, "metadata": {**metadata, "name": name}}


def generated_name(base: str) -> str:
    """`generateName` and five random characters."""
    return base[:_LONGEST_BASE] + "".join(random.choices(_SUFFIX_ALPHABET, k=5))


def begin(resource: Resource, obj: Obj) -> None:
    """Set what the server sets on a new object, in place, before defaults. Raises BadRequest."""
    metadata = obj["metadata"]
    if metadata.pop("resourceVersion", ""):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    for field in _SERVER_SET:
        metadata.pop(field, None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = times.now()
    if _has_generation(resource):
        metadata["generation"] = 1
    # Nodes register themselves together with their status; everything else starts with none.
    if "status" in resource.subresources and resource is not NODES:
        obj.pop("status", None)
    if resource is NAMESPACES:
        obj["spec"] = _finalized(obj.get("spec") or {}, ["kubernetes"])
    if resource is PODS:
        admit_pod(obj)


def mirrored(pod: Obj) -> bool:
    """Whether a Pod stands for one that a kubelet has from a file of its own."""
    return MIRROR in ((pod.get("metadata") or {}).get("annotations") or {})


def admit_pod(pod: Obj) -> None:
    """The ServiceAccount plugin's part: Pods that name none run as `default`, but for mirror Pods."""
    spec = pod.get("spec")
    if (
        isinstance(spec, dict)
        and not mirrored(pod)
        and not spec.get("serviceAccountName")
        and not spec.get("serviceAccount")
    ):
        spec["serviceAccountName"] = "default"


def check_conditional(resource: Resource, name: str, obj: Mapping[str, Any]) -> None:
    """Definitions and custom resources are only replaced by who says which revision they have seen. Raises Invalid."""
    if (resource.custom or resource is CUSTOMRESOURCEDEFINITIONS) and not (obj.get("metadata") or {}).get(
        "resourceVersion"
    ):
        why = "Invalid value: 0x0: must be specified for an update"
        problem = FieldError("metadata.resourceVersion", "FieldValueInvalid", why)
        raise Invalid.of_fields(resource.plural, name, [problem], resource.group)


def replace(resource: Resource, new: Obj, old: Obj, subresource: str) -> Obj:
    """The object that a write through `subresource` ("" for the object itself) leaves, defaults already applied.

    Parts that this way in may not change come from `old`.
    """
    if subresource and resource is CERTIFICATESIGNINGREQUESTS:
        return certificates.replaced(new, old, subresource)
    if subresource == "status":
        kept = {key: value for key, value in old.items() if key != "status"}
        return {**kept, "status": new["status"]} if "status" in new else kept
    if subresource == "finalize":
        return {**old, "spec": _finalized(old["spec"], (new.get("spec") or {}).get("finalizers"))}
    if subresource == "ephemeralcontainers":
        listed = (new.get("spec") or {}).get("ephemeralContainers") or []
        there = old["spec"].get("ephemeralContainers") or []
        return {**old, "spec": {**old["spec"], "ephemeralContainers": listed}} if listed != there else old
    if resource is PODS:  # the way in above is the only one
        _keep_ephemeral(new, old)
    _keep_metadata(new["metadata"], old["metadata"])
    if "status" in resource.subresources:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    if resource is CERTIFICATESIGNINGREQUESTS:
        new["spec"] = old["spec"]
    if resource is NAMESPACES:
        new["spec"] = _finalized(new["spec"], old["spec"].get("finalizers"))
    if resource is CUSTOMRESOURCEDEFINITIONS:
        _remember_stored_version(new)
    if _has_generation(resource):
        before = old["metadata"].get("generation", 1)
        changed = _desired(resource, new) != _desired(resource, old)
        new["metadata"]["generation"] = before + changed
    return new


def _remember_stored_version(crd: Obj) -> None:
    """Objects may lie in every version that was ever the storage version."""
    status = crd.setdefault("status", {})
    stored = status.get("storedVersions") or []
    now = [one["name"] for one in (crd.get("spec") or {}).get("versions") or () if one.get("storage")]
    crd["status"] = {**status, "storedVersions": [*stored, *(name for name in now[:1] if name not in stored)]}


def _finalized(spec: Obj, finalizers: list[str] | None) -> Obj:
    """The spec of a Namespace with just these finalizers."""
    kept = {key: value for key, value in spec.items() if key != "finalizers"}
    return {**kept, "finalizers": finalizers} if finalizers else kept


def _keep_ephemeral(new: Obj, old: Obj) -> None:
    spec, there = new.get("spec") or {}, (old.get("spec") or {}).get("ephemeralContainers") or []
    if there and not spec.get("ephemeralContainers"):  # a client that does not know of them
        spec["ephemeralContainers"] = there
    elif (spec.get("ephemeralContainers") or []) != there:
        problem = forbidden("spec", f"{UPDATES}\n(changed: ephemeralContainers)")
        raise Invalid.of_fields("Pod", old["metadata"]["name"], [problem])


def _keep_metadata(new: Obj, old: Obj) -> None:
    for field in _SERVER_SET:
        new.pop(field, None)
        if field in old:
            new[field] = old[field]
    new["resourceVersion"] = old["resourceVersion"]


def _has_generation(resource: Resource) -> bool:
    if resource is REPLICATIONCONTROLLERS:  # alone in its group
        return True
    return resource.group not in _NO_GENERATION and resource not in (CONTROLLERREVISIONS, IPADDRESSES, SERVICECIDRS)


def _desired(resource: Resource, obj: Obj) -> Obj:
    """What somebody wants; the status too, of a custom resource that has no way of its own to it."""
    both = resource.custom is not None and not resource.custom.has_status
    others = ("metadata", "apiVersion", "kind") if both else ("metadata", "status", "apiVersion", "kind")
    return {key: value for key, value in obj.items() if key not in others}


def finalizer_errors(new: Obj, old: Obj) -> list[FieldError]:
    """An object that is being deleted gets no new finalizers."""
    if not old["metadata"].get("deletionTimestamp"):
        return []
    added = set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
    if not added:
        return []
    text = "no new finalizers can be added if the object is being deleted, found new finalizers "
    return [forbidden("metadata.finalizers", text + go(sorted(added)))]
