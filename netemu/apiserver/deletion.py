"""What a DELETE does: remove, mark, or nothing yet.

An object goes at once unless something must happen first: a finalizer has to be worked off, a Pod has to be stopped by
its kubelet, a Namespace has to be emptied. Until then it stays, with `deletionTimestamp`. Pure; after
`apiserver/pkg/registry/rest/delete.go`, `pkg/registry/core/pod/strategy.go` and `core/namespace/storage/storage.go`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import BadRequest, Conflict, FieldError, Forbidden, Invalid
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS, NAMESPACES, PODS, Resource

DELETE_OPTIONS = Resource("meta.k8s.io", "v1", "DeleteOptions", "deleteoptions")

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer of a CustomResourceDefinition that is deleted and whose objects are not all gone."""
_POLICIES = {"Foreground": "foregroundDeletion", "Orphan": "orphan", "Background": ""}
_IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
_DEFAULT_GRACE = 30
_LONGEST_GRACE = 100 * 365 * 86400
"""Seconds that a `deletionTimestamp` may lie ahead: it must remain a time that can be written."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`metav1.DeleteOptions`, as far as it decides anything."""

    grace: int | None = None
    policy: str | None = None
    """Foreground, Background or Orphan; None leaves the object's finalizers as they are."""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def parse(options: Obj) -> DeleteOptions:
    """Read the decoded body of a DELETE. Raises BadRequest, Invalid."""
    policy, preconditions = options.get("propagationPolicy"), options.get("preconditions") or {}
    for value in options.get("dryRun") or ():
        if value != "All":
            raise BadRequest(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    orphan = options.get("orphanDependents")
    if orphan is not None and policy is not None:
        why = "Invalid value: orphanDependents and deletionPropagation cannot be both set"
        raise Invalid.of_fields("DeleteOptions", "", [FieldError("propagationPolicy", "FieldValueInvalid", why)])
    if orphan is not None:
        policy = "Orphan" if orphan else "Background"
    if policy is not None and policy not in _POLICIES:
        why = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
        raise Invalid.of_fields("DeleteOptions", "", [FieldError("propagationPolicy", "FieldValueNotSupported", why)])
    return DeleteOptions(
        grace=options.get("gracePeriodSeconds"),
        policy=policy,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        dry_run=bool(options.get("dryRun")),
    )


def check(resource: Resource, obj: Obj, options: DeleteOptions) -> None:
    """Raises Conflict where a precondition does not hold, Forbidden for namespaces that must stay."""
    metadata = obj["metadata"]
    for what, wanted, found in (
        ("UID", options.uid, metadata["uid"]),
        ("ResourceVersion", options.resource_version, metadata["resourceVersion"]),
    ):
        if wanted and wanted != found:
            why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            raise Conflict.named(resource.plural, metadata["name"], resource.group, why)
    if resource is NAMESPACES and metadata["name"] in _IMMORTAL:
        raise Forbidden(f'namespaces "{metadata["name"]}" is forbidden: this namespace may not be deleted')


def after_delete(resource: Resource, obj: Obj, options: DeleteOptions, now: datetime) -> Obj | None:
    """What a DELETE leaves of an object: None when it goes, the very same object when there is nothing to change."""
    if resource is CUSTOMRESOURCEDEFINITIONS and not obj["metadata"].get("deletionTimestamp"):
        obj = _with_cleanup(obj)
    metadata = _with_policy(obj["metadata"], options.policy)
    grace, deadline = _grace(resource, obj, options, now)
    if grace == 0 and not metadata.get("finalizers") and not _occupied(resource, obj):
        return None
    if metadata.get("deletionGracePeriodSeconds") != grace or not metadata.get("deletionTimestamp"):
        metadata = {**metadata, "deletionTimestamp": times.time_text(deadline), "deletionGracePeriodSeconds": grace}
        if "generation" in metadata:
            metadata["generation"] += 1
    if resource is NAMESPACES:
        metadata.pop("deletionGracePeriodSeconds", None)
        obj = {**obj, "status": {**(obj.get("status") or {}), "phase": "Terminating"}}
        if obj["metadata"].get("deletionTimestamp"):
            metadata["deletionTimestamp"] = obj["metadata"]["deletionTimestamp"]
    return {**obj, "metadata": metadata}


def _with_cleanup(obj: Obj) -> Obj:
    """A definition that first has to see its objects go (`customresourcedefinition/etcd.go`)."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    finalizers = [name for name in metadata.get("finalizers") or () if name != CLEANUP]
    condition = {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": times.now(),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    }
    others = [one for one in status.get("conditions") or () if one.get("type") != "Terminating"]
    return {
        **obj,
        "metadata": {**metadata, "finalizers": [*finalizers, CLEANUP]},
        "status": {**status, "conditions": [*others, condition]},
    }


def finished(resource: Resource, obj: Obj) -> bool:
    """Whether an object that was marked for deletion has nothing left to wait for."""
    metadata = obj["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("deletionGracePeriodSeconds")
        and not metadata.get("finalizers")
        and not _occupied(resource, obj)
    )


def _occupied(resource: Resource, obj: Obj) -> bool:
    return resource is NAMESPACES and bool((obj.get("spec") or {}).get("finalizers"))


def _with_policy(metadata: Obj, policy: str | None) -> Obj:
    if policy is None:
        return dict(metadata)
    mine = _POLICIES[policy]
    others = [item for item in metadata.get("finalizers") or () if item == mine or item not in _POLICIES.values()]
    if mine and mine not in others:
        others.append(mine)
    return {**{k: v for k, v in metadata.items() if k != "finalizers"}, **({"finalizers": others} if others else {})}


def _grace(resource: Resource, obj: Obj, options: DeleteOptions, now: datetime) -> tuple[int, datetime]:
    """Seconds until the object is to be gone, and when that is."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    if metadata.get("deletionTimestamp"):
        deadline, pending = times.parse(metadata["deletionTimestamp"]), metadata.get("deletionGracePeriodSeconds") or 0
        if options.grace is None or options.grace >= pending:
            return pending, deadline
        # A second delete may only shorten: the period still counts from the first.
        grace = max(options.grace, 0)
        return grace, deadline.astimezone(UTC) + timedelta(seconds=grace - pending)
    if resource is not PODS or not spec.get("nodeName"):
        return 0, now
    if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0, now
    grace = options.grace if options.grace is not None else spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE)
    grace = 1 if grace < 0 else grace
    return grace, now + timedelta(seconds=min(grace, _LONGEST_GRACE))
