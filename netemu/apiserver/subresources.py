"""`scale` and `binding`: small objects that stand for a part of a bigger one. Pure.

`scale` is autoscaling/v1 Scale, its status.selector a string; `pods/binding` is how a scheduler assigns a Pod
(`pkg/registry/core/pod/storage/storage.go`, assignPod).
"""

from __future__ import annotations

from typing import Any

from netemu.apiserver.json_values import copied
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.custom import Custom
from netemu.model.errors import BadRequest, Conflict, FieldError, Invalid
from netemu.model.resources import Resource
from netemu.model.selectors import LabelSelector

SCALES = Resource("autoscaling", "v1", "Scale", "scales")
BINDINGS = Resource("", "v1", "Binding", "bindings")

_BY_LABELS = "ReplicationController"
"""Its selector is a map of labels."""
_SHOWN_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(obj: Obj, custom: Custom | None = None) -> Obj:
    """The Scale of a Deployment, ReplicaSet or the like, or of a custom resource, whose schema says where it is."""
    metadata, paths = obj["metadata"], custom.version.subresources.scale if custom else None
    if paths:
        replicas, running = (_at(obj, path) or 0 for path in (paths.spec_replicas_path, paths.status_replicas_path))
        selector = (paths.label_selector_path and _at(obj, paths.label_selector_path)) or ""
    else:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        replicas, running = spec.get("replicas", 0), status.get("replicas", 0)
        labels = spec.get("selector")
        selector = str(LabelSelector.of_spec({"matchLabels": labels} if obj["kind"] == _BY_LABELS else labels))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: metadata[field] for field in _SHOWN_METADATA if field in metadata},
        "spec": {"replicas": replicas},
        "status": {"replicas": running, **({"selector": selector} if selector else {})},
    }


def _at(obj: Obj, path: str) -> Any:
    """The value at `.spec.replicas`, None where there is none."""
    value: Any = obj
    for name in path.removeprefix(".").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def replicas_path(custom: Custom | None) -> list[str]:
    """The names of the fields that lead to the number that a Scale sets."""
    scale = custom.version.subresources.scale if custom else None
    return scale.spec_replicas_path.removeprefix(".").split(".") if scale else ["spec", "replicas"]


def with_replicas(obj: Obj, path: list[str], replicas: int) -> Obj:
    """A copy of `obj` with that number at `path`."""
    name, *rest = path
    if not rest:
        return {**obj, name: replicas}
    inner = obj.get(name)
    return {**obj, name: with_replicas(inner if isinstance(inner, dict) else {}, rest, replicas)}


def scaled(obj: Obj, scale: Obj, custom: Custom | None = None) -> Obj:
    """A copy of `obj` with a Scale's replicas; its resourceVersion becomes the precondition. Raises Invalid."""
    if scale.get("kind", "Scale") != "Scale":
        raise BadRequest("the object provided is no autoscaling/v1 Scale")
    metadata, name = scale.get("metadata") or {}, obj["metadata"]["name"]
    if metadata.get("name", name) != name:
        raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        why = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise Invalid.of_fields("Scale", name, [FieldError("spec.replicas", "FieldValueInvalid", why)], "autoscaling")
    new: Obj = with_replicas(copied(obj), replicas_path(custom), replicas)
    new["metadata"]["resourceVersion"] = metadata.get("resourceVersion") or obj["metadata"]["resourceVersion"]
    return new


def bound(pod: Obj, binding: Obj) -> Obj:
    """A copy of `pod` assigned to the binding's target. Raises BadRequest; Conflict if it has a node or goes away."""
    name, target = pod["metadata"]["name"], binding.get("target") or {}
    node = target.get("name")
    if not node or target.get("kind", "Node") not in ("Node", ""):
        raise BadRequest("binding: target.name must be the name of a Node")
    given = binding.get("metadata") or {}
    if given.get("uid") and given["uid"] != pod["metadata"]["uid"]:
        why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {pod['metadata']['uid']}"
        raise Conflict.named("pods/binding", name, why=why)
    if pod["metadata"].get("deletionTimestamp"):
        raise Conflict.named("pods/binding", name, why=f"pod {name} is being deleted, cannot be assigned to a host")
    if assigned := pod["spec"].get("nodeName"):
        raise Conflict.named("pods/binding", name, why=f'pod {name} is already assigned to node "{assigned}"')
    new: Obj = copied(pod)
    new["spec"]["nodeName"] = node
    if annotations := given.get("annotations"):
        new["metadata"]["annotations"] = {**(new["metadata"].get("annotations") or {}), **annotations}
    status = new.setdefault("status", {})
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": times.now()}
    others = [item for item in status.get("conditions") or () if item.get("type") != "PodScheduled"]
    status["conditions"] = [*others, scheduled]
    return new
