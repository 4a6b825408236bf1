"""Under which keys objects are stored: upstream's, so that etcdctl and every guide to it find them.

`/registry/PLURAL[/NAMESPACE]/NAME`, with a few names from Kubernetes' early days; resources that are not built in have
their group in front of the plural, and what API servers keep for each other alone has none.
After `pkg/kubeapiserver/default_storage_factory_builder.go`.
"""

from __future__ import annotations

from netemu.model.resources import RESOURCES, Resource

ROOT = "/registry/"

_OWN = (f"{ROOT}ranges/", f"{ROOT}masterleases/")

_EARLY_NAMES = {
    ("", "nodes"): "minions",
    ("", "services"): "services/specs",
    ("", "endpoints"): "services/endpoints",
    ("", "replicationcontrollers"): "controllers",
    ("networking.k8s.io", "ingresses"): "ingress",
    # Of a server of its own upstream, for which no resource is built in.
    ("apiextensions.k8s.io", "customresourcedefinitions"): "apiextensions.k8s.io/customresourcedefinitions",
}
_FOLDERS = {(r.group, r.plural): _EARLY_NAMES.get((r.group, r.plural), r.plural) for r in reversed(RESOURCES)}
_RESOURCES = {folder: resource for resource, folder in _FOLDERS.items()}


def is_object(key: str) -> bool:
    """Whether a key is an object's, and not what API servers keep for each other alone and make anew."""
    return not key.startswith(_OWN)


def key_of(resource: Resource, namespace: str, name: str) -> str:
    """Where an object is stored."""
    own = f"{resource.group}/{resource.plural}" if resource.group else resource.plural
    folder = _FOLDERS.get((resource.group, resource.plural)) or own
    return f"{ROOT}{folder}/{namespace}/{name}" if namespace else f"{ROOT}{folder}/{name}"


def parts_of(key: str) -> tuple[tuple[str, str], str, str]:
    """A key's resource as group and plural, namespace and name."""
    parts = key[len(ROOT) :].split("/")
    resource = _RESOURCES.get(parts[0]) or (("", parts[0]) if len(parts) == 2 else None)
    if resource:
        own = parts[1:]
    else:
        resource = _RESOURCES.get("/".join(parts[:2])) or (parts[0], parts[1])
        own = parts[2:]
    return resource, own[0] if len(own) > 1 else "", own[-1]
