"""ClusterRoles made of others: their rules are those of every ClusterRole that their selectors find.

Upstream: `pkg/controller/clusterroleaggregation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from netemu.controllers.actions import Action, Actions, Patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.objects import ClusterRole
from netemu.model.resources import CLUSTERROLES
from netemu.model.selectors import LabelSelector


def reconcile(role: ClusterRole, every: Iterable[ClusterRole]) -> Actions:
    """Set the rules of a role that is made of others: each rule once, in the order of the names of those roles."""
    if role.aggregation_rule is None:
        return []
    selectors = [LabelSelector.of_spec(one) for one in role.aggregation_rule.get("clusterRoleSelectors") or ()]
    rules: list[dict[str, Any]] = []
    for other in sorted(every, key=lambda one: one.name):
        if other.name != role.name and any(one.matches(other.metadata.labels) for one in selectors):
            rules += [rule for rule in other.rules or () if rule not in rules]
    if rules == list(role.rules or ()):
        return []
    version = role.metadata.resource_version
    return [Patch(CLUSTERROLES, role.name, {"rules": rules}, resource_version=version)]


class ClusterRoleAggregation:
    """Watches ClusterRoles."""

    name = "clusterrole-aggregation-controller"
    needs = (CLUSTERROLES,)

    def __init__(self, cache: Cache) -> None:
        self._roles = cache.of(CLUSTERROLES, ClusterRole)

    def watch(self, queue: Queue) -> None:
        """Whichever role changes, those made of others may."""

        def changed(old: ClusterRole | None, new: ClusterRole | None) -> None:
            for role in self._roles.objects.values():
                if role.aggregation_rule is not None:
                    queue.mark(role.name)

        self._roles.on_change(changed)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        role = self._roles.get(key)
        return reconcile(role, self._roles.objects.values()) if role else ()
