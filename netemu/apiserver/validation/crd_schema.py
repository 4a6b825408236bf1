"""What is wrong with the schema of a CustomResourceDefinition: it must be structural, and its defaults must fit it.

Structural means that types, defaults and what is preserved are said once, outside of `allOf`, `anyOf`, `oneOf` and
`not`, which may only narrow what is declared there. So a value is pruned and defaulted without trying alternatives.
Its rules in CEL must compile (`structural_rules`).
Upstream: `apiextensions-apiserver/pkg/apiserver/schema/{validation,complete,defaulting/validation}.go`,
`.../pkg/apis/apiextensions/validation/validation.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from netemu.apiserver.schema.structural import (
    EMBEDDED,
    INT_OR_STRING,
    LIST_MAP_KEYS,
    LIST_TYPE,
    MAP_TYPE,
    META_FIELDS,
    PRESERVE,
    conformed,
)
from netemu.apiserver.schema.structural_rules import RULES, rule_definition_errors, rule_errors
from netemu.apiserver.schema.structural_values import ABSENT, compiled, value_errors
from netemu.apiserver.validation.fields import forbidden, invalid, not_supported, required
from netemu.model.errors import FieldError

Json = Mapping[str, Any]
Errors = Iterator[FieldError]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_EMPTY_TYPE = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_AT_ROOT = {
    "description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
    "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "required", "items", "properties",
    "externalDocs", "example", PRESERVE, RULES,
}  # fmt: skip
"""What may stand at the root where `status` is a subresource, so that its schema can be told apart."""
_ALLOWED_AT_ROOT = (
    "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern "
    "MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields "
    "XValidations] fields are allowed at the root of the schema if the status subresource is enabled"
)


def validate_schema(schema: Json, path: str, *, has_status: bool) -> list[FieldError]:
    """Everything wrong with the schema of a version."""
    errors: list[FieldError] = []
    if has_status and schema.get("type") and schema["type"] != "object":
        why = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        errors.append(invalid(f"{path}.type", schema["type"], why))
    elif has_status and any(value and key not in _AT_ROOT for key, value in schema.items()):
        errors.append(invalid(path, schema, _ALLOWED_AT_ROOT))
    if schema.get("nullable"):
        errors.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    structural = sorted([*_invariants(schema, path, "root"), *_complete(schema, schema, path, path)], key=str)
    errors += structural or _defaults(schema, path, inside_meta=False, root=True)
    errors += _openapi(schema, path, _Place(root=True))
    return errors or list(rule_definition_errors(schema, path))


# --- structural -------------------------------------------------------------------------------------------------------


def _invariants(schema: Json, path: str, level: str) -> Errors:
    kind, properties = schema.get("type") or "", schema.get("properties") or {}
    if kind == "array" and not isinstance(schema.get("items"), dict):
        yield required(f"{path}.items", "must be specified")
    if isinstance(schema.get("items"), dict):
        yield from _invariants(schema["items"], f"{path}.items", "item")
    for name, below in properties.items():
        yield from _invariants(below, f"{path}.properties[{name}]", "field")
    if (additional := schema.get("additionalProperties")) is not None:
        if level == "root":
            yield forbidden(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(additional, dict):
            yield from _invariants(additional, f"{path}.additionalProperties", "field")
    yield from _extensions(schema, path)
    yield from _narrowing(schema, path, skip=_allows_int_or_string(schema))
    yield from _typed(schema, path, level, kind)
    if level == "root" or schema.get(EMBEDDED):
        for name, wanted in (("kind", "string"), ("apiVersion", "string"), ("metadata", "object")):
            if name in properties and properties[name].get("type") != wanted:
                got = properties[name].get("type") or ""
                yield invalid(f"{path}.properties[{name}].type", got, f"must be {wanted}")
    if level == "root" and "metadata" in properties and not _only_names(properties["metadata"]):
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(f"{path}.properties[metadata]", why)


def _extensions(schema: Json, path: str) -> Errors:
    for name in (PRESERVE, EMBEDDED):
        if schema.get(INT_OR_STRING) and schema.get(name):
            yield invalid(f"{path}.{name}", value=True, detail=f"must be false if {INT_OR_STRING} is true")


def _typed(schema: Json, path: str, level: str, kind: str) -> Errors:
    if schema.get(EMBEDDED) and kind != "object":
        why = f"must be object if {EMBEDDED} is true"
        yield invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
    elif not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        yield required(f"{path}.type", _EMPTY_TYPE[level])
    if schema.get(EMBEDDED) and schema.get("additionalProperties") is not None:
        yield forbidden(f"{path}.additionalProperties", f"must not be used if {EMBEDDED} is set")
    if level == "root" and kind and kind != "object":
        yield invalid(f"{path}.type", kind, "must be object at the root")
    if schema.get(EMBEDDED) and not schema.get(PRESERVE) and not schema.get("properties"):
        yield required(f"{path}.properties", f"must not be empty if {EMBEDDED} is true without {PRESERVE}")


def _only_names(metadata: Json) -> bool:
    """Whether a schema of metadata narrows nothing but names."""
    said = {key for key, value in metadata.items() if value and key != "type"}
    return said <= {"properties"} and set(metadata.get("properties") or ()) <= {"name", "generateName"}


def _allows_int_or_string(schema: Json) -> str:
    """Which junctor says `integer or string`, the one place where types may stand in it."""
    both = [{"type": "integer"}, {"type": "string"}]
    if schema.get("anyOf") == both:
        return "anyOf"
    first = (schema.get("allOf") or [{}])[0]
    return "allOf" if first.get("anyOf") == both else ""


def _narrowing(schema: Json, path: str, skip: str = "") -> Errors:
    """What stands in junctors, and the pattern."""
    for name in _JUNCTORS:
        for index, below in enumerate(schema.get(name) or ()):
            where = f"{path}.{name}[{index}]"
            if skip == name == "anyOf":
                continue
            yield from _nested(below, where, skip="anyOf" if skip == name == "allOf" and index == 0 else "")
    if schema.get("not") is not None:
        yield from _nested(schema["not"], f"{path}.not")
    if pattern := schema.get("pattern"):
        try:
            compiled(pattern)
        except re.error as error:
            why = f"must be a valid regular expression, but isn't: {error}"
            yield invalid(f"{path}.pattern", pattern, why)


_NOT_NESTED = {
    "type": "empty", "default": "undefined", "title": "empty", "description": "empty", "nullable": "false",
    PRESERVE: "false", EMBEDDED: "false", INT_OR_STRING: "false", LIST_MAP_KEYS: "empty", LIST_TYPE: "undefined",
    MAP_TYPE: "undefined", "additionalProperties": "undefined", RULES: "empty",
}  # fmt: skip


def _nested(schema: Json, path: str, skip: str = "") -> Errors:
    yield from _narrowing(schema, path, skip)
    if isinstance(schema.get("items"), dict):
        yield from _nested(schema["items"], f"{path}.items")
    for name, below in (schema.get("properties") or {}).items():
        yield from _nested(below, f"{path}.properties[{name}]")
    for name, wanted in _NOT_NESTED.items():
        if schema.get(name) or (name in ("default", "additionalProperties") and schema.get(name) is not None):
            yield forbidden(f"{path}.{name}", f"must be {wanted} to be structural")
    if "metadata" in (schema.get("properties") or {}):
        yield forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _complete(nested: Json, schema: Json | None, path: str, nested_path: str) -> Errors:
    """Whether all that junctors speak of is declared outside of them."""
    below = [(f"{name}[{index}]", one) for name in _JUNCTORS for index, one in enumerate(nested.get(name) or ())]
    if nested.get("not") is not None:
        below.append(("not", nested["not"]))
    for where, one in below:
        yield from _complete_nested(one, schema, path, f"{nested_path}.{where}")


def _complete_nested(nested: Json, schema: Json | None, path: str, nested_path: str) -> Errors:
    if schema is None:
        yield required(path, f"because it is defined in {nested_path}")
        return
    yield from _complete(nested, schema, path, nested_path)
    if isinstance(nested.get("items"), dict):
        items = schema["items"] if isinstance(schema.get("items"), dict) else None
        yield from _complete_nested(nested["items"], items, f"{path}.items", f"{nested_path}.items")
    for name, below in (nested.get("properties") or {}).items():
        declared, step = (schema.get("properties") or {}).get(name), f"properties[{name}]"
        yield from _complete_nested(below, declared, f"{path}.{step}", f"{nested_path}.{step}")


def _defaults(schema: Json, path: str, *, inside_meta: bool, root: bool = False) -> list[FieldError]:
    """Defaults that are not kept as they are, or that the schema itself refuses."""
    errors: list[FieldError] = []
    if (default := schema.get("default")) is not None and not inside_meta:
        bare = {key: value for key, value in schema.items() if key != "default"}
        if _pruned(bare, default) != default:
            errors.append(invalid(f"{path}.default", default, "must not have unknown fields"))
        wrong = value_errors(bare, default, prefix=f"{path}.default")
        errors += wrong or _broken_rules(bare, default, f"{path}.default")
    if isinstance(schema.get("items"), dict):
        errors += _defaults(schema["items"], f"{path}.items", inside_meta=inside_meta)
    for name, below in (schema.get("properties") or {}).items():
        meta = inside_meta or ((root or bool(schema.get(EMBEDDED))) and name in META_FIELDS)
        errors += _defaults(below, f"{path}.properties[{name}]", inside_meta=meta)
    return errors


def _broken_rules(schema: Json, default: Any, path: str) -> list[FieldError]:
    found = rule_errors(schema, default, ABSENT, [])
    return [FieldError(f"{path}.{one.path}".removesuffix(".<nil>"), one.reason, one.message) for one in found]


def _pruned(schema: Json, value: Any) -> Any:
    return conformed(_without_defaults(schema), value)


def _without_defaults(schema: Any) -> Any:
    """A schema that fills in nothing; a property that is called `default` stays."""
    if not isinstance(schema, dict):
        return schema
    result = {key: value for key, value in schema.items() if key != "default"}
    if isinstance(schema.get("properties"), dict):
        result["properties"] = {name: _without_defaults(below) for name, below in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if name in schema:
            result[name] = _without_defaults(schema[name])
    return result


# --- OpenAPI ----------------------------------------------------------------------------------------------------------


class _Place:
    """Where in a schema a part stands, as far as that forbids something."""

    __slots__ = ("meta", "no_defaults", "root")

    def __init__(self, *, root: bool = False, meta: bool = False, no_defaults: str = "") -> None:
        self.root, self.meta, self.no_defaults = root, meta, no_defaults


def _openapi(schema: Json, path: str, place: _Place) -> Errors:
    kind = schema.get("type") or ""
    if kind and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    if schema.get("default") is not None and place.no_defaults:
        yield forbidden(f"{path}.default", f"must not be set {place.no_defaults}")
    for name in _UNSUPPORTED:
        if schema.get(name):
            yield forbidden(f"{path}.{name}", f"{name} is not supported")
    if isinstance(schema.get("items"), list):
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    if place.meta and schema.get(EMBEDDED):
        yield forbidden(f"{path}.{EMBEDDED}", "must not be used inside of resource meta")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", why)
    if schema.get(PRESERVE) is False:
        yield invalid(f"{path}.{PRESERVE}", value=False, detail="must be true or undefined")
    yield from _openapi_below(schema, path, place)
    yield from _map_type(schema, path, kind)
    yield from _list_type(schema, path, kind)


def _openapi_below(schema: Json, path: str, place: _Place) -> Errors:
    additional, properties = schema.get("additionalProperties"), schema.get("properties") or {}
    if additional is not None and properties and additional is not True:
        yield forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    if isinstance(additional, dict):
        no_defaults = "inside additionalProperties applying to object metadata" if place.meta else place.no_defaults
        inner = _Place(meta=place.meta, no_defaults=no_defaults)
        yield from _openapi(additional, f"{path}.additionalProperties", inner)
    for name, below in properties.items():
        meta = (place.root or bool(schema.get(EMBEDDED))) and name in META_FIELDS
        no_defaults = f"in top-level {name}" if meta and place.root else place.no_defaults
        inner = _Place(meta=meta or place.meta, no_defaults=no_defaults)
        yield from _openapi(below, f"{path}.properties[{name}]", inner)
    inner = _Place(meta=place.meta, no_defaults=place.no_defaults)
    for name in _JUNCTORS:
        for index, below in enumerate(schema.get(name) or ()):
            yield from _openapi(below, f"{path}.{name}[{index}]", inner)
    for name in ("not", "items"):
        if isinstance(schema.get(name), dict):
            yield from _openapi(schema[name], f"{path}.{name}", inner)


def _map_type(schema: Json, path: str, kind: str) -> Errors:
    if not (map_type := schema.get(MAP_TYPE)):
        return
    if kind != "object":
        why = f"must be object if {MAP_TYPE} is specified"
        yield invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
    if map_type not in ("atomic", "granular"):
        yield not_supported(f"{path}.{MAP_TYPE}", map_type, ("atomic", "granular"))


def _list_type(schema: Json, path: str, kind: str) -> Errors:
    list_type, keys = schema.get(LIST_TYPE), schema.get(LIST_MAP_KEYS) or ()
    items = schema["items"] if isinstance(schema.get("items"), dict) else {}
    if list_type and kind != "array":
        why = f"must be array if {LIST_TYPE} is specified"
        yield invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
    elif list_type == "set":
        why = f"must be atomic as item of a list with {LIST_TYPE}=set"
        if items.get("type") == "array" and items.get(LIST_TYPE, "atomic") != "atomic":
            yield invalid(f"{path}.items.{LIST_TYPE}", items[LIST_TYPE], why)
        if items.get("type") == "object" and items.get(MAP_TYPE) != "atomic":
            yield invalid(f"{path}.items.{MAP_TYPE}", items.get(MAP_TYPE), why)
    if list_type and list_type not in ("atomic", "set", "map"):
        yield not_supported(f"{path}.{LIST_TYPE}", list_type, ("atomic", "set", "map"))
    if keys and list_type != "map":
        why = f"must be map if {LIST_MAP_KEYS} is non-empty"
        where = f"{path}.{LIST_TYPE}"
        yield invalid(where, list_type, why) if list_type else required(where, why)
    if list_type in ("set", "map") and items.get("nullable"):
        yield forbidden(f"{path}.items.nullable", f"cannot be nullable when {LIST_TYPE} is {list_type}")
    if list_type == "map":
        yield from _list_map(items, keys, path)


def _list_map(items: Json, keys: Sequence[str], path: str) -> Errors:
    if not keys:
        yield required(f"{path}.{LIST_MAP_KEYS}", f"must not be empty if {LIST_TYPE} is map")
    if not items:
        yield required(f"{path}.items", f"must have a schema if {LIST_TYPE} is map")
        return
    if items.get("type") != "object":
        why = f"must be object if parent array's {LIST_TYPE} is map"
        yield invalid(f"{path}.items.type", items.get("type") or "", why)
        return
    for at, key in enumerate(keys):
        field, where = (items.get("properties") or {}).get(key), f"{path}.items.properties[{key}]"
        if key in keys[:at]:
            yield invalid(f"{path}.{LIST_MAP_KEYS}", keys, "must not contain duplicate entries")
        if field is None:
            yield invalid(f"{path}.{LIST_MAP_KEYS}", keys, "entries must all be names of item properties")
            continue
        if field.get("type") in ("array", "object"):
            why = f"must be a scalar type if parent array's {LIST_TYPE} is map"
            yield invalid(f"{where}.type", items["type"], why)
        says = f"this property is in {LIST_MAP_KEYS}, so it"
        if key not in (items.get("required") or ()) and field.get("default") is None:
            yield required(f"{where}.default", f"{says} must have a default or be a required property")
        if field.get("nullable"):
            yield forbidden(f"{where}.nullable", f"{says} cannot be nullable")
