"""Which nodes get a Pod of a DaemonSet, and what such a Pod looks like (`pkg/controller/daemon/util`)."""

from __future__ import annotations

from typing import Any

from netemu.controllers.replicaset import pod_of
from netemu.controllers.revisions import HASH
from netemu.model.meta import decode
from netemu.model.node_selection import selects, tolerates
from netemu.model.objects import Node
from netemu.model.pods import Pod, PodSpec
from netemu.model.workloads import DaemonSet

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)
_TOLERATED_ON_HOST = ("network-unavailable", "NoSchedule")


def pod_for(ds: DaemonSet, node: str, digest: str) -> dict[str, Any]:
    """The Pod of a DaemonSet for one node: the scheduler binds it, and only there."""
    pod = pod_of(ds)
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), HASH: digest}
    spec = pod["spec"] = {**pod["spec"], "tolerations": _tolerations(pod["spec"])}
    only_here = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}
    affinity = spec.get("affinity") or {}
    spec["affinity"] = {**affinity, "nodeAffinity": {**(affinity.get("nodeAffinity") or {}), _REQUIRED: only_here}}
    return pod


def _tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    keys = (*_TOLERATED, _TOLERATED_ON_HOST) if spec.get("hostNetwork") else _TOLERATED
    added = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect} for key, effect in keys]
    given = spec.get("tolerations") or []
    return [*given, *(one for one in added if one not in given)]


def node_of(pod: Pod) -> str:
    """The node that a Pod of a DaemonSet is on, or is meant for."""
    if pod.spec.node_name:
        return pod.spec.node_name
    required = ((pod.spec.affinity or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("operator") == "In" and len(field["values"]) == 1:
                return str(field["values"][0])
    return ""


def belongs_on(ds: DaemonSet, node: Node) -> tuple[bool, bool]:
    """Whether a Pod should be started on a node, and whether one that is there may stay."""
    wanted = dict(ds.spec.template.get("spec") or {})
    wanted["tolerations"] = _tolerations(wanted)
    spec = decode(wanted, PodSpec)
    if spec.node_name not in ("", node.name) or not selects(spec, node.name, node.labels):
        return False, False
    refusing = {taint.effect for taint in node.spec.taints if not tolerates(spec.tolerations, taint)}
    return not refusing & {"NoSchedule", "NoExecute"}, "NoExecute" not in refusing
