"""Manifests before they are posted: the API server's own rules, with the line of each mistake; and posting them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from netemu.client.base import Client, Obj
from netemu.lab.node_spec import node_names
from netemu.lab.topology import Topology
from netemu.model.custom import CustomResourceDefinition, resources_wanted
from netemu.model.errors import AlreadyExists, ApiError
from netemu.model.meta import decode
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS, SERVICES, Resource
from netemu.model.served import Served
from netemu.model.suggest import instead
from netemu.model.yamlfile import Document, Mistake, Where

_DEFINITION = (CUSTOMRESOURCEDEFINITIONS.api_version, CUSTOMRESOURCEDEFINITIONS.kind)
_FIRST = {"Namespace": 0, "CustomResourceDefinition": 1}
_PAUSE = 0.01

log = logging.getLogger(__name__)


def manifests_mistakes(documents: Sequence[Document], topology: Topology, *, sound: bool) -> list[Mistake]:
    """Everything that the API server or the lab would refuse, one object at a time and then taken together.

    `sound`: the topology has no mistakes of its own, so its networks can be reckoned with.
    """
    served = served_with(document.value for document in documents)
    wrong = {id(document): list(_mistakes_of(document, served)) for document in documents}
    found = [mistake for mistakes in wrong.values() for mistake in mistakes]
    named = [d for d in documents if isinstance(d.value, dict) and isinstance(d.value.get("metadata"), dict)]
    found += _duplicates(named)
    found += _places(named, topology)
    if sound:
        found += _addresses([d for d in named if not wrong[id(d)]], topology)
    return found


def served_with(objects: Iterable[Any]) -> Served:
    """What an API server serves that has these objects: their CustomResourceDefinitions bring kinds of their own."""
    served = Served()
    for obj in objects:
        if isinstance(obj, dict) and (obj.get("apiVersion"), obj.get("kind")) == _DEFINITION:
            from netemu.apiserver.defaults import apply_defaults

            # One that is wrong brings nothing, and is told where it stands.
            with contextlib.suppress(ValueError, AttributeError, TypeError, ApiError):
                crd = _schema().decoded(CUSTOMRESOURCEDEFINITIONS, copy.deepcopy(obj))
                apply_defaults(CUSTOMRESOURCEDEFINITIONS, crd)
                definition = decode(crd, CustomResourceDefinition)
                served.define(definition.name, resources_wanted(definition))
    return served


def _mistakes_of(document: Document, served: Served) -> Iterator[Mistake]:
    """Unknown kind, unknown fields, wrong types, and what validation would answer."""
    from netemu.apiserver.defaults import apply_defaults
    from netemu.apiserver.validation.objects import validate

    value = document.value
    if not isinstance(value, dict):
        yield document.mistake((), "expected a Kubernetes object: a mapping with apiVersion, kind and metadata")
        return
    resource = served.by_kind(str(value.get("apiVersion")), str(value.get("kind")))
    if resource is None:
        yield _unknown_kind(document, served)
        return
    schema = _schema()
    wrong_types = list(schema.type_errors(resource, value))
    for text in [*schema.unknown_fields(resource, value), *wrong_types]:
        yield Mistake(document.file, document.line(_path_in(text)), text)
    if wrong_types or not isinstance(value.get("metadata"), dict):
        return
    obj = _defaulted(document, resource, apply_defaults)
    for error in validate(resource, obj):
        yield Mistake(document.file, document.line(_where(error.path)), str(error))


def _defaulted(document: Document, resource: Resource, apply_defaults: Callable[[Resource, Obj], None]) -> Obj:
    obj: Obj = _schema().decoded(resource, copy.deepcopy(document.value))
    if resource.namespaced:
        obj["metadata"].setdefault("namespace", "default")
    apply_defaults(resource, obj)
    return obj


def _duplicates(documents: Sequence[Document]) -> Iterator[Mistake]:
    seen: dict[tuple[Any, ...], int] = {}
    for document in documents:
        value, meta = document.value, document.value["metadata"]
        key = (value.get("apiVersion"), value.get("kind"), meta.get("namespace") or "default", meta.get("name"))
        if meta.get("name") and key in seen:
            text = f"{key[1]} {key[3]!r} is already there, on line {seen[key]}"
            yield document.mistake(("metadata", "name"), text)
        seen.setdefault(key, document.line())


def _places(documents: Sequence[Document], topology: Topology) -> Iterator[Mistake]:
    """Namespaces, nodes and runtime classes that neither the file nor the lab has."""

    def named(kind: str) -> set[str]:
        return {str(d.value["metadata"].get("name")) for d in documents if d.value.get("kind") == kind}

    namespaces = named("Namespace") | {"default", "kube-system", "kube-public", "kube-node-lease"}
    nodes = {name for node in topology.spec.all_nodes for name in node_names(node)}
    runtimes = named("RuntimeClass") | {"emulated", "process"}
    for document in documents:
        namespace = document.value["metadata"].get("namespace")
        if namespace and namespace not in namespaces:
            right = instead(namespace, sorted(namespaces), "known")
            yield document.mistake(("metadata", "namespace"), f"no Namespace {namespace!r} in this file; {right}")
        where: Where = ("spec",) if document.value.get("kind") == "Pod" else ("spec", "template", "spec")
        pod = _at(document.value, where)
        for field, known in (("nodeName", nodes), ("runtimeClassName", runtimes)):
            if isinstance(pod, dict) and pod.get(field) and pod[field] not in known:
                yield document.mistake(
                    (*where, field), f"no {pod[field]!r} here; {instead(pod[field], sorted(known), 'known')}"
                )


def _at(value: Any, where: Where) -> Any:
    for part in where:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _addresses(documents: Sequence[Document], topology: Topology) -> Iterator[Mistake]:
    """Cluster IPs and node ports that are out of range or asked for twice, as the API server will give them out."""
    from netemu.apiserver.allocation import ServiceAllocator
    from netemu.apiserver.defaults import apply_defaults
    from netemu.lab.config import resolve

    config = resolve(topology)
    allocator = ServiceAllocator(config.service_cidrs)
    allocator.load([_taken("kubernetes", config.api_service_ip), _taken("kube-dns", *config.dns_service_ips)])
    services = [d for d in documents if d.value.get("kind") == "Service"]
    # What is asked for comes first: what is merely given out must not take it.
    for document in sorted(services, key=lambda d: not (d.value.get("spec") or {}).get("clusterIP")):
        for error in allocator.allocate(_defaulted(document, SERVICES, apply_defaults), None):
            yield Mistake(document.file, document.line(_where(error.path)), str(error))


def _taken(name: str, *addresses: str) -> Obj:
    """A Service of the lab's own."""
    return {"metadata": {"name": name}, "spec": {"clusterIP": addresses[0], "clusterIPs": list(addresses)}}


@functools.cache
def _schema() -> Any:
    from netemu.apiserver.schema.kinds import Schema

    return Schema.load()


def _unknown_kind(document: Document, served: Served) -> Mistake:
    api_version, kind = document.value.get("apiVersion"), document.value.get("kind")
    for name, given in (("apiVersion", api_version), ("kind", kind)):
        if not isinstance(given, str) or not given:
            return document.mistake((), f"{name} is missing; every object names its apiVersion and kind")
    kinds = sorted({resource.kind for resource in served})
    same = [resource.api_version for resource in served if resource.kind == kind]
    if same:
        return document.mistake(("apiVersion",), f"no {kind} in {api_version!r}; must be {' or '.join(same)}")
    return document.mistake(("kind",), f"no kind {kind!r} in {api_version!r}; {instead(kind, kinds, 'served here')}")


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
    """Create each object, what others need first, leaving alone what is there already."""
    every = list(objects)
    served = served_with(every) if any(obj["kind"] == _DEFINITION[1] for obj in every) else Served()
    for obj in sorted(every, key=lambda obj: _FIRST.get(obj["kind"], len(_FIRST))):
        resource = served.by_kind(obj["apiVersion"], obj["kind"])
        if resource is None:
            log.warning("%s %s: its kind is not served", obj["kind"], obj["metadata"]["name"])
            continue
        namespace = obj["metadata"].get("namespace") or "default" if resource.namespaced else ""
        with contextlib.suppress(AlreadyExists):
            await client.create(resource, obj, namespace)
        if resource is CUSTOMRESOURCEDEFINITIONS and not await _established(client, obj["metadata"]["name"]):
            served.define(obj["metadata"]["name"], [])


async def _established(client: Client, name: str) -> bool:
    """Wait until a definition is served or it is known that it will not be."""
    while True:
        crd = decode(await client.get(CUSTOMRESOURCEDEFINITIONS, name), CustomResourceDefinition)
        if (state := crd.condition("Established")).status:
            if not crd.established:
                log.warning("CustomResourceDefinition %s: %s", name, crd.condition("NamesAccepted").message)
            return state.status == "True"
        await asyncio.sleep(_PAUSE)
