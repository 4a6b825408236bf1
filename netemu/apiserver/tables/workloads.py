"""The cells of what makes Pods (`pkg/printers/internalversion/printers.go`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from netemu.apiserver.tables.format import (
    NONE,
    UNSET,
    age,
    container_texts,
    human_duration,
    label_selector_text,
    label_text,
)
from netemu.model.times import parse

Json = Mapping[str, Any]


def deployment(deployment: Json, now: datetime) -> list[Any]:
    """Of a Deployment."""
    status = deployment.get("status") or {}
    desired = (deployment.get("spec") or {}).get("replicas", 1)
    return _workload(
        deployment,
        now,
        f"{status.get('readyReplicas', 0)}/{desired}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
    )


def replica_set(replica_set: Json, now: datetime) -> list[Any]:
    """Of a ReplicaSet, or a ReplicationController."""
    status = replica_set.get("status") or {}
    desired = (replica_set.get("spec") or {}).get("replicas", 1)
    return _workload(replica_set, now, desired, status.get("replicas", 0), status.get("readyReplicas", 0))


def _workload(obj: Json, now: datetime, *numbers: Any) -> list[Any]:
    """The name, the numbers, the age, and what the Pods are."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    selector = spec.get("selector")
    by_labels = selector is not None and not selector.keys() & {"matchLabels", "matchExpressions"}
    shown = label_text(selector) if by_labels else label_selector_text(selector)
    return [meta["name"], *numbers, age(meta.get("creationTimestamp"), now), *_containers(spec), shown]


def _containers(spec: Json) -> tuple[str, str]:
    return container_texts(((spec.get("template") or {}).get("spec") or {}).get("containers"))


def scale(scale: Json, now: datetime) -> list[Any]:
    """Of what stands for how many Pods there are."""
    desired = (scale.get("spec") or {}).get("replicas", 0)
    current = (scale.get("status") or {}).get("replicas", 0)
    return [scale["metadata"]["name"], desired, current, age(scale["metadata"].get("creationTimestamp"), now)]


def daemon_set(obj: Json, now: datetime) -> list[Any]:
    """Of a DaemonSet."""
    status = obj.get("status") or {}
    counts = (
        "desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable",
    )  # fmt: skip
    nodes = (((obj.get("spec") or {}).get("template") or {}).get("spec") or {}).get("nodeSelector")
    return _workload(obj, now, *(status.get(count, 0) for count in counts), label_text(nodes))


def stateful_set(obj: Json, now: datetime) -> list[Any]:
    """Of a StatefulSet."""
    desired = (obj.get("spec") or {}).get("replicas", 1)
    return _workload(obj, now, f"{(obj.get('status') or {}).get('readyReplicas', 0)}/{desired}")[:-1]


def revision_owner(obj: Json) -> str:
    """Whose revision a ControllerRevision is: `daemonset.apps/agent`."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            group = owner.get("apiVersion", "").rpartition("/")[0]
            return f"{owner['kind'].lower()}{'.' if group else ''}{group}/{owner['name']}"
    return NONE


_JOB_STATES = ("Complete", "Failed", "Terminating", "Suspended", "FailureTarget")
"""What a Job is, the first that is true: its conditions, and that it is being deleted."""


def job(obj: Json, now: datetime) -> list[Any]:
    """Of a Job."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    true = {one.get("type") for one in status.get("conditions") or () if one.get("status") == "True"}
    if obj["metadata"].get("deletionTimestamp"):
        true.add("Terminating")
    state = next((one for one in _JOB_STATES if one in true), "Running")
    wanted, at_once = spec.get("completions"), spec.get("parallelism") or 0
    of_all = f"1 of {at_once}" if at_once > 1 else "1"
    completions = f"{status.get('succeeded', 0)}/{of_all if wanted is None else wanted}"
    return _workload(obj, now, state, completions, _duration(status, now))


def _duration(status: Json, now: datetime) -> str:
    if not status.get("startTime"):
        return ""
    end = parse(status["completionTime"]) if status.get("completionTime") else now
    return human_duration((end - parse(status["startTime"])).total_seconds())


def cron_job(obj: Json, now: datetime) -> list[Any]:
    """Of a CronJob, whose containers are those of its Jobs."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    last = status.get("lastScheduleTime")
    suspended = spec.get("suspend")
    cells = _workload({**obj, "spec": inner}, now)
    middle = (
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        UNSET if suspended is None else str(bool(suspended)),
        len(status.get("active") or ()),
        age(last, now) if last else NONE,
    )
    return [cells[0], *middle, *cells[1:]]
