"""Upstream's defaulting: what the API server fills in where a client left something out.

`apply_defaults` changes the object in place and is idempotent: applying it to its own result changes nothing, which is
what makes a second `kubectl apply` say "unchanged". Facts come from `pkg/apis/*/v1*/defaults.go` of Kubernetes 1.32,
and from what every registry strategy and the default admission plugins add before an object is stored.

Objects come decoded (`Schema.decoded`), so there is no null in them. Absent and empty mean the same for a field whose
Go type is no pointer: clients that send protobuf send `type: ""` or `strategy: {}`. Pointer fields (`replicas`) keep a
zero.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from netemu.apiserver.auth.rbac import GROUP as RBAC
from netemu.apiserver.defaults_pod import default_pod
from netemu.apiserver.defaults_service import default_service
from netemu.apiserver.defaults_workloads import (
    default_claim,
    default_cronjob,
    default_daemonset,
    default_deployment,
    default_job,
    default_replicaset,
    default_replicationcontroller,
    default_statefulset,
)
from netemu.apiserver.validation.policy import COUNTS
from netemu.client.base import Obj
from netemu.model.resources import Resource


def apply_defaults(resource: Resource, obj: Obj) -> None:
    """Fill in the defaults of the resource's kind, in place. The object's name must be set already."""
    obj.setdefault("metadata", {})
    if default := _DEFAULTS.get((resource.group, resource.kind)):
        default(obj)


def _default_namespace(obj: Obj) -> None:
    metadata = obj["metadata"]
    if metadata.get("name"):
        # A label of this name always tells the truth, whatever the client wrote.
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Active"


def _default_node(obj: Obj) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])
    cidr, cidrs = obj["spec"].get("podCIDR"), obj["spec"].get("podCIDRs")
    if cidr and not cidrs:
        obj["spec"]["podCIDRs"] = [cidr]
    elif cidrs and not cidr:
        obj["spec"]["podCIDR"] = cidrs[0]


def _default_endpointslice(obj: Obj) -> None:
    # `endpoints` has no omitempty upstream: clients always see a list or null there.
    obj.setdefault("endpoints", [])
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port["protocol"] = port.get("protocol") or "TCP"


def _default_endpoints(obj: Obj) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port["protocol"] = port.get("protocol") or "TCP"


def _default_secret(obj: Obj) -> None:
    obj["type"] = obj.get("type") or "Opaque"
    # stringData is write-only: it overwrites data and is never served.
    for key, text in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def _default_persistentvolume(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec["persistentVolumeReclaimPolicy"] = spec.get("persistentVolumeReclaimPolicy") or "Retain"
    spec.setdefault("volumeMode", "Filesystem")
    if "hostPath" in spec:
        spec["hostPath"].setdefault("type", "")
    status = obj.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"


def _default_limitrange(obj: Obj) -> None:
    # What a container gets that says nothing: the most, and of that at least what it must have.
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            default = {**(item.get("max") or {}), **(item.get("default") or {})}
            request = {**(item.get("min") or {}), **default, **(item.get("defaultRequest") or {})}
            item.update({key: value for key, value in (("default", default), ("defaultRequest", request)) if value})


def _default_ingress(obj: Obj) -> None:
    # A struct and no pointer upstream: clients always see it.
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def _default_ingressclass(obj: Obj) -> None:
    if parameters := (obj.get("spec") or {}).get("parameters"):
        parameters.setdefault("scope", "Cluster")


def _default_networkpolicy(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _default_poddisruptionbudget(obj: Obj) -> None:
    # Counts have no omitempty upstream: clients always see them.
    status = obj.setdefault("status", {})
    for count in COUNTS:
        status.setdefault(count, 0)


def _default_definition(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if kind := names.get("kind"):
        names["singular"] = names.get("singular") or kind.lower()
        names["listKind"] = names.get("listKind") or f"{kind}List"
    spec.setdefault("conversion", {"strategy": "None"})
    status = obj.setdefault("status", {})
    if not status.get("storedVersions"):
        stored = [one["name"] for one in spec.get("versions") or () if one.get("storage")]
        status["storedVersions"] = stored[:1]
    status.setdefault("acceptedNames", {"plural": "", "kind": ""})
    # Neither of them has omitempty upstream: clients always see them.
    status.setdefault("conditions", [])


def _default_binding(obj: Obj) -> None:
    ref = obj.setdefault("roleRef", {})
    ref["apiGroup"] = ref.get("apiGroup") or RBAC
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = RBAC
        if obj["kind"] == "RoleBinding" and subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            subject["namespace"] = obj["metadata"].get("namespace", "")


_DEFAULTS: dict[tuple[str, str], Callable[[Obj], None]] = {
    ("", "Namespace"): _default_namespace,
    ("", "Node"): _default_node,
    ("", "Pod"): default_pod,
    ("", "Service"): default_service,
    ("", "Endpoints"): _default_endpoints,
    ("", "LimitRange"): _default_limitrange,
    ("", "PersistentVolume"): _default_persistentvolume,
    ("", "PersistentVolumeClaim"): default_claim,
    ("", "ReplicationController"): default_replicationcontroller,
    ("", "Secret"): _default_secret,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _default_definition,
    ("apps", "DaemonSet"): default_daemonset,
    ("apps", "Deployment"): default_deployment,
    ("apps", "ReplicaSet"): default_replicaset,
    ("apps", "StatefulSet"): default_statefulset,
    ("batch", "CronJob"): default_cronjob,
    ("batch", "Job"): default_job,
    ("discovery.k8s.io", "EndpointSlice"): _default_endpointslice,
    ("networking.k8s.io", "Ingress"): _default_ingress,
    ("networking.k8s.io", "IngressClass"): _default_ingressclass,
    ("networking.k8s.io", "NetworkPolicy"): _default_networkpolicy,
    ("policy", "PodDisruptionBudget"): _default_poddisruptionbudget,
    (RBAC, "ClusterRoleBinding"): _default_binding,
    (RBAC, "RoleBinding"): _default_binding,
}
"""Kinds without an entry (ConfigMap, Event, Lease, ServiceAccount ...) have no defaults upstream either."""
