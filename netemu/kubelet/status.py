"""A Pod's status from what is known of its containers. Pure.

Upstream: kubernetes/pkg/kubelet/kubelet_pods.go (getPhase, generateAPIPodStatus) and status/generate.go. Statuses are
plain JSON values: they are compared with what was sent last and go out as a merge patch of what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netemu.client.base import Obj
from netemu.model import pods
from netemu.model.pods import Container, Pod
from netemu.runtime.cri import ContainerState, ContainerStatus

OWN_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
"""The others belong to whoever wrote them (PodScheduled, readiness gates, DisruptionTarget) and are kept."""


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of the Pod at one moment."""

    spec: Container
    current: ContainerStatus | None = None
    """The newest attempt; None before the first."""
    previous: ContainerStatus | None = None
    """The attempt before."""
    restarts: int = 0
    waiting: tuple[str, str] = ("ContainerCreating", "")
    """Reason and message, where it neither runs nor has ended for good."""
    backing_off: bool = False
    """It ended and waits for its next start: shown as waiting, the end as last state."""
    ready: bool = False
    started: bool = False

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.current is not None and self.current.state is ContainerState.RUNNING

    @property
    def ended(self) -> bool:
        """Whether its newest attempt ran and ended."""
        return self.current is not None and self.current.state is ContainerState.EXITED

    @property
    def succeeded(self) -> bool:
        """Whether it ended with 0."""
        return self.current is not None and self.ended and self.current.exit_code == 0

    @property
    def sidecar(self) -> bool:
        """An init container that is meant to keep running."""
        return self.spec.restart_policy == "Always"


@dataclass(frozen=True, slots=True)
class PodView:
    """Everything a status says."""

    pod: Pod
    init: Sequence[ContainerView]
    containers: Sequence[ContainerView]
    host_ips: Sequence[str]
    pod_ips: Sequence[str]
    sandbox_ready: bool
    start_time: str
    now: str
    failed: tuple[str, str] | None = None
    """Reason and message, where the kubelet itself ended the Pod (DeadlineExceeded, Evicted)."""
    ended: bool = False
    """It is being ended: what does not run will not run again."""
    ephemeral: Sequence[ContainerView] = ()
    """Those that somebody added for debugging; the Pod's phase and conditions do not depend on them."""


def pod_status(view: PodView) -> Obj:
    """The whole status, as it should stand in the API."""
    phase = _phase(view)
    status: Obj = {
        "phase": phase,
        "conditions": _conditions(view, phase),
        "hostIP": view.host_ips[0],
        "hostIPs": [{"ip": address} for address in view.host_ips],
        "startTime": view.start_time,
        "containerStatuses": [_container(one, view, init=False) for one in view.containers],
        "qosClass": qos_class(view.pod),
    }
    if view.pod_ips:
        status |= {"podIP": view.pod_ips[0], "podIPs": [{"ip": address} for address in view.pod_ips]}
    if view.init:
        status["initContainerStatuses"] = [_container(one, view, init=True) for one in view.init]
    if view.ephemeral:
        status["ephemeralContainerStatuses"] = [_container(one, view, init=False) for one in view.ephemeral]
    if view.failed:
        status |= {"reason": view.failed[0], "message": view.failed[1]}
    return status


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Obj:
    """A merge patch from one status to another: whole top-level fields."""
    patch: Obj = {key: value for key, value in new.items() if old.get(key) != value}
    patch |= {key: None for key in ("reason", "message") if old.get(key) and key not in new}
    return patch


def initialized(init: Iterable[ContainerView]) -> bool:
    """Whether the ordinary containers may start: init containers done, sidecars started."""
    return all((one.running and one.started) if one.sidecar else one.succeeded for one in init)


def _phase(view: PodView) -> str:
    if view.failed:
        return "Failed"
    policy = view.pod.spec.restart_policy
    if not initialized(view.init):
        broken = any(one.ended and not one.succeeded for one in view.init if not one.sidecar)
        if broken and policy == "Never":
            return "Failed"
        if not any(one.current for one in view.containers):
            return "Failed" if view.ended and view.init and broken else "Pending"
    if any(one.current is None for one in view.containers):
        return "Pending"
    if any(not one.ended for one in view.containers):
        return "Running"
    return _phase_of_ended(view, policy)


def _phase_of_ended(view: PodView, policy: str) -> str:
    succeeded = all(one.succeeded for one in view.containers)
    if policy == "Always" and not view.ended:
        return "Running"
    if succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" or view.ended else "Running"


def _conditions(view: PodView, phase: str) -> list[Obj]:
    done = phase in ("Succeeded", "Failed")
    is_initialized = initialized(view.init) or phase == "Succeeded"
    incomplete = [one.spec.name for one in view.init if not (one.running if one.sidecar else one.succeeded)]
    unready = [one.spec.name for one in view.containers if not one.ready]
    sidecars = [one.spec.name for one in view.init if one.sidecar and not one.ready]
    unready = sidecars + unready
    fresh = [
        _condition("PodReadyToStartContainers", view.sandbox_ready),
        _condition(
            "Initialized",
            is_initialized,
            "PodCompleted" if phase == "Succeeded" else "" if is_initialized else "ContainersNotInitialized",
            "" if is_initialized else f"containers with incomplete status: [{' '.join(incomplete)}]",
        ),
    ]
    if done:
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        fresh += [_condition(kind, False, reason) for kind in ("Ready", "ContainersReady")]
    elif unready:
        why = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
        fresh += [_condition(kind, False, *why) for kind in ("Ready", "ContainersReady")]
    else:
        closed = _closed_gates(view.pod)
        fresh.append(_condition("Ready", not closed, "ReadinessGatesNotReady" if closed else "", closed))
        fresh.append(_condition("ContainersReady", True))
    return _merged(view, fresh)


def _closed_gates(pod: Pod) -> str:
    given = {condition.type: condition.status for condition in pod.status.conditions}
    texts = [
        f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.'
        if gate.condition_type not in given
        else f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {given[gate.condition_type]}'
        for gate in pod.spec.readiness_gates
        if given.get(gate.condition_type) != "True"
    ]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]" if texts else ""


def _condition(kind: str, true: bool, reason: str = "", message: str = "") -> Obj:
    condition: Obj = {"type": kind, "status": "True" if true else "False", "lastProbeTime": None}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _merged(view: PodView, fresh: list[Obj]) -> list[Obj]:
    """Other people's conditions as they are, ours with the time of their last change."""
    before = {condition.type: condition for condition in view.pod.status.conditions}
    for condition in fresh:
        old = before.get(condition["type"])
        same = old is not None and old.status == condition["status"] and old.last_transition_time
        condition["lastTransitionTime"] = old.last_transition_time if same and old else view.now
    kept: list[Obj] = [
        {
            "type": condition.type,
            "status": condition.status,
            "lastProbeTime": condition.last_probe_time,
            "lastTransitionTime": condition.last_transition_time,
            **({"reason": condition.reason} if condition.reason else {}),
            **({"message": condition.message} if condition.message else {}),
        }
        for condition in view.pod.status.conditions
        if condition.type not in OWN_CONDITIONS
    ]
    if "PodScheduled" not in before:
        kept.append({**_condition("PodScheduled", True), "lastTransitionTime": view.now})
    return fresh + kept


def _container(one: ContainerView, view: PodView, *, init: bool) -> Obj:
    current = one.current
    state, last = _states(one, view, init=init)
    status: Obj = {
        "name": one.spec.name,
        "image": current.image if current else one.spec.image,
        "imageID": current.image_id if current else "",
        "ready": one.ready or (init and not one.sidecar and one.succeeded),
        "restartCount": one.restarts,
        "started": one.running and one.started,
        "state": state,
        "lastState": last,
    }
    if current:
        status["containerID"] = _container_id(current)
    return status


def _states(one: ContainerView, view: PodView, *, init: bool) -> tuple[Obj, Obj]:
    """`state` and `lastState`."""
    last = _terminated(one.previous) if one.previous else {}
    current = one.current
    if current is None or current.state is ContainerState.CREATED:
        reason, message = one.waiting
        if reason == "ContainerCreating" and not init and view.init and not initialized(view.init):
            reason = "PodInitializing"
        return {"waiting": {"reason": reason, **({"message": message} if message else {})}}, last
    if current.state is ContainerState.RUNNING:
        return {"running": {"startedAt": second(current.started_at)}}, last
    if one.backing_off:
        reason, message = one.waiting
        return {"waiting": {"reason": reason, **({"message": message} if message else {})}}, _terminated(current)
    return _terminated(current), last


def _terminated(status: ContainerStatus) -> Obj:
    return {
        "terminated": {
            "exitCode": status.exit_code,
            "reason": status.reason,
            **({"message": status.message} if status.message else {}),
            "startedAt": second(status.started_at or status.created_at),
            "finishedAt": second(status.finished_at or status.created_at),
            "containerID": _container_id(status),
        }
    }


def told(pod: Pod, container: ContainerStatus) -> pods.ContainerStatus | None:
    """What the API knows of this very attempt of a container; None before it was told of it."""
    found = (*pod.status.container_statuses, *pod.status.init_container_statuses)
    return next((one for one in found if one.container_id == _container_id(container)), None)


def _container_id(status: ContainerStatus) -> str:
    return f"netemu://{status.id}"


def second(moment: str) -> str:
    """A MicroTime as Time."""
    return f"{moment[:19]}Z"


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort, from requests and limits."""
    resources = [container.resources or {} for container in (*pod.spec.containers, *pod.spec.init_containers)]
    if not any(one.get("requests") or one.get("limits") for one in resources):
        return "BestEffort"
    for one in resources:
        limits, requests = one.get("limits") or {}, one.get("requests") or {}
        if not {"cpu", "memory"} <= set(limits) or any(requests.get(k, v) != v for k, v in limits.items()):
            return "Burstable"
    return "Guaranteed"
