"""What is wrong with roles and bindings. Facts: `pkg/apis/rbac/validation` of Kubernetes 1.32."""

from __future__ import annotations

from netemu.apiserver.auth.rbac import GROUP
from netemu.apiserver.validation.fields import immutable, invalid, invalid_for, label_selector, not_supported, required
from netemu.apiserver.validation.meta import path_segment
from netemu.client.base import Obj
from netemu.model.errors import FieldError

_SUBJECT_GROUPS = {"ServiceAccount": "", "User": GROUP, "Group": GROUP}


def validate_role(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Role or ClusterRole."""
    errors: list[FieldError] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        errors += _rule(f"rules[{index}]", rule, namespaced=obj["kind"] == "Role")
    if aggregation := obj.get("aggregationRule"):
        path = "aggregationRule.clusterRoleSelectors"
        selectors = aggregation.get("clusterRoleSelectors") or ()
        if not selectors:
            errors.append(required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
        for index, selector in enumerate(selectors):
            errors += label_selector(f"{path}[{index}]", selector)
    return errors


def _rule(path: str, rule: Obj, *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if not rule.get("verbs"):
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    if urls := rule.get("nonResourceURLs"):
        field = f"{path}.nonResourceURLs"
        if namespaced:
            errors.append(invalid(field, urls, "namespaced rules cannot apply to non-resource URLs"))
        if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            errors.append(invalid(field, urls, "rules cannot apply to both regular resources and non-resource URLs"))
        return errors
    if not rule.get("apiGroups"):
        errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errors


def validate_binding(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a RoleBinding or ClusterRoleBinding."""
    errors: list[FieldError] = []
    ref: Obj = obj.get("roleRef") or {}
    if ref.get("apiGroup") != GROUP:
        errors.append(not_supported("roleRef.apiGroup", ref.get("apiGroup") or "", (GROUP,)))
    kinds = ("Role", "ClusterRole") if obj["kind"] == "RoleBinding" else ("ClusterRole",)
    if ref.get("kind") not in kinds:
        errors.append(not_supported("roleRef.kind", ref.get("kind") or "", kinds))
    if not ref.get("name"):
        errors.append(required("roleRef.name"))
    else:
        errors += invalid_for("roleRef.name", ref["name"], path_segment(ref["name"]))
    for index, subject in enumerate(obj.get("subjects") or ()):
        errors += _subject(f"subjects[{index}]", subject, namespaced=obj["kind"] == "RoleBinding")
    if old is not None and immutable("roleRef", ref, old.get("roleRef") or {}):
        errors.append(invalid("roleRef", ref, "cannot change roleRef"))
    return errors


def _subject(path: str, subject: Obj, *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, group = subject.get("kind") or "", subject.get("apiGroup") or ""
    if not subject.get("name"):
        errors.append(required(f"{path}.name"))
    if kind not in _SUBJECT_GROUPS:
        return [*errors, not_supported(f"{path}.kind", kind, tuple(_SUBJECT_GROUPS))]
    if group != _SUBJECT_GROUPS[kind]:
        errors.append(not_supported(f"{path}.apiGroup", group, (_SUBJECT_GROUPS[kind],)))
    if kind == "ServiceAccount" and not namespaced and not subject.get("namespace"):
        errors.append(required(f"{path}.namespace"))
    return errors
