"""The kinds that have a type of their own, by name."""

from __future__ import annotations

from netemu.model.certificates import CertificateSigningRequest
from netemu.model.custom import CustomResourceDefinition
from netemu.model.meta import KubeObject
from netemu.model.objects import (
    ClusterRole,
    ConfigMap,
    Deployment,
    Endpoints,
    EndpointSlice,
    Lease,
    Namespace,
    Node,
    PodDisruptionBudget,
    ReplicaSet,
    Secret,
    Service,
    ServiceCIDR,
)
from netemu.model.pods import Pod
from netemu.model.workloads import ControllerRevision, DaemonSet, StatefulSet

_TYPES: tuple[type[KubeObject], ...] = (
    CertificateSigningRequest, ClusterRole, ConfigMap, ControllerRevision, CustomResourceDefinition, DaemonSet,
    Deployment, EndpointSlice, Endpoints, Lease, Namespace, Node, Pod, PodDisruptionBudget, ReplicaSet, Secret, Service,
    ServiceCIDR, StatefulSet,
)  # fmt: skip

KINDS: dict[str, type[KubeObject]] = {kind.__name__: kind for kind in _TYPES}
