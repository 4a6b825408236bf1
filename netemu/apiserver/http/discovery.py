"""Which groups, versions and resources there are, in the aggregated form and in the older one of a document per group.

The Content-Type of the aggregated form is part of the answer: with plain `application/json` kubectl ignores it.
Everything is read off the served resources. Upstream: apiserver `endpoints/discovery` and `.../aggregated`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from netemu.model.custom import version_priority
from netemu.model.resources import Resource
from netemu.model.served import Served

# Kinds of subresources that are not the kind of their resource: (group, version, kind).
_SUBRESOURCE_KINDS: dict[str, tuple[str, str, str]] = {
    "binding": ("", "v1", "Binding"),
    "attach": ("", "v1", "PodAttachOptions"),
    "eviction": ("policy", "v1", "Eviction"),
    "exec": ("", "v1", "PodExecOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
    "scale": ("autoscaling", "v1", "Scale"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}
_SUBRESOURCE_VERBS: dict[str, tuple[str, ...]] = {
    "attach": ("create", "get"),
    "binding": ("create",),
    "exec": ("create", "get"),
    "log": ("get",),
    "portforward": ("create", "get"),
    "proxy": ("create", "delete", "get", "patch", "update"),
    "eviction": ("create",),
    "finalize": ("update",),
    "token": ("create",),
}
_STATUS_VERBS = ("get", "patch", "update")


def aggregated_type(version: str) -> str:
    """The Content-Type of aggregated discovery in `v2` or `v2beta1`."""
    return f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def subresource_kind(resource: Resource, subresource: str) -> tuple[str, str, str]:
    """Group, version and kind of what a subresource's URL takes and gives."""
    if subresource == "proxy":
        return "", "v1", f"{resource.kind}ProxyOptions"
    return _SUBRESOURCE_KINDS.get(subresource, (resource.group, resource.version, resource.kind))


def subresource_verbs(subresource: str) -> tuple[str, ...]:
    """What clients may do with a subresource."""
    return _SUBRESOURCE_VERBS.get(subresource, _STATUS_VERBS)


class Discovery:
    """The discovery documents of the resources that are served at the moment."""

    def __init__(self, served: Served) -> None:
        self._served, self._generation = served, -1
        self._groups: dict[str, dict[str, list[Resource]]] = {}

    @property
    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """Group to version to resources; the core group is "" and comes first."""
        if self._generation != self._served.generation:
            self._groups, self._generation = {"": {}}, self._served.generation
            for resource in sorted(self._served, key=lambda one: version_priority(one.version) if one.custom else ()):
                self._groups.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return self._groups

    def aggregated(self, version: str, *, core: bool) -> dict[str, Any]:
        """`/api` (core) or `/apis` as one `APIGroupDiscoveryList`."""
        items = [
            {
                "metadata": {"creationTimestamp": None, **({"name": group} if group else {})},
                "versions": [
                    {
                        "version": name,
                        "resources": [_aggregated_resource(resource) for resource in resources],
                        "freshness": "Current",
                    }
                    for name, resources in versions.items()
                ],
            }
            for group, versions in self.groups.items()
            if (group == "") is core
        ]
        api_version = f"apidiscovery.k8s.io/{version}"
        return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}

    def api_versions(self, server: str) -> dict[str, Any]:
        """`/api` in the older form. `server` is the HOST:PORT that clients came to."""
        return {
            "kind": "APIVersions",
            "versions": list(self.groups[""]),
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
        }

    def api_group_list(self) -> dict[str, Any]:
        """`/apis` in the older form."""
        groups = [_group(name, versions) for name, versions in self.groups.items() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def api_group(self, group: str) -> dict[str, Any] | None:
        """`/apis/GROUP`."""
        versions = self.groups.get(group) if group else None
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)} if versions else None

    def api_resource_list(self, group: str, version: str) -> dict[str, Any] | None:
        """`/api/v1` or `/apis/GROUP/VERSION`."""
        resources = self.groups.get(group, {}).get(version)
        if resources is None:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": [entry for resource in resources for entry in _legacy_entries(resource)],
        }


def _group(name: str, versions: Iterable[str]) -> dict[str, Any]:
    named = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": named, "preferredVersion": named[0]}


def _aggregated_resource(resource: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [_aggregated_subresource(resource, name) for name in resource.subresources]
    return entry


def _aggregated_subresource(resource: Resource, name: str) -> dict[str, Any]:
    group, version, kind = subresource_kind(resource, name)
    response = {"group": group, "version": version, "kind": kind}
    return {"subresource": name, "responseKind": response, "verbs": list(subresource_verbs(name))}


def _legacy_entries(resource: Resource) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entries = [entry]
    for name in resource.subresources:
        group, version, kind = subresource_kind(resource, name)
        sub: dict[str, Any] = {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
        }
        if (group, version) != (resource.group, resource.version) or name == "binding":
            sub |= {"group": group, "version": version}
        entries.append({**sub, "kind": kind, "verbs": list(subresource_verbs(name))})
    return entries
