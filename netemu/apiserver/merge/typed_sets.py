"""From typed values to sets of fields: all that a value sets, and what differs between two values.

`fields_of` is what somebody who applies a value says about an object, so maps and structs on the way to a leaf are not
in it. `compared` is what a write did: a map or struct that was not there before is added as a whole, itself included.
Upstream: structured-merge-diff `typed/tofieldset.go`, `typed/compare.go`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from netemu.apiserver.merge.fieldset import EMPTY, SELF, FieldSet, field_key, item_key, path_text, value_key
from netemu.apiserver.merge.typed import Form, Typed
from netemu.client.base import Obj

ABSENT: Final = object()
"""In the place of a value that is not there; null is one that is."""


class Unfit(Exception):
    """A value that a type cannot hold: an unknown field, elements that cannot be told apart, a list for a map."""


def form_of(typed: Typed, value: Any) -> Form:
    """How this value of the type is merged."""
    if typed.form is not Form.ANY:
        return typed.form
    return Form.MAP if isinstance(value, dict) else Form.LEAF


def steps(typed: Typed, items: list[Any], where: tuple[str, ...] = ()) -> list[str]:
    """The step to each element of a list that is merged. Raises Unfit."""
    if typed.form is Form.SET:
        if any(isinstance(item, (dict, list)) or item is None for item in items):
            raise Unfit(f"{path_text(where)}: associative list without keys has an element that's a map or list")
        return [value_key(item) for item in items]
    found = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            why = "associative list with keys may not have non-map elements"
            raise Unfit(f"{path_text(where)}: element {index}: {why}")
        keys = typed.key_of(item)
        if not keys:
            names = ", ".join(f'"{name}"' for name in typed.keys)
            why = f"associative list with keys has an element that omits all key fields [{names}]"
            raise Unfit(
                f"{path_text(where)}: element {index}: {why} (and doesn't have default values for any key fields)"
            )
        try:
            found.append(item_key(keys))
        except TypeError:  # a key that is no scalar
            raise Unfit(f"{path_text(where)}: element {index}: keys must be scalars") from None
    return found


def check(typed: Typed, value: Any, where: tuple[str, ...] = ()) -> None:
    """That a value can be merged by its type: declared fields, elements told apart. Raises Unfit, naming the place."""
    if value is None or typed.form in (Form.LEAF, Form.ANY):
        return
    if typed.form is Form.MAP:
        _check_kind(value, dict, "map", where)
        for name, inner in value.items():
            below = (*where, field_key(name))
            if typed.closed and name not in typed.fields:
                raise Unfit(f"{path_text(below)}: field not declared in schema")
            check(typed.field(name), inner, below)
        return
    _check_kind(value, list, "list", where)
    seen = set()
    for step, item in zip(steps(typed, value, where), value, strict=True):
        if step in seen:
            raise Unfit(f"{path_text(where)}: duplicate entries for key {path_text((step,))}")
        seen.add(step)
        check(typed.element, item, (*where, step))


def _check_kind(value: Any, kind: type, name: str, where: tuple[str, ...]) -> None:
    if not isinstance(value, kind):
        raise Unfit(f"{path_text(where)}: expected {name}, got {_GOT.get(type(value), 'number')}")


_GOT = {dict: "map", list: "list", str: "string", bool: "boolean"}


def fields_of(typed: Typed, value: Any) -> FieldSet:
    """All that a value sets; at the root, or of a map or list that is no member itself."""
    form = form_of(typed, value)
    found: FieldSet = {}
    if form is Form.MAP and isinstance(value, dict):
        for name, inner in value.items():
            node = _leaf_or(typed.field(name), inner)
            # Keys of a map belong to whoever sets them; a struct's fields are always there.
            if node and name not in typed.fields:
                node = {SELF: EMPTY, **node}
            if node is not None:
                found[field_key(name)] = node
    elif form in (Form.ITEMS, Form.SET) and isinstance(value, list):
        for step, item in zip(steps(typed, value), value, strict=True):
            node = _leaf_or(typed.element, item) if step not in found else EMPTY
            found[step] = {SELF: EMPTY, **node} if node else EMPTY
    return found


def _leaf_or(typed: Typed, value: Any) -> FieldSet | None:
    """A member for a leaf, null and an empty map; what is inside of others; None for an empty list of them."""
    if value is None or form_of(typed, value) is Form.LEAF or value == {}:
        return EMPTY
    return fields_of(typed, value) or None


class Comparison(NamedTuple):
    """What differs between an object before and after."""

    changed: FieldSet
    """Added, or of another value."""
    removed: FieldSet


def compared(typed: Typed, old: Any, new: Any) -> Comparison:
    """How `new` differs from `old`. Raises Unfit."""
    changed, removed = _compare(typed, old, new)
    return Comparison(changed or EMPTY, removed or EMPTY)


_Nodes = tuple[FieldSet | None, FieldSet | None]


def _compare(typed: Typed, old: Any, new: Any) -> _Nodes:
    """Two nodes, each None where there is nothing."""
    if old is new or old == new:
        return None, None
    if old is ABSENT:
        return _whole(typed, new), None
    if new is ABSENT:
        return None, _whole(typed, old)
    form = form_of(typed, new if old is None else old)
    if form is Form.LEAF or (not old and not new) or form_of(typed, old or new) is not form_of(typed, new or old):
        return EMPTY, None
    changed: FieldSet = {}
    removed: FieldSet = {}
    if form is Form.MAP:
        _compare_maps(typed, old or {}, new or {}, changed, removed)
    elif not old:  # as in every new object
        changed = _elements(typed, new)
    else:
        _compare_lists(typed, old, new or [], changed, removed)
    return changed or None, removed or None


def _compare_maps(typed: Typed, old: Obj, new: Obj, changed: FieldSet, removed: FieldSet) -> None:
    fields, absent = typed.fields, typed.absent
    for name, after in new.items():
        before = old[name] if name in old else absent.get(name, ABSENT)
        if before is after or before == after:
            continue
        below = fields.get(name) or typed.element
        if below.form is Form.LEAF:
            changed[f"f:{name}"] = EMPTY
        else:
            _put(f"f:{name}", _compare(below, before, after), changed, removed)
    for name, before in old.items():
        if name not in new:
            nodes = _compare(typed.field(name), before, absent.get(name, ABSENT))
            _put(f"f:{name}", nodes, changed, removed)


def _compare_lists(typed: Typed, old: list[Any], new: list[Any], changed: FieldSet, removed: FieldSet) -> None:
    before, after = _by_step(typed, old), _by_step(typed, new)
    for step in {**after, **before}:
        values = before.get(step, ABSENT), after.get(step, ABSENT)
        # Elements that cannot be told apart are compared as a whole.
        alike = isinstance(values[0], _Alike) or isinstance(values[1], _Alike)
        nodes = _compare_alike(*values) if alike else _compare(typed.element, *values)
        _put(step, nodes, changed, removed)


def _compare_alike(old: Any, new: Any) -> _Nodes:
    if new is ABSENT:
        return None, EMPTY
    return (None, None) if old == new else (EMPTY, None)


def _put(step: str, nodes: _Nodes, changed: FieldSet, removed: FieldSet) -> None:
    more, less = nodes
    if more is not None:
        changed[step] = more
    if less is not None:
        removed[step] = less


def _whole(typed: Typed, value: Any) -> FieldSet:
    """Everything that came or went with a value, itself included."""
    form = form_of(typed, value)
    if not value or form is Form.LEAF:
        return EMPTY
    found: FieldSet = {SELF: EMPTY}
    if form is not Form.MAP:
        return found | _elements(typed, value)
    fields = typed.fields
    for name, inner in value.items():
        below = fields.get(name) or typed.element
        found[f"f:{name}"] = EMPTY if below.form is Form.LEAF else _whole(below, inner)
    return found


def _elements(typed: Typed, items: list[Any]) -> FieldSet:
    """Everything that came or went with the elements of a list."""
    found: FieldSet = {}
    for step, item in zip(steps(typed, items), items, strict=True):
        # Of elements that cannot be told apart only that they are there.
        found[step] = EMPTY if step in found else _whole(typed.element, item)
    return found


def _by_step(typed: Typed, items: list[Any]) -> dict[str, Any]:
    """The elements of a list by their steps; those that cannot be told apart come together, as a list."""
    found: dict[str, Any] = {}
    for step, item in zip(steps(typed, items), items, strict=True):
        if step in found:
            known = found[step]
            found[step] = _Alike([*(known if isinstance(known, _Alike) else (known,)), item])
        else:
            found[step] = item
    return found


class _Alike(list[Any]):
    """Elements of a list with the same keys, which only a write that was no apply can leave."""


def with_parents(typed: Typed, fields: FieldSet) -> FieldSet:
    """The set with every declared field on the way to a member, so that emptied structs are told from kept ones."""
    if not fields:
        return fields
    result = {}
    for step, node in fields.items():
        if step == SELF or not node:
            result[step] = node
            continue
        named = step.startswith("f:")
        inner = with_parents(typed.field(step[2:]) if named else typed.element, node)
        declared = named and step[2:] in typed.fields
        result[step] = {SELF: EMPTY, **inner} if declared and SELF not in inner else inner
    return result
