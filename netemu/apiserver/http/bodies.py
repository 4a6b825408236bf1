"""What a request's body is checked for before the registry sees it: its kind and its unknown fields.

`fieldValidation` says what becomes of a field that the kind does not have, or that comes twice: `Strict` refuses the
request, `Warn` (the default) answers with a warning header, `Ignore` says nothing. An unknown field is never stored.
Upstream: apiserver `endpoints/handlers/{create,update,patch}.go`, apimachinery `runtime/serializer/json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netemu.apiserver.duplicates import duplicate_fields
from netemu.apiserver.http.discovery import subresource_kind
from netemu.apiserver.http.negotiation import JSON, PATCH_TYPES, decode_body, media_type
from netemu.apiserver.http.routing import Target
from netemu.apiserver.merge.json_patch import json_patch
from netemu.apiserver.schema.kinds import Schema
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, FieldError, Invalid

_JSON_PATCH = PATCH_TYPES[0]
_DIRECTIVES = ("Strict", "Warn", "Ignore")


@dataclass(slots=True)
class FieldValidation:
    """What to do about unknown fields, and the warnings so far."""

    directive: str = "Warn"
    warnings: list[str] = field(default_factory=list)

    @staticmethod
    def of(query: Mapping[str, str]) -> FieldValidation:
        """As the query asks. Raises Invalid."""
        directive = query.get("fieldValidation") or "Warn"
        if directive not in _DIRECTIVES:
            message = f'Unsupported value: "{directive}": supported values: "", "Ignore", "Strict", "Warn"'
            raise Invalid.of_fields(
                "CreateOptions", "", [FieldError("fieldValidation", "FieldValueNotSupported", message)], "meta.k8s.io"
            )
        return FieldValidation(directive)


class Bodies:
    """Reads bodies against the schema of what a request is for."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def read(self, target: Target, raw: bytes, content_type: str, validation: FieldValidation) -> Obj:
        """The object in a body, with the `apiVersion` and `kind` that its URL takes. Raises BadRequest."""
        group, version, kind = subresource_kind(target.resource, target.subresource)
        api_version = f"{group}/{version}" if group else version
        obj = decode_body(raw, content_type, api_version=api_version, kind=kind)
        if not isinstance(obj, dict):
            raise BadRequest(f"the body of the request is not an object of kind {kind}")
        _check_kind(obj, api_version, kind)
        if kind == target.resource.kind and validation.directive != "Ignore":
            twice = duplicate_fields(raw, obj) if media_type(content_type) == JSON else []
            self._check_fields(target, obj, twice, validation)
        return {**obj, "apiVersion": api_version, "kind": kind}

    def _check_fields(self, target: Target, obj: Obj, twice: list[str], validation: FieldValidation) -> None:
        resource = target.resource
        prefix = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
        unknown = [*twice, *self._schema.unknown_fields(resource, obj)]
        if unknown and validation.directive == "Strict":
            raise BadRequest(f"{prefix}strict decoding error: {', '.join(unknown)}")
        validation.warnings += unknown

    def check_patch(self, target: Target, patch: Any, media: str, validation: FieldValidation) -> None:
        """Unknown fields in a merge patch; directives of strategic merge are no fields. Raises Invalid."""
        if validation.directive == "Ignore" or media == _JSON_PATCH or target.subresource == "scale":
            return
        self._refuse(self._schema.unknown_fields(target.resource, _without_directives(patch)), validation, patch)

    def check_json_patch(self, target: Target, before: Obj, patch: Any, validation: FieldValidation) -> None:
        """Unknown fields that a JSON patch brings in, which only its result shows. Raises Invalid."""
        if validation.directive != "Ignore":
            self._refuse(self._schema.unknown_fields(target.resource, json_patch(before, patch)), validation, patch)

    @staticmethod
    def _refuse(unknown: Iterable[str], validation: FieldValidation, patch: Any) -> None:
        unknown = list(unknown)
        if unknown and validation.directive == "Strict":
            why = f'Invalid value: "{_shortened(patch)}": strict decoding error: {", ".join(unknown)}'
            raise Invalid.of_fields("", "", [FieldError("patch", "FieldValueInvalid", why)])
        validation.warnings += unknown


def _check_kind(obj: Mapping[str, Any], api_version: str, kind: str) -> None:
    given_version, given_kind = obj.get("apiVersion") or api_version, obj.get("kind") or kind
    if given_kind != kind:
        raise BadRequest(
            f'{given_kind} in version "{given_version}" cannot be handled as a {kind}: '
            f"the object provided is unrecognized (must be of type {kind})"
        )
    if given_version != api_version:
        raise BadRequest(
            f"the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )


def _without_directives(patch: Any) -> Any:
    if isinstance(patch, dict):
        return {key: _without_directives(value) for key, value in patch.items() if not key.startswith("$")}
    if isinstance(patch, list):
        return [_without_directives(item) for item in patch]
    return patch


def _shortened(patch: Any, limit: int = 200) -> str:
    text = str(patch)
    return text if len(text) <= limit else f"{text[:limit]}..."
