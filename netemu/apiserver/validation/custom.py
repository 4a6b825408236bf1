"""What is wrong with a custom resource: all that its schema says, and what no schema needs to say.

Lists that are maps or sets hold nothing twice; whole objects inside an object have a kind and sound metadata; the
numbers of `scale` are numbers; rules hold. An update may leave a list as bad as it was.
Upstream: `apiextensions-apiserver/pkg/registry/customresource/{strategy,validator}.go`,
`.../pkg/apiserver/schema/{listtype,objectmeta}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from netemu.apiserver.schema.structural import EMBEDDED, LIST_MAP_KEYS, LIST_TYPE
from netemu.apiserver.schema.structural_rules import has_rules, rule_errors
from netemu.apiserver.schema.structural_values import ABSENT, value_errors
from netemu.apiserver.validation.fields import dns1035_label, duplicate, invalid, required
from netemu.apiserver.validation.meta import path_segment, validate_meta
from netemu.client.base import Obj
from netemu.model.custom import Custom
from netemu.model.errors import FieldError
from netemu.model.resources import Resource

Json = Mapping[str, Any]
Errors = Iterator[FieldError]

_MOST_REPLICAS = (1 << 31) - 1


def validate_custom(custom: Custom, obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a custom resource."""
    schema = custom.schema
    errors = _value_errors(custom, obj, old)
    errors += _replicas(custom, obj)
    errors += _embedded(schema, obj, "")
    if old is None or not any(_unique(schema, old, "")):
        errors += _unique(schema, obj, "")
    return errors + rule_errors(schema, obj, old if old else ABSENT, errors) if _has_rules(custom) else errors


def _value_errors(custom: Custom, obj: Obj, old: Obj | None) -> list[FieldError]:
    """What the schema refuses; of a write of the status only what it refuses there, and that is told from there."""
    if old and custom.has_status and "status" in obj and _wanted(obj) == _wanted(old):
        status = (custom.schema.get("properties") or {}).get("status") or {}
        return value_errors(status, obj["status"], old.get("status", ABSENT), prefix="status")
    return value_errors(custom.schema, _restricted(obj), _restricted(old) if old else ABSENT)


def _wanted(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key not in ("status", "metadata", "apiVersion")}


def _restricted(obj: Obj) -> Obj:
    """An object with the part of its metadata that a schema can speak of."""
    metadata = {key: value for key, value in obj["metadata"].items() if key in ("name", "generateName")}
    return {**obj, "metadata": metadata}


@lru_cache(maxsize=256)
def _has_rules(custom: Custom) -> bool:
    return has_rules(custom.schema)


def _unique(schema: Json, value: Any, path: str) -> Errors:
    """Elements of lists that may stand there once, and do not."""
    if isinstance(value, list):
        if schema.get(LIST_TYPE) == "set":
            yield from (duplicate(f"{path}[{at}]", value[at]) for at in _again(value))
        elif schema.get(LIST_TYPE) == "map":
            yield from _unique_keys(schema.get(LIST_MAP_KEYS) or (), value, path)
    for where, below, inner in _below(schema, value, path):
        yield from _unique(below, inner, where)


def _unique_keys(names: Sequence[str], items: list[Any], path: str) -> Errors:
    for at, item in enumerate(items):
        if item is not None and not isinstance(item, dict):
            yield invalid(f"{path}[{at}]", item, "must be an object for an array of list-type map")
            return
    keys = [{name: item[name] for name in names if name in item} if item else {} for item in items]
    yield from (duplicate(f"{path}[{at}]", keys[at]) for at in _again(keys))


def _again(items: list[Any]) -> list[int]:
    """Where something stands for the second time; a third is not told."""
    seen: dict[str, int] = {}
    found = []
    for at, item in enumerate(items):
        text = json.dumps(item, sort_keys=True)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:
            found.append(at)
    return found


def _below(schema: Json, value: Any, path: str) -> Iterator[tuple[str, Json, Any]]:
    """The parts of a value that the schema speaks of: path, schema and value of each."""
    if isinstance(value, dict):
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, inner in value.items():
            if key in properties:
                yield f"{path}.{key}" if path else key, properties[key], inner
            elif isinstance(additional, dict):
                yield f"{path}[{key}]", additional, inner
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for at, inner in enumerate(value):
            yield f"{path}[{at}]", schema["items"], inner


def _embedded(schema: Json, value: Any, path: str) -> Errors:
    """Whole objects inside of an object."""
    if schema.get(EMBEDDED) and isinstance(value, dict):
        yield from _type_meta(value, path)
        if isinstance(metadata := value.get("metadata"), dict):
            yield from _object_meta(metadata, f"{path}.metadata")
    for where, below, inner in _below(schema, value, path):
        yield from _embedded(below, inner, where)


def _type_meta(value: Obj, path: str) -> Errors:
    for name in ("apiVersion", "kind"):
        where, text = f"{path}.{name}", value.get(name)
        if name not in value:
            yield required(where)
        elif not isinstance(text, str):
            yield invalid(where, text, "must be a string")
        elif not text:
            yield invalid(where, text, "must not be empty")
        elif name == "apiVersion" and text.count("/") > 1:
            yield invalid(where, text, f"unexpected GroupVersion string: {text}")
        elif name == "kind" and (reasons := dns1035_label(text.lower())):
            yield invalid(where, text, f"may have mixed case, but should otherwise match: {','.join(reasons)}")


def _object_meta(metadata: Obj, path: str) -> Errors:
    name = metadata.get("name") or "fakename"
    resource = Resource("", "v1", "", "", namespaced=bool(metadata.get("namespace")))
    for error in validate_meta(resource, {"metadata": {**metadata, "name": "fakename"}}):
        yield FieldError(f"{path}{error.path.removeprefix('metadata')}", error.reason, error.message)
    for reason in path_segment(name):
        yield invalid(f"{path}.name", name, reason)


def _replicas(custom: Custom, obj: Obj) -> Errors:
    scale = custom.version.subresources.scale
    for path in (scale.spec_replicas_path, scale.status_replicas_path) if scale else ():
        value: Any = obj
        for name in path.removeprefix(".").split("."):
            value = value.get(name, ABSENT) if isinstance(value, dict) else ABSENT
        if value is ABSENT:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            yield invalid(path, 0, f"{path} accessor error: {json.dumps(value)} is of the wrong type, expected int64")
        elif value < 0:
            yield invalid(path, value, "should be a non-negative integer")
        elif value > _MOST_REPLICAS:
            yield invalid(path, value, f"should be less than or equal to {_MOST_REPLICAS}")
