"""OpenAPI documents: one v3 document per group and version, and the smallest v2 document that kubectl needs.

kubectl validates, explains and computes its three-way patches from the v3 documents. From each PATCH operation it reads
whether the server validates fields (a query parameter named `fieldValidation`) and which patches it takes; both must be
there, or it falls back to v2, which it reads as protobuf only. The v2 document therefore says one thing: PATCH of a
Namespace has a `fieldValidation` parameter; with that, an unknown kind in a file gets its own error and its neighbours
are applied. Documents are made on first request; their URL carries a hash, because kubectl keeps them on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from netemu import __version__
from netemu.apiserver.http.discovery import subresource_kind
from netemu.apiserver.http.negotiation import APPLY, PATCH_TYPES
from netemu.apiserver.merge.patch import patch_types
from netemu.apiserver.schema.kinds import VERSION, Schema
from netemu.model.custom import Custom
from netemu.model.resources import Resource
from netemu.model.served import Served

V2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

_DEFS, _SCHEMAS = "#/$defs/", "#/components/schemas/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_SPECIAL: dict[str, dict[str, Any]] = {
    _INT_OR_STRING: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    _QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_METADATA = (_META + "ObjectMeta", _META + "ListMeta")
_EXTRA_KINDS = (_META + "DeleteOptions", _META + "Status", "io.k8s.api.autoscaling.v1.Scale")
_FORMAT = "1"
"""Raise it when the conversion below changes, so that clients fetch the documents again."""


class OpenApi:
    """The documents of the resources that are served at the moment."""

    def __init__(self, schema: Schema, served: Served) -> None:
        self._schema = schema
        self._served, self._generation = served, -1
        self._known: dict[str, list[Resource]] = {}
        self._hashes: dict[str, str] = {}
        self._documents: dict[str, tuple[str, bytes]] = {}
        """Each with the hash that it had when it was made."""

    @property
    def _resources(self) -> dict[str, list[Resource]]:
        """By group and version: `api/v1`, `apis/apps/v1`."""
        if self._generation != self._served.generation:
            self._known, self._hashes, self._generation = {}, {}, self._served.generation
            for resource in self._served:
                self._known.setdefault(resource.root.removeprefix("/"), []).append(resource)
        return self._known

    def index(self) -> dict[str, Any]:
        """`/openapi/v3`: where each document is."""
        return {
            "paths": {
                path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={self.hash(path)}"} for path in self._resources
            }
        }

    def hash(self, path: str) -> str:
        """What changes when the document of `apis/apps/v1` does."""
        resources = self._resources[path]
        if path not in self._hashes:
            schemas = [resource.custom.schema for resource in resources if resource.custom]
            facts = repr((_FORMAT, __version__, VERSION, resources)).encode() + msgspec.json.encode(schemas)
            self._hashes[path] = hashlib.sha256(facts).hexdigest()[:32].upper()
        return self._hashes[path]

    def document(self, path: str) -> bytes | None:
        """The v3 document of `api/v1` or `apis/GROUP/VERSION` as JSON; None for a group that is not served."""
        resources = self._resources.get(path)
        if resources is None:
            return None
        hashed = self.hash(path)
        if path not in self._documents or self._documents[path][0] != hashed:
            self._documents[path] = hashed, msgspec.json.encode(self._build(resources))
        return self._documents[path][1]

    def _build(self, resources: Sequence[Resource]) -> dict[str, Any]:
        kinds = [_custom_name(one) if one.custom else self._schema.definition_name(one) for one in resources]
        own = [name for one, name in zip(resources, kinds, strict=True) if name and not one.custom]
        names = self._schema.reachable([*own, *_EXTRA_KINDS, *_METADATA])
        schemas = {name: _definition(name, self._schema.raw(name)) for name in sorted(names)}
        for resource, name in zip(resources, kinds, strict=True):
            if resource.custom:
                schemas |= _custom_definitions(resource, resource.custom, name)
        paths: dict[str, Any] = {}
        for resource, kind in zip(resources, kinds, strict=True):
            paths |= _paths(resource, kind)
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": f"v{VERSION}"},
            "paths": paths,
            "components": {"schemas": schemas},
        }


# --- schemas -----------------------------------------------------------------------------------------------------


def _definition(name: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    if name in _SPECIAL:
        return dict(_SPECIAL[name])
    schema = _schema(definition)
    if "x-kubernetes-group-version-kind" in definition:
        # The data pins these two to one value with an enum; real documents do not, and `explain` would print it.
        for field in ("apiVersion", "kind"):
            schema.get("properties", {}).get(field, {}).pop("enum", None)
    return schema


def _schema(source: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema to OpenAPI v3: references moved, null dropped from types."""
    out = {key: value for key, value in source.items() if key not in ("$ref", "type", "properties", "items")}
    if reference := source.get("$ref"):
        reference = {"$ref": _SCHEMAS + str(reference).removeprefix(_DEFS)}
        # OpenAPI ignores what stands beside a reference, so a described reference is wrapped.
        out |= {"allOf": [reference]} if out else reference
    if kind := source.get("type"):
        out["type"] = kind if isinstance(kind, str) else next(word for word in kind if word != "null")
    if "properties" in source:
        out["properties"] = {name: _schema(field) for name, field in source["properties"].items()}
    if "items" in source:
        out["items"] = _schema(source["items"])
    if isinstance(source.get("additionalProperties"), Mapping):
        out["additionalProperties"] = _schema(source["additionalProperties"])
    return out


def _custom_name(resource: Resource) -> str:
    """`com.example.stable.v1.CronTab`."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _custom_definitions(resource: Resource, custom: Custom, name: str) -> dict[str, Any]:
    """The schemas of a custom resource and of its lists, with what every kind has."""
    gvk = {"group": resource.group, "version": resource.version}
    text = {"type": "string"}
    own, of_list = ({"allOf": [{"$ref": f"{_SCHEMAS}{meta}"}]} for meta in _METADATA)
    schema = {**custom.schema, "properties": {**(custom.schema.get("properties") or {})}}
    for field in ("apiVersion", "kind"):
        schema["properties"].setdefault(field, text)
    schema["properties"]["metadata"] = own
    listed = {"type": "array", "items": {"$ref": f"{_SCHEMAS}{name}"}}
    return {
        name: {**schema, "x-kubernetes-group-version-kind": [{**gvk, "kind": resource.kind}]},
        f"{name.removesuffix(resource.kind)}{resource.list_kind}": {
            "type": "object",
            "required": ["items"],
            "properties": {"apiVersion": text, "kind": text, "metadata": of_list, "items": listed},
            "x-kubernetes-group-version-kind": [{**gvk, "kind": resource.list_kind}],
        },
    }


# --- paths -------------------------------------------------------------------------------------------------------


def _paths(resource: Resource, schema: str) -> dict[str, Any]:
    namespace = "{namespace}" if resource.namespaced else ""
    paths: dict[str, Any] = {}
    if "list" in resource.verbs and namespace:
        paths[resource.path()] = {"get": _operation(resource, "list", schema)}
    collection = {"post": "post"} if "create" in resource.verbs else {}
    if "list" in resource.verbs:
        collection["get"] = "list"
    paths[resource.path(namespace)] = {
        "parameters": _path_parameters(resource, named=False),
        **{method: _operation(resource, action, schema) for method, action in collection.items()},
    }
    if "get" in resource.verbs:
        item = resource.path(namespace, "{name}")
        paths[item] = {
            "parameters": _path_parameters(resource, named=True),
            **{method: _operation(resource, method, schema) for method in ("get", "put", "patch", "delete")},
        }
        for sub in resource.subresources:
            if sub in ("status", "scale"):
                paths[f"{item}/{sub}"] = {
                    "parameters": _path_parameters(resource, named=True),
                    **{m: _operation(resource, m, schema, sub) for m in ("get", "put", "patch")},
                }
    return paths


def _path_parameters(resource: Resource, *, named: bool) -> list[dict[str, Any]]:
    names = ["namespace"] * resource.namespaced + ["name"] * named
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _operation(resource: Resource, action: str, schema: str, subresource: str = "") -> dict[str, Any]:
    group, version, kind = subresource_kind(resource, subresource)
    if subresource == "scale":
        schema = "io.k8s.api.autoscaling.v1.Scale"
    body = {"application/json": {"schema": {"$ref": _SCHEMAS + schema}}} if schema else {}
    operation: dict[str, Any] = {
        "tags": [f"{resource.group.split('.')[0] or 'core'}_{resource.version}"],
        "operationId": f"{action}{resource.version.title()}{resource.kind}{subresource.title()}",
        "responses": {"200": {"description": "OK", "content": body}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
    }
    if action in ("post", "put", "patch"):
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in ("dryRun", "fieldManager", "fieldValidation")
        ]
        patch = {media: {"schema": {"$ref": f"{_SCHEMAS}{_META}Patch"}} for media in patch_types(resource)}
        operation["requestBody"] = {"required": True, "content": patch if action == "patch" else body}
    return operation


# --- v2, as protobuf ---------------------------------------------------------------------------------------------


def v2_document() -> bytes:
    """`/openapi/v2` in the field numbers of gnostic's openapi_v2 `Document`."""
    gvk = 'group: ""\nkind: Namespace\nversion: v1\n'
    query = _text(2, "query") + _text(4, "fieldValidation") + _text(6, "string")
    parameter = _message(1, _message(2, _message(3, query)))
    patch = (
        b"".join(_text(7, media) for media in (*PATCH_TYPES, APPLY))
        + _message(8, parameter)
        + _message(13, _text(1, "x-kubernetes-action") + _message(2, _text(2, "patch\n")))
        + _message(13, _text(1, "x-kubernetes-group-version-kind") + _message(2, _text(2, gvk)))
    )
    path = _text(1, "/api/v1/namespaces/{name}") + _message(2, _message(8, patch))
    info = _text(1, "Kubernetes") + _text(2, f"v{VERSION}")
    return _text(1, "2.0") + _message(2, info) + _message(8, _message(2, path))


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
