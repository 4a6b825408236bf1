"""What a controller may ask for, as values.

A controller's `reconcile` looks at objects and returns a list of these; `loop` carries them out in order. Nothing here
does anything, so a decision can be printed, compared and tested without a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netemu.model.meta import KubeObject, Struct, encode
from netemu.model.resources import Resource


@dataclass(frozen=True, slots=True)
class Say:
    """An Event about `about`. In the text of a Say inside another action, `{name}` is the name of the object that
    the action was carried out on, `{error}` why it failed."""

    about: KubeObject
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Create:
    """A new object. `metadata.name` or `generateName` is in `obj`."""

    resource: Resource
    obj: Mapping[str, Any]
    namespace: str = ""
    done: Say | None = None
    failed: Say | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """A merge patch. With `resource_version`, only if the object is still the one that was looked at."""

    resource: Resource
    name: str
    patch: Mapping[str, Any]
    namespace: str = ""
    subresource: str = ""
    resource_version: str = ""
    done: Say | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """A deletion of exactly the object with `uid`. Already gone is success."""

    resource: Resource
    name: str
    namespace: str = ""
    uid: str = ""
    propagation_policy: str | None = None
    done: Say | None = None
    failed: Say | None = None


@dataclass(frozen=True, slots=True)
class Finalize:
    """Take `kubernetes` off the finalizers of a namespace: the last step of its deletion."""

    name: str


@dataclass(frozen=True, slots=True)
class Again:
    """Look once more after that many seconds, because time alone will change the decision."""

    seconds: float


Action = Create | Patch | Delete | Finalize | Say | Again
Actions = list[Action]


def status_patch(old: Struct, new: Struct) -> dict[str, Any]:
    """The merge patch that makes status `old` into `new`: changed fields, and null for those that went away."""
    before, after = encode(old), encode(new)
    changed = {key: after.get(key) for key in {**before, **after} if before.get(key) != after.get(key)}
    # `replicas` of a ReplicaSet is the one count that upstream writes even when it is zero.
    return {key: 0 if value is None and key == "replicas" else value for key, value in changed.items()}


def owner_reference(obj: KubeObject, api_version: str, kind: str) -> dict[str, Any]:
    """The reference that makes `obj` the controller of another object (`metav1.NewControllerRef`)."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": obj.metadata.name,
        "uid": obj.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
