"""ReplicaSets: as many Pods as wanted, made from the template (`pkg/controller/replicaset/replica_set.go`).

A ReplicaSet takes in orphans that its selector matches, lets go of Pods that it matches no longer, and creates or
deletes the difference. Which Pods go first when there are too many is upstream's order (`ActivePodsWithRanks`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from netemu.client.index import Index, controller_uid
from netemu.controllers.actions import Action, Actions, Again, Create, Delete, Patch, Say, owner_reference, status_patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model import times
from netemu.model.meta import encode
from netemu.model.objects import ReplicaSet, ReplicaSetStatus
from netemu.model.pods import Pod
from netemu.model.resources import PODS, REPLICASETS
from netemu.model.selectors import LabelSelector
from netemu.model.workloads import DaemonSet, StatefulSet

Owner = ReplicaSet | DaemonSet | StatefulSet
"""What owns Pods directly."""

_BURST = 500
"""Most Pods created or deleted in one go."""
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def reconcile(rs: ReplicaSet, pods: Iterable[Pod], related: Sequence[Pod], now: datetime) -> Actions:
    """What to do for `rs`. `pods`: those in its namespace that it owns or selects; `related`: the Pods of all
    ReplicaSets of the same owner, which decide whose node is the fullest."""
    mine, actions = claim(rs, pods)
    active = [pod for pod in mine if not pod.finished and not pod.deleting]
    if not rs.deleting:
        actions += _resize(rs, active, related, now)
    if patch := status_patch(rs.status, status(rs, active, now)):
        actions.append(Patch(REPLICASETS, rs.name, {"status": patch}, rs.namespace, "status"))
    if waits := [left for pod in active if (left := available_in(pod, rs.spec.min_ready_seconds, now)) > 0]:
        actions.append(Again(min(waits)))
    return actions


def claim(rs: Owner, pods: Iterable[Pod]) -> tuple[list[Pod], Actions]:
    """The Pods that belong to `rs`, and the patches that make orphans its own and let go of strangers."""
    selector = LabelSelector.of_spec(encode(rs.spec.selector))
    mine: list[Pod] = []
    actions: Actions = []
    for pod in pods:
        matches, owner = selector.matches(pod.labels), controller_uid(pod)
        if owner == rs.metadata.uid:
            if matches:
                mine.append(pod)
            elif not rs.deleting:
                actions.append(_own(pod, [ref for ref in _references(pod) if ref["uid"] != rs.metadata.uid]))
        elif not owner and matches and not rs.deleting and not pod.deleting and not pod.finished:
            mine.append(pod)
            actions.append(_own(pod, [*_references(pod), owner_reference(rs, "apps/v1", type(rs).__name__)]))
    return mine, actions


def status(rs: ReplicaSet, active: Sequence[Pod], now: datetime) -> ReplicaSetStatus:
    """What is true of the Pods that belong to `rs`."""
    labels = ((rs.spec.template.get("metadata") or {}).get("labels") or {}).items()
    return ReplicaSetStatus(
        replicas=len(active),
        fully_labeled_replicas=sum(labels <= pod.labels.items() for pod in active),
        ready_replicas=sum(pod.ready for pod in active),
        available_replicas=sum(available_in(pod, rs.spec.min_ready_seconds, now) == 0 for pod in active),
        observed_generation=rs.metadata.generation,
    )


def available_in(pod: Pod, min_ready_seconds: int, now: datetime) -> float:
    """Seconds until a Pod counts as available: 0 for now, -1 for a Pod that is not Ready."""
    if not pod.ready:
        return -1
    if not min_ready_seconds:
        return 0
    since = _ready_since(pod)
    return max(0.0, min_ready_seconds - (now - since).total_seconds()) if since else min_ready_seconds


def pod_of(rs: Owner) -> dict[str, Any]:
    """A Pod made from the template of `rs`."""
    template = rs.spec.template
    meta = template.get("metadata") or {}
    kept = {key: meta[key] for key in ("labels", "annotations", "finalizers") if meta.get(key)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{rs.name}-",
            "namespace": rs.namespace,
            **kept,
            "ownerReferences": [owner_reference(rs, "apps/v1", type(rs).__name__)],
        },
        "spec": template.get("spec") or {},
    }


def victims(active: Sequence[Pod], count: int, related: Sequence[Pod], now: datetime) -> list[Pod]:
    """The `count` Pods to delete first: unassigned, pending, not ready, cheap, crowded, young, often restarted."""
    crowd = Counter(pod.spec.node_name for pod in related if not pod.finished and not pod.deleting)

    def order(pod: Pod) -> tuple[Any, ...]:
        restarts = max((c.restart_count for c in pod.status.container_statuses), default=0)
        phase = {"Pending": 0, "Unknown": 1}.get(pod.status.phase, 2)
        return (
            bool(pod.spec.node_name),
            phase,
            pod.ready,
            _cost(pod),
            -crowd[pod.spec.node_name],
            _age(_ready_since(pod), now) if pod.ready else 0,
            -restarts,
            _age(_created(pod), now),
            pod.metadata.uid,
        )

    return sorted(active, key=order)[:count]


def _resize(rs: ReplicaSet, active: Sequence[Pod], related: Sequence[Pod], now: datetime) -> Actions:
    missing = rs.spec.replicas - len(active)
    done = Say(rs, "Normal", "SuccessfulCreate", "Created pod: {name}")
    failed = Say(rs, "Warning", "FailedCreate", "Error creating: {error}")
    if missing > 0:
        create = Create(PODS, pod_of(rs), rs.namespace, done, failed)
        return [create] * min(missing, _BURST)
    if not missing:
        return []
    done = Say(rs, "Normal", "SuccessfulDelete", "Deleted pod: {name}")
    failed = Say(rs, "Warning", "FailedDelete", "Error deleting: {error}")
    chosen = victims(active, min(-missing, _BURST), related, now)
    return [Delete(PODS, p.name, p.namespace, p.metadata.uid, done=done, failed=failed) for p in chosen]


def _references(pod: Pod) -> list[dict[str, Any]]:
    return [encode(ref) for ref in pod.metadata.owner_references]


def _own(pod: Pod, references: list[dict[str, Any]]) -> Patch:
    patch = {"metadata": {"uid": pod.metadata.uid, "ownerReferences": references or None}}
    return Patch(PODS, pod.name, patch, pod.namespace, resource_version=pod.metadata.resource_version)


def _cost(pod: Pod) -> int:
    try:
        return int(pod.annotations.get(_DELETION_COST, "0"))
    except ValueError:  # upstream refuses such annotations in validation; older objects may have them
        return 0


def _ready_since(pod: Pod) -> datetime | None:
    text = next((c.last_transition_time for c in pod.status.conditions if c.type == "Ready"), None)
    return times.parse(text) if text else None


def _created(pod: Pod) -> datetime | None:
    return times.parse(pod.metadata.creation_timestamp) if pod.metadata.creation_timestamp else None


def _age(since: datetime | None, now: datetime) -> int:
    """Age on a logarithmic scale: Pods of about the same age are equals, and then the uid decides."""
    if since is None:
        return 0
    return int(math.log2(max(1.0, (now - since).total_seconds())))


class ReplicaSetController:
    """Watches ReplicaSets and their Pods."""

    name = "replicaset-controller"
    needs = (REPLICASETS, PODS)

    def __init__(self, cache: Cache) -> None:
        self._sets = cache.of(REPLICASETS, ReplicaSet)
        pods = cache.of(PODS, Pod)
        self._pods = pods
        self._owned = Index(pods, lambda pod: (controller_uid(pod),) if controller_uid(pod) else ())
        self._orphans = Index(pods, lambda pod: () if controller_uid(pod) else (pod.namespace,))
        self._by_uid = Index(self._sets, lambda rs: (rs.metadata.uid,))
        self._by_namespace = Index(self._sets, lambda rs: (rs.namespace,))
        self._siblings = Index(self._sets, lambda rs: (controller_uid(rs),) if controller_uid(rs) else ())

    def watch(self, queue: Queue) -> None:
        """A set that changed, the owner of a Pod that changed, any set that an orphan might fit."""

        def of_pod(old: Pod | None, new: Pod | None) -> None:
            for pod in filter(None, (old, new)):
                if uid := controller_uid(pod):
                    for rs in self._by_uid[uid]:
                        queue.mark(rs.key)
            if new is not None and not controller_uid(new):
                for rs in self._by_namespace[new.namespace]:
                    if LabelSelector.of_spec(encode(rs.spec.selector)).matches(new.labels):
                        queue.mark(rs.key)

        self._sets.on_change(lambda _, new: queue.mark(new.key) if new else None)
        self._pods.on_change(of_pod)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        rs = self._sets.get(key)
        if rs is None:
            return ()
        pods = [*self._owned[rs.metadata.uid], *self._orphans[rs.namespace]]
        owner = controller_uid(rs)
        family = self._siblings[owner] if owner else [rs]
        related = [pod for sibling in family for pod in self._owned[sibling.metadata.uid]]
        return reconcile(rs, pods, related, datetime.now(UTC))
