"""Which of the nodes that can take a Pod is best.

Upstream adds weighted scores of a dozen plugins; here the same wishes are asked one after the other, each only where
those before it are equal, so that a decision can be explained and repeated: taints that ask to be avoided, preferred
affinity, few Pods of the same group in the zone, then on the node, little requested, few Pods, the name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from netemu.model.node_selection import matches_term, tolerates
from netemu.model.pods import Pod
from netemu.scheduler.filter import spread_counts
from netemu.scheduler.resources import requests
from netemu.scheduler.state import ClusterState, NodeState, group_of

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

Score = tuple[float, ...]
"""Smaller is better."""


def best(pod: Pod, nodes: Iterable[NodeState], state: ClusterState) -> NodeState:
    """The best of `nodes`; equals are decided by name."""
    zones = group_by_zone(pod, state)
    return min(nodes, key=lambda node: (score(pod, node, state, zones), node.name))


def score(pod: Pod, node: NodeState, state: ClusterState, zones: Mapping[str, int] | None = None) -> Score:
    """How well `node` suits `pod`, wish by wish. `zones` as of `group_by_zone`, if it is known already."""
    group = group_of(pod)
    zones = group_by_zone(pod, state) if zones is None else zones
    return (
        sum(t.effect == "PreferNoSchedule" and not tolerates(pod.spec.tolerations, t) for t in node.taints),
        -_preference(pod, node),
        _skew(pod, node, state),
        zones.get(node.zone, 0),
        node.groups[group],
        round(_load(pod, node), 4),
        len(node.pods),
    )


def group_by_zone(pod: Pod, state: ClusterState) -> Counter[str]:
    """How many Pods of the same group each zone has."""
    group = group_of(pod)
    zones: Counter[str] = Counter()
    for node in state.known():
        zones[node.zone] += node.groups[group]
    return zones


def _preference(pod: Pod, node: NodeState) -> int:
    terms: Iterable[Mapping[str, Any]] = ((pod.spec.affinity or {}).get("nodeAffinity") or {}).get(_PREFERRED) or ()
    return sum(term["weight"] for term in terms if matches_term(term.get("preference") or {}, node.name, node.labels))


def _skew(pod: Pod, node: NodeState, state: ClusterState) -> int:
    """How crowded the node's domains are, by the constraints that are only wishes."""
    return sum(
        spread_counts(pod, constraint, state)[node.labels.get(constraint["topologyKey"], "")]
        for constraint in pod.spec.topology_spread_constraints
        if constraint.get("whenUnsatisfiable") == "ScheduleAnyway"
    )


def _load(pod: Pod, node: NodeState) -> float:
    """The larger of the requested shares of cpu and memory, were the Pod here."""
    wanted = requests(pod)
    shares = [
        (node.requested[name] + wanted.get(name, 0)) / node.allocatable[name]
        for name in ("cpu", "memory")
        if node.allocatable.get(name)
    ]
    return max(shares, default=0.0)
