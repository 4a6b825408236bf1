"""The arithmetic of Deployments: who gets how many replicas next (`pkg/controller/deployment/{rolling,sync}.go`).

All functions take ReplicaSets as they are in the cache and return sizes; nothing is changed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from netemu.model.objects import Deployment, ReplicaSet, RollingUpdate

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


def limits(deployment: Deployment) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in Pods: surge rounds up, unavailable down, and both cannot be zero."""
    spec = deployment.spec
    if spec.strategy.type != "RollingUpdate":
        return 0, 0
    rolling = spec.strategy.rolling_update or RollingUpdate()
    surge = share_of(rolling.max_surge, spec.replicas, up=True)
    unavailable = share_of(rolling.max_unavailable, spec.replicas, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return surge, min(unavailable, spec.replicas)


def total(sets: Iterable[ReplicaSet]) -> int:
    """The sum of the wanted replicas."""
    return sum(rs.spec.replicas for rs in sets)


def available(sets: Iterable[ReplicaSet]) -> int:
    """The sum of the available replicas, not counting those that were told to go but may not have gone yet."""
    return sum(min(rs.status.available_replicas, rs.spec.replicas) for rs in sets)


def by_age(sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    """Oldest first, ties by name."""
    return sorted(sets, key=lambda rs: (rs.metadata.creation_timestamp or "", rs.name))


def new_size(deployment: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet]) -> int:
    """How large the new ReplicaSet may be now (`NewRSNewReplicas`)."""
    wanted, now = deployment.spec.replicas, new.spec.replicas if new else 0
    if deployment.spec.strategy.type != "RollingUpdate":
        return wanted
    room = wanted + limits(deployment)[0] - total(sets)
    return now if room <= 0 else now + min(room, wanted - now)


def shrink_old(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> dict[str, int]:
    """New sizes of old ReplicaSets by name, unhealthy replicas first, never below the minimum available."""
    minimum = deployment.spec.replicas - limits(deployment)[1]
    unavailable = new.spec.replicas - new.status.available_replicas
    most = total([new, *old]) - minimum - unavailable
    if most <= 0 or not total(old):
        return {}
    sizes = {rs.name: rs.spec.replicas for rs in old}
    for rs in by_age(old):
        gone = max(0, min(most, rs.spec.replicas - rs.status.available_replicas))
        sizes[rs.name] -= gone
        most -= gone
    spare = available([new, *old]) - minimum
    for rs in by_age(old):
        gone = max(0, min(spare, sizes[rs.name]))
        sizes[rs.name] -= gone
        spare -= gone
    return {rs.name: sizes[rs.name] for rs in old if sizes[rs.name] != rs.spec.replicas}


def proportional(deployment: Deployment, active: Sequence[ReplicaSet]) -> dict[str, int]:
    """Sizes by name after `spec.replicas` changed in the middle of a rollout: each set grows or shrinks by its share,
    the largest takes what rounding leaves."""
    wanted = deployment.spec.replicas
    allowed = wanted + limits(deployment)[0] if wanted else 0
    missing = allowed - total(active)
    ordered = sorted(active, key=lambda rs: (rs.spec.replicas, rs.metadata.creation_timestamp or ""), reverse=True)
    if missing < 0:
        oldest_first = by_age(active)
        ordered = sorted(oldest_first, key=lambda rs: rs.spec.replicas, reverse=True)
    sizes: dict[str, int] = {}
    given = 0
    for rs in ordered:
        share = _proportion(deployment, rs, missing, given)
        given += share
        sizes[rs.name] = rs.spec.replicas + share
    if ordered and missing:
        first = ordered[0].name
        sizes[first] = max(0, sizes[first] + missing - given)
    return sizes


def _proportion(deployment: Deployment, rs: ReplicaSet, missing: int, given: int) -> int:
    if not rs.spec.replicas or not missing or missing == given:
        return 0
    share, left = _fraction(deployment, rs), missing - given
    return min(share, left) if missing > 0 else max(share, left)


def _fraction(deployment: Deployment, rs: ReplicaSet) -> int:
    """By how much `rs` should change so that it keeps its part of the whole (`getReplicaSetFraction`)."""
    if not deployment.spec.replicas:
        return -rs.spec.replicas
    whole = deployment.spec.replicas + limits(deployment)[0]
    before = int(rs.annotations.get(MAXIMUM, "0")) or deployment.status.replicas
    if not before:
        return 0
    return math.floor(rs.spec.replicas * whole / before + 0.5) - rs.spec.replicas


def share_of(value: int | str, replicas: int, *, up: bool) -> int:
    """A number, or a percentage of `replicas`, rounded up or down (`GetScaledValueFromIntOrPercent`)."""
    if isinstance(value, int):
        return value
    exact = int(value.rstrip("%")) * replicas
    return -(-exact // 100) if up else exact // 100
