"""OpenAPI documents: one of v3 per group and version, and one of v2 for all of them.

kubectl validates, explains and computes its three-way patches from the v3 documents. From each PATCH operation it reads
whether the server validates fields (a query parameter named `fieldValidation`) and which patches it takes; both must be
there, or it falls back to v2. The v2 document says the same of every kind at once; kubectl reads it as protobuf (before
1.27 always, later to find out whether an unknown kind is unknown), other clients as JSON. Documents are made when
somebody asks, v2 group by group, and only their bytes are kept. A hash tells clients, which keep them too, when one is
another than before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from netemu import __version__
from netemu.apiserver.http.discovery import subresource_kind
from netemu.apiserver.http.openapi_proto import document_proto
from netemu.apiserver.http.openapi_v2 import structural_v2, v2_path, v2_schema
from netemu.apiserver.merge.patch import patch_types
from netemu.apiserver.schema.kinds import VERSION, Schema
from netemu.model.resources import Resource
from netemu.model.served import Served

_DEFS, _SCHEMAS = "#/$defs/", "#/components/schemas/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_SPECIAL: dict[str, dict[str, Any]] = {
    _INT_OR_STRING: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    _QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
}
_V2_SPECIAL = {
    _INT_OR_STRING: {"type": "string", "format": "int-or-string"},
    _QUANTITY: {"type": "string"},
}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_METADATA = (_META + "ObjectMeta", _META + "ListMeta")
_EXTRA_KINDS = (_META + "DeleteOptions", _META + "Patch", _META + "Status", "io.k8s.api.autoscaling.v1.Scale")
_INFO = {"title": "Kubernetes", "version": f"v{VERSION}"}
_FORMAT = "2"
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

    @property
    def v2_hash(self) -> str:
        """What changes when the v2 document does."""
        return hashlib.sha256("".join(self.hash(path) for path in self._resources).encode()).hexdigest().upper()

    def v2_document(self, *, protobuf: bool) -> bytes:
        """The v2 document of everything, as protobuf or as JSON."""
        form, hashed = "v2 as protobuf" if protobuf else "v2 as JSON", self.v2_hash
        if form not in self._documents or self._documents[form][0] != hashed:
            head = {"swagger": "2.0", "info": _INFO}
            paths, definitions = self._v2_paths(), self._v2_definitions()
            if protobuf:
                made = document_proto(head, paths, definitions)
            else:
                parts = {"paths": _encoded(paths), "definitions": _encoded(definitions)}
                made = msgspec.json.encode({**head, **parts})
            self._documents[form] = hashed, made
        return self._documents[form][1]

    def _v2_paths(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for resources in self._resources.values():
            for resource in resources:
                for path, item in _paths(resource, self._name(resource)).items():
                    yield path, v2_path(item)

    def _v2_definitions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        every = [resource for resources in self._resources.values() for resource in resources]
        for name in self._definition_names(every):
            yield name, _V2_SPECIAL.get(name) or v2_schema(_definition(name, self._schema.raw(name)))
        for resource in every:
            if resource.custom:
                schema = structural_v2(resource.custom.schema)
                for name, made in _custom_definitions(resource, schema, _custom_name(resource)).items():
                    yield name, v2_schema(made)

    def _name(self, resource: Resource) -> str:
        return _custom_name(resource) if resource.custom else self._schema.definition_name(resource)

    def _definition_names(self, resources: Sequence[Resource]) -> list[str]:
        """What the built-in ones of these resources, and what is said of all, lead to."""
        own = [name for one in resources if not one.custom and (name := self._schema.definition_name(one))]
        return sorted(self._schema.reachable([*own, *_EXTRA_KINDS, *_METADATA]))

    def _build(self, resources: Sequence[Resource]) -> dict[str, Any]:
        schemas = {name: _definition(name, self._schema.raw(name)) for name in self._definition_names(resources)}
        paths: dict[str, Any] = {}
        for resource in resources:
            paths |= _paths(resource, self._name(resource))
            if resource.custom:
                schemas |= _custom_definitions(resource, resource.custom.schema, _custom_name(resource))
        return {
            "openapi": "3.0.0",
            "info": _INFO,
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


def _encoded(parts: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, msgspec.Raw]:
    """Each as JSON at once, which takes a tenth of the memory."""
    return {name: msgspec.Raw(msgspec.json.encode(part)) for name, part in parts}


def _custom_definitions(resource: Resource, custom: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schemas of a custom resource, from its own, and of its lists, with what every kind has."""
    gvk = {"group": resource.group, "version": resource.version}
    text = {"type": "string"}
    own, of_list = ({"allOf": [{"$ref": f"{_SCHEMAS}{meta}"}]} for meta in _METADATA)
    schema = {**custom, "properties": {**(custom.get("properties") or {})}}
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
