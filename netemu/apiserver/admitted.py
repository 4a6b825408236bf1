"""Fields of a new object that admission or a strategy set, which belong to nobody.

Upstream works out who owns what before admission, so a Pod's account, and the volume with its token, are not its
creator's. Here both have happened by then; what they added is found again and left out.
"""

from __future__ import annotations

from netemu.apiserver.merge.fieldset import FieldSet, field_key, item_key, of_paths
from netemu.client.base import Obj
from netemu.model.resources import INGRESSES, NAMESPACES, PODS, Resource

_ADMITTED = {
    INGRESSES: ("ingressClassName",),
    NAMESPACES: ("finalizers",),
    PODS: ("serviceAccountName", "serviceAccount"),
}
"""Of the spec: what admission plugins and strategies add to a new object."""


def unowned(resource: Resource, obj: Obj) -> FieldSet:
    """The fields of a new object, given as a client sent it, that the server will set and nobody owns then."""
    spec = obj.get("spec") or {}
    absent = [name for name in _ADMITTED.get(resource, ()) if not spec.get(name)]
    return of_paths(["f:spec", field_key(name)] for name in absent)


def volume_names(obj: Obj) -> frozenset[str]:
    """The volumes of a Pod; of anything else none."""
    if obj.get("kind") != PODS.kind or obj.get("apiVersion") != PODS.api_version:
        return frozenset()
    volumes = (obj.get("spec") or {}).get("volumes")
    return frozenset(item.get("name", "") for item in volumes) if isinstance(volumes, list) else frozenset()


def mounted(obj: Obj, before: frozenset[str]) -> FieldSet:
    """The fields of the volumes that admission gave a Pod, which had those `before`, and of their mounts."""
    added = volume_names(obj) - before
    if not added:
        return {}
    spec: Obj = obj["spec"]
    names = [item_key((("name", name),)) for name in sorted(added)]
    found = [["f:spec", "f:volumes", *([name] if before else [])] for name in names]
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            mounts, path = container.get("volumeMounts") or (), ["f:spec", field_key(field)]
            path += [item_key((("name", container.get("name", "")),)), "f:volumeMounts"]
            ours = [mount for mount in mounts if mount.get("name") in added]
            if ours and len(ours) == len(mounts):
                found.append(path)
            else:
                found += [[*path, item_key((("mountPath", mount.get("mountPath", "")),))] for mount in ours]
    return of_paths(found)
