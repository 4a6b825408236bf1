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


class NodeAuthorizer:
    """Decides for the users that are nodes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def allows(self, node: str, wanted: Attributes) -> bool:
        """Whether a node may do something; it is not allowed what is not named here."""
        group, resource, verb = wanted.group, wanted.resource, wanted.verb
        if wanted.path:
            return False
        if group == "":
            decide = _CORE.get(resource)
            return decide is not None and decide(self, node, wanted)
        if group == "coordination.k8s.io":
            own = wanted.namespace == _LEASES and (wanted.name == node or verb == "create")
            return resource == "leases" and own and verb in ("create", "delete", "get", "patch", "update")
        if group == "certificates.k8s.io":
            return (resource, wanted.subresource) == (_REQUESTS, "") and (verb in _READ or verb == "create")
        if group in ("authentication.k8s.io", "authorization.k8s.io"):
            return resource in _REVIEWS and verb == "create"
        return (group, resource) == ("node.k8s.io", "runtimeclasses") and verb in _READ

    def _node(self, node: str, wanted: Attributes) -> bool:
        if wanted.verb == "create":
            return not wanted.subresource
        if wanted.verb in _READ:
            return not wanted.subresource and wanted.name == node
        return wanted.subresource in ("", "status") and wanted.verb in _WRITE and wanted.name == node

    def _pods(self, node: str, wanted: Attributes) -> bool:
        verb, subresource = wanted.verb, wanted.subresource
        if verb == "create" and not subresource:
            return True  # mirror Pods
        if verb in ("list", "watch", "deletecollection") and not wanted.name:
            return verb != "deletecollection" and f"spec.nodeName={node}" in wanted.fields.split(",")
        pod = self._registry.find(PODS, wanted.name, wanted.namespace)
        if pod is None:  # the answer will be that it is not there
            return verb in ("get", "watch", "list", "delete") and not subresource
        if (pod.get("spec") or {}).get("nodeName") != node:
            return False
        if subresource == "status":
            return verb in _WRITE
        return (subresource == "eviction" and verb == "create") or (
            not subresource and verb in ("get", "list", "watch", "delete")
        )

    def _named(self, node: str, wanted: Attributes) -> bool:
        if wanted.verb not in _READ or wanted.subresource or not wanted.name:
            return False
        return any((wanted.resource, wanted.name) in names_of(pod) for pod in self._bound(node, wanted.namespace))

    def _token(self, node: str, wanted: Attributes) -> bool:
        if wanted.subresource != "token":
            return wanted.verb == "get" and not wanted.subresource and self._runs_as(node, wanted)
        return wanted.verb == "create" and self._runs_as(node, wanted)

    def _runs_as(self, node: str, wanted: Attributes) -> bool:
        return any(
            pod["spec"].get("serviceAccountName") == wanted.name for pod in self._bound(node, wanted.namespace)
        )  # fmt: skip

    def _events(self, node: str, wanted: Attributes) -> bool:
        return wanted.verb in ("create", "patch", "update")

    def _endpoints(self, node: str, wanted: Attributes) -> bool:
        return wanted.verb == "get" and not wanted.subresource

    def _services(self, node: str, wanted: Attributes) -> bool:
        return wanted.verb in _READ and not wanted.subresource

    def _bound(self, node: str, namespace: str) -> Iterator[Obj]:
        if namespace:
            yield from (pod for pod in self._registry.objects(PODS, namespace) if pod["spec"].get("nodeName") == node)


_CORE: dict[str, Callable[[NodeAuthorizer, str, Attributes], bool]] = {
    "configmaps": NodeAuthorizer._named,
    "endpoints": NodeAuthorizer._endpoints,
    "events": NodeAuthorizer._events,
    "nodes": NodeAuthorizer._node,
    "pods": NodeAuthorizer._pods,
    "secrets": NodeAuthorizer._named,
    "serviceaccounts": NodeAuthorizer._token,
    "services": NodeAuthorizer._services,
}


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
