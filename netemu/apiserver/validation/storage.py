"""What is wrong with claims and volumes, and with limits of what a namespace may use (`pkg/apis/core/validation`)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from netemu.apiserver.quantities import quantity
from netemu.apiserver.validation.fields import (
    dns1123_subdomain,
    duplicate,
    forbidden,
    invalid,
    invalid_for,
    label_selector,
    not_supported,
    one_of,
    required,
)
from netemu.apiserver.validation.resources import resource_list
from netemu.client.base import Obj
from netemu.model.errors import FieldError

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_NO_SOURCE = frozenset(
    {
        "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
        "storageClassName", "volumeAttributesClassName", "volumeMode",
    }
)  # fmt: skip
"""Fields of a PersistentVolume's spec that say not what the volume is."""
_CLAIM_CHANGES = ("resources", "volumeAttributesClassName")
_IMMUTABLE_CLAIM = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def validate_claim(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a PersistentVolumeClaim."""
    spec: Obj = obj.get("spec") or {}
    errors = _access_modes(spec, "at least 1 access mode is required")
    errors += label_selector("spec.selector", spec.get("selector"))
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        errors.append(required("spec.resources[storage]"))
    elif (quantity(storage) or 0) <= 0:
        errors.append(invalid("spec.resources[storage]", str(storage), "must be greater than zero"))
    errors += _class_and_mode(spec)
    before: Obj = (old or obj).get("spec") or {}
    fixed = {key: value for key, value in before.items() if key not in (*_CLAIM_CHANGES, "volumeName")}
    named = before.get("volumeName") in (None, "", spec.get("volumeName"))  # binding may set it
    if not named or fixed != {key: value for key, value in spec.items() if key not in (*_CLAIM_CHANGES, "volumeName")}:
        errors.append(forbidden("spec", _IMMUTABLE_CLAIM))
    return errors


def validate_persistentvolume(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a PersistentVolume."""
    spec: Obj = obj.get("spec") or {}
    errors = _access_modes(spec)
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(required("spec.capacity"))
    elif set(capacity) != {"storage"}:
        errors.append(not_supported("spec.capacity", capacity, ("storage",)))
    errors += resource_list("spec.capacity", capacity)
    policy = spec.get("persistentVolumeReclaimPolicy") or ""
    errors += one_of("spec.persistentVolumeReclaimPolicy", policy, ("Delete", "Recycle", "Retain"))
    sources = sorted(key for key in spec if key not in _NO_SOURCE)
    if not sources:
        errors.append(required("spec", "must specify a volume type"))
    errors += [forbidden(f"spec.{extra}", "may not specify more than 1 volume type") for extra in sources[1:]]
    return errors + _class_and_mode(spec)


def _access_modes(spec: Obj, detail: str = "") -> list[FieldError]:
    modes = spec.get("accessModes") or []
    if not modes:
        return [required("spec.accessModes", detail)]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        return [forbidden("spec.accessModes", "may not use ReadWriteOncePod with other access modes")]
    return [error for mode in modes for error in one_of("spec.accessModes", mode, _MODES)]


def _class_and_mode(spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    if name := spec.get("storageClassName"):
        errors += invalid_for("spec.storageClassName", name, dns1123_subdomain(name))
    return errors + one_of("spec.volumeMode", spec.get("volumeMode", "Filesystem"), ("Block", "Filesystem"))


def validate_resourcequota(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a ResourceQuota."""
    spec: Obj = obj.get("spec") or {}
    errors = resource_list("spec.hard", spec.get("hard"))
    if old is not None and set(spec.get("scopes") or ()) != set((old.get("spec") or {}).get("scopes") or ()):
        errors.append(invalid("spec.scopes", spec.get("scopes"), "field is immutable"))
    return errors


def validate_limitrange(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a LimitRange: of a resource, the least is no more than the default, and that no more than the most."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{index}]", item.get("type") or ""
        if kind in seen:
            errors.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        errors += _fit_for_type(path, kind, item)
        found = [error for key in _LIMITS for error in resource_list(f"{path}.{key}", item.get(key))]
        errors += found or [error for pair in _RISING for error in _in_order(path, item, *pair)] + _ratios(path, item)
    return errors


_LIMITS = ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")
_RISING = (
    ("min", "max", "min", "min"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest"),
    ("min", "default", "default", "min"),
    ("default", "max", "default", "max"),
)
"""Which limit is no more than which; where it is, upstream blames the third and shows the value of the fourth."""
_WORDS = {"min": "min", "defaultRequest": "default request", "default": "default", "max": "max"}


def _fit_for_type(path: str, kind: str, item: Obj) -> list[FieldError]:
    if kind == "Pod":
        wrong = [key for key in ("default", "defaultRequest") if item.get(key)]
        return [forbidden(f"{path}.{key}", "may not be specified when `type` is 'Pod'") for key in wrong]
    if kind == "PersistentVolumeClaim" and not any("storage" in (item.get(key) or {}) for key in ("min", "max")):
        text = "either minimum or maximum storage value is required, but neither was provided"
        return [required(f"{path}.limits", text)]
    return []


def _in_order(path: str, item: Obj, low: str, high: str, blamed: str, shown: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name, least in (item.get(low) or {}).items():
        most = (item.get(high) or {}).get(name)
        if most is not None and _number(least) > _number(most):
            above = "default limit" if (low, high) == ("defaultRequest", "default") else _WORDS[high]
            text = f"{_WORDS[low]} value {least} is greater than {above} value {most}"
            errors.append(invalid(f"{path}.{blamed}[{name}]", str(item[shown][name]), text))
    return errors


def _ratios(path: str, item: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        where = f"{path}.maxLimitRequestRatio[{name}]"
        if _number(ratio) < 1:
            errors.append(invalid(where, str(ratio), f"ratio {ratio} is less than 1"))
        least, most = _number((item.get("min") or {}).get(name)), (item.get("max") or {}).get(name)
        if least and most is not None and _number(ratio) > _number(most) / least:
            text = f"ratio {ratio} is greater than max/min = {_number(most) / least:.6f}"
            errors.append(invalid(where, str(ratio), text))
    return errors


def _number(text: Any) -> Decimal:
    return (quantity(text) if text is not None else None) or Decimal(0)
