"""What the ServiceAccount admission plugin adds to a new Pod: the volume with its token, mounted in every container.

Pods and accounts can decline (`automountServiceAccountToken: false`); a container that mounts something of its own
there keeps that. Upstream: `plugin/pkg/admission/serviceaccount/admission.go`.
"""

from __future__ import annotations

from typing import Any

from netemu.apiserver.strategy import generated_name, mirrored
from netemu.client.base import Obj

PLACE = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX = "kube-api-access-"
_SECONDS = 3607
"""An hour, told apart from one that somebody asked for."""
_MODE = 0o644


def mount_api_access(pod: Obj, account: Obj | None) -> None:
    """Add the volume and its mounts to a Pod, in place, unless it or its account does not want them."""
    spec = pod.get("spec")
    if not isinstance(spec, dict) or mirrored(pod) or not _wanted(spec, account or {}):
        return
    containers = [c for group in ("initContainers", "containers") for c in spec.get(group) or ()]
    bare = [c for c in containers if all(mount.get("mountPath") != PLACE for mount in c.get("volumeMounts") or ())]
    if not bare:
        return
    given = next((v["name"] for v in spec.get("volumes") or () if v.get("name", "").startswith(_PREFIX)), "")
    name = given or generated_name(_PREFIX)
    if not given:
        spec["volumes"] = [*(spec.get("volumes") or ()), {"name": name, "projected": _projection()}]
    for container in bare:
        mount = {"name": name, "readOnly": True, "mountPath": PLACE}
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _wanted(spec: Obj, account: Obj) -> bool:
    own = spec.get("automountServiceAccountToken")
    return bool(own if own is not None else account.get("automountServiceAccountToken") is not False)


def _projection() -> dict[str, Any]:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "defaultMode": _MODE,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
        ],
    }
