"""What is wrong with a Pod's affinity (`pkg/apis/core/validation/validation.go`, validateAffinity)."""

from __future__ import annotations

from netemu.apiserver.validation.fields import (
    between,
    dns1123_label,
    forbidden,
    invalid,
    invalid_for,
    label_selector,
    label_value,
    qualified_name,
    required,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def validate_affinity(path: str, affinity: Obj) -> list[FieldError]:
    """Errors of nodeAffinity, podAffinity and podAntiAffinity."""
    errors = _node_affinity(f"{path}.nodeAffinity", affinity.get("nodeAffinity") or {})
    for key in ("podAffinity", "podAntiAffinity"):
        errors += _pod_affinity(f"{path}.{key}", affinity.get(key) or {})
    return errors


def _node_affinity(path: str, affinity: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    if (selector := affinity.get(_REQUIRED)) is not None:
        where = f"{path}.{_REQUIRED}.nodeSelectorTerms"
        terms = selector.get("nodeSelectorTerms") or []
        if not terms:
            errors.append(required(where, "must have at least one node selector term"))
        for index, term in enumerate(terms):
            errors += validate_node_selector_term(f"{where}[{index}]", term)
    for index, preferred in enumerate(affinity.get(_PREFERRED) or ()):
        where = f"{path}.{_PREFERRED}[{index}]"
        errors += _weight(where, preferred)
        errors += validate_node_selector_term(f"{where}.preference", preferred.get("preference") or {})
    return errors


def _weight(path: str, preferred: Obj) -> list[FieldError]:
    weight = preferred.get("weight", 0)
    return [invalid(f"{path}.weight", weight, "must be in the range 1-100")] if between(weight, 1, 100) else []


def validate_node_selector_term(path: str, term: Obj) -> list[FieldError]:
    """Errors of one term: requirements on labels and on the node's name."""
    errors: list[FieldError] = []
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        where, key = f"{path}.matchExpressions[{index}]", requirement.get("key") or ""
        errors += _operator(where, requirement)
        errors += invalid_for(f"{where}.key", key, qualified_name(key))
        for at, value in enumerate(requirement.get("values") or ()):
            errors += invalid_for(f"{where}.values[{at}]", value, label_value(value))
    for index, requirement in enumerate(term.get("matchFields") or ()):
        where, key = f"{path}.matchFields[{index}]", requirement.get("key") or ""
        if requirement.get("operator") not in ("In", "NotIn"):
            errors.append(
                invalid(f"{where}.operator", requirement.get("operator") or "", "not a valid selector operator")
            )
        elif len(requirement.get("values") or ()) != 1:
            text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            errors.append(required(f"{where}.values", text))
        if key != "metadata.name":
            errors.append(invalid(f"{where}.key", key, "not a valid field selector key"))
    return errors


def _operator(path: str, requirement: Obj) -> list[FieldError]:
    operator, values = requirement.get("operator") or "", requirement.get("values") or []
    if operator in ("In", "NotIn"):
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        return [] if values else [required(f"{path}.values", text)]
    if operator in ("Exists", "DoesNotExist"):
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [forbidden(f"{path}.values", text)] if values else []
    if operator in ("Gt", "Lt"):
        text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
        return [] if len(values) == 1 else [required(f"{path}.values", text)]
    return [invalid(f"{path}.operator", operator, "not a valid selector operator")]


def _pod_affinity(path: str, affinity: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, term in enumerate(affinity.get(_REQUIRED) or ()):
        errors += _pod_term(f"{path}.{_REQUIRED}[{index}]", term)
    for index, preferred in enumerate(affinity.get(_PREFERRED) or ()):
        where = f"{path}.{_PREFERRED}[{index}]"
        errors += _weight(where, preferred)
        errors += _pod_term(f"{where}.podAffinityTerm", preferred.get("podAffinityTerm") or {})
    return errors


def _pod_term(path: str, term: Obj) -> list[FieldError]:
    key = term.get("topologyKey") or ""
    errors = label_selector(f"{path}.labelSelector", term.get("labelSelector"))
    errors += label_selector(f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for name in term.get("namespaces") or ():
        errors += invalid_for(f"{path}.namespaces", name, dns1123_label(name))
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    else:
        errors += invalid_for(f"{path}.topologyKey", key, qualified_name(key))
    return errors
