"""Definitions of custom resources for tests, and what a registry makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS, Resource

SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "number": {"type": "integer", "default": 80}},
            },
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
STATUS = {"type": "object", "properties": {"size": {"type": "integer"}, "ready": {"type": "boolean"}}}


def version(name: str = "v1", spec: Any = None, **fields: Any) -> dict[str, Any]:
    """A version of a definition, whose spec has that schema."""
    schema = {"type": "object", "properties": {"spec": SPEC if spec is None else spec, "status": STATUS}}
    made = {"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {**made, "subresources": {"status": {}}, **fields}


def definition(
    plural: str = "widgets", kind: str = "Widget", *versions: Any, group: str = "example.com", **names: Any
) -> Obj:
    """A CustomResourceDefinition of a namespaced kind."""
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, **names},
            "versions": list(versions) or [version()],
        },
    }


def widget(name: str = "w", **spec: Any) -> Obj:
    """An object of `definition()`'s kind."""
    return {"metadata": {"name": name}, "spec": {"size": 1, **spec}}


async def until(holds: Callable[[], Any]) -> Any:
    """What `holds` says once it says something; the registry works by itself meanwhile."""
    async with asyncio.timeout(10):
        while True:
            if found := holds():
                return found
            await asyncio.sleep(0.001)


async def define(registry: Registry, obj: Obj | None = None, name: str = "v1") -> Resource:
    """Create a definition; the resource of one of its versions, served."""
    obj = obj or definition()
    await registry.create(CUSTOMRESOURCEDEFINITIONS, obj)
    names = obj["spec"]["names"]
    resource: Resource = await until(lambda: registry.served.by_path(obj["spec"]["group"], name, names["plural"]))
    return resource


async def redefine(registry: Registry, obj: Obj) -> None:
    """Replace a definition."""
    name = obj["metadata"]["name"]
    now = (await registry.get(CUSTOMRESOURCEDEFINITIONS, name))["metadata"]["resourceVersion"]
    seen = {**obj, "metadata": {**obj["metadata"], "resourceVersion": now}}
    await registry.update(CUSTOMRESOURCEDEFINITIONS, name, seen)


def conditions(registry: Registry, name: str = "widgets.example.com") -> dict[str, tuple[str, str]]:
    """Type to status and reason of a definition's conditions."""
    obj = registry.find(CUSTOMRESOURCEDEFINITIONS, name) or {}
    found = obj.get("status", {}).get("conditions", [])
    return {one["type"]: (one["status"], one["reason"]) for one in found}
