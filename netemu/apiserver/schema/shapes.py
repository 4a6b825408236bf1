"""What is known of a field or a kind, and no more than checking, decoding and merging need: types and merge rules.

Shapes come from two sources: definitions of Kubernetes' own kinds (`schema`) and the schemas of custom resources
(`structural`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

REF = "#/$defs/"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
SCALAR_ZEROS: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False}
"""By the kind of a shape: what Go writes where nobody set anything."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One definition, or one field of a definition: its type and its merge rules, nothing to read."""

    ref: str = msgspec.field(name="$ref", default="")
    type: str | list[str] = ""
    format: str = ""
    properties: dict[str, Shape] | None = None
    items: Shape | None = None
    additional: Shape | bool | None = msgspec.field(name="additionalProperties", default=None)
    preserve_unknown: bool = msgspec.field(name="x-kubernetes-preserve-unknown-fields", default=False)
    patch_strategy: str = msgspec.field(name="x-kubernetes-patch-strategy", default="")
    patch_merge_key: str = msgspec.field(name="x-kubernetes-patch-merge-key", default="")
    list_type: str = msgspec.field(name="x-kubernetes-list-type", default="")
    list_map_keys: tuple[str, ...] = msgspec.field(name="x-kubernetes-list-map-keys", default=())
    map_type: str = msgspec.field(name="x-kubernetes-map-type", default="")
    required: tuple[str, ...] = ()
    default: Any = None

    kind: str = msgspec.field(name="", default="")
    """`object`, `array`, `string`, `integer`, `number`, `boolean`, or "" where anything goes."""
    target: str = msgspec.field(name=" ", default="")
    """The name of the definition that this field refers to, or ""."""
    zeros: dict[str, Any] = msgspec.field(name="  ", default_factory=dict)
    """The scalar fields that are always there, with what they are when nobody sets them."""
    closed: bool = msgspec.field(name="   ", default=False)
    """Whether it has just its properties and no others."""
    omitted: frozenset[str] = msgspec.field(name="    ", default=frozenset())
    """The lists and maps that are absent when they are empty."""

    def __post_init__(self) -> None:
        names = [self.type] if isinstance(self.type, str) else self.type
        properties = self.properties or {}
        found = {name: _zero(properties[name]) for name in self.required if name in properties}
        # Worked out once: these are asked for at every value of every object that is written.
        derived = {
            "kind": next((name for name in names if name != "null"), ""),
            "target": self.ref.removeprefix(REF),
            "zeros": {name: nothing for name, nothing in found.items() if nothing is not None},
            "closed": self.properties is not None and self.additional_shape is None and not self.preserve_unknown,
            "omitted": frozenset(_collections(properties)) - {*self.required, *_SHOWN_EMPTY},
        }
        for name, value in derived.items():
            msgspec.structs.force_setattr(self, name, value)

    @property
    def additional_shape(self) -> Shape | None:
        """The shape of the values of a map, None where nothing is known of them."""
        return self.additional if isinstance(self.additional, Shape) else None

    @property
    def merges(self) -> bool:
        """Whether a strategic merge patch merges this field instead of replacing it."""
        return "merge" in self.patch_strategy.split(",")


_SHOWN_EMPTY = frozenset({"conditions", "names", "ports", "rules", "sources", "storedVersions"})
"""Optional lists that, somewhere in upstream's types, have no `omitempty`; an empty one may say something there."""


def _collections(properties: Mapping[str, Shape]) -> Iterator[str]:
    for name, field in properties.items():
        if field.kind == "array" or (field.kind == "object" and field.additional_shape is not None):
            yield name


def _zero(field: Shape) -> Any:
    return 0 if field.target == INT_OR_STRING else SCALAR_ZEROS.get(field.kind)
