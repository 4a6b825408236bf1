"""What every object must fulfil: names, labels, annotations, finalizers, and what an update may not touch.

Facts: apimachinery `api/validation/objectmeta.go` and `generic.go`; which names a kind may have is each kind's own
`Validate...Name` upstream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netemu.apiserver.validation.fields import (
    IMMUTABLE,
    canonical_ip,
    dns1035_label,
    dns1123_label,
    dns1123_subdomain,
    forbidden,
    invalid,
    invalid_for,
    labels,
    qualified_name,
    required,
    too_long,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS as DEFINITIONS
from netemu.model.resources import Resource

MAX_ANNOTATION_BYTES = 256 * 1024

_FORBIDDEN_IN_PATHS = (".", "..")


def path_segment(name: str) -> list[str]:
    """Reasons why this cannot be part of a URL path; all that RBAC names, for example, must fulfil."""
    if name in _FORBIDDEN_IN_PATHS:
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in name]


_NAME_RULES: dict[tuple[str, str], Callable[[str], list[str]]] = {
    ("", "Namespace"): dns1123_label,
    ("", "Service"): dns1035_label,
    ("networking.k8s.io", "IPAddress"): canonical_ip,
    ("rbac.authorization.k8s.io", "Role"): path_segment,
    ("rbac.authorization.k8s.io", "RoleBinding"): path_segment,
    ("rbac.authorization.k8s.io", "ClusterRole"): path_segment,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): path_segment,
}


def validate_meta(resource: Resource, obj: Obj) -> list[FieldError]:
    """Errors of metadata on its own."""
    meta = obj.get("metadata") or {}
    errors = _names(resource, meta)
    errors += _namespace(resource, meta)
    generation = meta.get("generation") or 0
    if generation < 0:
        errors.append(invalid("metadata.generation", generation, "must be greater than or equal to 0"))
    errors += labels("metadata.labels", meta.get("labels"))
    errors += _annotations(meta.get("annotations") or {})
    errors += _owners(meta.get("ownerReferences") or [])
    errors += _finalizers(meta.get("finalizers") or [], any_name=bool(resource.custom) or resource == DEFINITIONS)
    return errors


def _names(resource: Resource, meta: Obj) -> list[FieldError]:
    rule = _NAME_RULES.get((resource.group, resource.kind), dns1123_subdomain)
    errors: list[FieldError] = []
    name, prefix = meta.get("name") or "", meta.get("generateName") or ""
    if prefix:
        # A generated name ends in letters and digits, so a trailing dash of the prefix is no fault.
        errors += invalid_for("metadata.generateName", prefix, rule(prefix.removesuffix("-") + "a"))
    if not name:
        text = "name or generateName is required"
        errors.append(required("metadata.name", text))
    else:
        errors += invalid_for("metadata.name", name, rule(name))
    return errors


def _namespace(resource: Resource, meta: Obj) -> list[FieldError]:
    namespace = meta.get("namespace") or ""
    if not resource.namespaced:
        return [forbidden("metadata.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [required("metadata.namespace")]
    return invalid_for("metadata.namespace", namespace, dns1123_label(namespace))


def _annotations(annotations: dict[str, str]) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in annotations:
        # Keys of annotations may be written in capitals, upstream lowers them before it looks.
        errors += invalid_for("metadata.annotations", key, qualified_name(key.lower()))
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATION_BYTES:
        errors.append(too_long("metadata.annotations", MAX_ANNOTATION_BYTES))
    return errors


def _owners(owners: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    controllers: list[str] = []
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for key, text in (("apiVersion", "version must not be empty"), ("kind", "must not be empty")):
            if not owner.get(key):
                errors.append(invalid(f"{path}.{key}", owner.get(key) or "", text))
        for key in ("name", "uid"):
            if not owner.get(key):
                errors.append(invalid(f"{path}.{key}", owner.get(key) or "", "must not be empty"))
        if owner.get("controller"):
            controllers.append(f"{owner.get('kind')}/{owner.get('name')}")
    if len(controllers) > 1:
        text = (
            "Only one reference can have Controller set to true. "
            f'Found "true" in references for {controllers[0]} and {controllers[1]}'
        )
        errors.append(invalid("metadata.ownerReferences", owners, text))
    return errors


def _finalizers(finalizers: list[str], *, any_name: bool) -> list[FieldError]:
    """`any_name`: it need not have a domain in front, as for what a server of its own looks after upstream."""
    errors: list[FieldError] = []
    for index, name in enumerate(finalizers):
        path = f"metadata.finalizers[{index}]"
        errors += invalid_for(path, name, qualified_name(name))
        if not any_name and "/" not in name and name not in ("kubernetes", "orphan", "foregroundDeletion"):
            text = "name is neither a standard finalizer name nor is it fully qualified"
            errors.append(invalid(path, name, text))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        text = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(invalid("metadata.finalizers", finalizers, text))
    return errors


def validate_meta_update(obj: Obj, old: Obj) -> list[FieldError]:
    """Errors of what an update did to metadata."""
    meta, before = obj.get("metadata") or {}, old.get("metadata") or {}
    errors: list[FieldError] = []
    for key in ("name", "namespace", "uid"):
        # An empty uid or namespace in a PUT means the stored one.
        if meta.get(key) and meta[key] != before.get(key):
            errors.append(invalid(f"metadata.{key}", meta[key], IMMUTABLE))
    if meta.get("creationTimestamp") and meta["creationTimestamp"] != before.get("creationTimestamp"):
        errors.append(invalid("metadata.creationTimestamp", meta["creationTimestamp"], IMMUTABLE))
    if (meta.get("generation") or 0) < (before.get("generation") or 0) and meta.get("generation"):
        errors.append(invalid("metadata.generation", meta["generation"], "must not be decremented"))
    errors += _deletion(meta, before)
    return errors


def _deletion(meta: Obj, before: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        new: Any = meta.get(key)
        if new is not None and new != before.get(key):
            errors.append(invalid(f"metadata.{key}", new, IMMUTABLE))
    return errors
