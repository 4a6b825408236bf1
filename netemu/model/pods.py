"""Pods: core/v1, as frozen structs (see `meta`)."""

from __future__ import annotations

from typing import Any

import msgspec

from netemu.model.meta import Condition, KubeObject, Struct


class ContainerPort(Struct, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(name="hostIP", default="")


class EnvVar(Struct, frozen=True):
    name: str
    value: str = ""
    value_from: dict[str, Any] | None = None


class EnvFromRef(Struct, frozen=True):
    name: str = ""
    optional: bool | None = None


class EnvFromSource(Struct, frozen=True):
    prefix: str = ""
    config_map_ref: EnvFromRef | None = None
    secret_ref: EnvFromRef | None = None


class HTTPHeader(Struct, frozen=True):
    name: str
    value: str


class HTTPGetAction(Struct, frozen=True):
    port: int | str
    path: str = "/"
    scheme: str = "HTTP"
    host: str = ""
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(Struct, frozen=True):
    port: int | str
    host: str = ""


class GRPCAction(Struct, frozen=True):
    port: int
    service: str | None = None


class ExecAction(Struct, frozen=True):
    command: tuple[str, ...] = ()


class Probe(Struct, frozen=True):
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3


class SleepAction(Struct, frozen=True):
    seconds: int = 0


class LifecycleHandler(Struct, frozen=True):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct, frozen=True):
    pre_stop: LifecycleHandler | None = None


class VolumeMount(Struct, frozen=True):
    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False


class Container(Struct, frozen=True):
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    resources: dict[str, Any] | None = None
    volume_mounts: tuple[VolumeMount, ...] = ()
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    restart_policy: str | None = None
    image_pull_policy: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class PodDNSConfigOption(Struct, frozen=True):
    name: str
    value: str | None = None


class PodDNSConfig(Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class HostAlias(Struct, frozen=True):
    ip: str
    hostnames: tuple[str, ...] = ()


class KeyToPath(Struct, frozen=True):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(Struct, frozen=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None
    default_mode: int | None = None


class SecretVolume(Struct, frozen=True):
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None
    default_mode: int | None = None


class HostPathVolume(Struct, frozen=True):
    path: str
    type: str | None = None


class Volume(Struct, frozen=True):
    name: str
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: dict[str, Any] | None = None
    host_path: HostPathVolume | None = None
    projected: dict[str, Any] | None = None
    downward_api: dict[str, Any] | None = msgspec.field(name="downwardAPI", default=None)


class Toleration(Struct, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodReadinessGate(Struct, frozen=True):
    condition_type: str


class PodSpec(Struct, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    scheduler_name: str = "default-scheduler"
    priority: int | None = None
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = msgspec.field(name="setHostnameAsFQDN", default=False)
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig | None = None
    host_aliases: tuple[HostAlias, ...] = ()
    readiness_gates: tuple[PodReadinessGate, ...] = ()
    runtime_class_name: str | None = None
    enable_service_links: bool = True
    service_account_name: str = ""


class PodIP(Struct, frozen=True):
    ip: str


class ContainerStatus(Struct, frozen=True):
    """`state` and `last_state` hold one of running, waiting, terminated, as on the wire."""

    name: str
    image: str = ""
    image_id: str = msgspec.field(name="imageID", default="")
    container_id: str = msgspec.field(name="containerID", default="")
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: dict[str, Any] = {}
    last_state: dict[str, Any] = {}


class PodStatus(Struct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    host_ip: str = msgspec.field(name="hostIP", default="")
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())
    start_time: str | None = None
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(KubeObject, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        """Whether the Ready condition is True."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self.status.phase in ("Succeeded", "Failed")
