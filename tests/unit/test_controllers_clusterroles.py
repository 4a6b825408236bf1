"""ClusterRoles made of others."""

from __future__ import annotations

from typing import Any

from netemu.apiserver.auth.rbac_policy import default_policy
from netemu.controllers.actions import Patch
from netemu.controllers.clusterroles import reconcile
from netemu.model.meta import decode
from netemu.model.objects import ClusterRole
from netemu.model.resources import CLUSTERROLES

PODS = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
NODES = {"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}


def role(name: str, *rules: dict[str, Any], labels: dict[str, str] | None = None, of: str = "") -> ClusterRole:
    obj: dict[str, Any] = {"metadata": {"name": name, "labels": labels or {}, "resourceVersion": "7"}, "rules": rules}
    if of:
        obj["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {of: "true"}}]}
    return decode(obj, ClusterRole)


A, B = role("a", PODS, NODES, labels={"part": "true"}), role("b", PODS, labels={"part": "true"})
OTHER = role("c", NODES)


def test_it_gets_each_rule_of_its_parts_once() -> None:
    whole = role("whole", of="part")

    assert reconcile(whole, [OTHER, B, whole, A]) == [
        Patch(CLUSTERROLES, "whole", {"rules": [PODS, NODES]}, resource_version="7")
    ]


def test_what_is_right_and_what_is_no_aggregate_is_left() -> None:
    whole = role("whole", PODS, NODES, of="part")

    assert reconcile(whole, [A, B, whole]) == []
    assert reconcile(OTHER, [A, B, OTHER]) == []


def test_rules_of_parts_that_went_away_go() -> None:
    whole = role("whole", PODS, NODES, of="part")

    (action,) = reconcile(whole, [B, whole])

    assert isinstance(action, Patch)
    assert action.patch == {"rules": [PODS]}


def test_the_roles_of_every_cluster_are_right_from_the_start() -> None:
    roles = [decode(obj, ClusterRole) for resource, obj in default_policy() if resource is CLUSTERROLES]

    assert [action for one in roles for action in reconcile(one, roles)] == []
