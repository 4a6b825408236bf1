"""Everything about a kubelet that may be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netemu.model.objects import Taint

VERSION = "v1.32.0-netemu"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The node that a kubelet answers for."""

    name: str
    addresses: tuple[str, ...]
    """InternalIPs, at most one of each family, the primary one first."""
    netns: str
    """Its network namespace, by name or path; probes are sent from here. Empty: the one the process is in."""
    pod_cidrs: tuple[str, ...] = ()
    zone: str = ""
    """topology.kubernetes.io/zone."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """More labels: roles, a region, whatever the topology gives."""
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """One kubelet's configuration. Names follow KubeletConfiguration where it has the setting."""

    pods_dir: str
    """Directory of sandbox directories, shared by the kubelets of a machine: /run/netemu/LAB/pods."""
    cluster_dns: tuple[str, ...] = ("10.96.0.10",)
    """Name servers of ClusterFirst Pods."""
    cluster_domain: str = "cluster.local"
    resolv_conf: str = "/etc/resolv.conf"
    """The node's own resolver file, for dnsPolicy Default and the tail of search lists; empty: none."""
    hosts_file: str = "/etc/hosts"
    """The node's own hosts file, for Pods on the host's network."""
    max_pods: int = 2000
    """Upstream's 110 is a limit of its machinery; Pods are cheap here."""
    cpu: str = "64"
    memory: str = "256Gi"
    """What a node claims to have. Emulated containers use next to nothing; requests must not keep Pods from fitting."""
    honour_initial_delay: bool = False
    """initialDelaySeconds is the time an application needs to start. Emulated containers need none, so their first
    probe goes out at once; True waits all the same. Real processes always get their delay."""
    lease_seconds: int = 40
    """nodeLeaseDurationSeconds; renewed four times as often."""
    node_status_seconds: float = 300.0
    """nodeStatusReportFrequency: how often an unchanged Node's status is sent."""
    back_off: tuple[float, float] = (10.0, 300.0)
    """First and longest pause before a container is started again, in seconds."""
