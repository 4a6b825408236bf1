"""What fields a kind has, of which types, and how lists in it are merged.

The source is the OpenAPI data of Kubernetes 1.32 that the `kubernetes_validate` package carries. Only its data file is
read: importing the package would load a validator that is not used. The file (1.3 MB) is split into one raw slice per
definition; a definition is decoded the first time something needs it, so the handful of kinds in use costs
milliseconds. Two decodings exist: a *shape* with just types and merge rules, for checking and patching, and the full
definition with its descriptions, for OpenAPI documents.

Checks follow Go's decoder (`sigs.k8s.io/json`): null is always accepted, unknown fields are listed in document order,
and the first wrong type is worded as `json: cannot unmarshal string into Go struct field ...`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from netemu.client.base import Obj
from netemu.model.errors import UserError
from netemu.model.resources import Resource

VERSION = "1.32.0"

_REF = "#/$defs/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
_SPECIAL_PACKAGES = {
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}

QUANTITY = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?$")
"""The text form of `resource.Quantity`."""
_QUANTITY_ERROR = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"  # upstream's text
)
_RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_BASE64 = re.compile(r"^[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*$")
_INT_BOUNDS = {"int32": 1 << 31, "int64": 1 << 63}


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

    @property
    def json_type(self) -> str:
        """`object`, `array`, `string`, `integer`, `number`, `boolean`, or "" where anything goes."""
        if isinstance(self.type, str):
            return self.type
        return next((name for name in self.type if name != "null"), "")

    @property
    def target(self) -> str:
        """The name of the definition that this field refers to, or ""."""
        return self.ref.removeprefix(_REF)

    @property
    def merges(self) -> bool:
        """Whether a strategic merge patch merges this field instead of replacing it."""
        return "merge" in self.patch_strategy.split(",")


class _File(msgspec.Struct):
    definitions: dict[str, msgspec.Raw] = msgspec.field(name="$defs")


_shape_decoder: msgspec.json.Decoder[Shape] = msgspec.json.Decoder(Shape)


def data_file() -> Path:
    """Where the installed definitions are. Raises UserError naming the missing package."""
    spec = importlib.util.find_spec("kubernetes_validate")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "kubernetes-json-schema" / f"v{VERSION}-local" / "_definitions.json"
        if path.exists():
            return path
    raise UserError(f"the Python package kubernetes-validate, with the definitions of Kubernetes {VERSION}, is missing")


class Schema:
    """The definitions of Kubernetes, by name and by resource."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw: dict[str, msgspec.Raw] | None = None
        self._shapes: dict[str, Shape] = {}

    @staticmethod
    def load() -> Schema:
        """The installed definitions; the file is read when the first of them is needed."""
        return Schema(data_file())

    def _definitions(self) -> dict[str, msgspec.Raw]:
        if self._raw is None:
            self._raw = msgspec.json.decode(self._path.read_bytes(), type=_File).definitions
        return self._raw

    def definition_name(self, resource: Resource) -> str:
        """The definition of a resource's kind (`io.k8s.api.core.v1.Pod`), or "" for a kind that is not built in."""
        package = _SPECIAL_PACKAGES.get(resource.group) or f"io.k8s.api.{resource.group.split('.')[0] or 'core'}"
        name = f"{package}.{resource.version}.{resource.kind}"
        return name if name in self._definitions() else ""

    def definition(self, resource: Resource) -> Mapping[str, Any]:
        """The full JSON schema of a resource's kind, empty for a kind that is not built in."""
        name = self.definition_name(resource)
        return self.raw(name) if name else {}

    def names(self) -> Iterable[str]:
        """The names of all definitions."""
        return self._definitions().keys()

    def raw(self, name: str) -> Mapping[str, Any]:
        """The full definition `name`, descriptions included, decoded anew each time. Raises KeyError."""
        definition: dict[str, Any] = msgspec.json.decode(self._definitions()[name])
        return definition

    def shape(self, name: str) -> Shape:
        """The shape of definition `name`. Raises KeyError."""
        shape = self._shapes.get(name)
        if shape is None:
            shape = self._shapes[name] = _shape_decoder.decode(self._definitions()[name])
        return shape

    def root(self, resource: Resource) -> Shape | None:
        """The shape of a resource's kind, None for a kind that is not built in."""
        name = self.definition_name(resource)
        return self.shape(name) if name else None

    def resolve(self, shape: Shape) -> Shape:
        """The definition behind a reference; anything else is its own definition."""
        return self.shape(shape.target) if shape.ref else shape

    def field(self, shape: Shape | None, name: str) -> Shape | None:
        """The shape of field `name` (or map value) under `shape`; None where nothing is known of it."""
        if shape is None:
            return None
        shape = self.resolve(shape)
        if shape.properties is not None and name in shape.properties:
            return shape.properties[name]
        return shape.additional if isinstance(shape.additional, Shape) else None

    def reachable(self, names: Iterable[str]) -> set[str]:
        """The named definitions and every definition that they refer to, directly or not."""
        found: set[str] = set()
        todo = [name for name in names if name in self._definitions()]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += _references(self.shape(name))
        return found

    def merge_rule(self, resource: Resource, path: Iterable[str]) -> tuple[str, str]:
        """Patch strategy and merge key of a field, given by its names from the root (list indexes left out)."""
        shape = self.root(resource)
        for name in path:
            shape = self.field(self._element(shape), name)
        return (shape.patch_strategy, shape.patch_merge_key) if shape else ("", "")

    def _element(self, shape: Shape | None) -> Shape | None:
        return shape.items if shape and shape.items else shape

    def unknown_fields(self, resource: Resource, obj: Obj) -> list[str]:
        """`unknown field "spec.containers[0].foo"` for each field that the kind does not have, in document order."""
        root = self.root(resource)
        return [f'unknown field "{path}"' for path in self._unknown(root, obj, "")] if root else []

    def _unknown(self, shape: Shape, value: Any, path: str) -> Iterator[str]:
        shape = self.resolve(shape)
        if isinstance(value, dict):
            for key, inner in value.items():
                where = f"{path}.{key}" if path else key
                field = self.field(shape, key)
                if field is not None:
                    yield from self._unknown(field, inner, where)
                elif shape.properties is not None and not shape.preserve_unknown:
                    yield where
        elif isinstance(value, list) and shape.items is not None:
            for index, inner in enumerate(value):
                yield from self._unknown(shape.items, inner, f"{path}[{index}]")

    def type_errors(self, resource: Resource, obj: Obj) -> list[str]:
        """What Go's decoder would refuse, one text per value of a wrong type: `json: cannot unmarshal ...`."""
        name = self.definition_name(resource)
        return list(self._mistyped(self.shape(name), obj, _Place(name.rpartition(".")[2]))) if name else []

    def _mistyped(self, shape: Shape, value: Any, place: _Place) -> Iterator[str]:
        if value is None:
            return
        if shape.target:
            if shape.target in _SCALAR_CHECKS:
                yield from _SCALAR_CHECKS[shape.target](value, place)
                return
            place = place.of_definition(shape.target)
            shape = self.shape(shape.target)
        if problem := _wrong_type(shape, value, place):
            yield problem
        elif isinstance(value, dict):
            for key, inner in value.items():
                if field := self.field(shape, key):
                    yield from self._mistyped(field, inner, place.inside(key))
        elif isinstance(value, list) and shape.items is not None:
            for inner in value:
                yield from self._mistyped(shape.items, inner, place)


class _Place:
    """Where the decoder is: the Go struct it fills and the path of the field, as its messages name them."""

    __slots__ = ("path", "struct", "type_name")

    def __init__(self, struct: str, path: str = "", type_name: str = "") -> None:
        self.struct, self.path, self.type_name = struct, path, type_name or struct

    def of_definition(self, definition: str) -> _Place:
        name = definition.rpartition(".")[2]
        return _Place(self.struct, self.path, name)

    def inside(self, field: str) -> _Place:
        return _Place(self.type_name, f"{self.path}.{field}" if self.path else field, self.type_name)

    def text(self, what: str, go_type: str) -> str:
        if not self.path:
            return f"json: cannot unmarshal {what} into Go value of type v1.{self.struct}"
        return f"json: cannot unmarshal {what} into Go struct field {self.struct}.{self.path} of type {go_type}"


def _references(shape: Shape) -> Iterator[str]:
    if shape.ref:
        yield shape.target
    for inner in (*(shape.properties or {}).values(), shape.items, shape.additional):
        if isinstance(inner, Shape):
            yield from _references(inner)


def _what(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def _wrong_type(shape: Shape, value: Any, place: _Place) -> str:
    """The decoder's complaint about `value` itself, not about what is inside it; "" if there is none."""
    expected, what = shape.json_type, _what(value)
    if expected == "integer":
        go_type = shape.format or "int64"
        if what == "number":
            bound = _INT_BOUNDS.get(go_type, 1 << 63)
            fits = isinstance(value, int) and -bound <= value < bound
            return "" if fits else place.text(f"number {value}", go_type)
        return place.text(what, go_type)
    if expected == "string" and what == "string":
        return _wrong_text(shape.format, value)
    fits_as = {"string": "string", "boolean": "bool", "number": "number", "object": "object", "array": "array"}
    if expected in fits_as and what != fits_as[expected]:
        return place.text(what, _go_type(shape, place))
    return ""


def _wrong_text(form: str, value: str) -> str:
    if form == "byte" and (not _BASE64.match(value) or len(re.sub(r"\s", "", value)) % 4):
        at = next((i for i, char in enumerate(value) if not re.match(r"[A-Za-z0-9+/=\r\n]", char)), len(value))
        return f"illegal base64 data at input byte {at}"
    return ""


def _go_type(shape: Shape, place: _Place) -> str:
    kind = shape.json_type
    if kind == "object":
        return f"v1.{place.type_name}" if shape.properties is not None else "map[string]string"
    if kind == "array":
        items = shape.items
        inner = items.target.rpartition(".")[2] if items and items.ref else ""
        return f"[]v1.{inner}" if inner else f"[]{_go_type(items, place)}" if items else "[]interface {}"
    return {"boolean": "bool", "number": "float64", "integer": shape.format or "int64"}.get(kind, kind)


def _int_or_string(value: Any, place: _Place) -> Iterator[str]:
    what = _what(value)
    if what == "number" and not (isinstance(value, int) and -(1 << 31) <= value < 1 << 31):
        yield place.text(f"number {value}", "int32")
    elif what not in ("number", "string"):
        yield place.text(what, "intstr.IntOrString")


def _quantity(value: Any, place: _Place) -> Iterator[str]:
    what = _what(value)
    if what not in ("number", "string"):
        yield place.text(what, "resource.Quantity")
    elif not QUANTITY.match(str(value)):
        yield _QUANTITY_ERROR


def _time(value: Any, place: _Place) -> Iterator[str]:
    if not isinstance(value, str):
        yield place.text(_what(value), "time.Time")
    elif not _RFC3339.match(value):
        yield f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'


_SCALAR_CHECKS = {_INT_OR_STRING: _int_or_string, _QUANTITY: _quantity, _TIME: _time, _MICRO_TIME: _time}
