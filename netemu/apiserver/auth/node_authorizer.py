"""What a kubelet may do: its own Node and Lease, the Pods bound to its node, and what those Pods name.

RBAC cannot say "the Secrets of my Pods"; this can. Nodes are known by their user, `system:node:NAME` in the group
`system:nodes`. What a write may say is `node_restriction`'s to judge.
Upstream: `plugin/pkg/auth/authorizer/node` with the feature AuthorizeNodeWithSelectors, on since 1.32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from netemu.apiserver.auth.authentication import Attributes, User
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.resources import PODS

_PREFIX, _GROUP = "system:node:", "system:nodes"
_LEASES = "kube-node-lease"
_READ, _WRITE = frozenset({"get", "list", "watch"}), frozenset({"update", "patch"})
_REQUESTS = "certificatesigningrequests"
_REVIEWS = frozenset({"tokenreviews", "subjectaccessreviews", "localsubjectaccessreviews"})


def node_of(user: User) -> str:
    """The node that a user is, empty for everybody else."""
    if _GROUP not in user.groups or not user.name.startswith(_PREFIX):
        return ""
    return user.name.removeprefix(_PREFIX)


Objection = str | None
"""Why a node may not do something, in upstream's words and empty where it has none; None where it may."""


class NodeAuthorizer:
    """Decides for the users that are nodes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def objection(self, node: str, wanted: Attributes) -> Objection:
        """Why a node may not do something, None if it may; it may not what is not named here."""
        group, resource, verb = wanted.group, wanted.resource, wanted.verb
        if wanted.path:
            return ""
        if group == "":
            decide = _CORE.get(resource)
            return decide(self, node, wanted) if decide else ""
        if (group, resource) == ("coordination.k8s.io", "leases"):
            return _lease(node, wanted)
        if group == "certificates.k8s.io":
            return _unless((resource, wanted.subresource) == (_REQUESTS, "") and (verb in _READ or verb == "create"))
        if group in ("authentication.k8s.io", "authorization.k8s.io"):
            return _unless(resource in _REVIEWS and verb == "create")
        return _unless((group, resource) == ("node.k8s.io", "runtimeclasses") and verb in _READ)

    def _node(self, node: str, wanted: Attributes) -> Objection:
        if wanted.verb == "create":
            return _unless(not wanted.subresource)
        if wanted.verb not in _READ:
            return _unless(wanted.subresource in ("", "status") and wanted.verb in _WRITE and wanted.name == node)
        if wanted.subresource:
            return ""
        what = f"'{wanted.name}'" if wanted.name else "all nodes"
        return _unless(wanted.name == node, f"node '{node}' cannot read {what}, only its own Node object")

    def _pods(self, node: str, wanted: Attributes) -> Objection:
        verb, subresource = wanted.verb, wanted.subresource
        if verb == "create" and not subresource:
            return None  # mirror Pods
        if verb == "deletecollection":
            return ""
        if verb in ("list", "watch") and not wanted.name:
            own = f"spec.nodeName={node}" in wanted.fields.split(",")
            return _unless(own, "can only list/watch pods with spec.nodeName field selector")
        pod = self._registry.find(PODS, wanted.name, wanted.namespace)
        if pod is None:  # the answer will be that it is not there
            return _unless(verb in (*_READ, "delete") and not subresource)
        if (pod.get("spec") or {}).get("nodeName") != node:
            return _stranger(node) if verb in _READ and not subresource else ""
        if subresource == "status":
            return _unless(verb in _WRITE)
        return _unless(
            (subresource == "eviction" and verb == "create") or (not subresource and verb in (*_READ, "delete"))
        )

    def _named(self, node: str, wanted: Attributes) -> Objection:
        if wanted.verb not in _READ:
            return "can only read resources of this type"
        if wanted.subresource:
            return "cannot read subresource"
        if not wanted.namespace:
            return "can only read namespaced object of this type"
        if not wanted.name:
            return "No Object name found"
        named = any((wanted.resource, wanted.name) in names_of(pod) for pod in self._bound(node, wanted.namespace))
        return _unless(named, _stranger(node))

    def _service_account(self, node: str, wanted: Attributes) -> Objection:
        if (wanted.verb, wanted.subresource) != ("get", ""):
            if wanted.verb != "create" or not wanted.name:
                return "can only create tokens for individual service accounts"
            if wanted.subresource != "token":
                return "can only create token subresource of serviceaccount"
        pods = self._bound(node, wanted.namespace)
        return _unless(any(pod["spec"].get("serviceAccountName") == wanted.name for pod in pods), _stranger(node))

    def _events(self, node: str, wanted: Attributes) -> Objection:
        return _unless(wanted.verb in ("create", "patch", "update"))

    def _endpoints(self, node: str, wanted: Attributes) -> Objection:
        return _unless(wanted.verb == "get" and not wanted.subresource)

    def _services(self, node: str, wanted: Attributes) -> Objection:
        return _unless(wanted.verb in _READ and not wanted.subresource)

    def _bound(self, node: str, namespace: str) -> Iterator[Obj]:
        if namespace:
            yield from (pod for pod in self._registry.objects(PODS, namespace) if pod["spec"].get("nodeName") == node)


_CORE: dict[str, Callable[[NodeAuthorizer, str, Attributes], Objection]] = {
    "configmaps": NodeAuthorizer._named,
    "endpoints": NodeAuthorizer._endpoints,
    "events": NodeAuthorizer._events,
    "nodes": NodeAuthorizer._node,
    "pods": NodeAuthorizer._pods,
    "secrets": NodeAuthorizer._named,
    "serviceaccounts": NodeAuthorizer._service_account,
    "services": NodeAuthorizer._services,
}


def _lease(node: str, wanted: Attributes) -> Objection:
    if wanted.verb not in ("create", "delete", "get", "patch", "update"):
        return "can only get, create, update, patch, or delete a node lease"
    if wanted.namespace != _LEASES:
        return f'can only access leases in the "{_LEASES}" system namespace'
    own = wanted.name == node or wanted.verb == "create"  # whose name is not known yet
    return _unless(own, "can only access node lease with the same name as the requesting node")


def _unless(allowed: bool, why: str = "") -> Objection:
    return None if allowed else why


def _stranger(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"


def names_of(pod: Obj) -> set[tuple[str, str]]:
    """The Secrets and ConfigMaps that a Pod refers to, as (resource, name)."""
    spec = pod["spec"]
    found = {("secrets", one.get("name", "")) for one in spec.get("imagePullSecrets") or ()}
    for volume in spec.get("volumes") or ():
        found |= _of_volume(volume)
        for source in (volume.get("projected") or {}).get("sources") or ():
            found |= _of_volume(source)
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            found |= _of_container(container)
    return found


def _of_volume(source: dict[str, Any]) -> set[tuple[str, str]]:
    secret, config_map = source.get("secret") or {}, source.get("configMap") or {}
    return {("secrets", secret.get("secretName") or secret.get("name", "")), ("configmaps", config_map.get("name", ""))}


def _of_container(container: dict[str, Any]) -> set[tuple[str, str]]:
    found = set()
    for source in container.get("envFrom") or ():
        found |= {
            ("secrets", (source.get("secretRef") or {}).get("name", "")),
            ("configmaps", (source.get("configMapRef") or {}).get("name", "")),
        }
    for variable in container.get("env") or ():
        origin = variable.get("valueFrom") or {}
        found |= {
            ("secrets", (origin.get("secretKeyRef") or {}).get("name", "")),
            ("configmaps", (origin.get("configMapKeyRef") or {}).get("name", "")),
        }
    return found
