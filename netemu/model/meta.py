"""What every Kubernetes object has, and how objects are read and written.

Objects are frozen structs with just the fields that some component decides on. Unknown fields are ignored when decoding
and must therefore never be written back: components create whole objects and change them with merge patches of the
fields they own. Fields and meanings are those of `k8s.io/api`; absent lists are empty tuples. Where upstream's encoder
writes `null` for an empty list, the type says so.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Base of every object type: immutable, camelCase on the wire, defaults left out."""


class OwnerReference(Struct, frozen=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct, frozen=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


class KubeObject(Struct, frozen=True):
    """What every object has."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @property
    def name(self) -> str:
        """metadata.name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace, empty for cluster-scoped kinds."""
        return self.metadata.namespace

    @property
    def key(self) -> str:
        """`NAMESPACE/NAME`, or `NAME` for cluster-scoped kinds."""
        return f"{self.metadata.namespace}/{self.metadata.name}" if self.metadata.namespace else self.metadata.name

    @property
    def labels(self) -> dict[str, str]:
        """metadata.labels, never None."""
        return self.metadata.labels or {}

    @property
    def annotations(self) -> dict[str, str]:
        """metadata.annotations, never None."""
        return self.metadata.annotations or {}

    @property
    def deleting(self) -> bool:
        """Whether deletion was asked for."""
        return self.metadata.deletion_timestamp is not None


class Condition(Struct, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_heartbeat_time: str | None = None
    last_update_time: str | None = None
    last_probe_time: str | None = None
    observed_generation: int = 0


class LabelSelectorSpec(Struct, frozen=True):
    """`metav1.LabelSelector`; give it to `LabelSelector.of_spec` as builtins, or use `selectors` helpers."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[dict[str, Any], ...] = ()


def decode(obj: Any, kind: type[T]) -> T:
    """Plain JSON values to a typed object. Raises msgspec.ValidationError naming the field.

    As for upstream's decoder, `null` is a field that is not there.
    """
    try:
        return msgspec.convert(obj, kind)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(obj), kind)  # seldom needed, so not done for every object


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(each) for each in value if each is not None]
    return value


def encode(obj: Any) -> Any:
    """A typed object to plain JSON values, defaults left out."""
    return msgspec.to_builtins(obj)
