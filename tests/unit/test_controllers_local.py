"""Controllers and scheduler on the real registry: its defaults, validation and rules of deletion included."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from netemu import controllers, scheduler
from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.bootstrap import bootstrap
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.model.resources import DEPLOYMENTS, ENDPOINTSLICES, NAMESPACES, NODES, PODS, REPLICASETS, SERVICES
from netemu.store.sqlite import SqliteStore
from netemu.testing.cluster import kubelet, running
from tests.unit.objects_world import deployment, node, service


async def _available(client: LocalClient, count: int) -> None:
    async with asyncio.timeout(20):
        async for event in client.watch(DEPLOYMENTS, "shop", resource_version="0"):
            if event.object.get("status", {}).get("availableReplicas", 0) == count:
                return


async def _gone(client: LocalClient, name: str) -> None:
    version = (await client.list(NAMESPACES)).resource_version
    await client.delete(NAMESPACES, name)
    async with asyncio.timeout(20):
        async for event in client.watch(NAMESPACES, resource_version=version):
            if event.type == "DELETED" and event.object["metadata"]["name"] == name:
                return


async def test_a_deployment_from_its_creation_to_the_end_of_its_namespace(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    registry = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    client = LocalClient(registry)
    try:
        await bootstrap(client, api_address="192.168.0.1", api_port=6443)
        async with running(controllers.run(client), scheduler.run(client), kubelet(client)):
            for name in ("n1", "n2", "n3"):
                await client.create(NODES, node(name))
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
            web = service()
            await client.create(SERVICES, {**web, "metadata": {"name": "web"}, "spec": _without_ip(web)}, "shop")
            await client.create(DEPLOYMENTS, deployment(replicas=6), "shop")
            await _available(client, 6)
            nodes = Counter(pod["spec"]["nodeName"] for pod in (await client.list(PODS, "shop")).items)
            await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 2}}, "shop")
            await _available(client, 2)
            await _gone(client, "shop")

        left = [obj for r in (DEPLOYMENTS, REPLICASETS, PODS) for obj in (await client.list(r)).items]
        slices = (await client.list(ENDPOINTSLICES)).items
    finally:
        await registry.close()
        await store.close()

    assert nodes == {"n1": 2, "n2": 2, "n3": 2}
    assert left == []
    assert [item["metadata"]["name"] for item in slices] == ["kubernetes"]


def _without_ip(obj: dict[str, dict[str, object]]) -> dict[str, object]:
    return {key: value for key, value in obj["spec"].items() if key != "clusterIP"}
