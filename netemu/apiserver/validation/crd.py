"""What is wrong with a CustomResourceDefinition.

What all versions say alike is one thing upstream, so its errors are told of `spec.validation`, `spec.subresources` and
`spec.additionalPrinterColumns`, although v1 has these in each version; kubectl's users know them by these names.
Conversion by webhook is refused: no other server is asked to convert objects.
Upstream: `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`, `.../v1/conversion.go`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from netemu.apiserver.jsonpath import BadPath, JsonPath
from netemu.apiserver.validation.crd_schema import validate_schema
from netemu.apiserver.validation.fields import (
    dns1035_label,
    dns1123_subdomain,
    duplicate,
    forbidden,
    immutable,
    invalid,
    not_supported,
    required,
    too_many,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError

Json = Mapping[str, Any]
Errors = Iterator[FieldError]

APPROVED = "api-approved.kubernetes.io"
_OR_ELSE = 'with either a URL or a reason starting with "unapproved"'
_SEE = "see https://github.com/kubernetes/enhancements/pull/1111"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_MIXED = "may have mixed case, but should otherwise match: "
_MOST_SELECTABLE = 8


def validate_definition(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a CustomResourceDefinition."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    errors: list[FieldError] = []
    names: Json = spec.get("names") or {}
    name, wanted = obj["metadata"].get("name", ""), f"{names.get('plural', '')}.{spec.get('group', '')}"
    if old is None and name != wanted:
        errors.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    errors += _spec(spec)
    if old is not None:
        errors += _update(spec, old)
    errors += _names(status.get("acceptedNames") or {}, "status.acceptedNames")
    errors += _stored_versions(status.get("storedVersions") or [], spec.get("versions") or [])
    errors += _approval(obj, old)
    return errors


def _spec(spec: Json) -> Errors:
    group, scope = spec.get("group") or "", spec.get("scope") or ""
    if not group:
        yield required("spec.group")
    elif reasons := dns1123_subdomain(group):
        yield invalid("spec.group", group, ",".join(reasons))
    elif "." not in group:
        yield invalid("spec.group", group, "should be a domain with at least one dot")
    if not scope:
        yield required("spec.scope")
    elif scope not in ("Cluster", "Namespaced"):
        yield not_supported("spec.scope", scope, ("Cluster", "Namespaced"))
    versions = spec.get("versions") or []
    for index, version in enumerate(versions):
        if (version.get("schema") or {}).get("openAPIV3Schema") is None:
            yield required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
    yield from _versions(versions)
    names = spec.get("names") or {}
    for field in ("plural", "singular", "kind", "listKind"):
        if not names.get(field):
            yield required(f"spec.names.{field}")
    yield from _names(names, "spec.names")
    yield from _conversion(spec.get("conversion") or {})
    if spec.get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield invalid("spec.preserveUnknownFields", value=True, detail=why)


def _versions(versions: Sequence[Json]) -> Errors:
    names = [version.get("name") or "" for version in versions]
    for index, version in enumerate(versions):
        if reasons := dns1035_label(names[index]):
            yield invalid(f"spec.versions[{index}].name", names[index], ",".join(reasons))
        yield from _deprecation(version, f"spec.versions[{index}].deprecationWarning")
    for path, version in _differing(versions, "schema", "spec.validation"):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        has_status = (version.get("subresources") or {}).get("status") is not None
        if schema is not None:
            yield from validate_schema(schema, f"{path}.openAPIV3Schema", has_status=has_status)
    for path, version in _differing(versions, "subresources", "spec.subresources"):
        yield from _scale((version.get("subresources") or {}).get("scale"), f"{path}.scale")
    for path, version in _differing(versions, "additionalPrinterColumns", "spec.additionalPrinterColumns"):
        for at, column in enumerate(version.get("additionalPrinterColumns") or ()):
            yield from _column(column, f"{path}[{at}]")
    for path, version in _differing(versions, "selectableFields", "spec.selectableFields"):
        yield from _selectable(version, path)
    if len(set(names)) != len(names):
        yield invalid("spec.versions", versions, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid("spec.versions", versions, "must have exactly one version marked as storage version")


def _differing(versions: Sequence[Json], key: str, together: str) -> Iterator[tuple[str, Json]]:
    """What each version says of `key`: once, at the path `together`, where all say the same."""
    if versions and all(version.get(key) and version[key] == versions[0].get(key) for version in versions):
        yield together, versions[0]
        return
    for index, version in enumerate(versions):
        yield f"spec.versions[{index}].{key}", version


def _deprecation(version: Json, path: str) -> Errors:
    warning = version.get("deprecationWarning")
    if warning is None:
        return
    if not version.get("deprecated"):
        yield invalid(path, warning, "can only be set for deprecated versions")
        return
    if len(warning.encode()) > 256:
        yield invalid(path, warning, "must be <= 256 characters long")
    if not warning:
        yield invalid(path, warning, "must not be an empty string")
    for at, char in enumerate(warning):
        if not char.isprintable():
            why = f"must only contain printable UTF-8 characters; non-printable character found at index {at}"
            yield invalid(path, warning, why)
            return


def _names(names: Json, path: str) -> Errors:
    for field in ("plural", "singular"):
        if names.get(field) and (reasons := dns1035_label(names[field])):
            yield invalid(f"{path}.{field}", names[field], ",".join(reasons))
    for field in ("kind", "listKind"):
        if names.get(field) and (reasons := dns1035_label(names[field].lower())):
            yield invalid(f"{path}.{field}", names[field], _MIXED + ",".join(reasons))
    if names.get("kind") and names["kind"] == names.get("listKind"):
        yield invalid(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same")
    for field in ("shortNames", "categories"):
        for index, name in enumerate(names.get(field) or ()):
            if reasons := dns1035_label(name):
                yield invalid(f"{path}.{field}[{index}]", name, ",".join(reasons))


def _conversion(conversion: Json) -> Errors:
    strategy = conversion.get("strategy") or ""
    if not strategy:
        yield required("spec.conversion.strategy")
    elif strategy == "Webhook":
        why = "no webhook is asked here to convert objects: must be None, which changes nothing but apiVersion"
        yield invalid("spec.conversion.strategy", strategy, why)
    elif strategy != "None":
        yield not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))
    elif conversion.get("webhook"):
        why = "should not be set when strategy is not set to Webhook"
        yield forbidden("spec.conversion.webhookClientConfig", why)


def _simple_path(path: str, value: str) -> Errors:
    if not value:
        yield required(path)
    elif not value.startswith("."):
        yield invalid(path, value, "must be a simple json path starting with .")


def _scale(scale: Json | None, path: str) -> Errors:
    if scale is None:
        return
    for field, roots in (("specReplicasPath", (".spec.",)), ("statusReplicasPath", (".status.",))):
        value = scale.get(field) or ""
        problems = list(_simple_path(f"{path}.{field}", value))
        yield from problems
        if not problems and not value.startswith(roots):
            yield invalid(f"{path}.{field}", value, f"should be a json path under {roots[0].rstrip('.')}")
    if selector := scale.get("labelSelectorPath"):
        problems = list(_simple_path(f"{path}.labelSelectorPath", selector))
        yield from problems
        if not problems and not selector.startswith((".spec.", ".status.")):
            yield invalid(f"{path}.labelSelectorPath", selector, "should be a json path under either .spec or .status")


def _column(column: Json, path: str) -> Errors:
    if not column.get("name"):
        yield required(f"{path}.name")
    kind, form, json_path = column.get("type") or "", column.get("format") or "", column.get("jsonPath") or ""
    if kind not in _COLUMN_TYPES:
        why = f"must be one of {','.join(_COLUMN_TYPES)}"
        yield invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why)
    if form and form not in _COLUMN_FORMATS:
        yield invalid(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}")
    problems = list(_simple_path(f"{path}.JSONPath", json_path))
    yield from problems
    if not problems:
        try:
            JsonPath(json_path)
        except BadPath as error:
            yield invalid(f"{path}.JSONPath", json_path, f"unrecognized column definition: {error}")


def _selectable(version: Json, path: str) -> Errors:
    fields, seen = version.get("selectableFields") or (), set[str]()
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    for index, field in enumerate(fields):
        value, where = field.get("jsonPath") or "", f"{path}[{index}].jsonPath"
        if not value:
            yield required(where)
            continue
        steps, found = value.removeprefix(".").split("."), schema
        for step in steps:
            found = (found.get("properties") or {}).get(step) or {}
        if not value.startswith(".") or not found:
            yield invalid(where, value, "is an invalid path: does not refer to a valid field")
            continue
        if steps[0] == "metadata":
            yield invalid(where, value, "must not point to fields in metadata")
        if found.get("type") not in ("string", "boolean", "integer"):
            what = "must point to a field of type string, boolean or integer."
            yield invalid(where, value, f"{what} Enum string fields and strings with formats are allowed.")
        if value in seen:
            yield duplicate(where, value)
        seen.add(value)
    if len(seen) > _MOST_SELECTABLE:
        yield too_many(path, len(seen), _MOST_SELECTABLE)


def _update(spec: Json, old: Obj) -> Errors:
    before = old.get("spec") or {}
    names, names_before = spec.get("names") or {}, before.get("names") or {}
    conditions = (old.get("status") or {}).get("conditions") or ()
    if any(one.get("type") == "Established" and one.get("status") == "True" for one in conditions):
        yield from immutable("spec.scope", spec.get("scope"), before.get("scope"))
        yield from immutable("spec.names.kind", names.get("kind"), names_before.get("kind"))
    yield from immutable("spec.group", spec.get("group"), before.get("group"))
    yield from immutable("spec.names.plural", names.get("plural"), names_before.get("plural"))


def _stored_versions(stored: Sequence[str], versions: Sequence[Json]) -> Errors:
    if not stored:
        yield invalid("status.storedVersions", [], "must have at least one stored version")
        return
    names = {version.get("name") for version in versions}
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            yield invalid("status.storedVersions", stored, f"must have the storage version {version['name']}")
    for index, name in enumerate(stored):
        if name not in names:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
                f"{name} from status.storedVersions"
            )
            yield invalid(f"status.storedVersions[{index}]", name, why)


def _approval(obj: Obj, old: Obj | None) -> Errors:
    if not _protected(obj):
        return
    annotation, state = _approved(obj)
    if old is not None and _approved(old)[1] == state:
        return
    where = f"metadata.annotations[{APPROVED}]"
    if state == "missing":
        yield required(where, f'protected groups must have approval annotation "{APPROVED}", {_SEE}')
    elif state == "invalid":
        why = f'protected groups must have approval annotation "{APPROVED}"'
        yield invalid(where, annotation, f"{why} {_OR_ELSE}, {_SEE}")


def approval(obj: Obj) -> tuple[str, str, str] | None:
    """Status, reason and message of the condition of a definition in a group of Kubernetes' own; else None."""
    if not _protected(obj):
        return None
    annotation, state = _approved(obj)
    why = f'protected groups must have approval annotation "{APPROVED}"'
    return {
        "approved": ("True", "ApprovedAnnotation", f"approved in {annotation}"),
        "bypassed": ("False", "UnapprovedAnnotation", f'not approved: "{annotation}"'),
        "missing": ("False", "MissingAnnotation", f"{why}, {_SEE}"),
        "invalid": ("False", "InvalidAnnotation", f"{why} {_OR_ELSE}, {_SEE}"),
    }[state]


def _protected(obj: Obj) -> bool:
    return f".{(obj.get('spec') or {}).get('group') or ''}".endswith((".k8s.io", ".kubernetes.io"))


def _approved(obj: Obj) -> tuple[str, str]:
    """The annotation, and what it amounts to."""
    annotation = (obj["metadata"].get("annotations") or {}).get(APPROVED) or ""
    if not annotation:
        return annotation, "missing"
    if annotation.startswith("unapproved"):
        return annotation, "bypassed"
    parts = urlsplit(annotation)
    return annotation, "approved" if parts.scheme and parts.netloc else "invalid"
