"""Short ways to write the objects that tests of controllers and the scheduler talk about."""

from __future__ import annotations

from typing import Any

from netemu.model.meta import decode
from netemu.model.objects import Node, ReplicaSet, Service
from netemu.model.pods import Pod

NOW = "2026-01-01T12:00:00Z"


def deployment(name: str = "web", replicas: int = 3, image: str = "one", **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


def daemon_set(name: str = "web", image: str = "one", pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    made = deployment(name, image=image, **spec)
    del made["spec"]["replicas"]
    made["spec"]["template"]["spec"] |= pod or {}
    return {**made, "kind": "DaemonSet"}


def stateful_set(name: str = "web", replicas: int = 3, image: str = "one", **spec: Any) -> dict[str, Any]:
    return {**deployment(name, replicas, image, serviceName=name, **spec), "kind": "StatefulSet"}


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}", **spec.pop("metadata", {})}
    spec = {"selector": {"app": name}, "ports": [{"port": 80}], "clusterIP": "10.96.0.9", **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def pod(
    name: str, address: str = "", *, ready: bool = True, node: str = "", created: str = NOW, **parts: Any
) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "creationTimestamp": created}
    meta |= {"labels": {"app": "web"}, **parts.pop("metadata", {})}
    status: dict[str, Any] = {"phase": "Running", **parts.pop("status", {})}
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    status["conditions"] = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": NOW}]
    spec = {"containers": [{"name": "main"}], "nodeName": node, **parts}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}


def node(name: str, *, zone: str = "", ready: str = "True", **parts: Any) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": name, "labels": {**labels, **parts.pop("labels", {})}},
        "spec": parts,
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def replica_set(name: str, replicas: int, available: int, **parts: Any) -> ReplicaSet:
    return decode(
        {
            "metadata": {"name": name, "uid": name, "creationTimestamp": NOW, **parts},
            "spec": {"replicas": replicas},
            "status": {"replicas": replicas, "availableReplicas": available},
        },
        ReplicaSet,
    )


def a_pod(name: str, address: str = "", **parts: Any) -> Pod:
    return decode(pod(name, address, **parts), Pod)


def a_node(name: str, **parts: Any) -> Node:
    return decode(node(name, **parts), Node)


def a_service(name: str = "web", **spec: Any) -> Service:
    return decode(service(name, **spec), Service)
