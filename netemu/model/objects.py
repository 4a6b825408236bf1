"""Every kind but Pods, as frozen structs (see `meta`)."""

from __future__ import annotations

from typing import Any

import msgspec

from netemu.model.meta import Condition, KubeObject, LabelSelectorSpec, Struct

# --- rbac.authorization.k8s.io/v1 ---------------------------------------------------------------------------------


class ClusterRole(KubeObject, frozen=True):
    rules: tuple[dict[str, Any], ...] | None = None
    aggregation_rule: dict[str, Any] | None = None


# --- core/v1: Namespace, Node ------------------------------------------------------------------------------------


class NamespaceStatus(Struct, frozen=True):
    phase: str = ""


class NamespaceSpec(Struct, frozen=True):
    finalizers: tuple[str, ...] = ()


class Namespace(KubeObject, frozen=True):
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class Taint(Struct, frozen=True):
    key: str
    effect: str
    value: str = ""
    time_added: str | None = None


class NodeAddress(Struct, frozen=True):
    type: str
    address: str


class NodeSpec(Struct, frozen=True):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: tuple[str, ...] = msgspec.field(name="podCIDRs", default=())
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Struct, frozen=True):
    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    capacity: dict[str, str] | None = None
    allocatable: dict[str, str] | None = None


class Node(KubeObject, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        """Whether the Ready condition is True."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)


# --- core/v1: Service, Endpoints; discovery/v1: EndpointSlice ------------------------------------------------------


class ServicePort(Struct, frozen=True):
    port: int = 0
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str = 0
    node_port: int = 0
    app_protocol: str | None = None


class ClientIPConfig(Struct, frozen=True):
    timeout_seconds: int = 10800


class SessionAffinityConfig(Struct, frozen=True):
    client_ip: ClientIPConfig | None = msgspec.field(name="clientIP", default=None)


class ServiceSpec(Struct, frozen=True):
    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str | None = None
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    external_name: str = ""
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    publish_not_ready_addresses: bool = False
    load_balancer_source_ranges: tuple[str, ...] = ()
    load_balancer_ip: str = msgspec.field(name="loadBalancerIP", default="")
    load_balancer_class: str | None = None
    traffic_distribution: str | None = None
    health_check_node_port: int = 0


class LoadBalancerIngress(Struct, frozen=True):
    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(Struct, frozen=True):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Struct, frozen=True):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(KubeObject, frozen=True):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def headless(self) -> bool:
        """Whether `clusterIP` is None: names without a virtual address."""
        return self.spec.cluster_ip == "None"


class ObjectReference(Struct, frozen=True):
    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class EndpointConditions(Struct, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: dict[str, Any] | None = None


class EndpointPort(Struct, frozen=True):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    app_protocol: str | None = None


SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""Which Service an EndpointSlice belongs to."""


class EndpointSlice(KubeObject, frozen=True):
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()

    @property
    def service_key(self) -> str:
        """The key of the Service it belongs to; `NAMESPACE/` where it belongs to none."""
        return f"{self.namespace}/{self.labels.get(SERVICE_NAME_LABEL, '')}"


IP_FAMILY, MANAGED_BY = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
"""Labels of an IPAddress."""
IP_ALLOCATOR = "ipallocator.k8s.io"
"""Who manages the IPAddresses of cluster IPs."""


class ServiceCIDRSpec(Struct, frozen=True):
    cidrs: tuple[str, ...] = ()


class ServiceCIDRStatus(Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()


class ServiceCIDR(KubeObject, frozen=True):
    """networking/v1: networks that cluster IPs come from, at most one of each family."""

    spec: ServiceCIDRSpec = ServiceCIDRSpec()
    status: ServiceCIDRStatus = ServiceCIDRStatus()


class EndpointAddress(Struct, frozen=True):
    ip: str
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointSubset(Struct, frozen=True):
    addresses: tuple[EndpointAddress, ...] | None = ()
    not_ready_addresses: tuple[EndpointAddress, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()


class Endpoints(KubeObject, frozen=True):
    subsets: tuple[EndpointSubset, ...] | None = ()


# --- core/v1: ConfigMap, Secret; coordination/v1: Lease --------------------------------------------------------------


class ConfigMap(KubeObject, frozen=True):
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


class Secret(KubeObject, frozen=True):
    """`data` values are base64."""

    type: str = "Opaque"
    data: dict[str, str] | None = None


class LeaseSpec(Struct, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None


class Lease(KubeObject, frozen=True):
    spec: LeaseSpec = LeaseSpec()


# --- apps/v1 ---------------------------------------------------------------------------------------------------------


class ReplicaSetSpec(Struct, frozen=True):
    replicas: int = 1
    min_ready_seconds: int = 0
    selector: LabelSelectorSpec = LabelSelectorSpec()
    template: dict[str, Any] = {}


class ReplicaSetStatus(Struct, frozen=True):
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    observed_generation: int = 0


class ReplicaSet(KubeObject, frozen=True):
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


class RollingUpdate(Struct, frozen=True):
    max_unavailable: int | str = "25%"
    max_surge: int | str = "25%"


class DeploymentStrategy(Struct, frozen=True):
    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(Struct, frozen=True):
    replicas: int = 1
    selector: LabelSelectorSpec = LabelSelectorSpec()
    template: dict[str, Any] = {}
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int = 10
    progress_deadline_seconds: int = 600
    paused: bool = False


class DeploymentStatus(Struct, frozen=True):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    collision_count: int | None = None
    conditions: tuple[Condition, ...] = ()


class Deployment(KubeObject, frozen=True):
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


# --- policy/v1 -------------------------------------------------------------------------------------------------------


class PodDisruptionBudgetSpec(Struct, frozen=True):
    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: dict[str, Any] | None = None


class PodDisruptionBudgetStatus(Struct, frozen=True):
    observed_generation: int = 0
    disrupted_pods: dict[str, str] | None = None
    """Name of a Pod whose eviction was granted, and when that was."""
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    conditions: tuple[Condition, ...] = ()


class PodDisruptionBudget(KubeObject, frozen=True):
    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()
