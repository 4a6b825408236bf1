"""When is a lab up? Pure: from what the API server and the node agent say to what is still missing, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netemu.model.objects import SERVICE_NAME_LABEL

Obj = Mapping[str, Any]
AGENT_AWAY = "the node agent does not answer, so no kube-proxy works"


def nodes_missing(nodes: Sequence[Obj], wanted: Sequence[str]) -> list[str]:
    """A line per wanted node that is not Ready."""
    by_name = {node["metadata"]["name"]: node for node in nodes}
    lines = []
    for name in wanted:
        if name not in by_name:
            lines.append(f"node {name}: not registered")
        elif (ready := condition(by_name[name], "Ready")).get("status") != "True":
            lines.append(f"node {name}: not Ready{_because(ready)}")
    return lines


def workloads_missing(deployments: Sequence[Obj], pods: Sequence[Obj]) -> list[str]:
    """A line per Pod that is not Ready, and per Deployment that has not rolled out."""
    lines = [f"pod {_key(pod)}: {pod_state(pod)}" for pod in pods if not _done(pod)]
    for deployment in deployments:
        status, spec = deployment.get("status") or {}, deployment.get("spec") or {}
        wanted, available = spec.get("replicas", 1), status.get("availableReplicas", 0)
        behind = status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0)
        updated = status.get("updatedReplicas", 0)
        if behind or available < wanted:
            lines.append(f"deployment {_key(deployment)}: {available} of {wanted} Pods available")
        elif updated < wanted or status.get("replicas", 0) > updated:
            lines.append(f"deployment {_key(deployment)}: {updated} of {wanted} Pods are of the newest template")
    return lines


def daemons_missing(daemon_sets: Sequence[Obj]) -> list[str]:
    """A line per DaemonSet that has not rolled out to each of its nodes."""
    lines = []
    for obj in daemon_sets:
        status = obj.get("status") or {}
        behind = status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0)
        wanted = status.get("desiredNumberScheduled", 0)
        reached = min(status.get("numberAvailable", 0), status.get("updatedNumberScheduled", 0))
        if behind or reached < wanted:
            lines.append(f"daemonset {_key(obj)}: {reached} of {wanted} nodes have an available Pod of it")
    return lines


def stateful_missing(stateful_sets: Sequence[Obj]) -> list[str]:
    """A line per StatefulSet whose Pods are not all there, or not all of the templates that they should be of."""
    lines = []
    for obj in stateful_sets:
        status, spec = obj.get("status") or {}, obj.get("spec") or {}
        strategy, wanted = spec.get("updateStrategy") or {}, spec.get("replicas", 1)
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        renewed = wanted - partition if strategy.get("type") == "RollingUpdate" else 0
        behind = status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0)
        available, updated = status.get("availableReplicas", 0), status.get("updatedReplicas", 0)
        if behind or available < wanted or status.get("replicas", 0) > wanted:
            lines.append(f"statefulset {_key(obj)}: {available} of {wanted} Pods available")
        elif updated < renewed:
            lines.append(f"statefulset {_key(obj)}: {updated} of {renewed} Pods are of the newest template")
    return lines


def terminating(pods: Sequence[Obj]) -> list[str]:
    """A line per Pod that has been deleted and is not gone yet."""
    return [f"pod {_key(pod)}: terminating" for pod in pods if pod["metadata"].get("deletionTimestamp")]


def endpoints_missing(services: Sequence[Obj], slices: Sequence[Obj], pods: Sequence[Obj]) -> list[str]:
    """A line per Service whose EndpointSlices do not list as ready exactly the Pods that are."""
    listed: dict[tuple[str, str], set[str]] = {}
    for piece in slices:
        service = (piece["metadata"].get("labels") or {}).get(SERVICE_NAME_LABEL, "")
        names = listed.setdefault((piece["metadata"]["namespace"], service), set())
        for endpoint in piece.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready", True):
                names.add((endpoint.get("targetRef") or {}).get("name", ""))
    lines = []
    for service in services:
        meta, spec = service["metadata"], service.get("spec") or {}
        if not spec.get("selector") or spec.get("type") == "ExternalName" or spec.get("publishNotReadyAddresses"):
            continue
        ready = {pod["metadata"]["name"] for pod in pods if _is_ready_behind(pod, meta["namespace"], spec["selector"])}
        if listed.get((meta["namespace"], meta["name"]), set()) != ready:
            lines.append(f"service {_key(service)}: its EndpointSlices are not those of its Pods yet")
    return lines


def _is_ready_behind(pod: Obj, namespace: str, selector: Mapping[str, str]) -> bool:
    meta = pod["metadata"]
    chosen = meta["namespace"] == namespace and selector.items() <= (meta.get("labels") or {}).items()
    return chosen and not meta.get("deletionTimestamp") and condition(pod, "Ready").get("status") == "True"


def rules_missing(agent: Obj, wanted: Sequence[str], services: str, slices: str) -> dict[str, str]:
    """Nodes whose proxy has not programmed these revisions, and why."""
    if not agent:
        return dict.fromkeys(wanted, AGENT_AWAY)
    found = {}
    for name in wanted:
        proxy = ((agent.get("nodes") or {}).get(name) or {}).get("proxy") or {}
        reached = min(int(proxy.get("services") or -1), int(proxy.get("endpointSlices") or -1))
        if proxy.get("error"):
            found[name] = f"rules not programmed: {proxy['error']}"
        elif int(proxy.get("services") or -1) < int(services) or int(proxy.get("endpointSlices") or -1) < int(slices):
            found[name] = f"rules are at revision {max(reached, 0)}, not yet {max(services, slices, key=int)}"
    return found


def proxies_failing(agent: Obj) -> list[str]:
    """A line per reason for which proxies cannot run at all: a tool or a feature of the kernel is missing."""
    proxies = {name: (node or {}).get("proxy") or {} for name, node in (agent.get("nodes") or {}).items()}
    why: dict[str, list[str]] = {}
    for name, proxy in proxies.items():
        if proxy.get("refused"):
            why.setdefault(proxy["refused"], []).append(name)
    return [f"kube-proxy on {', '.join(names)}: {reason}" for reason, names in why.items()]


def pod_state(pod: Obj) -> str:
    """Why a Pod is not Ready, in one line: what a container waits for, why it is not scheduled, or its phase."""
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = container.get("state") or {}
        if waiting := state.get("waiting"):
            text = _last_end(container) or waiting.get("message") or ""
            return f"container {container['name']}: {waiting.get('reason', 'waiting')}{f' ({text})' if text else ''}"
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{status.get('phase', 'Pending')}{_because(scheduled)}"
    return f"{status.get('phase') or 'Pending'}, not Ready{_because(condition(pod, 'Ready'))}"


def _last_end(container: Obj) -> str:
    """How a container that is about to be started again ended."""
    ended = (container.get("lastState") or {}).get("terminated") or {}
    if not ended:
        return ""
    why = ended.get("message") or ended.get("reason") or ""
    return f"last ended with exit code {ended.get('exitCode', 0)}{f': {why}' if why else ''}"


def condition(obj: Obj, kind: str) -> Obj:
    """The condition of that type, empty if there is none."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((item for item in conditions if item.get("type") == kind), {})


def _because(item: Obj) -> str:
    text = item.get("message") or item.get("reason")
    return f": {text}" if text else ""


def _done(pod: Obj) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Succeeded" or condition(pod, "Ready").get("status") == "True"


def _key(obj: Obj) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"
