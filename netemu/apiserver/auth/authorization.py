"""Whether a user may do what a request wants: `system:masters`, then nodes, then RBAC.

The first that allows decides, and none of them denies. Roles and bindings are read anew only when one of them has
changed, so that a decision costs microseconds, and for an administrator nothing.
"""

from __future__ import annotations

from typing import Any

from netemu.apiserver.auth.authentication import MASTERS, Attributes, User
from netemu.apiserver.auth.node_authorizer import NodeAuthorizer, node_of
from netemu.apiserver.auth.rbac import Grants
from netemu.apiserver.registry import Registry
from netemu.model.resources import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES

_POLICY = (ROLES, CLUSTERROLES, ROLEBINDINGS, CLUSTERROLEBINDINGS)


class ClusterAuthorizer:
    """Implements `Authorizer` by the objects of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self._nodes = registry, NodeAuthorizer(registry)
        self._grants = Grants()
        self._seen: tuple[int, ...] = (-1,)

    def why(self, user: User, wanted: Attributes) -> str:
        """See Authorizer."""
        if MASTERS in user.groups:
            return "system:masters"
        if (node := node_of(user)) and self._nodes.objection(node, wanted) is None:
            return "node"
        return self._policy().allowing(user, wanted)

    def refusal(self, user: User, wanted: Attributes) -> str:
        """See Authorizer. RBAC gives no reason."""
        node = node_of(user)
        return (self._nodes.objection(node, wanted) or "") if node else ""

    def rules(self, user: User, namespace: str) -> dict[str, Any]:
        """See Authorizer."""
        rules = self._policy().rules(user, namespace)
        found = {
            "resourceRules": [rule.shown() for rule in rules if not rule.paths],
            "nonResourceRules": [rule.shown() for rule in rules if rule.paths],
        }
        if node_of(user):
            why = "node authorizer does not support user rule resolution"
            return {**found, "incomplete": True, "evaluationError": why}
        return {**found, "incomplete": False}

    def _policy(self) -> Grants:
        """The grants of now."""
        seen = self._registry.changed(*_POLICY)
        if seen != self._seen:
            self._grants, self._seen = Grants.of(*map(self._registry.objects, _POLICY)), seen
        return self._grants
