"""What merging needs to know of a kind: which values are leaves, which lists are maps or sets, and by which keys.

The rules are those of the OpenAPI extensions: a list is atomic unless `x-kubernetes-list-type` says otherwise, a map
or struct is granular unless `x-kubernetes-map-type` makes it atomic. What the schema says nothing of goes by what it
holds. Two things that upstream reads off its Go types are not in the data and stand here in tables: keys of list
elements that have a default, and structs that are there even when nobody sets them (Go's `omitempty` has no effect on
them).
Upstream: apimachinery `util/managedfields`, kube-openapi `schemaconv`.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property, lru_cache
from typing import Any

from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.schema.shapes import INT_OR_STRING, Shape
from netemu.apiserver.schema.structural import shape_of
from netemu.apiserver.schema.types import MICRO_TIME, QUANTITY_TYPE, TIME
from netemu.model.custom import Custom
from netemu.model.resources import Resource

_SCALARS = frozenset({INT_OR_STRING, QUANTITY_TYPE, TIME, MICRO_TIME})
_KEY_DEFAULTS = {"protocol": "TCP"}

_ALWAYS_THERE: dict[str, tuple[str, ...]] = {
    "io.k8s.api.apps.v1.DaemonSetSpec": ("template", "updateStrategy"),
    "io.k8s.api.apps.v1.DeploymentSpec": ("strategy", "template"),
    "io.k8s.api.apps.v1.ReplicaSetSpec": ("template",),
    "io.k8s.api.apps.v1.StatefulSetSpec": ("template", "updateStrategy"),
    "io.k8s.api.batch.v1.CronJobSpec": ("jobTemplate",),
    "io.k8s.api.batch.v1.JobSpec": ("template",),
    "io.k8s.api.batch.v1.JobTemplateSpec": ("metadata", "spec"),
    "io.k8s.api.core.v1.Event": ("involvedObject", "source"),
    "io.k8s.api.core.v1.NodeDaemonEndpoints": ("kubeletEndpoint",),
    "io.k8s.api.core.v1.NodeStatus": ("daemonEndpoints", "nodeInfo"),
    "io.k8s.api.core.v1.PersistentVolumeClaimSpec": ("resources",),
    "io.k8s.api.core.v1.PodTemplateSpec": ("metadata", "spec"),
    "io.k8s.api.core.v1.ServiceStatus": ("loadBalancer",),
    "io.k8s.api.networking.v1.IngressServiceBackend": ("port",),
    "io.k8s.api.networking.v1.IngressStatus": ("loadBalancer",),
    "io.k8s.api.networking.v1.NetworkPolicySpec": ("podSelector",),
}
"""By definition: the fields that are structs and no pointers."""
_OF_EVERY_KIND = ("metadata", "spec", "status")


class Form(Enum):
    """How a value is merged."""

    LEAF = "leaf"
    """As a whole: scalars and whatever is atomic."""
    MAP = "map"
    """Key by key: structs and maps."""
    ITEMS = "items"
    """Element by element, which some of their fields tell apart."""
    SET = "set"
    """A list whose elements are told apart by what they are."""
    ANY = "any"
    """By what it holds: maps key by key, all else as a whole."""


class Typed:
    """One type. What is below it is worked out when first asked for, because definitions refer to themselves."""

    def __init__(
        self, types: Types, shape: Shape | None, definition: str, form: Form, extra: tuple[str, ...] = ()
    ) -> None:
        self._types, self._shape, self.form = types, shape, form
        self.keys: tuple[str, ...] = ()
        self.definition = definition
        self.closed = shape is not None and shape.closed and form is Form.MAP
        """Whether it has its declared fields and no others."""
        self._extra = extra

    @cached_property
    def fields(self) -> dict[str, Typed]:
        """The declared fields of a struct."""
        properties = (self._shape.properties if self._shape else None) or {}
        return {name: self._types.of(field) for name, field in properties.items()}

    @cached_property
    def element(self) -> Typed:
        """Of the values of a map, or of the elements of a list."""
        shape = self._shape
        inner = (shape.items if self.form in (Form.ITEMS, Form.SET) else shape.additional_shape) if shape else None
        return self._types.of(inner) if inner is not None else self._types.anything

    @cached_property
    def absent(self) -> dict[str, Any]:
        """Fields that Go writes even if nobody set them, and what they are then."""
        if self._shape is None or self.form is not Form.MAP:
            return {}
        structs = [*_ALWAYS_THERE.get(self.definition, ()), *self._extra]
        found: dict[str, Any] = {name: {} for name in structs if name in self.fields}
        for name in self._shape.required:
            if name in self.fields and name not in found:
                found[name] = self._shape.zeros.get(name)
        return found

    @cached_property
    def _key_defaults(self) -> dict[str, Any]:
        """Custom resources have their schema's, which are told with the fields."""
        items = self._shape.items if self._shape else None
        if items is None or items.ref:
            return _KEY_DEFAULTS
        fields = items.properties or {}
        return {name: fields[name].default for name in self.keys if name in fields}

    def field(self, name: str) -> Typed:
        """Of a struct's field, or of a map's value."""
        return self.fields.get(name) or self.element

    def key_of(self, item: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
        """What tells an element of a list apart, defaults filled in; empty where it has none of the keys."""
        defaults = self._key_defaults
        pairs = [(name, item.get(name, defaults.get(name))) for name in self.keys]
        return tuple([pair for pair in pairs if pair[1] is not None])


class Types:
    """The types of a schema's definitions."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: dict[tuple[str, str], Typed] = {}
        self._roots: dict[str, Typed] = {}
        self.anything = Typed(self, None, "", Form.ANY)
        """Of what no schema is known for."""
        self._leaf = Typed(self, None, "", Form.LEAF)

    def root(self, resource: Resource) -> Typed:
        """Of the objects of a resource."""
        if resource.custom:
            return self._custom(resource.custom)
        name = self._schema.definition_name(resource)
        if not name:
            return self.anything
        if name not in self._roots:
            self._roots[name] = Typed(self, self._schema.shape(name), name, Form.MAP, _OF_EVERY_KIND)
        return self._roots[name]

    @lru_cache(maxsize=1024)  # noqa: B019  (types live as long as their server)
    def _custom(self, custom: Custom) -> Typed:
        # Nothing but metadata comes out of Go's structs, so what nobody sets is not there.
        return Typed(self, shape_of(custom), "", Form.MAP)

    def of(self, shape: Shape) -> Typed:
        """Of a field."""
        if shape.target in _SCALARS:
            return self._leaf
        if shape.ref:
            known = self._known.get((shape.target, shape.map_type))
            if known is None:
                made = self._made(self._schema.shape(shape.target), shape.target, shape.map_type)
                known = self._known[shape.target, shape.map_type] = made
            return known
        return self._made(shape, "", shape.map_type)

    def _made(self, shape: Shape, definition: str, map_type: str) -> Typed:
        if not shape.kind:
            return self.anything
        if shape.kind == "object":
            if shape.properties is None and shape.preserve_unknown:
                return self.anything
            structured = shape.properties is not None or shape.additional_shape is not None
            if "atomic" in (map_type, shape.map_type) or not structured:
                return self._leaf
            return Typed(self, shape, definition, Form.MAP)
        if shape.kind == "array" and shape.list_type == "map":
            items = Typed(self, shape, definition, Form.ITEMS)
            items.keys = shape.list_map_keys
            return items
        if shape.kind == "array" and shape.list_type == "set":
            return Typed(self, shape, definition, Form.SET)
        return self._leaf
