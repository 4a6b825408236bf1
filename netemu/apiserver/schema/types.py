"""Values of wrong types, as Go's decoder would refuse them.

Nearly every object is fine and never comes here: `decoding` notices that something does not fit, and `mistyped`
then words what. Wording: `encoding/json` (`json: cannot unmarshal string into Go struct field ...`) and the
`UnmarshalJSON` of quantities and times. Null fits everywhere, as it does in Go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from netemu.apiserver.quantities import QUANTITY
from netemu.apiserver.schema.shapes import INT_OR_STRING, Shape

if TYPE_CHECKING:
    from netemu.apiserver.schema.kinds import Schema

QUANTITY_TYPE = "io.k8s.apimachinery.pkg.api.resource.Quantity"
MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"

_QUANTITY_ERROR = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"  # upstream's text
)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*")
_INT_BOUNDS = {"int32": 1 << 31, "int64": 1 << 63}


def mistyped(schema: Schema, shape: Shape, value: Any, place: Place) -> Iterator[str]:
    """What does not fit, one text per value."""
    if value is None:
        return
    if shape.ref:
        if check := SCALAR_CHECKS.get(shape.target):
            yield from check(value, place)
            return
        place = place.of_definition(shape.target)
        shape = schema.shape(shape.target)
    if problem := wrong_type(shape, value, place):
        yield problem
    elif isinstance(value, dict):
        for key, inner in value.items():
            if field := schema.field(shape, key):
                yield from mistyped(schema, field, inner, place.inside(key))
    elif isinstance(value, list) and shape.items is not None:
        for inner in value:
            yield from mistyped(schema, shape.items, inner, place)


class Place:
    """Where the decoder is: the Go struct it fills and the path of the field, as its messages name them."""

    __slots__ = ("path", "struct", "type_name")

    def __init__(self, struct: str, path: str = "", type_name: str = "") -> None:
        self.struct, self.path, self.type_name = struct, path, type_name or struct

    def of_definition(self, definition: str) -> Place:
        name = definition.rpartition(".")[2]
        return Place(self.struct, self.path, name)

    def inside(self, field: str) -> Place:
        return Place(self.type_name, f"{self.path}.{field}" if self.path else field, self.type_name)

    def text(self, what: str, go_type: str) -> str:
        if not self.path:
            return f"json: cannot unmarshal {what} into Go value of type v1.{self.struct}"
        return f"json: cannot unmarshal {what} into Go struct field {self.struct}.{self.path} of type {go_type}"


def _what(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def wrong_type(shape: Shape, value: Any, place: Place) -> str:
    """The decoder's complaint about `value` itself, not about what is inside it; "" if there is none."""
    expected, what = shape.kind, _what(value)
    if expected == "integer":
        go_type = shape.format or "int64"
        if what == "number":
            bound = _INT_BOUNDS.get(go_type, 1 << 63)
            fits = isinstance(value, int) and -bound <= value < bound
            return "" if fits else place.text(f"number {value}", go_type)
        return place.text(what, go_type)
    if expected == "string" and what == "string":
        return _wrong_text(shape.format, value)
    fits_as = {"string": "string", "boolean": "bool", "number": "number", "object": "object", "array": "array"}
    if expected in fits_as and what != fits_as[expected]:
        return place.text(what, _go_type(shape, place))
    return ""


def _wrong_text(form: str, value: str) -> str:
    if form == "byte" and (not _BASE64.fullmatch(value) or len(re.sub(r"\s", "", value)) % 4):
        at = next((i for i, char in enumerate(value) if not re.match(r"[A-Za-z0-9+/=\r\n]", char)), len(value))
        return f"illegal base64 data at input byte {at}"
    return ""


def _go_type(shape: Shape, place: Place) -> str:
    kind = shape.kind
    if kind == "object":
        return f"v1.{place.type_name}" if shape.properties is not None else "map[string]string"
    if kind == "array":
        items = shape.items
        inner = items.target.rpartition(".")[2] if items and items.ref else ""
        return f"[]v1.{inner}" if inner else f"[]{_go_type(items, place)}" if items else "[]interface {}"
    return {"boolean": "bool", "number": "float64", "integer": shape.format or "int64"}.get(kind, kind)


def _int_or_string(value: Any, place: Place) -> Iterator[str]:
    what = _what(value)
    if what == "number" and not (isinstance(value, int) and -(1 << 31) <= value < 1 << 31):
        yield place.text(f"number {value}", "int32")
    elif what not in ("number", "string"):
        yield place.text(what, "intstr.IntOrString")


def _quantity(value: Any, place: Place) -> Iterator[str]:
    what = _what(value)
    if what not in ("number", "string"):
        yield place.text(what, "resource.Quantity")
    elif not QUANTITY.fullmatch(str(value)):
        yield _QUANTITY_ERROR


def _time(value: Any, place: Place) -> Iterator[str]:
    if not isinstance(value, str):
        yield place.text(_what(value), "time.Time")
        return
    try:
        moment(value)
    except ValueError:
        yield f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'


def moment(text: str) -> datetime:
    """An RFC 3339 time, in UTC. Raises ValueError."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error


SCALAR_CHECKS = {INT_OR_STRING: _int_or_string, QUANTITY_TYPE: _quantity, TIME: _time, MICRO_TIME: _time}
NOWHERE = Place("")
