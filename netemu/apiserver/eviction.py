"""pods/eviction: a deletion that asks the Pod's disruption budget first (`pkg/registry/core/pod/storage/eviction.go`).

Granting an eviction takes one from the budget's `disruptionsAllowed` and notes the Pod in its `disruptedPods`, in one
write that fails where somebody else was faster; so ten evictions at once never get more than the budget allows, though
the disruption controller counts the Pods only afterwards. A Pod that runs no longer, or not yet, or is going already
costs nothing, and one that is not ready costs nothing while the budget is kept without it.

What is decided here is pure but for the writes, which are the writer's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from netemu.apiserver.cacher import Cacher
from netemu.apiserver.deletion import DeleteOptions, check
from netemu.apiserver.json_values import copied
from netemu.apiserver.merge.managed_fields import bare, updater
from netemu.apiserver.writer import Writer
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import Conflict, Forbidden, InternalError, NotFound, TooManyRequests
from netemu.model.resources import PODDISRUPTIONBUDGETS, PODS, Resource
from netemu.model.selectors import LabelSelector

EVICTIONS = Resource("policy", "v1", "Eviction", "evictions")

_ATTEMPTS = 20
_MOST_DISRUPTED = 2000
_RETRY_SECONDS = 10
_WHO_OF_BUDGETS = updater("kube-apiserver", "policy/v1", "status")
_WHO_OF_PODS = updater("kube-apiserver", "v1", "status")


async def evict(cacher: Cacher, writer: Writer, namespace: str, name: str, options: DeleteOptions) -> None:
    """Delete a Pod if its budget grants it. Raises TooManyRequests if not; NotFound, Conflict, InternalError."""
    for _ in range(_ATTEMPTS):
        pod = cacher.find(PODS, namespace, name)
        if pod is None:
            raise NotFound.named("pods", name)
        # What is decided on a Pod as it is holds only for the Pod as it is.
        budget, guarded = None, _pending(pod)
        if not _at_rest(pod):
            budget = _budget_of(pod, cacher.objects(PODDISRUPTIONBUDGETS, namespace))
            guarded = budget is not None and free_of_charge(pod, budget)
            if budget is not None and not guarded:
                await _take(writer, budget, name, dry_run=options.dry_run)
        seen = options.resource_version or (pod["metadata"]["resourceVersion"] if guarded else "")
        try:
            return await _delete(writer, pod, replace(options, resource_version=seen))
        except Conflict:
            if not guarded or options.resource_version:
                raise
            if budget is not None:
                raise _not_yet(budget) from None
    raise Conflict.named("pods", name)


def free_of_charge(pod: Obj, budget: Obj) -> bool:
    """Whether a Pod that is not ready may go without the budget's leave (`unhealthyPodEvictionPolicy`)."""
    if any(c.get("type") == "Ready" and c.get("status") == "True" for c in pod["status"].get("conditions") or ()):
        return False
    status = budget.get("status") or {}
    kept = status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0
    return kept or (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow"


def charged(budget: Obj, pod: str, now: datetime) -> Obj:
    """A copy of `budget` with one disruption less. Raises TooManyRequests if there is none, Forbidden."""
    metadata, status = budget["metadata"], dict(budget.get("status") or {})
    allowed = status.get("disruptionsAllowed", 0)
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        raise _not_yet(budget)
    if allowed < 0:
        raise _refused(metadata["name"], "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > _MOST_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise _refused(metadata["name"], why)
    if not allowed:
        raise _too_many(_why_not(metadata["name"], status))
    status["disruptionsAllowed"] = allowed - 1
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod: times.time_text(now)}
    if allowed == 1:
        status["conditions"] = [_used_up(c, status, now) for c in status.get("conditions") or ()]
    return {**budget, "status": status}


def _used_up(condition: Obj, status: Obj, now: datetime) -> Obj:
    if condition.get("type") != "DisruptionAllowed":
        return condition
    seen = {"observedGeneration": status.get("observedGeneration", 0), "lastTransitionTime": times.time_text(now)}
    return {**condition, **seen, "status": "False", "reason": "InsufficientPods"}


def _pending(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") == "Pending" and not pod["metadata"].get("deletionTimestamp")


def _at_rest(pod: Obj) -> bool:
    """Whether no budget has a say in the Pod's end: it is over, has not begun, or is coming already."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or bool(pod["metadata"].get("deletionTimestamp"))


def _budget_of(pod: Obj, budgets: Iterable[Obj]) -> Obj | None:
    labels = pod["metadata"].get("labels")
    found = [budget for budget in budgets if _selects((budget.get("spec") or {}).get("selector"), labels)]
    if len(found) > 1:
        why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise InternalError(why)
    return found[0] if found else None


def _selects(selector: Obj | None, labels: dict[str, str] | None) -> bool:
    """An empty selector selects every Pod, a missing one none."""
    return selector is not None and LabelSelector.of_spec(selector).matches(labels)


async def _take(writer: Writer, budget: Obj, pod: str, *, dry_run: bool) -> None:
    metadata, now = budget["metadata"], datetime.now(UTC)
    namespace, name = metadata["namespace"], metadata["name"]

    def taken(seen: Obj) -> Obj:
        return charged(copied(bare(seen)), pod, now)

    who = _WHO_OF_BUDGETS
    await writer.modify(PODDISRUPTIONBUDGETS, namespace, name, taken, subresource="status", who=who, dry_run=dry_run)


async def _delete(writer: Writer, pod: Obj, options: DeleteOptions) -> None:
    """Say on the Pod why it goes, then delete it."""
    metadata = pod["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    if not options.dry_run:

        def targeted(seen: Obj) -> Obj:
            check(PODS, seen, options)
            return _as_target(copied(bare(seen)))

        marked, _ = await writer.modify(PODS, namespace, name, targeted, subresource="status", who=_WHO_OF_PODS)
        if options.resource_version:
            options = replace(options, resource_version=marked["metadata"]["resourceVersion"])
    await writer.delete(PODS, namespace, name, options)


def _as_target(pod: Obj) -> Obj:
    status = pod.get("status") or {}
    conditions = status.get("conditions") or ()
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": times.now(),
    }
    if any(c.get("type") == target["type"] and c.get("reason") == target["reason"] for c in conditions):
        return pod
    others = [c for c in conditions if c.get("type") != target["type"]]
    return {**pod, "status": {**status, "conditions": [*others, target]}}


def _why_not(name: str, status: Obj) -> str:
    healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    conditions = status.get("conditions") or ()
    if failed := [c["message"] for c in conditions if c.get("reason") == "SyncFailed" and c.get("message")]:
        why = "does not allow evicting pods currently because it failed sync"
        return f"The disruption budget {name} {why}: {failed[0]}"
    return f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"


def _not_yet(budget: Obj) -> TooManyRequests:
    why = f"The disruption budget {budget['metadata']['name']} is still being processed by the server."
    return _too_many(why, _RETRY_SECONDS)


def _too_many(why: str, seconds: int = 0) -> TooManyRequests:
    """Without `seconds`, clients do not try again by themselves: kubectl tells its user that it waits."""
    details = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    wait = {"retryAfterSeconds": seconds} if seconds else {}
    return TooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", {**details, **wait})


def _refused(name: str, why: str) -> Forbidden:
    details = {"name": name, "group": "policy", "kind": "poddisruptionbudget"}
    return Forbidden(f'poddisruptionbudget.policy "{name}" is forbidden: {why}', details)
