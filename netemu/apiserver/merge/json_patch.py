"""RFC 6902: JSON patch.

Pointers are RFC 6901. As upstream's (`evanphx/json-patch` under apiserver's limits), a patch has a bounded number of
operations and its copies a bounded size, because ten copies of a map into itself make it a thousand times as large.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import msgspec

from netemu.apiserver import json_values
from netemu.apiserver.validation.fields import go
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, Invalid

MAX_OPERATIONS = 10_000
"""As upstream's limit in `handlers/patch.go`."""
MAX_COPIED_BYTES = 3 * 2**20
"""All copies of one patch together; upstream's limit is that of a request's body."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class _Refused(Exception):
    """An operation does not apply."""


def json_patch(obj: Obj, operations: Any) -> Obj:
    """The patched copy. Raises BadRequest for malformed operations and Invalid for those that do not apply."""
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise BadRequest("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise BadRequest(f"the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}")
    patching = _Patching(copy.deepcopy(obj))
    for operation in operations:
        try:
            patching.apply(operation)
        except _Refused as error:
            # Upstream's words, without causes: kubectl would print these instead, each behind the name of a field.
            raise Invalid(f"the server rejected our request due to an error in our request: {error}") from error
    if not isinstance(patching.root, dict):
        raise BadRequest("the patched object is not a JSON object")
    if json_values.deeper_than(patching.root, json_values.MAX_DEPTH):
        raise BadRequest("the patched object is not valid JSON: exceeded max depth")
    return patching.root


class _Patching:
    """A document on its way through the operations."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._copied = 0

    def apply(self, operation: Obj) -> None:
        name = operation.get("op")
        run = _OPERATIONS.get(name) if isinstance(name, str) else None
        if run is None:
            raise BadRequest(f"malformed JSON patch: unknown operation {go(name)}")
        run(self, _pointer(operation, "path"), operation)

    def add(self, path: list[str], operation: Obj) -> None:
        self._put(path, copy.deepcopy(_value(operation)))

    def remove(self, path: list[str], operation: Obj) -> None:
        self._take(path)

    def replace(self, path: list[str], operation: Obj) -> None:
        value = copy.deepcopy(_value(operation))
        if path:
            holder, key = self._place(path)
            holder[key] = value
        else:
            self.root = value

    def move(self, path: list[str], operation: Obj) -> None:
        source = _pointer(operation, "from")
        if path[: len(source)] == source and path != source:
            raise _Refused(f"cannot move {_text(source)} into itself")
        self._put(path, self._take(source))

    def copy(self, path: list[str], operation: Obj) -> None:
        value = json_values.copied(self._find(_pointer(operation, "from")))
        self._copied += len(msgspec.json.encode(value))
        if self._copied > MAX_COPIED_BYTES:
            raise _Refused(f"the copies of a JSON patch may have {MAX_COPIED_BYTES} bytes together")
        self._put(path, value)

    def test(self, path: list[str], operation: Obj) -> None:
        if not _same(self._find(path), _value(operation)):
            raise _Refused(f"testing value {_text(path)} failed")

    def _find(self, path: list[str]) -> Any:
        found = self.root
        for at, name in enumerate(path):
            found = found[_key(found, name, path[: at + 1])]
        return found

    def _place(self, path: list[str]) -> tuple[Any, Any]:
        """What holds the value at a path, and under which key."""
        holder = self._find(path[:-1])
        return holder, _key(holder, path[-1], path)

    def _take(self, path: list[str]) -> Any:
        if not path:
            raise _Refused("the whole object cannot be removed")
        holder, key = self._place(path)
        return holder.pop(key)

    def _put(self, path: list[str], value: Any) -> None:
        if not path:
            self.root = value
            return
        holder, name = self._find(path[:-1]), path[-1]
        if isinstance(holder, dict):
            holder[name] = value
        elif isinstance(holder, list) and name == "-":
            holder.append(value)
        elif isinstance(holder, list) and _INDEX.fullmatch(name) and int(name) <= len(holder):
            holder.insert(int(name), value)
        else:
            raise _Refused(f"nothing can be added at {_text(path)}")


_OPERATIONS: dict[str, Callable[[_Patching, list[str], Obj], None]] = {
    name: getattr(_Patching, name) for name in ("add", "remove", "replace", "move", "copy", "test")
}


def _key(holder: Any, name: str, path: list[str]) -> Any:
    if isinstance(holder, dict) and name in holder:
        return name
    if isinstance(holder, list) and _INDEX.fullmatch(name) and int(name) < len(holder):
        return int(name)
    raise _Refused(f"there is nothing at {_text(path)}")


def _pointer(operation: Obj, field: str) -> list[str]:
    text = operation.get(field)
    if not isinstance(text, str) or (text and not text.startswith("/")) or re.search("~(?![01])", text):
        raise BadRequest(f"malformed JSON patch: {field} {go(text)} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _text(path: list[str]) -> str:
    return "/" + "/".join(path)


def _value(operation: Obj) -> Any:
    if "value" not in operation:
        raise BadRequest(f"malformed JSON patch: operation {operation['op']} without a value")
    return operation["value"]


def _same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal; unlike in Python, 1 and true are not."""
    return bool(left == right) and msgspec.json.encode(left, order="sorted") == msgspec.json.encode(
        right, order="sorted"
    )
