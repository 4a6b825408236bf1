"""OpenAPI v2: what the v3 documents say, as v2 says it.

References move to `#/definitions/` and stand beside a description, bodies are parameters, and of a custom resource's
schema goes what v2 cannot say (upstream: apiextensions-apiserver `pkg/controller/openapi/v2/conversion.go`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_V3_SCHEMAS, _DEFINITIONS = "#/components/schemas/", "#/definitions/"
_JUNCTORS = frozenset({"allOf", "anyOf", "oneOf", "not"})
_PRESERVES = "x-kubernetes-preserve-unknown-fields"

Json = Mapping[str, Any]


def v2_schema(source: Json) -> dict[str, Any]:
    """A schema of a v3 document, as v2 has it."""
    out = _inside(source, v2_schema)
    reference = next((one["$ref"] for one in out.pop("allOf", ()) if "$ref" in one), source.get("$ref"))
    if reference:
        out["$ref"] = _DEFINITIONS + reference.removeprefix(_V3_SCHEMAS)
    return out


def structural_v2(source: Json) -> dict[str, Any]:
    """A custom resource's schema without what v2, or kubectl reading it, does not know."""
    out = {key: value for key, value in _inside(source, structural_v2).items() if key not in _JUNCTORS}
    if nullable := out.pop("nullable", False):
        out.pop("type", None)
    if nullable or out.get(_PRESERVES):
        out.pop("items", None)
        out.pop("properties", None)
    untyped = (out.get("type") == "array" and "items" not in out) or (
        out.get("type") == "object" and out.get(_PRESERVES)
    )
    if untyped:
        del out["type"]
    fields, values = source.get("properties") or {}, source.get("additionalProperties")
    required = [name for name in out.pop("required", ()) if not fields.get(name, {}).get("nullable")]
    if required and not (isinstance(values, Mapping) and values.get("nullable")):
        out["required"] = required
    return out


def _inside(source: Json, convert: Callable[[Json], dict[str, Any]]) -> dict[str, Any]:
    """The schema with those in it converted."""
    out = dict(source)
    if "properties" in source:
        out["properties"] = {name: convert(field) for name, field in source["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(source.get(key), Mapping):
            out[key] = convert(source[key])
    return out


def v2_path(item: Json) -> dict[str, Any]:
    """All that can be done at one path of a v3 document, as v2 has it."""
    return {
        method: [_parameter(one) for one in value] if method == "parameters" else _operation(value)
        for method, value in item.items()
    }


def _operation(source: Json) -> dict[str, Any]:
    out = {key: value for key, value in source.items() if key not in ("requestBody", "parameters", "responses")}
    parameters = [_parameter(one) for one in source.get("parameters", ())]
    if content := source.get("requestBody", {}).get("content"):
        out["consumes"] = list(content)
        parameters.insert(0, {"name": "body", "in": "body", "required": True, **_content(content)})
    if parameters:
        out["parameters"] = parameters
    out["produces"] = ["application/json"]
    out["responses"] = {
        code: {"description": answer["description"], **_content(answer.get("content", {}))}
        for code, answer in source["responses"].items()
    }
    return out


def _parameter(source: Json) -> dict[str, Any]:
    return {**{key: value for key, value in source.items() if key != "schema"}, **source["schema"]}


def _content(content: Json) -> dict[str, Any]:
    return next(({"schema": v2_schema(media["schema"])} for media in content.values()), {})
