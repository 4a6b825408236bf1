"""Controllers that look at everything learn of custom resources as these are defined, and forget them again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from netemu import controllers
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.resources import CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, NAMESPACES, SERVICEACCOUNTS, Resource
from netemu.testing.cluster import running
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import NAMESPACE, serving
from tests.unit.custom_kit import define, until, widget


@asynccontextmanager
async def _cluster() -> AsyncIterator[tuple[Registry, LocalClient]]:
    """A registry with a namespace, and controllers on it that have begun."""
    store = MemoryStore()
    async with serving(store) as registry:
        client = LocalClient(registry)
        await registry.create(NAMESPACES, {**NAMESPACE, "spec": {"finalizers": ["kubernetes"]}})
        async with running(controllers.run(client)):
            await until(lambda: registry.find(SERVICEACCOUNTS, "default", "shop"))
            yield registry, client
    await store.close()


def _owned(name: str, owner: Obj, **spec: Any) -> Obj:
    meta = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {"metadata": {"name": name, "ownerReferences": [{**reference, "blockOwnerDeletion": True}]}, **spec}


async def _followed(registry: Registry, client: LocalClient, widgets: Resource) -> None:
    """Return once garbage is collected among the widgets: one without an owner goes."""
    nobody = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nobody", "uid": "gone"}}
    await client.create(widgets, _owned("stray", nobody, spec={"size": 1}), "shop")
    await until(lambda: registry.find(widgets, "stray", "shop") is None)


async def test_what_a_custom_resource_owns_goes_with_it_and_it_with_its_owner() -> None:
    async with _cluster() as (registry, client):
        widgets = await define(registry)
        await _followed(registry, client, widgets)
        top = await client.create(CONFIGMAPS, {"metadata": {"name": "top"}}, "shop")
        middle = await client.create(widgets, _owned("middle", top, spec={"size": 1}), "shop")
        await client.create(CONFIGMAPS, _owned("bottom", middle), "shop")

        await client.delete(CONFIGMAPS, "top", "shop", propagation_policy="Foreground")
        await until(lambda: registry.find(CONFIGMAPS, "top", "shop") is None)

        assert registry.find(widgets, "middle", "shop") is None
        assert registry.find(CONFIGMAPS, "bottom", "shop") is None


async def test_what_its_objects_own_goes_with_a_definition() -> None:
    async with _cluster() as (registry, client):
        widgets = await define(registry)
        await _followed(registry, client, widgets)
        owner = await client.create(widgets, widget(), "shop")
        await client.create(CONFIGMAPS, _owned("settings", owner), "shop")

        await client.delete(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com")
        await until(lambda: registry.find(CONFIGMAPS, "settings", "shop") is None)

        assert registry.find(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com") is None


async def test_a_namespace_takes_custom_resources_with_it() -> None:
    async with _cluster() as (registry, client):
        widgets = await define(registry)
        await client.create(widgets, widget(), "shop")

        await client.delete(NAMESPACES, "shop")
        async with asyncio.timeout(20):
            await until(lambda: registry.find(NAMESPACES, "shop") is None)

        assert registry.find(widgets, "w", "shop") is None


async def test_a_kind_that_is_defined_again_is_followed_again() -> None:
    async with _cluster() as (registry, client):
        await _followed(registry, client, await define(registry))
        await client.delete(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com")
        await until(lambda: registry.find(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com") is None)

        again = await define(registry)
        await _followed(registry, client, again)

        assert registry.find(again, "stray", "shop") is None
