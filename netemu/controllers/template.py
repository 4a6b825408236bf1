"""Pod templates: when two are the same, and the hash in the name of a ReplicaSet.

The same template must always mean the same ReplicaSet, whoever wrote it: a client that sends `creationTimestamp: null`
(kubectl's `rollout undo` does) or leaves out what is the default anyway must not start a rollout. So templates are
compared and hashed in a normal form. The hash itself, FNV-32a spelled in letters that make no words, is upstream's
(`controller.ComputeHash`, `rand.SafeEncodeString`); its input is not, because that is a dump of Go structures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

HASH_LABEL = "pod-template-hash"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_POD_DEFAULTS: dict[str, Any] = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": 30,
    "enableServiceLinks": True,
}
_CONTAINER_DEFAULTS: dict[str, Any] = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_EMPTY_IS_ABSENT = frozenset({"metadata", "labels", "annotations", "resources", "securityContext"})


def normal(template: Mapping[str, Any]) -> dict[str, Any]:
    """`template` without what makes no difference, and without the hash label."""
    plain: dict[str, Any] = _strip(template)
    labels = (plain.get("metadata") or {}).get("labels")
    if labels and HASH_LABEL in labels:
        kept = {key: value for key, value in labels.items() if key != HASH_LABEL}
        plain["metadata"] = {**plain["metadata"], "labels": kept}
    spec = plain.get("spec")
    if spec:
        spec = plain["spec"] = _without(spec, _POD_DEFAULTS)
        for containers in ("containers", "initContainers"):
            if containers in spec:
                spec[containers] = [_without(item, _CONTAINER_DEFAULTS) for item in spec[containers]]
    return plain


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """The value of the label `pod-template-hash`. `collisions` counts names that were taken by other templates."""
    data = msgspec.json.encode(normal(template), order="deterministic")
    if collisions:
        data += collisions.to_bytes(8, "little")
    digest = 0x811C9DC5
    for byte in data:
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(digest))


def _without(mapping: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in defaults or value != defaults[key]}


def _strip(value: Any) -> Any:
    """Without nulls, empty lists, and those empty mappings that mean the same as nothing."""
    if isinstance(value, Mapping):
        inner = {key: _strip(item) for key, item in value.items() if item is not None}
        return {key: item for key, item in inner.items() if item != [] and (item != {} or key not in _EMPTY_IS_ABSENT)}
    if isinstance(value, list | tuple):
        return [_strip(item) for item in value]
    return value
