"""Sets of the fields of an object, in the very form in which managedFields keeps them (FieldsV1).

A set is a tree of maps. Each key is one step down: `f:NAME` a field or a map's key, `k:{"name":"web"}` the element of
a list that has these keys, `v:"x"` a member of a set, `i:0` an index. A step belongs to the set itself if nothing is
under it, or if `.` is:

    {"f:data": {".": {}, "f:a": {}}}     data and data.a
    {"f:data": {"f:a": {}}}              data.a alone

Because the form that is stored is the form that is computed with, a write neither decodes nor encodes the sets it
leaves alone. Sets are never changed: results share with their operands what they have in common, and are the operand
itself where nothing differs. The empty set is the empty map; below the root, an empty map is a member.
Upstream: `structured-merge-diff/fieldpath`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import msgspec

FieldSet = dict[str, Any]
"""Maps of maps; see the module's docstring."""

EMPTY: FieldSet = {}
"""The empty set at the root, a member below it."""
SELF = "."

_KNOWN_MAX = 4096


class KnownSet(dict[str, Any]):
    """A set, sorted, of which there is one."""

    __slots__ = ()


_known: dict[bytes, KnownSet] = {}


def field_key(name: str) -> str:
    """The step to a field of a struct or a key of a map."""
    return f"f:{name}"


@lru_cache(maxsize=4096)
def item_key(keys: tuple[tuple[str, Any], ...]) -> str:
    """The step to the element of a list that has these keys and values."""
    return "k:" + _json(dict(keys))


def value_key(value: Any) -> str:
    """The step to a member of a set."""
    return "v:" + _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def is_member(node: FieldSet) -> bool:
    """Whether the step that leads to `node` belongs to the set itself."""
    return not node or SELF in node


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """What either has."""
    if not one or not other:
        return one or other
    return _joined(one, other)


def _joined(one: FieldSet, other: FieldSet) -> FieldSet:
    """The children of both; whether the node itself is a member is seen to by `_join`."""
    result = one
    for step, theirs in other.items():
        ours = one.get(step)
        joined = theirs if ours is None else ours if step == SELF else _join(ours, theirs)
        if joined is not ours:
            if result is one:
                result = dict(one)
            result[step] = joined
    return result


def _join(one: FieldSet, other: FieldSet) -> FieldSet:
    if one is other:
        return one
    if not one or not other:
        full = one or other
        return full if is_member(full) else {SELF: EMPTY, **full}
    return _joined(one, other)


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """What `one` has and `other` has not."""
    if not one or not other:
        return one
    return _rest(one, other)


def _rest(one: FieldSet, other: FieldSet) -> FieldSet:
    result = one
    for step, theirs in other.items():
        ours = one.get(step)
        if ours is None:
            continue
        left = None if step == SELF else _subtract(ours, theirs)
        if left is not ours:
            if result is one:
                result = dict(one)
            if left is None:
                del result[step]
            else:
                result[step] = left
    return result


def _subtract(one: FieldSet, other: FieldSet) -> FieldSet | None:
    """What is left of a node, None if nothing is."""
    mine = is_member(one) and not is_member(other)
    children = _rest({key: node for key, node in one.items() if key != SELF}, other)
    if not children:
        return EMPTY if mine else None
    left = {SELF: EMPTY, **children} if mine else children
    return one if left == one else left


def pruned(fields: FieldSet, branches: FieldSet) -> FieldSet:
    """`fields` less the members of `branches` and all that is below them."""
    result = dict(fields)
    for step, branch in branches.items():
        node = result.get(step)
        if node is None or step == SELF:
            continue
        if is_member(branch) or not node or not (left := pruned(node, branch)):
            del result[step]
        else:
            result[step] = left
    return result


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """What both have."""
    result = {}
    for step, ours in one.items():
        theirs = other.get(step)
        if theirs is None or step == SELF:
            continue
        both: FieldSet | None = intersection(ours, theirs)
        if is_member(ours) and is_member(theirs):
            both = {SELF: EMPTY, **both} if both else EMPTY
        if both or (both is EMPTY):
            result[step] = both
    return result


def paths(fields: FieldSet) -> Iterator[tuple[str, ...]]:
    """Every member as the steps that lead to it, in the order of their keys."""
    for step in sorted(fields):
        if step == SELF:
            continue
        node = fields[step]
        if is_member(node):
            yield (step,)
        for rest in paths(node):
            yield (step, *rest)


def of_paths(members: Iterable[Iterable[str]]) -> FieldSet:
    """The set of these members; `paths` back."""
    result: FieldSet = EMPTY
    for member in members:
        node: FieldSet = EMPTY
        for step in reversed(tuple(member)):
            node = {step: node}
        result = union(result, node)
    return result


def path_text(steps: Iterable[str]) -> str:
    """As conflicts name a field: `.spec.ports[port=80,protocol="TCP"].nodePort`."""
    return "".join(map(_step_text, steps))


def _step_text(step: str) -> str:
    kind, _, rest = step.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        return f"[{','.join(f'{name}={_json(value)}' for name, value in json.loads(rest).items())}]"
    return f"[={rest}]" if kind == "v" else f"[{rest}]"


def is_field_set(value: Any) -> bool:
    """Whether a value that came in from outside has the form of a set."""
    if not isinstance(value, dict):
        return False
    for step, node in value.items():
        if step == SELF:
            well = node == EMPTY
        elif step.startswith("k:"):
            well = isinstance(_parsed(step[2:]), dict) and is_field_set(node)
        else:
            well = step.startswith(("f:", "v:", "i:")) and is_field_set(node)
        if not well:
            return False
    return True


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def known(fields: FieldSet) -> KnownSet:
    """An equal set, sorted, and the same one for all that are equal.

    The Pods of a ReplicaSet differ in their names, not in their fields: thousands of objects share a few sets.
    """
    return fields if isinstance(fields, KnownSet) else known_as(msgspec.json.encode(fields, order="sorted"))


def known_as(text: bytes) -> KnownSet:
    """The set of that text."""
    found = _known.get(text)
    if found is None:
        if len(_known) >= _KNOWN_MAX:
            _known.pop(next(iter(_known)))
        found = _known[text] = KnownSet(msgspec.json.decode(text))
    return found
