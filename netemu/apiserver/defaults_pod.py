"""Defaults of Pods and Pod templates.

A template gets only what `SetDefaults_PodSpec` and its nested functions give (`pkg/apis/core/v1/defaults.go`). A Pod
also gets what exists for Pods alone: requests from limits, enableServiceLinks, the QoS class, and what the default
admission plugins add (DefaultTolerationSeconds, Priority).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from netemu.client.base import Obj

_DEFAULT_MODE = 0o644
_TOLERATION_SECONDS = 300
_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


def default_pod(pod: Obj) -> None:
    """Fill in the defaults of a Pod, in place."""
    spec = pod.setdefault("spec", {})
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        _requests_from_limits(container.get("resources") or {})
    default_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        _host_ports(spec)
    _default_tolerations(spec)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", _PRIORITIES.get(spec.get("priorityClassName", ""), 0))
    status = pod.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"
    status["qosClass"] = status.get("qosClass") or qos_class(spec)
    _pod_ips(status)


def _pod_ips(status: Obj) -> None:
    """`podIP` is the first of `podIPs`; where they differ it wins (`pkg/apis/core/v1/conversion.go`)."""
    first, every = status.get("podIP"), status.get("podIPs") or []
    if first and (not every or every[0].get("ip") != first):
        status["podIPs"] = [{"ip": first}]
    elif every and not first:
        status["podIP"] = every[0].get("ip") or ""


def default_pod_template(template: Obj) -> None:
    """Fill in the defaults of a Deployment's or ReplicaSet's template, in place."""
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))
    if template["spec"].get("hostNetwork"):
        _host_ports(template["spec"])


def default_pod_spec(spec: Obj) -> None:
    """Fill in what Pods and templates have in common, in place."""
    spec["dnsPolicy"] = spec.get("dnsPolicy") or "ClusterFirst"
    spec["restartPolicy"] = spec.get("restartPolicy") or "Always"
    spec["schedulerName"] = spec.get("schedulerName") or "default-scheduler"
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    _mirror(spec, "serviceAccountName", "serviceAccount")
    for container in all_containers(spec):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def all_containers(spec: Obj) -> Iterator[Obj]:
    """Init, ordinary and ephemeral containers of a Pod spec."""
    for key in _CONTAINER_LISTS:
        yield from spec.get(key) or ()


def qos_class(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory (`pkg/apis/core/v1/helper/qos`)."""
    requested = limited = False
    guaranteed = True
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        requested |= any(name in requests for name in ("cpu", "memory"))
        limited |= any(name in limits for name in ("cpu", "memory"))
        guaranteed &= all(
            name in limits and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory")
        )
    if not requested and not limited:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _mirror(spec: Obj, name: str, deprecated: str) -> None:
    value = spec.get(name) or spec.get(deprecated)
    if value:
        spec[name] = spec[deprecated] = value


def _requests_from_limits(resources: Obj) -> None:
    for name, quantity in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, quantity)


def _host_ports(spec: Obj) -> None:
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for port in container.get("ports") or ():
            if not port.get("hostPort") and "containerPort" in port:
                port["hostPort"] = port["containerPort"]


def _default_tolerations(spec: Obj) -> None:
    tolerations = spec.get("tolerations") or []
    for key in _NODE_TAINTS:
        covers = any(
            (t.get("key") == key or not t.get("key")) and t.get("effect") in ("NoExecute", "", None)
            for t in tolerations
        )
        if not covers:
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute"}
            tolerations.append({**toleration, "tolerationSeconds": _TOLERATION_SECONDS})
    spec["tolerations"] = tolerations


def _default_container(container: Obj) -> None:
    container["terminationMessagePath"] = container.get("terminationMessagePath") or "/dev/termination-log"
    container["terminationMessagePolicy"] = container.get("terminationMessagePolicy") or "File"
    container["imagePullPolicy"] = container.get("imagePullPolicy") or pull_policy(container.get("image") or "")
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port["protocol"] = port.get("protocol") or "TCP"
    for variable in container.get("env") or ():
        _default_field_ref((variable.get("valueFrom") or {}).get("fieldRef"))
    for name in _PROBES:
        if name in container:
            _default_probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _default_http_get(hook.get("httpGet"))


def pull_policy(image: str) -> str:
    """Always for the tag `latest` or none, else IfNotPresent."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if digest or tag not in ("", "latest") else "Always"


def _default_probe(probe: Obj) -> None:
    for field, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        probe[field] = probe.get(field) or value
    _default_http_get(probe.get("httpGet"))
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _default_http_get(action: Any) -> None:
    if isinstance(action, dict):
        action["path"] = action.get("path") or "/"
        action["scheme"] = action.get("scheme") or "HTTP"


def _default_field_ref(reference: Any) -> None:
    if isinstance(reference, dict):
        reference["apiVersion"] = reference.get("apiVersion") or "v1"


def _default_volume(volume: Obj) -> None:
    if not any(isinstance(source, dict) for key, source in volume.items() if key != "name"):
        volume["emptyDir"] = {}
    for key in ("secret", "configMap", "downwardAPI", "projected"):
        if key in volume:
            volume[key].setdefault("defaultMode", _DEFAULT_MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        _default_field_ref(item.get("fieldRef"))
    for source in (volume.get("projected") or {}).get("sources") or ():
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            _default_field_ref(item.get("fieldRef"))
