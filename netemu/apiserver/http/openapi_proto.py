"""The protobuf form of an OpenAPI v2 document: gnostic's `openapi.v2.Document`, which is what kubectl reads.

A message is written from the JSON value by a table of its fields. What a table does not name is left out; `x-` fields
are vendor extensions, whose values are YAML, of which JSON is a part. Source of the numbers: gnostic-models
`openapiv2/OpenAPIv2.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

Json = Mapping[str, Any]


def document_proto(head: Json, paths: Iterable[tuple[str, Json]], definitions: Iterable[tuple[str, Json]]) -> bytes:
    """A `Document`; paths and definitions are taken one by one, so that they need not all be in memory."""
    of_paths = b"".join(_field(2, _entry(name, _write(_PATH, item))) for name, item in paths)
    of_schemas = b"".join(_field(1, _entry(name, _write(_SCHEMA, schema))) for name, schema in definitions)
    return _write(_DOCUMENT, head) + _field(8, of_paths) + _field(9, of_schemas)


Writer = Callable[[int, Any], bytes]
"""Writes a value as a field of that number."""
Table = Mapping[str, tuple[int, Writer]]


def _write(table: Table, value: Json) -> bytes:
    """The fields of a message; `x-` fields by the table's entry of that name."""
    out, extensions = [], []
    for key, inner in value.items():
        if key.startswith("x-"):
            extensions.append((key, inner))
        elif (known := table.get(key)) is not None:
            number, writer = known
            out.append(writer(number, inner))
    if extensions and (known := table.get("x-")) is not None:
        out += [_field(known[0], _entry(key, _any(inner))) for key, inner in extensions]
    return b"".join(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _entry(name: str, value: bytes) -> bytes:
    """A `Named...` message."""
    return _text(1, name) + _field(2, value)


def _any(value: Any) -> bytes:
    return _field(2, msgspec.json.encode(value))


def _text(number: int, value: Any) -> bytes:
    return _field(number, str(value).encode())


def _texts(number: int, values: Any) -> bytes:
    return b"".join(_text(number, value) for value in values)


def _whole(number: int, value: Any) -> bytes:
    return _varint(number << 3) + _varint(int(value) & (1 << 64) - 1)


def _double(number: int, value: Any) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _yaml(number: int, value: Any) -> bytes:
    return _field(number, _any(value))


def _yamls(number: int, values: Any) -> bytes:
    return b"".join(_yaml(number, value) for value in values)


def _message(table: Callable[[], Table]) -> Writer:
    return lambda number, value: _field(number, _write(table(), value))


def _type(number: int, value: Any) -> bytes:
    return _field(number, _text(1, value))


def _items(number: int, value: Any) -> bytes:
    return _field(number, _field(1, _write(_SCHEMA, value)))


def _schemas(number: int, values: Any) -> bytes:
    return _field(number, b"".join(_field(1, _entry(name, _write(_SCHEMA, one))) for name, one in values.items()))


def _additional(number: int, value: Any) -> bytes:
    return _field(number, _whole(2, value) if isinstance(value, bool) else _field(1, _write(_SCHEMA, value)))


def _parameters(number: int, values: Any) -> bytes:
    """Each in the message of its place: body, query or path."""
    out = b""
    for value in values:
        if value["in"] == "body":
            parameter = _field(1, _write(_BODY, value))
        else:
            place, table = (3, _QUERY) if value["in"] == "query" else (4, _PATH_PARAMETER)
            parameter = _field(2, _field(place, _write(table, value)))
        out += _field(number, _field(1, parameter))
    return out


def _responses(number: int, values: Any) -> bytes:
    answers = ((code, _field(1, _write(_RESPONSE, answer))) for code, answer in values.items())
    return _field(number, b"".join(_field(1, _entry(code, answer)) for code, answer in answers))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SCHEMA: Table = {
    "$ref": (1, _text), "format": (2, _text), "title": (3, _text), "description": (4, _text), "default": (5, _yaml),
    "multipleOf": (6, _double), "maximum": (7, _double), "exclusiveMaximum": (8, _whole), "minimum": (9, _double),
    "exclusiveMinimum": (10, _whole), "maxLength": (11, _whole), "minLength": (12, _whole), "pattern": (13, _text),
    "maxItems": (14, _whole), "minItems": (15, _whole), "uniqueItems": (16, _whole), "maxProperties": (17, _whole),
    "minProperties": (18, _whole), "required": (19, _texts), "enum": (20, _yamls),
    "additionalProperties": (21, _additional), "type": (22, _type), "items": (23, _items),
    "properties": (25, _schemas), "example": (30, _yaml), "x-": (31, _yaml),
}  # fmt: skip
_BODY: Table = {
    "name": (2, _text), "in": (3, _text), "required": (4, _whole), "schema": (5, _message(lambda: _SCHEMA)),
}  # fmt: skip
_QUERY: Table = {
    "required": (1, _whole), "in": (2, _text), "name": (4, _text), "type": (6, _text), "uniqueItems": (20, _whole),
}  # fmt: skip
_PATH_PARAMETER: Table = {"required": (1, _whole), "in": (2, _text), "name": (4, _text), "type": (5, _text)}
_RESPONSE: Table = {
    "description": (1, _text), "schema": (2, lambda number, value: _field(number, _field(1, _write(_SCHEMA, value)))),
}  # fmt: skip
_OPERATION: Table = {
    "tags": (1, _texts), "operationId": (5, _text), "produces": (6, _texts), "consumes": (7, _texts),
    "parameters": (8, _parameters), "responses": (9, _responses), "x-": (13, _yaml),
}  # fmt: skip
_PATH: Table = {
    **{method: (number, _message(lambda: _OPERATION))
       for number, method in enumerate(("get", "put", "post", "delete", "options", "head", "patch"), 2)},
    "parameters": (9, _parameters),
}  # fmt: skip
_INFO: Table = {"title": (1, _text), "version": (2, _text)}
_DOCUMENT: Table = {"swagger": (1, _text), "info": (2, _message(lambda: _INFO))}
