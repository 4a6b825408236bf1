"""The Node object and its Lease.

Upstream: kubernetes/pkg/kubelet/kubelet_node_status.go and nodestatus/setters.go; component-helpers' lease controller.
The registration is pure (`node_object`, `node_status`); `NodeKeeper` sends it, then renews.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform

from netemu.client.base import Client, Obj
from netemu.kubelet.settings import VERSION, KubeletSettings, NodeFacts
from netemu.model import times
from netemu.model.errors import AlreadyExists, ApiError, NotFound
from netemu.model.meta import encode
from netemu.model.resources import LEASES, NODES

log = logging.getLogger(__name__)

_LEASE_NAMESPACE = "kube-node-lease"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le"}
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def labels(node: NodeFacts) -> dict[str, str]:
    """The labels a kubelet sets, and those it is given."""
    architecture = _architecture()
    found = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
    }
    if node.zone:
        found["topology.kubernetes.io/zone"] = node.zone
    return found | dict(node.labels)


def node_object(node: NodeFacts, settings: KubeletSettings) -> Obj:
    """The Node as a kubelet first registers it, status included."""
    spec: Obj = {}
    if node.pod_cidrs:
        spec |= {"podCIDR": node.pod_cidrs[0], "podCIDRs": list(node.pod_cidrs)}
    if node.taints:
        spec["taints"] = [encode(taint) for taint in node.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": labels(node),
            "annotations": {"node.alpha.kubernetes.io/ttl": "0"},
        },
        "spec": spec,
        "status": node_status(node, settings, {}, times.now()),
    }


def node_status(node: NodeFacts, settings: KubeletSettings, old: Obj, now: str) -> Obj:
    """The status at that moment; conditions keep the time since when they hold."""
    before = {c["type"]: c for c in old.get("conditions") or ()}
    resources = {"cpu": settings.cpu, "memory": settings.memory, "pods": str(settings.max_pods)}
    resources["ephemeral-storage"] = settings.memory
    return {
        "addresses": [
            *({"type": "InternalIP", "address": address} for address in node.addresses),
            {"type": "Hostname", "address": node.name},
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": before[kind]["lastTransitionTime"]
                if kind in before and before[kind].get("status") == status
                else now,
            }
            for kind, status, reason, message in _CONDITIONS
        ]
        + [c for c in old.get("conditions") or () if c["type"] not in {kind for kind, *_ in _CONDITIONS}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": _node_info(node),
    }


def lease(node: NodeFacts, settings: KubeletSettings, node_uid: str) -> Obj:
    """The Lease that says the node is alive; it belongs to the Node and goes with it."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node_uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node.name, "namespace": _LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": {
            "holderIdentity": node.name,
            "leaseDurationSeconds": settings.lease_seconds,
            "renewTime": times.micro_now(),
        },
    }


class NodeKeeper:
    """Registers a node and keeps its Lease and status fresh."""

    def __init__(self, client: Client, node: NodeFacts, settings: KubeletSettings) -> None:
        self._client, self._node, self._settings = client, node, settings
        self.registered = asyncio.Event()
        """Set once the API knows the node."""

    async def run(self) -> None:
        """Until cancelled."""
        pause = 0.2
        while True:
            try:
                uid = await self.register()
                break
            except ApiError as error:
                log.warning("node %s: cannot register yet: %s", self._node.name, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 7.0)
        self.registered.set()
        log.info("node %s: registered", self._node.name)
        await asyncio.gather(self._renew(uid), self._refresh())

    async def register(self) -> str:
        """Create the Node, or take over the one of an earlier run; its uid. Raises ApiError."""
        wanted = node_object(self._node, self._settings)
        try:
            created = await self._client.create(NODES, wanted)
        except AlreadyExists:
            created = await self._take_over(wanted)
        # Not every API server keeps the status of an object that is created.
        if not any(c.get("type") == "Ready" for c in (created.get("status") or {}).get("conditions") or ()):
            created = await self._client.patch(
                NODES, self._node.name, {"status": wanted["status"]}, subresource="status"
            )
        uid: str = created["metadata"]["uid"]
        return uid

    async def _take_over(self, wanted: Obj) -> Obj:
        """Labels are ours and are written; spec is written only where it is empty, for others own it by now."""
        old = await self._client.get(NODES, self._node.name)
        patch: Obj = {"metadata": {"labels": wanted["metadata"]["labels"]}}
        if not (old.get("spec") or {}).get("podCIDR") and wanted["spec"].get("podCIDR"):
            patch["spec"] = {key: wanted["spec"][key] for key in ("podCIDR", "podCIDRs")}
        await self._client.patch(NODES, self._node.name, patch)
        status = node_status(self._node, self._settings, old.get("status") or {}, times.now())
        return await self._client.patch(NODES, self._node.name, {"status": status}, subresource="status")

    async def _refresh(self) -> None:
        """Send the status again now and then, as a controller may have called the node unknown meanwhile."""
        while True:
            await asyncio.sleep(self._settings.node_status_seconds)
            try:
                await self.register()
            except ApiError as error:
                log.warning("node %s: status not sent: %s", self._node.name, error)

    async def _renew(self, node_uid: str) -> None:
        while True:
            try:
                await self._renew_once(node_uid)
            except ApiError as error:
                log.warning("node %s: lease not renewed: %s", self._node.name, error)
            await asyncio.sleep(self._settings.lease_seconds / 4)

    async def _renew_once(self, node_uid: str) -> None:
        patch = {"spec": {"holderIdentity": self._node.name, "renewTime": times.micro_now()}}
        try:
            await self._client.patch(LEASES, self._node.name, patch, _LEASE_NAMESPACE)
        except NotFound:
            await self._client.create(LEASES, lease(self._node, self._settings, node_uid), _LEASE_NAMESPACE)


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _node_info(node: NodeFacts) -> Obj:
    return {
        "machineID": node.name,
        "systemUUID": node.name,
        "bootID": _boot_id(),
        "kernelVersion": os.uname().release,
        "osImage": "netemu",
        "containerRuntimeVersion": f"netemu://{VERSION.split('-')[0].removeprefix('v')}",
        "kubeletVersion": VERSION,
        "kubeProxyVersion": VERSION,
        "operatingSystem": "linux",
        "architecture": _architecture(),
    }


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
