"""What we call the fields of protobuf messages, held against the descriptors that kubectl itself carries.

Every generated message registers the gzipped FileDescriptorProto of its `.proto` file, so the program has them all: the
truth about the very bytes it sends.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from netemu.apiserver.http import protobuf
from netemu.apiserver.http.protobuf_tables import ROOTS
from tests.clients.apiserver import find_kubectl

Raw = dict[int, list[int | bytes]]

_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
_OWN_FORM = {
    _META + "Time": "time",
    _META + "MicroTime": "microtime",
    _META + "FieldsV1": "json",
    "k8s.io.apimachinery.pkg.api.resource.Quantity": "quantity",
    "k8s.io.apimachinery.pkg.runtime.RawExtension": "json",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": "intstr",
    **{f"k8s.io.api.{group}.v1.ExtraValue": "strings" for group in ("authentication", "authorization", "certificates")},
}
"""The messages that have a JSON form of their own, and our type for each."""
_SCALARS = {1: "d", 3: "i", 5: "i", 8: "b", 9: "s", 12: "bytes"}
"""Our types of `FieldDescriptorProto.Type`; 11 is a message."""
_SPELLED = {"uID": "uid", "aPIGroup": "apiGroup"}
"""Fields whose name in JSON is not the one in protobuf."""


class Field(NamedTuple):
    """A field as kubectl has it; `type` is ours, or the full name of a message."""

    name: str
    type: str
    repeated: bool
    map: bool


def raw_of(data: bytes) -> Raw:
    raw: Raw = {}
    for number, value in protobuf._wire(data):
        raw.setdefault(number, []).append(value)
    return raw


def parts(raw: Raw, number: int) -> list[Raw]:
    return [raw_of(part) for part in raw.get(number, []) if isinstance(part, bytes)]


def text(raw: Raw, number: int) -> str:
    (value,) = raw.get(number, [b""])
    assert isinstance(value, bytes)
    return value.decode()


def files_of(program: bytes) -> Iterator[Raw]:
    """The FileDescriptorProtos of Kubernetes' own messages."""
    at = program.find(b"\x1f\x8b\x08")
    while at >= 0:
        try:
            file = raw_of(zlib.decompressobj(31).decompress(program[at : at + 1_000_000]))
            name = text(file, 1)
        except (zlib.error, protobuf._Malformed, ValueError, AssertionError):
            name = ""  # something else that is compressed
        if name.startswith("k8s.io/"):
            yield file
        at = program.find(b"\x1f\x8b\x08", at + 1)


@cache
def messages_of(minor: int) -> dict[str, dict[int, Field]]:
    """The fields of each message by number, in the kubectl of that version."""
    messages = {}
    for file in files_of(Path(find_kubectl(minor)).read_bytes()):
        for message in parts(file, 4):
            maps = {text(nested, 1): parts(nested, 2)[1] for nested in parts(message, 3)}
            fields = {one[3][0]: field_of(one, maps) for one in parts(message, 2)}
            messages[f"{text(file, 2)}.{text(message, 1)}"] = {int(number): field for number, field in fields.items()}
    return messages


def field_of(raw: Raw, maps: dict[str, Raw]) -> Field:
    value = maps.get(text(raw, 6).rpartition(".")[2])
    holder = value or raw
    full = text(holder, 6).removeprefix(".")
    kind = _OWN_FORM.get(full, full) or _SCALARS[int(holder[5][0])]
    return Field(_SPELLED.get(text(raw, 1), text(raw, 1)), kind, raw[4] == [3] and value is None, value is not None)


def differences(minor: int, ours: str, theirs: str, seen: set[str]) -> Iterator[str]:
    """Where a message of ours, or one inside of it, is not what kubectl sends."""
    if ours in seen:
        return
    seen.add(ours)
    fields, real = protobuf._table()[ours], messages_of(minor)[theirs]
    if minor == 32 and (missing := real.keys() - fields.keys()):
        yield f"{ours} lacks {missing}"
    for number, field in fields.items():
        true = real.get(number)
        if true is None or (field.name, field.repeated, field.map) != (
            "^" if field.name == "^" else true.name, true.repeated, true.map,
        ):  # fmt: skip
            yield f"{ours}: {number} is {true}, not {field}"
        elif "." in true.type:
            yield from differences(minor, field.type, true.type, seen)
        elif field.type != true.type:
            yield f"{ours}.{field.name} is {true.type}, not {field.type}"


@pytest.mark.parametrize("minor", [32, 33])
def test_every_message_is_what_kubectl_sends(minor: int) -> None:
    """1.33's may have fields that an API server of 1.32 does not know, and 1.32's none."""
    if Path(find_kubectl(minor)).name != f"kubectl.1.{minor}":
        pytest.skip(f"no kubectl.1.{minor} beside kubectl: other versions have other fields")
    seen: set[str] = set()
    wrong: list[str] = []
    for (api_version, kind), message in ROOTS.items():
        group, _, version = api_version.rpartition("/")
        name = f"k8s.io.api.{group.partition('.')[0] or 'core'}.{version}.{kind}"
        if minor == 32 and kind in ("IPAddress", "ServiceCIDR"):  # in v1 since 1.33
            assert name not in messages_of(minor)
            continue
        wrong += differences(minor, message, name, seen)

    assert wrong == []
    assert minor == 32 or seen == protobuf._table().keys()
