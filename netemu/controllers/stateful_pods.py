"""The Pods of a StatefulSet: each has a number, and with it a name, a host name and claims that stay its own.

`web-0` of a set with the headless Service `web` is `web-0.web.NAMESPACE.svc` in DNS, wherever and however often it is
started. Upstream: `pkg/controller/statefulset/stateful_set_utils.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netemu.controllers.actions import owner_reference
from netemu.controllers.revisions import HASH
from netemu.model.pods import Pod
from netemu.model.workloads import StatefulSet


def ordinal_of(sts: StatefulSet, pod: Pod) -> int | None:
    """The number of a Pod; None for one that is not named like this set's."""
    parent, _, number = pod.name.rpartition("-")
    return int(number) if parent == sts.name and number.isascii() and number.isdigit() else None


def pod_for(sts: StatefulSet, ordinal: int, template: Mapping[str, Any], revision: str) -> dict[str, Any]:
    """The Pod of that number, made from the template of a revision."""
    name, meta, spec = f"{sts.name}-{ordinal}", template.get("metadata") or {}, dict(template.get("spec") or {})
    labels = {
        **(meta.get("labels") or {}),
        HASH: revision,
        "apps.kubernetes.io/pod-index": str(ordinal),
        "statefulset.kubernetes.io/pod-name": name,
    }
    kept = {key: meta[key] for key in ("annotations", "finalizers") if meta.get(key)}
    owner = owner_reference(sts, "apps/v1", "StatefulSet")
    claims = {one["metadata"]["name"]: claim_name(sts, one, ordinal) for one in sts.spec.volume_claim_templates}
    volumes = [
        *({"name": volume, "persistentVolumeClaim": {"claimName": claim}} for volume, claim in claims.items()),
        *(volume for volume in spec.get("volumes") or () if volume["name"] not in claims),
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": sts.namespace, **kept, "labels": labels, "ownerReferences": [owner],
        },
        "spec": {
            **spec,
            "hostname": name,
            **({"subdomain": sts.spec.service_name} if sts.spec.service_name else {}),
            **({"volumes": volumes} if volumes else {}),
        },
    }  # fmt: skip


def claim_name(sts: StatefulSet, template: Mapping[str, Any], ordinal: int) -> str:
    """`data-web-0`."""
    return f"{template['metadata']['name']}-{sts.name}-{ordinal}"


def claim_for(sts: StatefulSet, template: Mapping[str, Any], ordinal: int) -> dict[str, Any]:
    """The claim of the Pod of that number."""
    meta = template["metadata"]
    labels = {**(meta.get("labels") or {}), **(sts.spec.selector.match_labels or {})}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(sts, template, ordinal),
            "namespace": sts.namespace,
            "labels": labels,
            **({"annotations": meta["annotations"]} if meta.get("annotations") else {}),
        },
        "spec": template.get("spec") or {},
    }
