"""Which nodes a Pod may be on, by what it says of nodes: selector, required affinity, tolerations.

Upstream: component-helpers `scheduling/corev1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netemu.model.objects import Taint
from netemu.model.pods import PodSpec, Toleration


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Whether some toleration covers the taint (`Toleration.ToleratesTaint`)."""
    return any(
        (not t.effect or t.effect == taint.effect)
        and (not t.key or t.key == taint.key)
        and (t.operator == "Exists" or ((t.operator or "Equal") == "Equal" and t.key and t.value == taint.value))
        for t in tolerations
    )


def selects(spec: PodSpec, name: str, labels: Mapping[str, str]) -> bool:
    """Whether nodeSelector and required node affinity allow the node of that name and labels."""
    if not (spec.node_selector or {}).items() <= labels.items():
        return False
    required = ((spec.affinity or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(matches_term(term, name, labels) for term in required.get("nodeSelectorTerms") or ())


def matches_term(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """One nodeSelectorTerm: all its expressions; an empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_expression(e, labels) for e in expressions) and all(
        _expression(e, {"metadata.name": name}) for e in fields
    )


def _expression(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    operator = term["operator"]
    values: Sequence[str] = term.get("values") or ()
    value = labels.get(term["key"])
    match operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    try:
        number, limit = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > limit if operator == "Gt" else number < limit
