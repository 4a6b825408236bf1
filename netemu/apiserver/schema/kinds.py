"""What fields a kind has, of which types, and how lists in it are merged.

The source is the OpenAPI data of Kubernetes 1.32 that the `kubernetes_validate` package carries. Only its data file is
read: importing the package would load a validator that is not used. The file (1.3 MB) is split into one raw slice per
definition; a definition is decoded the first time something needs it, so the handful of kinds in use costs
milliseconds. Two decodings exist: a *shape* with just types and merge rules, for checking and patching, and the full
definition with its descriptions, for OpenAPI documents.

Unknown fields are listed in document order, as Go's strict decoder (`sigs.k8s.io/json`) does; `types` finds
values of wrong types.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from netemu.apiserver.schema.decoding import Misfit, decoded
from netemu.apiserver.schema.shapes import OBJECT_META, REF, Shape
from netemu.apiserver.schema.structural import conformed, shape_of, whole_objects
from netemu.apiserver.schema.types import Place, mistyped
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, UserError
from netemu.model.resources import Resource

VERSION = "1.32.0"

_SPECIAL_PACKAGES = {
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "meta.k8s.io": "io.k8s.apimachinery.pkg.apis.meta",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}


_METADATA = Shape(ref=f"{REF}{OBJECT_META}")
_PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_PROPS_OR_ELSE = frozenset({f"{_PROPS}OrArray", f"{_PROPS}OrBool", f"{_PROPS}OrStringArray"})
"""Where they are maps these are JSONSchemaProps, of which the data says nothing."""
_PROMOTED = tuple(
    f"io.k8s.api.networking.v1beta1.{name}"
    for name in (
        "IPAddress", "IPAddressList", "IPAddressSpec", "ParentReference",
        "ServiceCIDR", "ServiceCIDRList", "ServiceCIDRSpec", "ServiceCIDRStatus",
    )
)  # fmt: skip
"""ServiceCIDR and IPAddress are v1 from 1.33 on, unchanged; 1.32 has them as betas."""


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
            self._raw |= {name.replace("v1beta1", "v1"): _promoted(self._raw[name]) for name in _PROMOTED}
        return self._raw

    def definition_name(self, resource: Resource) -> str:
        """The definition of a resource's kind (`io.k8s.api.core.v1.Pod`), or "" for a kind that is not built in."""
        if resource.custom:
            return ""
        package = _SPECIAL_PACKAGES.get(resource.group) or f"io.k8s.api.{resource.group.split('.')[0] or 'core'}"
        name = f"{package}.{resource.version}.{resource.kind}"
        return name if name in self._definitions() else ""

    def definition(self, resource: Resource) -> Mapping[str, Any]:
        """The full JSON schema of a resource's kind, empty for a kind that is not built in."""
        name = self.definition_name(resource)
        return self.raw(name) if name else {}

    def raw(self, name: str) -> Mapping[str, Any]:
        """The full definition `name`, descriptions included, decoded anew each time. Raises KeyError."""
        definition: dict[str, Any] = msgspec.json.decode(self._definitions()[name])
        return definition

    def shape(self, name: str) -> Shape:
        """The shape of definition `name`. Raises KeyError."""
        shape = self._shapes.get(name)
        if shape is None:
            if name in _PROPS_OR_ELSE:
                shape = msgspec.structs.replace(self.shape(_PROPS), type="")
            else:
                shape = _shape_decoder.decode(self._definitions()[name])
            self._shapes[name] = shape
        return shape

    def root(self, resource: Resource) -> Shape | None:
        """The shape of a resource's kind, None for a kind of which nothing is known."""
        if resource.custom:
            return shape_of(resource.custom)
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
        return shape.additional_shape

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

    def unknown_fields(self, resource: Resource, obj: Obj) -> list[str]:
        """`unknown field "spec.containers[0].foo"` for each field that the kind does not have, in document order."""
        root = self.root(resource)
        return [f'unknown field "{path[1:]}"' for path in _unknown(self, root, obj)] if root else []

    def decoded(self, resource: Resource, obj: Obj) -> Obj:
        """`obj`, changed in place to the form in which it is kept (`decoding`). Raises BadRequest.

        Of a custom resource that is true of the metadata only; the rest is as its schema will have it (`structural`).
        """
        root = self.root(resource)
        if root is None:
            return obj
        try:
            if resource.custom is None:
                decoded(self, root, obj)
            else:
                for one in whole_objects(resource.custom, obj):
                    if (metadata := one.get("metadata")) is not None:
                        one["metadata"] = decoded(self, _METADATA, metadata)
                    else:
                        one.pop("metadata", None)
        except Misfit:
            what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise BadRequest(f"{what}: {self.type_errors(resource, obj)[0]}") from None
        return conformed(resource.custom.schema, obj, embedded=True) if resource.custom else obj

    def type_errors(self, resource: Resource, obj: Obj) -> list[str]:
        """What Go's decoder would refuse, one text per value of a wrong type: `json: cannot unmarshal ...`."""
        root = self.root(resource)
        place = Place(resource.kind)
        if resource.custom:
            found = whole_objects(resource.custom, obj)
            place = place.inside("metadata")
            return [text for one in found for text in mistyped(self, _METADATA, one.get("metadata"), place)]
        return list(mistyped(self, root, obj, place)) if root else []


def _promoted(raw: msgspec.Raw) -> msgspec.Raw:
    """A definition of a beta version as one of v1: what it refers to, and what it says of its own version."""
    text = bytes(raw)
    for before in (b"networking.v1beta1", b"networking.k8s.io/v1beta1", b'"v1beta1"'):
        text = text.replace(before, before.replace(b"v1beta1", b"v1"))
    return msgspec.Raw(text)


def _unknown(schema: Schema, shape: Shape, value: Any) -> list[str]:
    """The paths from here (`.spec.foo`, `[0].foo`) to fields that there are not. There are hardly ever any."""
    shape, found = schema.resolve(shape), list[str]()
    if isinstance(value, dict):
        properties, values = shape.properties or {}, shape.additional_shape
        for key, inner in value.items():
            if (field := properties.get(key, values)) is None:
                found += [f".{key}"] if shape.closed else ()
            elif isinstance(inner, (dict, list)):
                found += [f".{key}{path}" for path in _unknown(schema, field, inner)]
    elif isinstance(value, list) and shape.items is not None:
        for index, inner in enumerate(value):
            found += [f"[{index}]{path}" for path in _unknown(schema, shape.items, inner)]
    return found


def _references(shape: Shape) -> Iterator[str]:
    if shape.ref:
        yield shape.target
    for inner in (*(shape.properties or {}).values(), shape.items, shape.additional):
        if isinstance(inner, Shape):
            yield from _references(inner)
