"""Nodes that stop answering (`pkg/controller/nodelifecycle`).

A kubelet renews its Lease every ten seconds. When neither Lease nor status has moved for the grace period, by the
clock of this process, the node's conditions become Unknown, its taints say so to the scheduler, and its Pods are no
longer ready. Taints follow the Ready condition at once, so a node is usable in the moment it says that it is.
When no node at all answers, the trouble is more likely here than there: then nothing gets a taint that evicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from netemu.client.index import Index
from netemu.controllers.actions import Action, Actions, Again, Patch, Say
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model import times
from netemu.model.meta import Condition, encode
from netemu.model.objects import Lease, Node, Taint
from netemu.model.pods import Pod
from netemu.model.resources import LEASES, NODES, PODS

GRACE = 40.0
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
_BY_CONDITION = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_CORDONED = "node.kubernetes.io/unschedulable"
_OURS = frozenset({NOT_READY, UNREACHABLE, _CORDONED, *_BY_CONDITION.values()})
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass(frozen=True, slots=True)
class Heard:
    """The last sign of life of a node: what it was, and when it came by our clock."""

    sign: tuple[str, ...]
    at: float


def reconcile(node: Node, silence: float, pods: Sequence[Pod], any_ready: bool, now: datetime) -> Actions:
    """What to do about a node that has been silent for that long. `any_ready`: whether some node answers."""
    actions: Actions = []
    stamp = times.time_text(now)
    if silence >= GRACE and _ready(node) != "Unknown":
        conditions = unknown(node, stamp)
        patch = {"status": {"conditions": [encode(c) for c in conditions]}}
        actions.append(Patch(NODES, node.name, patch, subresource="status"))
        actions.append(Say(node, "Normal", "NodeNotReady", f"Node {node.name} status is now: NodeNotReady"))
        return actions  # taints and Pods follow when the conditions are seen
    taints = wanted_taints(node, any_ready, stamp)
    if taints != node.spec.taints:
        plain = [encode(taint) for taint in taints]
        version = node.metadata.resource_version
        actions.append(Patch(NODES, node.name, {"spec": {"taints": plain or None}}, resource_version=version))
    if _ready(node) != "True":
        actions += [action for pod in pods if pod.ready for action in _unready(pod, stamp)]
    if silence < GRACE:
        actions.append(Again(GRACE - silence + 0.01))
    return actions


def unknown(node: Node, stamp: str) -> list[Condition]:
    """The node's conditions when it has stopped posting them."""
    known = {condition.type: condition for condition in node.status.conditions}
    fresh = []
    for kind in dict.fromkeys((*known, *_REPORTED)):
        old = known.get(kind)
        if kind not in _REPORTED and old is not None:
            fresh.append(old)
            continue
        heard = old.last_heartbeat_time if old else node.metadata.creation_timestamp
        reason = "NodeStatusUnknown" if old else "NodeStatusNeverUpdated"
        text = "Kubelet stopped posting node status." if old else "Kubelet never posted node status."
        fresh.append(Condition(kind, "Unknown", reason, text, stamp, heard))
    return fresh


def wanted_taints(node: Node, any_ready: bool, stamp: str) -> tuple[Taint, ...]:
    """The taints that the conditions ask for, and those of others as they are. A taint that stays keeps its time."""
    need: list[tuple[str, str]] = []
    ready = _ready(node)
    if ready != "True":
        key = UNREACHABLE if ready == "Unknown" else NOT_READY
        need += [(key, "NoSchedule"), *([(key, "NoExecute")] if any_ready else [])]
    for condition in node.status.conditions:
        if condition.type in _BY_CONDITION and condition.status == "True":
            need.append((_BY_CONDITION[condition.type], "NoSchedule"))
    if node.spec.unschedulable:
        need.append((_CORDONED, "NoSchedule"))
    kept = [t for t in node.spec.taints if t.key not in _OURS or (t.key, t.effect) in need]
    have = {(taint.key, taint.effect) for taint in kept}
    return (*kept, *(Taint(key, effect, time_added=stamp) for key, effect in need if (key, effect) not in have))


def _unready(pod: Pod, stamp: str) -> Actions:
    def one(condition: Condition) -> dict[str, Any]:
        plain: dict[str, Any] = encode(condition)
        return {**plain, "status": "False", "lastTransitionTime": stamp} if condition.type == "Ready" else plain

    patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [one(c) for c in pod.status.conditions]}}
    return [
        Patch(PODS, pod.name, patch, pod.namespace, "status", pod.metadata.resource_version),
        Say(pod, "Warning", "NodeNotReady", "Node is not ready"),
    ]


def _ready(node: Node) -> str:
    """Status of the Ready condition; a node that never reported is not ready."""
    return next((c.status for c in node.status.conditions if c.type == "Ready"), "False")


def sign_of_life(node: Node | None, lease: Lease | None) -> tuple[str, ...]:
    """What moves when a kubelet is alive."""
    beats = [c.last_heartbeat_time or "" for c in node.status.conditions] if node else []
    return (lease.spec.renew_time or "" if lease else "", *beats)


class NodeLifecycleController:
    """Watches Nodes, their Leases and Pods."""

    name = "node-controller"
    needs = (NODES, LEASES, PODS)

    def __init__(self, cache: Cache) -> None:
        self._nodes = cache.of(NODES, Node)
        self._leases = cache.of(LEASES, Lease)
        self._pods = cache.of(PODS, Pod)
        self._on_node = Index(self._pods, lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())
        self._heard: dict[str, Heard] = {}

    def watch(self, queue: Queue) -> None:
        """Nodes; a Lease only where it is the first sign of life of a node given up."""

        def of_node(old: Node | None, new: Node | None) -> None:
            if new is None:
                self._heard.pop(old.name, None) if old else None
                return
            self._hear(new.name)
            queue.mark(new.name)
            if _ready(new) != (_ready(old) if old else None):
                _mark_all(queue, self._nodes.objects)  # whether any node is ready concerns all of them

        def of_lease(_: Lease | None, new: Lease | None) -> None:
            if new is not None and new.namespace == "kube-node-lease":
                self._hear(new.name)

        def of_pod(old: Pod | None, new: Pod | None) -> None:
            if new is not None and new.ready and not (old and old.ready) and new.spec.node_name:
                node = self._nodes.get(new.spec.node_name)
                if node is not None and not node.ready:
                    queue.mark(node.name)

        self._nodes.on_change(of_node)
        self._leases.on_change(of_lease)
        self._pods.on_change(of_pod)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        node = self._nodes.get(key)
        if node is None:
            return ()
        heard = self._hear(key)
        silence = asyncio.get_running_loop().time() - heard.at
        any_ready = any(other.ready for other in self._nodes.objects.values())
        return reconcile(node, silence, self._on_node[key], any_ready, datetime.now(UTC))

    def _hear(self, name: str) -> Heard:
        sign = sign_of_life(self._nodes.get(name), self._leases.get(f"kube-node-lease/{name}"))
        heard = self._heard.get(name)
        if heard is None or heard.sign != sign:
            heard = self._heard[name] = Heard(sign, asyncio.get_running_loop().time())
        return heard


def _mark_all(queue: Queue, keys: Iterable[str]) -> None:
    for key in keys:
        queue.mark(key)
