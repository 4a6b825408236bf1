"""Putting a lab back to what it was when it came up, between tests.

Objects: whatever a test has created goes, what it has deleted or changed comes back. What controllers make of other
objects (Pods of Deployments, EndpointSlices of Services) follows by itself, and what is only status is left alone.
Faults of DNS are ConfigMaps, so they are objects too. Connections that nodes track are forgotten, except those to the
API server, on which cluster DNS watches it.

What a command in a place did to its links, addresses, routes and rules cannot be undone by what is known here, only
noticed: `machine` is a print of all that, taken before the first command of a test.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from netemu.kernel import process
from netemu.kernel.conntrack import ConntrackNetlink
from netemu.lab import changes
from netemu.lab.api import LabApi
from netemu.lab.config import API_PORT, LabConfig
from netemu.model.custom import CustomResourceDefinition, resources_of
from netemu.model.errors import AlreadyExists, KernelError, NotFound
from netemu.model.meta import decode
from netemu.model.resources import (
    CERTIFICATESIGNINGREQUESTS,
    CUSTOMRESOURCEDEFINITIONS,
    ENDPOINTS,
    ENDPOINTSLICES,
    EVENTS,
    EVENTS_V1,
    IPADDRESSES,
    LEASES,
    NAMESPACES,
    PODS,
    RESOURCES,
    SERVICES,
    Resource,
)
from netemu.network.names import node_netns

Obj = dict[str, Any]
_NOT_THE_FILES = (EVENTS, EVENTS_V1, LEASES, CERTIFICATESIGNINGREQUESTS, IPADDRESSES)
_KINDS = (NAMESPACES, *(kind for kind in RESOURCES if kind is not NAMESPACES and kind not in _NOT_THE_FILES))
_SERVERS_OWN = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "managedFields",
)  # fmt: skip
_CONTROLLERS_OWN = (changes.SETTLED_ANNOTATION, "deployment.kubernetes.io/revision")
"""Annotations that change without anybody's wish."""
API_SERVICE = ("default", "kubernetes")
_MANAGED_SLICE = "endpointslice.kubernetes.io/managed-by"
_COUNTERS = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+|^#.*$|(valid|preferred)_lft \w+|expires \w+", re.MULTILINE)


class Key(NamedTuple):
    """What an object is found by."""

    resource: Resource
    namespace: str
    name: str


class Difference(NamedTuple):
    """What has become of objects: those that are gone, that are new, and that somebody has changed."""

    gone: list[Key]
    fresh: list[Key]
    changed: list[Key]


def difference(before: Mapping[Key, Obj], now: Mapping[Key, Obj]) -> Difference:
    """What of the objects is not as it was, in the order in which they are listed. What is about to go is gone."""
    staying = {key for key, obj in now.items() if not obj["metadata"].get("deletionTimestamp")}
    gone = [key for key in before if key not in staying]
    fresh = [key for key in now if key not in before]
    changed = [key for key in before if key in staying and wanted(now[key]) != wanted(before[key])]
    return Difference(gone, fresh, changed)


class Baseline:
    """The objects of a lab when it came up."""

    def __init__(self, api: LabApi, config: LabConfig) -> None:
        self._api, self._config = api, config
        self._objects = dict(self._listed())

    def restore(self) -> bool:
        """Put back what is not as it was; whether anything was. Raises ApiError, Failed, RulesMissingError."""
        now = dict(self._listed())
        gone, fresh, changed = difference(self._objects, now)
        for key in (*reversed(fresh), *(key for key in gone if key in now)):
            self._delete(key)
        for key in gone:
            changes.until_gone(self._api, key.resource, key.name, key.namespace)
            with contextlib.suppress(AlreadyExists):  # whoever makes one in each namespace was faster
                self._api.create(key.resource, wanted(self._objects[key]), key.namespace)
        for key in changed:
            path = key.resource.path(key.namespace, key.name)
            self._api.request("PUT", path, replacement(self._objects[key], now[key]))
        if gone or fresh or changed:
            for key in fresh:
                changes.until_gone(self._api, key.resource, key.name, key.namespace)
            changes.settle(self._api)
        self._forget_connections()
        return bool(gone or fresh or changed)

    def _listed(self) -> Iterator[tuple[Key, Obj]]:
        services: dict[tuple[str, str], bool] = {}
        kinds = list(_KINDS)
        for resource in kinds:  # definitions, the last of them, add theirs
            for obj in self._api.list(resource)[0]:
                meta = obj["metadata"]
                key = Key(resource, meta.get("namespace", ""), meta["name"])
                if resource is CUSTOMRESOURCEDEFINITIONS:
                    kinds += resources_of(decode(obj, CustomResourceDefinition))[:1]
                if resource is SERVICES:
                    services[key[1:]] = bool((obj.get("spec") or {}).get("selector")) or key[1:] == API_SERVICE
                if not follows(key, obj, services):
                    yield key, {"apiVersion": resource.api_version, "kind": resource.kind, **obj}

    def _delete(self, key: Key) -> None:
        with contextlib.suppress(NotFound):  # gone with its namespace or its owner
            query = {"gracePeriodSeconds": "0"} if key.resource is PODS else {}
            self._api.request("DELETE", key.resource.path(key.namespace, key.name), None, **query)

    def _forget_connections(self) -> None:
        for node in self._config.nodes:
            conntrack = ConntrackNetlink(node_netns(self._config.name, node.name))
            for protocol in ("udp", "tcp", "sctp"):
                for ipv6 in (False, True) if self._config.ipv6 else (False,):
                    flows = conntrack.flows(protocol, ipv6=ipv6)
                    conntrack.delete(
                        (flow for flow in flows if not self._to_api(flow.destination, flow.port)), ipv6=ipv6
                    )

    def _to_api(self, destination: str, port: int) -> bool:
        return (destination, port) == (self._config.api_service_ip, 443) or port == API_PORT


def _annotations(obj: Obj) -> dict[str, str]:
    return dict(obj["metadata"].get("annotations") or {})


def follows(key: Key, obj: Obj, services: Mapping[tuple[str, str], bool]) -> bool:
    """Whether an object follows from others, or is kept up to date by whoever made it.

    `services`: whether the endpoints of a Service, by namespace and name, are somebody's who keeps them up to date.
    """
    meta = obj["metadata"]
    if key.resource is ENDPOINTS:
        return services.get(key[1:], False)
    if key.resource is ENDPOINTSLICES:
        return bool((meta.get("labels") or {}).get(_MANAGED_SLICE)) or key.name == API_SERVICE[1]
    owned = any(owner.get("controller") for owner in meta.get("ownerReferences") or ())
    return owned or meta.get("namespace") == "kube-public" or key.name == "kube-root-ca.crt"


def wanted(obj: Obj) -> Obj:
    """What somebody wished of an object: without its status, and without what the server and controllers note on it."""
    meta = {name: value for name, value in obj["metadata"].items() if name not in _SERVERS_OWN}
    meta["annotations"] = {name: text for name, text in _annotations(obj).items() if name not in _CONTROLLERS_OWN}
    return {**{name: value for name, value in obj.items() if name != "status"}, "metadata": meta}


def replacement(before: Obj, now: Obj) -> Obj:
    """What is put in the place of an object, so that it is as it was wished before."""
    obj = wanted(before)
    kept = {name: text for name, text in _annotations(now).items() if name in _CONTROLLERS_OWN}
    obj["metadata"]["annotations"] |= kept
    obj["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"]
    return obj if "status" not in now else {**obj, "status": now["status"]}


_ASKED = (
    ["ip", "-o", "link"], ["ip", "-o", "addr"], ["ip", "route", "show", "table", "all"], ["ip", "rule"],
    ["ip", "-6", "route", "show", "table", "all"], ["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"],
    ["ipset", "save"], ["tc", "qdisc"],
)  # fmt: skip


def machine(netns: str) -> str:
    """The links, addresses, routes and rules of a namespace, as the tools print them, without counters."""
    said = []
    for command in _ASKED:
        with contextlib.suppress(KernelError):  # a tool that is not here has changed nothing
            said.append(process.run_sync(command, netns=netns).decode(errors="replace"))
    return _COUNTERS.sub("", "\n".join(said))
