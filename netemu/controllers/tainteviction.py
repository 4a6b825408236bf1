"""Pods leave nodes whose NoExecute taints they do not tolerate, or not for ever (`pkg/controller/tainteviction`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from netemu.client.index import Index
from netemu.controllers.actions import Action, Actions, Again, Delete, Patch, Say
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model import times
from netemu.model.meta import encode
from netemu.model.node_selection import tolerates
from netemu.model.objects import Node, Taint
from netemu.model.pods import Pod
from netemu.model.resources import NODES, PODS


def reconcile(pod: Pod, taints: Sequence[Taint], now: datetime) -> Actions:
    """Evict `pod` now, later, or not at all, given the taints of its node."""
    left = time_left(pod, [taint for taint in taints if taint.effect == "NoExecute"], now)
    if left is None or pod.deleting:
        return []
    if left > 0:
        return [Again(left)]
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": times.time_text(now),
    }
    others = [encode(c) for c in pod.status.conditions if c.type != "DisruptionTarget"]
    patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [*others, target]}}
    return [
        Say(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {pod.key}"),
        Patch(PODS, pod.name, patch, pod.namespace, "status"),
        Delete(PODS, pod.name, pod.namespace, pod.metadata.uid),
    ]


def time_left(pod: Pod, taints: Sequence[Taint], now: datetime) -> float | None:
    """Seconds until eviction; None for never, because every taint is tolerated without limit."""
    limits: list[float] = []
    for taint in taints:
        matching = [t for t in pod.spec.tolerations if tolerates([t], taint)]
        if not matching:
            return 0.0
        seconds = [t.toleration_seconds for t in matching if t.toleration_seconds is not None]
        if seconds:
            since = times.parse(taint.time_added) if taint.time_added else now
            limits.append(max(0.0, min(seconds) - (now - since).total_seconds()))
    return min(limits, default=None)


class TaintEvictionController:
    """Watches Nodes with NoExecute taints and the Pods on them."""

    name = "taint-eviction-controller"
    needs = (NODES, PODS)

    def __init__(self, cache: Cache) -> None:
        self._nodes = cache.of(NODES, Node)
        self._pods = cache.of(PODS, Pod)
        self._on_node = Index(self._pods, lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())

    def watch(self, queue: Queue) -> None:
        """Pods that come to a tainted node, and all Pods of a node whose taints changed."""

        def of_node(old: Node | None, new: Node | None) -> None:
            if new is not None and _evicting(new) != _evicting(old):
                for pod in self._on_node[new.name]:
                    queue.mark(pod.key)

        def of_pod(old: Pod | None, new: Pod | None) -> None:
            fresh = new is not None and (old is None or old.spec != new.spec)
            if new is not None and fresh and _evicting(self._nodes.get(new.spec.node_name)):
                queue.mark(new.key)

        self._nodes.on_change(of_node)
        self._pods.on_change(of_pod)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        pod = self._pods.get(key)
        node = self._nodes.get(pod.spec.node_name) if pod else None
        return reconcile(pod, node.spec.taints, datetime.now(UTC)) if pod and node else ()


def _evicting(node: Node | None) -> list[Taint]:
    return [taint for taint in node.spec.taints if taint.effect == "NoExecute"] if node else []
