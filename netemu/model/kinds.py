"""The kinds that have a type of their own, by name."""

from __future__ import annotations

from netemu.model.certificates import CertificateSigningRequest
from netemu.model.custom import CustomResourceDefinition
from netemu.model.meta import KubeObject
from netemu.model.objects import (
    ClusterRole,
    ConfigMap,
    ControllerRevision,
    DaemonSet,
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

_TYPES: tuple[type[KubeObject], ...] = (
    CertificateSigningRequest, ClusterRole, ConfigMap, ControllerRevision, CustomResourceDefinition, DaemonSet,
    Deployment, EndpointSlice, Endpoints, Lease, Namespace, Node, Pod, PodDisruptionBudget, ReplicaSet, Secret, Service,
    ServiceCIDR,
)  # fmt: skip

KINDS: dict[str, type[KubeObject]] = {kind.__name__: kind for kind in _TYPES}
