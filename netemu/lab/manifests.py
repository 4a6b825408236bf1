"""Manifests before they are posted: the API server's own rules, with the line of each mistake; and posting them."""

from __future__ import annotations

import copy
import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from netemu.client.base import Client, Obj
from netemu.lab.yamlfile import Document, Mistake, Where
from netemu.model.errors import AlreadyExists
from netemu.model.resources import NAMESPACES, RESOURCES, Resource, by_kind


def manifest_mistakes(document: Document) -> Iterator[Mistake]:
    """Unknown kind, unknown fields, wrong types, and what validation would answer."""
    from netemu.apiserver.defaults import apply_defaults
    from netemu.apiserver.validation import validate

    value = document.value
    if not isinstance(value, dict):
        yield document.mistake((), "expected a Kubernetes object: a mapping with apiVersion, kind and metadata")
        return
    resource = by_kind(str(value.get("apiVersion")), str(value.get("kind")))
    if resource is None:
        yield _unknown_kind(document)
        return
    schema = _schema()
    wrong_types = list(schema.type_errors(resource, value))
    for text in [*schema.unknown_fields(resource, value), *wrong_types]:
        yield document.mistake(_path_in(text), text)
    if wrong_types or not isinstance(value.get("metadata"), dict):
        return
    obj = schema.decoded(resource, copy.deepcopy(value))
    if resource.namespaced:
        obj["metadata"].setdefault("namespace", "default")
    apply_defaults(resource, obj)
    for error in validate(resource, obj):
        where = _where(error.path)
        yield Mistake(document.file, document.line(where), str(error))


@functools.cache
def _schema() -> Any:
    from netemu.apiserver.schema import Schema

    return Schema.load()


def _unknown_kind(document: Document) -> Mistake:
    api_version, kind = document.value.get("apiVersion"), document.value.get("kind")
    for name, given in (("apiVersion", api_version), ("kind", kind)):
        if not isinstance(given, str) or not given:
            return document.mistake((), f"{name} is missing; every object names its apiVersion and kind")
    kinds = sorted({resource.kind for resource in RESOURCES})
    same = [resource.api_version for resource in RESOURCES if resource.kind == kind]
    if same:
        return document.mistake(("apiVersion",), f"no {kind} in {api_version!r}; must be {' or '.join(same)}")
    near = difflib.get_close_matches(kind, kinds, n=1)
    right = f"did you mean {near[0]}?" if near else f"served here: {', '.join(kinds)}"
    return document.mistake(("kind",), f"no kind {kind!r} in {api_version!r}; {right}")


def _path_in(text: str) -> Where:
    """The field path inside `unknown field "spec.selectorr"` or `spec.replicas: expected ...`."""
    quoted = re.search(r'field "([^"]+)"', text)
    return _where(quoted[1] if quoted else text.split(":")[0])


def _where(path: str) -> Where:
    parts = re.findall(r"\[(\d+)\]|\[([^\]]+)\]|([^.\[\]]+)", path)
    return tuple(int(index) if index else key or name for index, key, name in parts)


def as_applied(obj: Obj) -> Obj:
    """The object with the note that `kubectl apply` leaves, so that applying the same file later finds its own work."""
    noted = copy.deepcopy(obj)
    annotations = noted["metadata"].setdefault("annotations", {})
    annotations.setdefault("kubectl.kubernetes.io/last-applied-configuration", msgspec.json.encode(obj).decode() + "\n")
    return noted


async def post(client: Client, objects: Iterable[Obj]) -> None:
    """Create each object, namespaces first, leaving alone what is there already."""

    for obj in sorted(objects, key=lambda obj: bool(obj["kind"] != "Namespace")):
        resource = resource_of(obj)
        namespace = obj["metadata"].get("namespace") or "default" if resource.namespaced else ""
        try:
            await client.create(resource, obj, namespace)
        except AlreadyExists:
            continue


def resource_of(obj: Obj) -> Resource:
    """Where an object is posted to; its kind was checked before."""
    return by_kind(obj["apiVersion"], obj["kind"]) or NAMESPACES
