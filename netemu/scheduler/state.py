"""What the scheduler knows of the cluster, kept up to date one Pod or Node at a time.

A Pod counts on its node from the moment the scheduler has decided, not only when the API server says so: the next
decision must see it (`assume`). Pods that ran to their end no longer count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from netemu.client.index import controller_uid
from netemu.model.objects import Node, Taint
from netemu.model.pods import Pod
from netemu.scheduler.resources import amounts, requests

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

HostPort = tuple[str, str, int]
"""(address, protocol, port)."""


@dataclass(slots=True)
class NodeState:
    """A node and what its Pods take. `node` is None where Pods are bound to a node that is not (yet) known."""

    name: str
    node: Node | None = None
    taints: tuple[Taint, ...] = ()
    allocatable: dict[str, int] = field(default_factory=dict)
    requested: Counter[str] = field(default_factory=Counter)
    pods: dict[str, Pod] = field(default_factory=dict)
    ports: Counter[HostPort] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    """Pods by `group_of`."""

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the node; its host name is there even if nobody wrote it."""
        return {HOSTNAME: self.name, **(self.node.labels if self.node else {})}

    @property
    def zone(self) -> str:
        """The node's zone, or the empty string."""
        return self.node.labels.get(ZONE, "") if self.node else ""


@dataclass(slots=True)
class ClusterState:
    """All nodes, and the Pods whose anti-affinity others must respect."""

    nodes: dict[str, NodeState] = field(default_factory=dict)
    exclusive: dict[str, str] = field(default_factory=dict)
    """Key of each placed Pod with required anti-affinity -> its node."""
    _where: dict[str, str] = field(default_factory=dict)

    def known(self) -> list[NodeState]:
        """The nodes that exist, by name."""
        return [state for _, state in sorted(self.nodes.items()) if state.node is not None]

    def set_node(self, node: Node) -> None:
        """A node is new or has changed."""
        state = self.nodes.setdefault(node.name, NodeState(node.name))
        state.node, state.taints = node, effective_taints(node)
        state.allocatable = amounts(node.status.allocatable or node.status.capacity)

    def remove_node(self, name: str) -> None:
        """A node is gone; Pods bound to it stay known until they go."""
        state = self.nodes.get(name)
        if state is not None:
            state.node, state.taints, state.allocatable = None, (), {}
            if not state.pods:
                del self.nodes[name]

    def add_pod(self, pod: Pod, node: str = "") -> None:
        """`pod` is on its node, or on `node` by our own decision. Replaces what was known of it."""
        self.remove_pod(pod.key)
        name = node or pod.spec.node_name
        state = self.nodes.setdefault(name, NodeState(name))
        state.pods[pod.key] = pod
        state.requested.update(requests(pod))
        state.ports.update(host_ports(pod))
        state.groups[group_of(pod)] += 1
        self._where[pod.key] = name
        if anti_affinity(pod):
            self.exclusive[pod.key] = name

    def remove_pod(self, key: str) -> None:
        """`pod` is gone, finished, or was not bound after all. Unknown is fine."""
        name = self._where.pop(key, None)
        if name is None:
            return
        state = self.nodes[name]
        pod = state.pods.pop(key)
        state.requested.subtract(requests(pod))
        state.ports.subtract(host_ports(pod))
        state.groups[group_of(pod)] -= 1
        self.exclusive.pop(key, None)
        if state.node is None and not state.pods:
            del self.nodes[name]

    def node_of(self, key: str) -> str:
        """Where the Pod of that key counts, or the empty string."""
        return self._where.get(key, "")


def effective_taints(node: Node) -> tuple[Taint, ...]:
    """The node's taints, and the one that its Ready condition means even if the node controller has not set it yet."""
    status = next((c.status for c in node.status.conditions if c.type == "Ready"), "False")
    key = {"True": "", "Unknown": "node.kubernetes.io/unreachable"}.get(status, "node.kubernetes.io/not-ready")
    taints = node.spec.taints
    if key and not any(taint.key == key for taint in taints):
        taints = (*taints, Taint(key, "NoSchedule"))
    return taints


def host_ports(pod: Pod) -> list[HostPort]:
    """Ports that the Pod's containers take on the node itself."""
    return [
        (port.host_ip or "0.0.0.0", port.protocol, port.host_port)
        for container in pod.spec.containers
        for port in container.ports
        if port.host_port
    ]


def group_of(pod: Pod) -> str:
    """Pods of one group are spread: those of one controller, or with the same labels in one namespace."""
    return controller_uid(pod) or f"{pod.namespace} {sorted(pod.labels.items())}"


def anti_affinity(pod: Pod) -> list[dict[str, object]]:
    """The required anti-affinity terms."""
    terms = ((pod.spec.affinity or {}).get("podAntiAffinity") or {}).get(_REQUIRED)
    return list(terms or ())


def affinity(pod: Pod) -> list[dict[str, object]]:
    """The required affinity terms."""
    terms = ((pod.spec.affinity or {}).get("podAffinity") or {}).get(_REQUIRED)
    return list(terms or ())


def placed(nodes: Iterable[NodeState]) -> Iterable[tuple[NodeState, Pod]]:
    """Every Pod with its node."""
    return ((state, pod) for state in nodes for pod in state.pods.values())


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
