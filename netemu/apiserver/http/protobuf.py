"""Reads the protobuf bodies that kubectl's typed commands send, into the JSON form of the same object.

kubectl 1.32 and later POST protobuf from every `create NAME` command and do not retry as JSON, so reading it is a must;
writing it is not, because every client that asks for protobuf also accepts JSON.

A body is four magic bytes and an envelope, `runtime.Unknown` {1: TypeMeta {1 apiVersion, 2 kind}, 2: object}. The
object is proto2 wire format; `protobuf_tables` says what its fields are called. gogo's encoder writes scalars even when
they are zero, so a zero only counts where Go has a pointer. Unknown field numbers are skipped: newer clients send them.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from netemu.apiserver import json_values
from netemu.client.base import Obj
from netemu.model.errors import BadRequest
from netemu.model.times import time_text

MAGIC = b"k8s\0"

_FIELD = re.compile(r"(?P<number>\d+) (?P<name>[\w^]+)(?: (?P<open>[\[{]?)(?P<type>[\w.]+)[\]}]?(?P<pointer>\??))?$")


class _Field(NamedTuple):
    name: str
    type: str
    repeated: bool
    map: bool
    pointer: bool


class _Malformed(Exception):
    """The bytes are not wire format."""


def decode(body: bytes, api_version: str = "", kind: str = "") -> Obj:
    """The object of an enveloped body, with `apiVersion` and `kind`.

    `api_version` and `kind` stand in where the envelope names none. Raises BadRequest.
    """
    if not body.startswith(MAGIC):
        raise BadRequest("the body of the request is not protobuf: it does not start with the magic bytes k8s\\x00")
    try:
        envelope = dict(_wire(body[len(MAGIC) :]))
        names = dict(_wire(_message_bytes(envelope.get(1, b""))))
        api_version = _message_bytes(names.get(1, b"")).decode() or api_version
        kind = _message_bytes(names.get(2, b"")).decode() or kind
        message = _root(api_version, kind)
        obj = _decode(message, _message_bytes(envelope.get(2, b"")))
    except (_Malformed, ValueError, OverflowError, OSError, struct.error) as error:
        raise BadRequest(f"the body of the request cannot be read as protobuf: {error}") from error
    return {"apiVersion": api_version, "kind": kind, **obj}


def _root(api_version: str, kind: str) -> str:
    from netemu.apiserver.http.protobuf_tables import ROOTS

    message = "DeleteOptions" if kind == "DeleteOptions" else ROOTS.get((api_version, kind))
    if message is None:
        raise BadRequest(f'no kind "{kind}" is registered for version "{api_version}" in protobuf; send JSON')
    return message


@cache
def _table() -> dict[str, dict[int, _Field]]:
    """The text of `protobuf_tables`, read on first use."""
    from netemu.apiserver.http.protobuf_tables import MESSAGES

    table = {}
    for line in MESSAGES.replace("\n    ", " ").strip().splitlines():
        name, _, fields = line.partition(": ")
        table[name] = dict(_field(text) for text in fields.split(", ") if text)
    return table


def _field(text: str) -> tuple[int, _Field]:
    match = _FIELD.match(text.strip().rstrip(","))
    assert match is not None, text
    bracket, kind = match["open"] or "", match["type"] or "s"
    field = _Field(match["name"], kind, bracket == "[", bracket == "{", match["pointer"] == "?")
    return int(match["number"]), field


def _decode(message: str, data: bytes) -> Obj:
    table = _table()[message]
    out: Obj = {}
    for number, raw in _wire(data):
        field = table.get(number)
        if field is None:
            continue
        if field.name == "^":
            out.update(_decode(field.type, _message_bytes(raw)))
        elif field.map:
            entry = dict(_wire(_message_bytes(raw)))
            key = _message_bytes(entry.get(1, b"")).decode()
            out.setdefault(field.name, {})[key] = _value(field.type, entry.get(2, b""))
        elif field.repeated:
            out.setdefault(field.name, []).extend(_values(field.type, raw))
        else:
            value = _value(field.type, raw)
            # Every scalar is on the wire; only one behind a pointer was meant when it is zero.
            if field.pointer or isinstance(value, dict) or value:
                out[field.name] = value
    return out


def _values(kind: str, raw: int | bytes) -> list[Any]:
    if kind in ("i", "b") and isinstance(raw, bytes):  # packed
        values, position = [], 0
        while position < len(raw):
            number, position = _varint(raw, position)
            values.append(_value(kind, number))
        return values
    return [_value(kind, raw)]


def _value(kind: str, raw: int | bytes) -> Any:
    if kind == "i":
        number = raw if isinstance(raw, int) else 0
        return number - (1 << 64) if number >> 63 else number
    if kind == "b":
        return bool(raw)
    data = _message_bytes(raw)
    if kind == "s":
        return data.decode()
    if (special := _SPECIAL.get(kind)) is not None:
        return special(data)
    return _decode(kind, data)


def _message_bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, bytes):
        return raw
    raise _Malformed("a number stands where a message or a text is expected")


# --- types with a JSON form of their own -------------------------------------------------------------------------


def _moment(data: bytes) -> datetime | None:
    fields = dict(_wire(data))
    seconds, nanos = _value("i", fields.get(1, 0)), _value("i", fields.get(2, 0))
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1000) if seconds or nanos else None


def _time(data: bytes) -> str | None:
    moment = _moment(data)
    return time_text(moment) if moment else None


def _micro_time(data: bytes) -> str | None:
    moment = _moment(data)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def _int_or_string(data: bytes) -> int | str:
    fields = dict(_wire(data))
    if fields.get(1):
        return _message_bytes(fields.get(3, b"")).decode()
    return int(_value("i", fields.get(2, 0)))


def _quantity(data: bytes) -> str:
    return _message_bytes(dict(_wire(data)).get(1, b"")).decode()


def _json(data: bytes) -> Any:
    raw = _message_bytes(dict(_wire(data)).get(1, b""))
    return json_values.decode(raw) if raw else {}


def _strings(data: bytes) -> list[str]:
    return [_message_bytes(item).decode() for number, item in _wire(data) if number == 1]


def _double(data: bytes) -> float:
    return float(struct.unpack("<d", data)[0])


_SPECIAL: dict[str, Any] = {
    "bytes": lambda data: base64.b64encode(data).decode(),
    "d": _double,
    "intstr": _int_or_string,
    "json": _json,
    "microtime": _micro_time,
    "quantity": _quantity,
    "strings": _strings,
    "time": _time,
}


# --- wire format -------------------------------------------------------------------------------------------------


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, varint or bytes) of each field."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == 0:
            number, position = _varint(data, position)
            yield tag >> 3, number
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise _Malformed(f"wire type {wire_type} at byte {position}")
        if position + size > end:
            raise _Malformed(f"the message ends {position + size - end} bytes early")
        yield tag >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise _Malformed(f"broken number at byte {position}")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
