"""What a Deployment says about itself: counts and the conditions Available and Progressing
(`pkg/controller/deployment/{progress,sync}.go`, `deployment/util`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from netemu.controllers import rollout
from netemu.model import times
from netemu.model.meta import Condition
from netemu.model.objects import Deployment, DeploymentStatus, ReplicaSet

_NO_DEADLINE = 2**31 - 1


def counts(deployment: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet]) -> DeploymentStatus:
    """The status with its numbers, and the conditions as they were."""
    available = sum(rs.status.available_replicas for rs in sets)
    return DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=sum(rs.status.replicas for rs in sets),
        updated_replicas=new.status.replicas if new else 0,
        ready_replicas=sum(rs.status.ready_replicas for rs in sets),
        available_replicas=available,
        unavailable_replicas=max(0, rollout.total(sets) - available),
        collision_count=deployment.status.collision_count,
        conditions=deployment.status.conditions,
    )


def status(
    deployment: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet], now: datetime, *, rolling: bool = True
) -> DeploymentStatus:
    """The whole new status. `rolling` is False while paused or being scaled: then progress is not judged."""
    fresh = counts(deployment, new, sets)
    fresh = _with(fresh, _availability(deployment, fresh), now)
    condition = _progress(deployment, new, fresh, now) if rolling else _pause(deployment)
    return _with(fresh, condition, now) if condition else fresh


def complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """Whether all replicas are of the new template and available."""
    wanted = deployment.spec.replicas
    return (
        status.updated_replicas == wanted
        and status.replicas == wanted
        and status.available_replicas == wanted
        and status.observed_generation >= deployment.metadata.generation
    )


def condition(status: DeploymentStatus, kind: str) -> Condition | None:
    """The condition of that type."""
    return next((item for item in status.conditions if item.type == kind), None)


def deadline_in(deployment: Deployment, status: DeploymentStatus, now: datetime) -> float | None:
    """Seconds until the rollout counts as stuck; None if it cannot."""
    progressing = condition(status, "Progressing")
    if (
        not _has_deadline(deployment)
        or complete(deployment, status)
        or progressing is None
        or progressing.reason in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded")
    ):
        return None
    since = times.parse(progressing.last_update_time) if progressing.last_update_time else now
    due = since + timedelta(seconds=deployment.spec.progress_deadline_seconds)
    return max(0.0, (due - now).total_seconds()) + 0.1


def _availability(deployment: Deployment, status: DeploymentStatus) -> Condition:
    if status.available_replicas >= deployment.spec.replicas - rollout.limits(deployment)[1]:
        text = "Deployment has minimum availability."
        return Condition("Available", "True", reason="MinimumReplicasAvailable", message=text)
    text = "Deployment does not have minimum availability."
    return Condition("Available", "False", reason="MinimumReplicasUnavailable", message=text)


def _pause(deployment: Deployment) -> Condition | None:
    """Paused and resumed are conditions of their own, so that a pause does not count against the deadline."""
    current = condition(deployment.status, "Progressing")
    if not _has_deadline(deployment) or (current and current.reason == "ProgressDeadlineExceeded"):
        return None
    if deployment.spec.paused:
        return Condition("Progressing", "Unknown", reason="DeploymentPaused", message="Deployment is paused")
    return None


def _progress(
    deployment: Deployment, new: ReplicaSet | None, fresh: DeploymentStatus, now: datetime
) -> Condition | None:
    old = deployment.status
    current = condition(old, "Progressing")
    finished = current and current.reason == "NewReplicaSetAvailable" and fresh.replicas == fresh.updated_replicas
    if not _has_deadline(deployment) or finished:
        return None
    what = f'ReplicaSet "{new.name}"' if new else f'Deployment "{deployment.name}"'
    if complete(deployment, fresh):
        text = f"{what} has successfully progressed."
        return Condition("Progressing", "True", reason="NewReplicaSetAvailable", message=text)
    if _moved(old, fresh):
        return Condition("Progressing", "True", reason="ReplicaSetUpdated", message=f"{what} is progressing.")
    if current is None:
        if new is None:
            return None
        text = f'Created new replica set "{new.name}"'
        return Condition("Progressing", "True", reason="NewReplicaSetCreated", message=text)
    if current.reason == "DeploymentPaused":
        return Condition("Progressing", "Unknown", reason="DeploymentResumed", message="Deployment is resumed")
    if current.reason not in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        since = times.parse(current.last_update_time) if current.last_update_time else now
        if now > since + timedelta(seconds=deployment.spec.progress_deadline_seconds):
            text = f"{what} has timed out progressing."
            return Condition("Progressing", "False", reason="ProgressDeadlineExceeded", message=text)
    return None


def _moved(old: DeploymentStatus, new: DeploymentStatus) -> bool:
    return (
        new.updated_replicas > old.updated_replicas
        or new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        or new.ready_replicas > old.ready_replicas
        or new.available_replicas > old.available_replicas
    )


def _with(status: DeploymentStatus, fresh: Condition, now: datetime) -> DeploymentStatus:
    """`status` with that condition. Same status and reason leave Available alone; progress renews its update time."""
    current = condition(status, fresh.type)
    stamp = times.time_text(now)
    if (
        current
        and (current.status, current.reason) == (fresh.status, fresh.reason)
        and fresh.reason != "ReplicaSetUpdated"
    ):
        return status
    since = current.last_transition_time if current and current.status == fresh.status else stamp
    fresh = msgspec.structs.replace(fresh, last_transition_time=since, last_update_time=stamp)
    others = tuple(item for item in status.conditions if item.type != fresh.type)
    return msgspec.structs.replace(status, conditions=(*others, fresh))


def _has_deadline(deployment: Deployment) -> bool:
    return deployment.spec.progress_deadline_seconds != _NO_DEADLINE
