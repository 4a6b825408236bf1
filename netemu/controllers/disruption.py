"""PodDisruptionBudgets: how many of their Pods may be evicted now (`pkg/controller/disruption`).

The API server grants an eviction by the budget's status, which is kept here: how many Pods are healthy and how many
must be. `disruptedPods` are Pods whose eviction was granted but which are not seen to go yet; they do not count as
healthy, until two minutes have shown that they stay. By then a Pod that is still there is no longer told to be the
target of a disruption either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from netemu.client.index import Index
from netemu.controllers.actions import Action, Actions, Again, Patch, Say, status_patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.controllers.rollout import share_of
from netemu.model import times
from netemu.model.meta import Condition, OwnerReference, encode
from netemu.model.objects import Deployment, PodDisruptionBudget, PodDisruptionBudgetStatus, ReplicaSet
from netemu.model.pods import Pod
from netemu.model.resources import DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS, REPLICASETS, STATEFULSETS
from netemu.model.selectors import LabelSelector
from netemu.model.workloads import StatefulSet

_DELETION_TIMEOUT = timedelta(minutes=2)
_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the "
    "status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these "
    'pods please set ".spec.minAvailable" field of the PDB to an integer value.'
)


@dataclass(frozen=True, slots=True)
class Scale:
    """What makes Pods, and how many it wants."""

    uid: str
    replicas: int


Scaled = Deployment | ReplicaSet | StatefulSet
ScaleOf = Callable[[Pod], Scale | None]
"""The scale of what controls a Pod in the end, of its Deployment rather than its ReplicaSet; None if it has none."""


class _Uncountable(Exception):
    """Why the Pods that there should be cannot be counted."""


def reconcile(pdb: PodDisruptionBudget, pods: Sequence[Pod], scale_of: ScaleOf, now: datetime) -> Actions:
    """Bring the status of a budget up to date; `pods` are those that it selects."""
    actions: Actions = [] if pods else [Say(pdb, "Normal", "NoPods", "No matching pods found")]
    disrupted = _disrupted(pdb, pods, now)
    try:
        expected, desired = _counts(pdb, pods, scale_of)
    except _Uncountable as error:
        why = f"Failed to calculate the number of expected pods: {error}"
        actions.append(Say(pdb, "Warning", "CalculateExpectedPodCountFailed", why))
        return [*actions, *_written(pdb, _failed(pdb, str(error), now))]
    if _by_share(pdb) and any(_controller(pod) is None for pod in pods):
        selector = LabelSelector.of_spec(pdb.spec.selector)
        actions.append(Say(pdb, "Warning", "UnmanagedPods", _UNMANAGED.format(selector=selector)))
    healthy = sum(pod.ready and not pod.deleting and pod.name not in disrupted for pod in pods)
    allowed = max(0, healthy - desired) if expected > 0 else 0
    status = PodDisruptionBudgetStatus(
        observed_generation=pdb.metadata.generation,
        disrupted_pods=disrupted or None,
        disruptions_allowed=allowed,
        current_healthy=healthy,
        desired_healthy=desired,
        expected_pods=expected,
        conditions=_conditions(pdb, allowed > 0, "SufficientPods" if allowed else "InsufficientPods", "", now),
    )
    actions += _written(pdb, status)
    if disrupted:
        first = min(times.parse(moment) for moment in disrupted.values()) + _DELETION_TIMEOUT
        actions.append(Again((first - now).total_seconds()))
    return actions


def selector_of(pdb: PodDisruptionBudget) -> LabelSelector | None:
    """Which Pods of its namespace a budget is for: an empty selector selects all, a missing one (None) none."""
    return None if pdb.spec.selector is None else LabelSelector.of_spec(pdb.spec.selector)


def _by_share(pdb: PodDisruptionBudget) -> bool:
    """Whether the budget is counted from how many Pods there should be."""
    return pdb.spec.max_unavailable is not None or isinstance(pdb.spec.min_available, str)


def _counts(pdb: PodDisruptionBudget, pods: Sequence[Pod], scale_of: ScaleOf) -> tuple[int, int]:
    """How many Pods there should be, and how many of them must be healthy. Raises _Uncountable."""
    least, most_away = pdb.spec.min_available, pdb.spec.max_unavailable
    if not _by_share(pdb):
        return (len(pods), least) if isinstance(least, int) else (0, 0)
    scales: dict[str, int] = {}
    for pod in pods:
        if _controller(pod) is None:
            continue
        scale = scale_of(pod)
        if scale is None:
            raise _Uncountable(f'found no controllers for pod "{pod.name}"')
        scales[scale.uid] = scale.replicas
    expected = sum(scales.values())
    if most_away is not None:
        return expected, max(0, expected - share_of(most_away, expected, up=True))
    return expected, share_of(least or 0, expected, up=True)


def _disrupted(pdb: PodDisruptionBudget, pods: Sequence[Pod], now: datetime) -> dict[str, str]:
    """Of the Pods whose eviction was granted, those that may still go."""
    granted = pdb.status.disrupted_pods or {}
    there = [pod.name for pod in pods if pod.name in granted and not pod.deleting]
    return {name: granted[name] for name in there if times.parse(granted[name]) + _DELETION_TIMEOUT >= now}


def _failed(pdb: PodDisruptionBudget, why: str, now: datetime) -> PodDisruptionBudgetStatus:
    """The old status, but nothing may be evicted: what cannot be counted is not put at risk."""
    old = pdb.status
    return PodDisruptionBudgetStatus(
        observed_generation=old.observed_generation,
        disrupted_pods=old.disrupted_pods,
        current_healthy=old.current_healthy,
        desired_healthy=old.desired_healthy,
        expected_pods=old.expected_pods,
        conditions=_conditions(pdb, False, "SyncFailed", why, now),
    )


def _conditions(
    pdb: PodDisruptionBudget, allowed: bool, reason: str, message: str, now: datetime
) -> tuple[Condition, ...]:
    status, kind = "True" if allowed else "False", "DisruptionAllowed"
    before = next((c for c in pdb.status.conditions if c.type == kind), None)
    condition = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=before.last_transition_time
        if before and before.status == status
        else times.time_text(now),
        observed_generation=pdb.status.observed_generation if message else pdb.metadata.generation,
    )
    return (*(c for c in pdb.status.conditions if c.type != kind), condition)


def _written(pdb: PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Actions:
    """The patch to a status, for the budget as it was looked at: an eviction may be granted in between."""
    patch = status_patch(pdb.status, status)
    if not patch:
        return []
    if patch.get("disruptedPods"):  # a merge patch takes out only what it names
        patch["disruptedPods"] = {**dict.fromkeys(pdb.status.disrupted_pods or ()), **patch["disruptedPods"]}
    version = pdb.metadata.resource_version
    return [Patch(PODDISRUPTIONBUDGETS, pdb.name, {"status": patch}, pdb.namespace, "status", version)]


def _controller(pod: Pod | ReplicaSet) -> OwnerReference | None:
    return next((owner for owner in pod.metadata.owner_references if owner.controller), None)


class DisruptionController:
    """Watches budgets, Pods, and what says how many Pods there should be."""

    name = "controllermanager"
    needs = (PODDISRUPTIONBUDGETS, PODS, DEPLOYMENTS, REPLICASETS, STATEFULSETS)

    def __init__(self, cache: Cache) -> None:
        self._budgets = cache.of(PODDISRUPTIONBUDGETS, PodDisruptionBudget)
        self._pods = cache.of(PODS, Pod)
        self._sets = cache.of(REPLICASETS, ReplicaSet)
        self._deployments = cache.of(DEPLOYMENTS, Deployment)
        self._stateful = cache.of(STATEFULSETS, StatefulSet)
        self._in = Index(self._budgets, lambda pdb: (pdb.namespace,))
        self._pods_in = Index(self._pods, lambda pod: (pod.namespace,))

    def watch(self, queue: Queue) -> None:
        """A budget that changed, those that select a Pod that changed, all of a namespace whose scales did."""

        def of_pod(old: Pod | None, new: Pod | None) -> None:
            if old is not None and new is not None and _alike(old, new):
                return
            for pod in filter(None, (old, new)):
                for pdb in self._in[pod.namespace]:
                    selector = selector_of(pdb)
                    if selector is not None and selector.matches(pod.labels):
                        queue.mark(pdb.key)

        def of_scale(old: Scaled | None, new: Scaled | None) -> None:
            if new is not None and (old is None or old.spec.replicas != new.spec.replicas):
                for pdb in self._in[new.namespace]:
                    queue.mark(pdb.key)

        self._budgets.on_change(lambda _, new: queue.mark(new.key) if new else None)
        self._pods.on_change(of_pod)
        self._deployments.on_change(of_scale)
        self._sets.on_change(of_scale)
        self._stateful.on_change(of_scale)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        pdb = self._budgets.get(key)
        if pdb is None or pdb.deleting:
            return ()
        selector = selector_of(pdb)
        pods = [pod for pod in self._pods_in[pdb.namespace] if selector is not None and selector.matches(pod.labels)]
        return reconcile(pdb, pods, self._scale_of, datetime.now(UTC))

    def _scale_of(self, pod: Pod) -> Scale | None:
        owner = _controller(pod)
        if owner and owner.kind == "StatefulSet":
            sts = self._stateful.get(f"{pod.namespace}/{owner.name}")
            return Scale(owner.uid, sts.spec.replicas) if sts and sts.metadata.uid == owner.uid else None
        made_by = self._sets.get(f"{pod.namespace}/{owner.name}") if owner and owner.kind == "ReplicaSet" else None
        if owner is None or made_by is None or made_by.metadata.uid != owner.uid:
            return None
        above = _controller(made_by)
        if above is None or above.kind != "Deployment":
            return Scale(made_by.metadata.uid, made_by.spec.replicas)
        deployment = self._deployments.get(f"{pod.namespace}/{above.name}")
        if deployment is None or deployment.metadata.uid != above.uid:
            return None
        return Scale(deployment.metadata.uid, deployment.spec.replicas)


def _alike(old: Pod, new: Pod) -> bool:
    """Whether nothing has changed that a budget counts."""
    same_owner = old.metadata.owner_references == new.metadata.owner_references
    return old.labels == new.labels and old.ready == new.ready and old.deleting == new.deleting and same_owner


def staying(pod: Pod, now: datetime) -> Actions:
    """Take back the condition DisruptionTarget of a Pod that was to go and did not."""
    target = next((c for c in pod.status.conditions if c.type == "DisruptionTarget" and c.status == "True"), None)
    if target is None or pod.deleting or pod.finished or target.reason == "TerminationByKubelet":
        return []
    since = times.parse(target.last_transition_time) if target.last_transition_time else now
    if (left := (since + _DELETION_TIMEOUT - now).total_seconds()) > 0:
        return [Again(left)]
    others = [encode(c) for c in pod.status.conditions if c.type != target.type]
    taken_back = {"type": target.type, "status": "False", "lastTransitionTime": times.time_text(now)}
    patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [*others, taken_back]}}
    return [Patch(PODS, pod.name, patch, pod.namespace, "status", pod.metadata.resource_version)]


class StalePodDisruption:
    """Watches Pods that are told to be the target of a disruption."""

    name = "controllermanager"
    needs = (PODS,)

    def __init__(self, cache: Cache) -> None:
        self._pods = cache.of(PODS, Pod)

    def watch(self, queue: Queue) -> None:
        """Pods with the condition."""

        def of_pod(_: Pod | None, new: Pod | None) -> None:
            if new is not None and any(c.type == "DisruptionTarget" for c in new.status.conditions):
                queue.mark(new.key)

        self._pods.on_change(of_pod)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        pod = self._pods.get(key)
        return staying(pod, datetime.now(UTC)) if pod else ()
