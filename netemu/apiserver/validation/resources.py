"""Quantities, and requests and limits of resources.

Facts: apimachinery `api/resource` and ValidateResourceRequirements of `pkg/apis/core/validation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from netemu.apiserver.quantities import quantity
from netemu.apiserver.validation.fields import invalid, invalid_for, qualified_name
from netemu.client.base import Obj
from netemu.model.errors import FieldError

_STANDARD = ("cpu", "memory", "ephemeral-storage", "storage", "pods")


def resource_list(path: str, resources: Mapping[str, Any] | None) -> list[FieldError]:
    """Errors of a map of resource names to quantities."""
    errors: list[FieldError] = []
    for name, value in (resources or {}).items():
        where = f"{path}[{name}]"
        errors += invalid_for(where, name, qualified_name(name))
        number = quantity(value)
        if number is None:
            errors.append(invalid(where, value, "must be a quantity such as 100m, 0.5, 128Mi or 1e3"))
        elif number < 0:
            errors.append(invalid(where, str(value), "must be greater than or equal to 0"))
    return errors


def requirements(path: str, resources: Obj) -> list[FieldError]:
    """Errors of a container's `resources`."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    errors = _named(f"{path}.limits", limits) + _named(f"{path}.requests", requests)
    if errors:
        return errors
    for name, asked in requests.items():
        if name not in limits:
            continue
        wanted, most = quantity(asked) or Decimal(0), quantity(limits[name]) or Decimal(0)
        if wanted > most:
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            errors.append(invalid(f"{path}.requests", str(asked), text))
        elif wanted != most and not _overcommits(name):
            text = f"must be equal to {name} limit of {limits[name]}"
            errors.append(invalid(f"{path}.requests", str(asked), text))
    return errors


def _named(path: str, resources: Mapping[str, Any]) -> list[FieldError]:
    errors = resource_list(path, resources)
    for name in resources:
        if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
            text = "must be a standard resource for containers"
            errors.append(invalid(f"{path}[{name}]", name, text))
    return errors


def _overcommits(name: str) -> bool:
    """Whether a request may be below its limit: not for huge pages and not for devices of others."""
    return not name.startswith("hugepages-") and ("/" not in name or "kubernetes.io/" in name)
