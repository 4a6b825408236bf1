"""The cells of claims, volumes and quotas (`pkg/printers/internalversion/printers.go`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from netemu.apiserver.tables.format import UNSET, age

Json = Mapping[str, Any]
_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: Any) -> str:
    return ",".join(short for mode, short in _SHORT.items() if mode in (modes or ()))


def _phase(obj: Json) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else (obj.get("status") or {}).get("phase", "")


def claim(obj: Json, now: datetime) -> list[Any]:
    """Of a PersistentVolumeClaim: what it has, once it has a volume."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    bound = status if spec.get("volumeName") else {}
    return [
        meta["name"],
        _phase(obj),
        spec.get("volumeName", ""),
        str((bound.get("capacity") or {}).get("storage", "")),
        _modes(bound.get("accessModes")),
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or UNSET,
        age(meta.get("creationTimestamp"), now),
        spec.get("volumeMode") or UNSET,
    ]


def volume(obj: Json, now: datetime) -> list[Any]:
    """Of a PersistentVolume."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    owner = spec.get("claimRef")
    return [
        meta["name"],
        str((spec.get("capacity") or {}).get("storage", "")),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{owner.get('namespace', '')}/{owner.get('name', '')}" if owner else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason", ""),
        age(meta.get("creationTimestamp"), now),
        spec.get("volumeMode") or UNSET,
    ]


def quota(obj: Json, now: datetime) -> list[Any]:
    """Of a ResourceQuota: what is used of what there may be, limits apart from everything else."""
    meta, status = obj["metadata"], obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    texts = {name: f"{name}: {used.get(name, '0')}/{most}" for name, most in sorted(hard.items())}
    limits = [text for name, text in texts.items() if name.startswith("limits.")]
    others = [text for name, text in texts.items() if not name.startswith("limits.")]
    return [meta["name"], age(meta.get("creationTimestamp"), now), ", ".join(others), ", ".join(limits)]
