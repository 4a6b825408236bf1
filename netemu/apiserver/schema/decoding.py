"""What is left of JSON values once Go has decoded them into its structs and encoded them again.

That is the form in which objects are stored, so nothing behind the front door meets anything else:

- fields that the kind does not have are gone;
- null means absent in a field, and the zero of its type as an element of a list or a value of a map;
- a list or map of a field is gone when it is empty, but for the few that upstream shows (`omitempty`);
- a number, text or flag that has no `omitempty` (the schema calls it required) is there, zero if nobody set it;
- quantities are texts within upstream's bounds, times are UTC with the digits that their type has.

Decoding checks types on its way, so an object is walked through just once; `types` words what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from netemu.apiserver.quantities import canonical
from netemu.apiserver.schema.shapes import INT_OR_STRING, SCALAR_ZEROS, Shape
from netemu.apiserver.schema.types import (
    MICRO_TIME,
    NOWHERE,
    QUANTITY_TYPE,
    SCALAR_CHECKS,
    TIME,
    moment,
    wrong_type,
)

if TYPE_CHECKING:
    from netemu.apiserver.schema.kinds import Schema

_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)
"""Go's zero time, which it encodes as null."""


class Misfit(Exception):
    """Something has not the type that the schema wants."""


def decoded(schema: Schema, shape: Shape, value: Any) -> Any:
    """The value as it is kept, None for absent; maps and lists are changed in place. Raises Misfit."""
    if shape.ref:
        if canonicalize := _CANONICAL.get(shape.target):
            return canonicalize(value)
        shape = schema.shape(shape.target)
    kind, found = shape.kind, type(value)
    if found is dict and kind in ("object", ""):
        _decode_map(schema, shape, value)
    elif kind == "array" and found is list:
        if (items := shape.items) is not None:
            value[:] = [zero(schema, items) if inner is None else decoded(schema, items, inner) for inner in value]
    elif kind == "string" and found is str and not shape.format:
        pass
    elif kind and wrong_type(shape, value, NOWHERE):
        raise Misfit
    return value


def _decode_map(schema: Schema, shape: Shape, value: dict[str, Any]) -> None:
    properties, values = shape.properties or {}, shape.additional_shape
    gone = []
    for key, inner in value.items():
        field = properties.get(key)
        if field is not None:
            kept = None if inner is None else decoded(schema, field, inner)
            if kept is None or (not kept and key in shape.omitted):
                gone.append(key)
            else:
                value[key] = kept
        elif values is not None:
            value[key] = zero(schema, values) if inner is None else decoded(schema, values, inner)
        elif shape.closed:
            gone.append(key)
    for key in gone:
        del value[key]
    for key, nothing in shape.zeros.items():
        value.setdefault(key, nothing)


def zero(schema: Schema, shape: Shape) -> Any:
    """What null becomes inside a list or a map."""
    if shape.target in _ZEROS:
        return _ZEROS[shape.target]
    shape = schema.resolve(shape)
    if shape.kind == "object":
        return decoded(schema, shape, {})
    return [] if shape.kind == "array" else SCALAR_ZEROS.get(shape.kind)


def _time(value: Any, digits: str = "seconds") -> str | None:
    try:
        when = moment(value)
    except (TypeError, ValueError):
        raise Misfit from None
    return None if when == _YEAR_ONE else when.replace(tzinfo=None).isoformat(timespec=digits) + "Z"


def _micro_time(value: Any) -> str | None:
    return _time(value, "microseconds")


def _checked(target: str, keep: Callable[[Any], Any]) -> Callable[[Any], Any]:
    check = SCALAR_CHECKS[target]

    def kept(value: Any) -> Any:
        if any(check(value, NOWHERE)):
            raise Misfit
        return keep(value)

    return kept


_CANONICAL: dict[str, Any] = {
    INT_OR_STRING: _checked(INT_OR_STRING, lambda value: value),
    QUANTITY_TYPE: _checked(QUANTITY_TYPE, canonical),
    TIME: _time,
    MICRO_TIME: _micro_time,
}
_ZEROS: dict[str, Any] = {INT_OR_STRING: 0, QUANTITY_TYPE: "0", TIME: None, MICRO_TIME: None}
