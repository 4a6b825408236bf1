"""Why a node cannot take a Pod, in upstream's words and order (`pkg/scheduler/framework/plugins`).

`filter_node` asks each rule in turn; the first refusal counts. Rules are pure functions of the Pod, the node and the
rest of the cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netemu.model.node_selection import selects, tolerates
from netemu.model.objects import Taint
from netemu.model.pods import Pod
from netemu.model.selectors import LabelSelector
from netemu.scheduler.resources import requests
from netemu.scheduler.state import ClusterState, NodeState, affinity, anti_affinity, host_ports

_UNSCHEDULABLE = Taint("node.kubernetes.io/unschedulable", "NoSchedule")
_UNRESOLVABLE = ("node(s) had untolerated taint", "node(s) were unschedulable", "node(s) didn't match Pod's node")
"""Refusals that no eviction of other Pods could lift."""

Rule = Callable[[Pod, NodeState, ClusterState], str | None]


def filter_node(pod: Pod, node: NodeState, state: ClusterState) -> str | None:
    """The reason why `pod` cannot go to `node`, or None if it can."""
    for rule in RULES:
        if reason := rule(pod, node, state):
            return reason
    return None


def explain(reasons: Mapping[str, str]) -> str:
    """The message of FailedScheduling from each node's reason (`framework.FitError`)."""
    if not reasons:
        return "no nodes available to schedule pods"
    count = len(reasons)
    parts = sorted(f"{number} {reason}" for reason, number in Counter(reasons.values()).items())
    hopeless = sum(reason.startswith(_UNRESOLVABLE) for reason in reasons.values())
    preemption = [
        *([f"{hopeless} Preemption is not helpful for scheduling"] if hopeless else []),
        *([f"{count - hopeless} No preemption victims found for incoming pod"] if count > hopeless else []),
    ]
    tail = f"preemption: 0/{count} nodes are available: {', '.join(sorted(preemption))}."
    return f"0/{count} nodes are available: {', '.join(parts)}. {tail}"


def _unschedulable(pod: Pod, node: NodeState, _: ClusterState) -> str | None:
    cordoned = node.node is not None and node.node.spec.unschedulable
    return "node(s) were unschedulable" if cordoned and not tolerates(pod.spec.tolerations, _UNSCHEDULABLE) else None


def _taints(pod: Pod, node: NodeState, _: ClusterState) -> str | None:
    for taint in node.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(pod.spec.tolerations, taint):
            return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    return None


def _affinity(pod: Pod, node: NodeState, _: ClusterState) -> str | None:
    return None if selects(pod.spec, node.name, node.labels) else "node(s) didn't match Pod's node affinity/selector"


def _ports(pod: Pod, node: NodeState, _: ClusterState) -> str | None:
    taken = [entry for entry, count in node.ports.items() if count > 0]
    for address, protocol, port in host_ports(pod):
        for other, its_protocol, its_port in taken:
            same = (protocol, port) == (its_protocol, its_port)
            if same and (address == other or "0.0.0.0" in (address, other)):
                return "node(s) didn't have free ports for the requested pod ports"
    return None


def _fits(pod: Pod, node: NodeState, _: ClusterState) -> str | None:
    room = node.allocatable
    if "pods" in room and len(node.pods) + 1 > room["pods"]:
        return "Too many pods"
    for name, amount in sorted(requests(pod).items()):
        known = name in room or name not in ("cpu", "memory", "ephemeral-storage")  # a kubelet may not report these
        if amount and known and node.requested[name] + amount > room.get(name, 0):
            return f"Insufficient {name}"
    return None


def _spread(pod: Pod, node: NodeState, state: ClusterState) -> str | None:
    reason = "node(s) didn't match pod topology spread constraints"
    for constraint in pod.spec.topology_spread_constraints:
        if constraint.get("whenUnsatisfiable") != "DoNotSchedule":
            continue
        domain = node.labels.get(constraint["topologyKey"])
        if domain is None:
            return f"{reason} (missing required label)"
        counts = spread_counts(pod, constraint, state)
        lowest = min(counts.values(), default=0)
        if len(counts) < (constraint.get("minDomains") or 0):
            lowest = 0
        selector = _spread_selector(pod, constraint)
        if counts.get(domain, 0) + selector.matches(pod.labels) - lowest > constraint["maxSkew"]:
            return reason
    return None


def spread_counts(pod: Pod, constraint: Mapping[str, Any], state: ClusterState) -> Counter[str]:
    """How many matching Pods each domain has, over the nodes that the Pod's affinity allows."""
    selector, key = _spread_selector(pod, constraint), constraint["topologyKey"]
    counts: Counter[str] = Counter()
    for node in state.known():
        domain = node.labels.get(key)
        if domain is None or (
            constraint.get("nodeAffinityPolicy") != "Ignore" and not selects(pod.spec, node.name, node.labels)
        ):
            continue
        counts[domain] += sum(
            other.namespace == pod.namespace and not other.deleting and selector.matches(other.labels)
            for other in node.pods.values()
        )
    return counts


def _spread_selector(pod: Pod, constraint: Mapping[str, Any]) -> LabelSelector:
    spec = dict(constraint.get("labelSelector") or {})
    same = {key: pod.labels[key] for key in constraint.get("matchLabelKeys") or () if key in pod.labels}
    if same:
        spec["matchLabels"] = {**(spec.get("matchLabels") or {}), **same}
    return LabelSelector.of_spec(spec)


def _inter_pod(pod: Pod, node: NodeState, state: ClusterState) -> str | None:
    for key, where in state.exclusive.items():
        placed = state.nodes[where].pods[key]
        for term in anti_affinity(placed):
            if _applies(term, placed, pod) and _same_domain(term, node, state.nodes[where]):
                return "node(s) didn't satisfy existing pods anti-affinity rules"
    for term in anti_affinity(pod):
        if any(_same_domain(term, node, other) for other in _holders(term, pod, state)):
            return "node(s) didn't match pod anti-affinity rules"
    for term in affinity(pod):
        holders = _holders(term, pod, state)
        # The first of a group that wants to be together may go anywhere.
        alone = not holders and _applies(term, pod, pod) and str(term.get("topologyKey")) in node.labels
        if not alone and not any(_same_domain(term, node, other) for other in holders):
            return "node(s) didn't match pod affinity rules"
    return None


def _holders(term: Mapping[str, Any], pod: Pod, state: ClusterState) -> list[NodeState]:
    """The nodes that have a Pod which the term speaks of."""
    return [
        node
        for node in state.nodes.values()
        if any(_applies(term, pod, other) for other in node.pods.values() if other.key != pod.key)
    ]


def _applies(term: Mapping[str, Any], owner: Pod, other: Pod) -> bool:
    """Whether a term of `owner` speaks of `other`. A missing selector matches nothing."""
    namespaces: Sequence[str] = term.get("namespaces") or ()
    everywhere = term.get("namespaceSelector") == {}
    if not everywhere and other.namespace not in (namespaces or (owner.namespace,)):
        return False
    selector = term.get("labelSelector")
    return selector is not None and LabelSelector.of_spec(selector).matches(other.labels)


def _same_domain(term: Mapping[str, Any], one: NodeState, other: NodeState) -> bool:
    key = str(term.get("topologyKey"))
    return key in one.labels and one.labels[key] == other.labels.get(key)


RULES: tuple[Rule, ...] = (_unschedulable, _taints, _affinity, _ports, _fits, _spread, _inter_pod)
"""In upstream's order: cheap and telling ones first, those that look at other nodes last."""
