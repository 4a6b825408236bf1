"""What every cluster has before anybody asks: the system namespaces, Service and ServiceCIDR `kubernetes`, runtime
classes, roles and their bindings.

Idempotent: after a restart what is there stays, and only the API server's address is brought up to date.
Upstream: `pkg/controlplane/controller/{systemnamespaces,kubernetesservice,defaultservicecidr}`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from netemu.apiserver.auth.rbac_policy import default_policy
from netemu.apiserver.kubernetes_service import NAME, NAMESPACE, publish
from netemu.client.base import Client, Obj
from netemu.model import times
from netemu.model.errors import AlreadyExists
from netemu.model.resources import (
    NAMESPACES,
    RUNTIMECLASSES,
    SERVICECIDRS,
    SERVICES,
    Resource,
)

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
RUNTIMES = ("emulated", "process")


async def bootstrap(
    client: Client,
    *,
    api_address: str,
    api_port: int,
    service_address: str = "10.96.0.1",
    service_cidrs: Sequence[str] = ("10.96.0.0/16",),
) -> None:
    """Create what is missing. `service_address` must be the first address of the first of the Service CIDRs.

    `api_address` is where the API server is; "" where an EndpointReconciler tells that of several.
    Raises Invalid where another Service has that address.
    """
    for name in SYSTEM_NAMESPACES:
        await _ensure(client, NAMESPACES, _object(NAMESPACES, name))
    await _ensure(client, SERVICES, _service(service_address, api_port), NAMESPACE)
    if api_address:
        await publish(client, [api_address], api_port)
    await _service_cidrs(client, service_cidrs)
    for name in RUNTIMES:
        await _ensure(client, RUNTIMECLASSES, {**_object(RUNTIMECLASSES, name), "handler": name})
    await ensure_policy(client, default_policy())


async def ensure_policy(client: Client, policy: Iterable[tuple[Resource, Obj]]) -> None:
    """Create the roles and bindings that are missing, all at once: each alone would wait for the disk."""
    async with asyncio.TaskGroup() as tasks:
        for resource, obj in policy:
            named = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
            tasks.create_task(_ensure(client, resource, named, obj["metadata"].get("namespace", "")))


async def _service_cidrs(client: Client, cidrs: Sequence[str]) -> None:
    """The networks that cluster IPs are given from; ready from the start, as nothing else gives them."""
    with contextlib.suppress(AlreadyExists):
        await client.create(SERVICECIDRS, {**_object(SERVICECIDRS, NAME), "spec": {"cidrs": list(cidrs)}})
    if not ((await client.get(SERVICECIDRS, NAME)).get("status") or {}).get("conditions"):
        ready = {"type": "Ready", "status": "True", "reason": "", "lastTransitionTime": times.now()}
        condition = {**ready, "message": "Kubernetes default Service CIDR is ready"}
        await client.patch(SERVICECIDRS, NAME, {"status": {"conditions": [condition]}}, subresource="status")


async def _ensure(client: Client, resource: Resource, obj: Obj, namespace: str = "") -> None:
    """Create `obj` unless there is one of its name."""
    with contextlib.suppress(AlreadyExists):
        await client.create(resource, obj, namespace)


def _object(resource: Resource, name: str, labels: dict[str, str] | None = None) -> Obj:
    metadata: dict[str, Any] = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _service(address: str, api_port: int) -> Obj:
    return {
        **_object(SERVICES, NAME, {"component": "apiserver", "provider": "kubernetes"}),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": api_port}],
        },
    }
