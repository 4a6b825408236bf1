"""PATCH bodies: RFC 7386 (merge patch), Kubernetes' strategic merge patch, and (`json_patch`) RFC 6902.

Strategic merge follows apimachinery `util/strategicpatch/patch.go`. Which lists merge, and by which key, comes from the
schema (`x-kubernetes-patch-strategy`, `-patch-merge-key`); every other list is replaced. Directives:

    $patch: replace | delete | merge     on a map, or as an element of a list
    $retainKeys: [...]                   what else the map holds goes
    $setElementOrder/LIST: [...]         the order that LIST has afterwards
    $deleteFromPrimitiveList/LIST: [...] values that leave LIST

Nothing given is changed; results share no mutable part with the patch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netemu.apiserver.http.negotiation import APPLY, PATCH_TYPES
from netemu.apiserver.json_values import duplicate
from netemu.apiserver.merge.json_patch import json_patch
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.schema.shapes import Shape
from netemu.apiserver.validation.fields import go, go_plain
from netemu.client.base import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, Obj
from netemu.model.errors import BadRequest, UnsupportedMediaType
from netemu.model.resources import Resource

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_SET_ORDER = "$setElementOrder/"
_DELETE_FROM = "$deleteFromPrimitiveList/"


def apply_patch(schema: Schema, resource: Resource, obj: Obj, patch: Any, content_type: str) -> Obj:
    """The patched copy of `obj`.

    Raises UnsupportedMediaType for another content type (and for strategic merge of a kind without a schema),
    BadRequest for a patch that is malformed, Invalid for a JSON patch that does not apply.
    """
    content_type = content_type.partition(";")[0].strip()
    if content_type == JSON_PATCH:
        return json_patch(obj, patch)
    if content_type == MERGE_PATCH:
        return _object(merge_patch(obj, _object(patch)))
    root = None if resource.custom else schema.root(resource)
    if content_type == STRATEGIC_MERGE_PATCH and root:
        return strategic_merge_patch(schema, root, obj, _object(patch))
    supported = ", ".join(patch_types(resource))
    raise UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {supported}"
    )


def patch_types(resource: Resource) -> tuple[str, ...]:
    """The kinds of patches that a resource takes; a strategic merge needs to know of Go's types."""
    return (JSON_PATCH, MERGE_PATCH, APPLY) if resource.custom else (*PATCH_TYPES, APPLY)


def _object(value: Any) -> Obj:
    if not isinstance(value, dict):
        raise BadRequest(f"a patch of this type must be a JSON object, not {type(value).__name__}")
    return value


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: maps merge, null deletes, everything else replaces."""
    if not isinstance(patch, dict):
        return duplicate(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge_patch(schema: Schema, root: Shape, obj: Obj, patch: Obj) -> Obj:
    """The merge of `patch` into a copy of `obj`, a value of shape `root`. Raises BadRequest for wrong directives."""
    return _Merger(schema).merge_map(obj, patch, root)


class _Merger:
    """The recursion of a strategic merge: maps and lists call each other, with the schema at hand."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def merge_map(self, original: Obj, patch: Obj, shape: Shape | None) -> Obj:
        directive = patch.get(_PATCH)
        if directive == "replace":
            replacement: Obj = self.plain({key: value for key, value in patch.items() if key != _PATCH})
            return replacement
        if directive == "delete":
            return {}
        if directive not in (None, "merge"):
            raise _bad_patch_type(directive, patch)
        result = _retained(original, patch)
        orders = {k.removeprefix(_SET_ORDER): v for k, v in patch.items() if k.startswith(_SET_ORDER)}
        for key, removed in patch.items():
            if key.startswith(_DELETE_FROM):
                _delete_values(result, key.removeprefix(_DELETE_FROM), removed)
        for key, value in patch.items():
            if not key.startswith("$"):
                self._merge_field(result, key, value, self.schema.field(shape, key))
        for key, order in orders.items():
            if isinstance(result.get(key), list):
                field = self.schema.field(shape, key)
                merge_key = field.patch_merge_key if field else ""
                result[key] = _ordered(result[key], _list(order), original.get(key), merge_key)
        return result

    def _merge_field(self, result: Obj, key: str, value: Any, shape: Shape | None) -> None:
        current = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(current, dict) and isinstance(value, dict):
            replaces = shape is not None and shape.patch_strategy == "replace"
            result[key] = self.plain(value) if replaces else self.merge_map(current, value, shape)
        elif isinstance(current, list) and isinstance(value, list) and shape is not None and shape.merges:
            result[key] = self._merge_list(current, value, shape)
        else:
            result[key] = self.plain(value)

    def _merge_list(self, original: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
        if not any(isinstance(item, dict) for item in (*original, *patch)):
            return list({_identity(item): item for item in (*original, *patch)}.values())
        merge_key = shape.patch_merge_key
        kept, changes = _special_elements(original, patch, merge_key)
        result = list(kept)
        places = {_identity(item.get(merge_key)): index for index, item in enumerate(result)}
        for item in changes:
            if merge_key not in item:
                raise _no_merge_key(item, merge_key)
            index = places.get(_identity(item[merge_key]))
            if index is None:
                places[_identity(item[merge_key])] = len(result)
                result.append(self.plain(item))
            else:
                result[index] = self.merge_map(result[index], item, shape.items)
        return result

    def plain(self, value: Any) -> Any:
        """A copy without nulls in maps and without directives: what a patch adds where nothing was."""
        if isinstance(value, dict):
            return {k: self.plain(v) for k, v in value.items() if v is not None and not _is_directive(k)}
        if isinstance(value, list):
            items = [item for item in value if not (isinstance(item, dict) and _PATCH in item)]
            return [self.plain(item) for item in items]
        return value


def _is_directive(key: str) -> bool:
    return key in (_PATCH, _RETAIN_KEYS) or key.startswith((_SET_ORDER, _DELETE_FROM))


def _no_merge_key(item: Obj, merge_key: str) -> BadRequest:
    return BadRequest(f"map: {go_plain(item)} does not contain declared merge key: {merge_key}")


def _bad_patch_type(directive: Any, where: Obj) -> BadRequest:
    return BadRequest(f"unknown patch type: {go_plain(directive)} in map: {go_plain(where)}")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"a list directive needs a list, not {go_plain(value)}")
    return value


def _identity(value: Any) -> Any:
    """Something hashable that equals for equal JSON values; 1 and true differ."""
    return (type(value).__name__, str(value)) if isinstance(value, (bool, dict, list)) else value


def _retained(original: Obj, patch: Obj) -> Obj:
    if _RETAIN_KEYS not in patch:
        return dict(original)
    keep = _list(patch[_RETAIN_KEYS])
    for key, value in patch.items():
        if not _is_directive(key) and value is not None and key not in keep:
            raise BadRequest(f"$retainKeys list doesn't contain {go(key)}, which the patch sets")
    return {key: value for key, value in original.items() if key in keep}


def _delete_values(result: Obj, key: str, removed: Any) -> None:
    if isinstance(result.get(key), list):
        gone = _list(removed)
        result[key] = [value for value in result[key] if value not in gone]


def _special_elements(original: list[Any], patch: list[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """Apply `$patch` elements: the elements of `original` that stay, and the elements of `patch` still to merge."""
    if not merge_key or not all(isinstance(item, dict) for item in (*original, *patch)):
        raise BadRequest("cannot merge lists of objects without a merge key, or lists of mixed types")
    changes = [item for item in patch if _PATCH not in item]
    for item in patch:
        directive = item.get(_PATCH)
        if directive == "delete":
            if merge_key not in item:
                raise _no_merge_key(item, merge_key)
            gone = _identity(item[merge_key])
            original = [kept for kept in original if _identity(kept.get(merge_key)) != gone]
        elif directive not in (None, "replace"):
            raise _bad_patch_type(directive, item)
    return ([], changes) if any(item.get(_PATCH) == "replace" for item in patch) else (original, changes)


def _ordered(merged: list[Any], order: list[Any], server: Any, merge_key: str) -> list[Any]:
    """`merged` in the order asked for; elements that only the server has keep their place relative to the rest."""
    server = server if isinstance(server, list) else []
    by: Callable[[Any], Any] = (
        (lambda item: _identity(item.get(merge_key) if isinstance(item, dict) else item)) if merge_key else _identity
    )
    rank = {by(item): index for index, item in enumerate(order)}
    place = {by(item): index for index, item in enumerate(server)}
    asked = sorted((item for item in merged if by(item) in rank), key=lambda item: rank[by(item)])
    others = [item for item in merged if by(item) not in rank]
    others.sort(key=lambda item: place.get(by(item), len(place)))
    result: list[Any] = []
    while asked and others:
        left, right = place.get(by(others[0])), place.get(by(asked[0]))
        first = others if left is not None and right is not None and left < right else asked
        result.append(first.pop(0))
    return result + asked + others
