"""The row of a Pod: its one-word status, restarts and readiness, out of phase, conditions and container statuses.

Upstream: `printPod` in `pkg/printers/internalversion/printers.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from netemu.apiserver.tables.format import NONE, age

Json = Mapping[str, Any]


@dataclass(slots=True)
class _Summary:
    """What is said of a Pod in one row."""

    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: str = ""

    def count_restarts(self, status: Json) -> None:
        self.restarts += status.get("restartCount") or 0
        finished = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last_restart = max(self.last_restart, finished)


def pod_cells(pod: Json, now: datetime) -> list[Any]:
    """Name, Ready, Status, Restarts, Age | IP, Node, Nominated Node, Readiness Gates."""
    spec, status, meta = pod.get("spec") or {}, pod.get("status") or {}, pod["metadata"]
    summary = _summarise(spec, status)
    if meta.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            summary.reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            summary.reason = "Terminating"
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({age(summary.last_restart, now)} ago)"
    ips = status.get("podIPs") or ()
    return [
        meta["name"],
        f"{summary.ready}/{summary.total}",
        summary.reason,
        restarts,
        age(meta.get("creationTimestamp"), now),
        (ips[0].get("ip") if ips else "") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _readiness_gates(spec, status),
    ]


def pod_conditions(pod: Json) -> list[dict[str, str]]:
    """The row conditions by which clients tell finished Pods."""
    phase = (pod.get("status") or {}).get("phase")
    messages = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    if phase not in messages:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": messages[phase]}]


def _summarise(spec: Json, status: Json) -> _Summary:
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    summary = _Summary(status.get("reason") or status.get("phase") or "")
    summary.total = len(spec.get("containers") or ()) + len(sidecars)
    if any(c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in _conditions(status)):
        summary.reason = "SchedulingGated"
    of_sidecars = _Summary("")
    initializing = False
    total = len(spec.get("initContainers") or ())
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        summary.count_restarts(container)
        sidecar = container.get("name") in sidecars
        if sidecar:
            of_sidecars.count_restarts(container)
        if _terminated(container).get("exitCode", 1) == 0:
            continue
        if sidecar and container.get("started"):
            summary.ready += bool(container.get("ready"))
            continue
        summary.reason = _init_reason(container, index, total)
        initializing = True
        break
    if not initializing or _condition_true(status, "Initialized"):
        summary.restarts, summary.last_restart = of_sidecars.restarts, of_sidecars.last_restart
        _add_containers(summary, status)
    return summary


def _init_reason(container: Json, index: int, total: int) -> str:
    """Where initialisation stands while this init container has not succeeded."""
    state = container.get("state") or {}
    if state.get("terminated") is not None:
        return "Init:" + _exit_reason(state["terminated"])
    waiting = (state.get("waiting") or {}).get("reason") or ""
    return f"Init:{waiting}" if waiting and waiting != "PodInitializing" else f"Init:{index}/{total}"


def _add_containers(summary: _Summary, status: Json) -> None:
    running = False
    for container in reversed(status.get("containerStatuses") or ()):
        summary.count_restarts(container)
        state = container.get("state") or {}
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting:
            summary.reason = waiting
        elif state.get("terminated") is not None:
            summary.reason = _exit_reason(state["terminated"])
        elif container.get("ready") and state.get("running") is not None:
            running = True
            summary.ready += 1
    # One container that is done does not make a Pod completed while another one runs.
    if summary.reason == "Completed" and running:
        summary.reason = "Running" if _condition_true(status, "Ready") else "NotReady"


def _terminated(container: Json) -> Json:
    return (container.get("state") or {}).get("terminated") or {}


def _exit_reason(terminated: Json) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _conditions(status: Json) -> Sequence[Json]:
    return status.get("conditions") or ()


def _condition_true(status: Json, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in _conditions(status))


def _readiness_gates(spec: Json, status: Json) -> str:
    gates = spec.get("readinessGates") or ()
    if not gates:
        return NONE
    return f"{sum(_condition_true(status, gate.get('conditionType', '')) for gate in gates)}/{len(gates)}"
