"""What is wrong with PodDisruptionBudgets (`pkg/apis/policy/validation`)."""

from __future__ import annotations

from netemu.apiserver.validation.fields import (
    at_most_all,
    int_or_percent,
    invalid,
    label_selector,
    not_negative,
    one_of,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError

COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


def validate_poddisruptionbudget(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a PodDisruptionBudget."""
    spec: Obj = obj.get("spec") or {}
    errors: list[FieldError] = []
    amounts = {key: spec[key] for key in ("minAvailable", "maxUnavailable") if key in spec}
    if len(amounts) == 2:
        errors.append(invalid("spec", amounts, "minAvailable and maxUnavailable cannot be both set"))
    for key, value in amounts.items():
        errors += int_or_percent(f"spec.{key}", value) + at_most_all(f"spec.{key}", value)
    errors += label_selector("spec.selector", spec.get("selector"))
    if (policy := spec.get("unhealthyPodEvictionPolicy")) is not None:
        errors += one_of("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))
    status: Obj = obj.get("status") or {}
    for count in COUNTS:
        errors += not_negative(f"status.{count}", status.get(count))
    return errors
