"""The schemas of custom resources: what of an object is kept, and what merging knows of it.

A structural schema says of every value what it is, so that the server can drop what nobody declared (*pruning*) and
fill in what somebody left out (*defaulting*). Both are one walk here, `conformed`, which shares what it leaves alone:

- fields that are not declared go, except under `x-kubernetes-preserve-unknown-fields`;
- null goes where a field is not nullable, or becomes the default if there is one;
- defaults fill fields that are absent.

Metadata is Kubernetes' own (`schema`), whatever a schema says of it.
Upstream: `apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`, kube-openapi `schemaconv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from netemu.apiserver.json_values import duplicate
from netemu.apiserver.schema.shapes import OBJECT_META, REF, Shape
from netemu.client.base import Obj
from netemu.model.custom import Custom

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
INT_OR_STRING = "x-kubernetes-int-or-string"
LIST_TYPE, LIST_MAP_KEYS, MAP_TYPE = "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"
META_FIELDS = frozenset({"apiVersion", "kind", "metadata"})

Json = Mapping[str, Any]
_NOTHING: Json = {}
"""A schema that declares nothing."""


def conformed(schema: Json, value: Any, *, embedded: bool = False) -> Any:
    """What is kept of a value; the value itself where that is all of it.

    `embedded`: it is a whole object, whose apiVersion, kind and metadata are no concern of the schema's.
    """
    return _conformed(schema, value, keep=False, embedded=embedded)


def _conformed(schema: Json, value: Any, *, keep: bool, embedded: bool = False) -> Any:
    if isinstance(value, dict):
        return _conformed_map(schema, value, keep or bool(schema.get(PRESERVE)), embedded or bool(schema.get(EMBEDDED)))
    if isinstance(value, list):
        items, keep = schema.get("items") or _NOTHING, keep or bool(schema.get(PRESERVE))
        found = [_conformed(items, _not_null(items, item), keep=keep and not items) for item in value]
        return found if any(new is not old for new, old in zip(found, value, strict=True)) else value
    return value


def _conformed_map(schema: Json, value: Obj, keep: bool, embedded: bool) -> Obj:
    properties, additional = schema.get("properties") or _NOTHING, schema.get("additionalProperties")
    result: Obj = {}
    changed = False
    for key, old in value.items():
        below = properties.get(key)
        if below is None and additional is not None:
            below = additional if isinstance(additional, dict) else _NOTHING
        if (embedded and key in META_FIELDS) or (below is None and keep):
            result[key] = old
            continue
        if below is None:
            changed = True
            continue
        new = _not_null(below, old)
        if new is None and old is None and below and not below.get("nullable"):
            changed = True
            continue
        result[key] = new = _conformed(below, new, keep=False)
        changed = changed or new is not old
    for key, below in properties.items():
        if key not in value and (default := below.get("default")) is not None:
            result[key] = _conformed(below, duplicate(default), keep=False)
            changed = True
    return result if changed else value


def _not_null(schema: Json, value: Any) -> Any:
    """The default in the place of a null that may not be."""
    if value is None and not schema.get("nullable") and schema.get("default") is not None:
        return duplicate(schema["default"])
    return value


def whole_objects(custom: Custom, obj: Obj) -> Iterator[Obj]:
    """An object of a custom resource, and the objects of other kinds that its schema embeds."""
    yield obj
    if _embeds(custom):
        yield from _embedded(custom.schema, obj)


@lru_cache(maxsize=1024)
def _embeds(custom: Custom) -> bool:
    return EMBEDDED in str(custom.schema)


def _embedded(schema: Json, value: Any) -> Iterator[Obj]:
    if isinstance(value, dict):
        if schema.get(EMBEDDED):
            yield value
        properties, additional = schema.get("properties") or _NOTHING, schema.get("additionalProperties")
        for key, inner in value.items():
            below = properties.get(key, additional)
            if isinstance(below, dict):
                yield from _embedded(below, inner)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for inner in value:
            yield from _embedded(schema["items"], inner)


@lru_cache(maxsize=1024)
def shape_of(custom: Custom) -> Shape:
    """The shape of the objects of a custom resource."""
    return _shape(custom.schema, embedded=True)


_META = {
    "apiVersion": Shape(type="string"),
    "kind": Shape(type="string"),
    "metadata": Shape(ref=f"{REF}{OBJECT_META}"),
}


def _shape(schema: Json, *, embedded: bool = False) -> Shape:
    kind = "" if schema.get(INT_OR_STRING) else schema.get("type") or ""
    additional, preserve = schema.get("additionalProperties"), bool(schema.get(PRESERVE))
    properties: dict[str, Shape] | None = None
    if schema.get("properties") is not None:
        properties = {name: _shape(below) for name, below in schema["properties"].items()}
    if embedded or schema.get(EMBEDDED):
        properties = {**(properties or {}), **_META}
    if properties is None and additional is None and not preserve and kind in ("object", ""):
        # Nothing is declared, so nothing is kept of a map; of a number or text that says nothing.
        properties = {}
    inner: Shape | None = None
    if additional is not None:
        inner = _shape(additional) if isinstance(additional, dict) else Shape(properties={})
    return Shape(
        type=kind,
        properties=properties,
        items=_shape(schema["items"]) if isinstance(schema.get("items"), dict) else None,
        additional=inner,
        preserve_unknown=preserve,
        list_type=schema.get(LIST_TYPE) or "",
        list_map_keys=tuple(schema.get(LIST_MAP_KEYS) or ()),
        map_type=schema.get(MAP_TYPE) or "",
        default=schema.get("default"),
    )
