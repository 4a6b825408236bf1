"""NodeRestriction: what a kubelet may write of the objects that it may write at all.

Its own Node, without taints and without labels that steer workloads; its own Lease; mirror Pods of its own node that
refer to nothing; tokens for its Pods. That other nodes' Pods are not its own to change, `NodeAuthorizer` sees already.
Upstream: `plugin/pkg/admission/noderestriction/admission.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from netemu.apiserver.auth.authentication import User
from netemu.apiserver.auth.node_authorizer import names_of, node_of
from netemu.apiserver.registry import Registry
from netemu.apiserver.strategy import MIRROR, mirrored
from netemu.client.base import Obj
from netemu.model.errors import Forbidden
from netemu.model.node_labels import kubelet_may_set
from netemu.model.resources import LEASES, NODES, PODS, Resource


class NodeRestriction:
    """An admission plugin: looks at what nodes write."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, user: User, resource: Resource, obj: Obj, old: Obj | None) -> None:
        """See `admission.Plugin`."""
        node = node_of(user)
        if not node:
            return
        why = ""
        if resource is NODES:
            why = _node(node, obj, old)
        elif resource is PODS and old is None:
            why = self._mirror(node, obj)
        elif resource is LEASES and obj["metadata"]["name"] != node:
            why = "can only access node lease with the same name as the requesting node"
        if why:
            _refuse(resource, obj["metadata"]["name"], why)

    def _mirror(self, node: str, pod: Obj) -> str:
        """What is wrong with a Pod that a node creates."""
        metadata, spec = pod["metadata"], pod["spec"]
        if not mirrored(pod):
            return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
        if spec.get("nodeName") != node:
            return f'node "{node}" can only create pods with spec.nodeName set to itself'
        owners = metadata.get("ownerReferences") or []
        uid = (self._registry.find(NODES, node) or {}).get("metadata", {}).get("uid")
        if len(owners) != 1 or not _owns(owners[0], node, uid):
            return f'node "{node}" can only create pods with an owner reference set to itself'
        referred = ["a service account"] if spec.get("serviceAccountName") else []
        referred += sorted({resource for resource, name in names_of(pod) if name})
        volumes = spec.get("volumes") or ()
        referred += ["persistentvolumeclaims"] if any("persistentVolumeClaim" in one for one in volumes) else []
        return f'node "{node}" can not create pods that reference {referred[0]}' if referred else ""


def _owns(owner: Mapping[str, Any], node: str, uid: str | None) -> bool:
    ours = (owner.get("apiVersion"), owner.get("kind"), owner.get("name"), owner.get("uid")) == (
        "v1",
        "Node",
        node,
        uid,
    )
    return ours and bool(owner.get("controller")) and not owner.get("blockOwnerDeletion")


def _node(node: str, new: Obj, old: Obj | None) -> str:
    """What is wrong with a node's write of a Node."""
    name = new["metadata"]["name"]
    if name != node:
        return f'node "{node}" is not allowed to modify node "{name}"'
    source = (new.get("spec") or {}).get("configSource")
    if old is None:
        if source:
            return f'node "{node}" is not allowed to create pods with a non-nil configSource'
        labels = _restricted(_labels(new))
        return f'node "{node}" is not allowed to set the following labels: {labels}' if labels else ""
    before: Obj = old.get("spec") or {}
    if source and source != before.get("configSource"):
        return f'node "{node}" is not allowed to update configSource to a new non-nil configSource'
    if ((new.get("spec") or {}).get("taints") or []) != (before.get("taints") or []):
        return f'node "{node}" is not allowed to modify taints'
    labels = _restricted(key for key, _ in _labels(new).items() ^ _labels(old).items())
    return f"is not allowed to modify labels: {labels}" if labels else ""


def _labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _restricted(changed: Iterable[str]) -> str:
    return ", ".join(sorted({key for key in changed if not kubelet_may_set(key)}))


def check_token(node: str, account: str, bound: Mapping[str, Any], pod: Obj | None) -> None:
    """Whether a node may ask for a token of an account, `bound` to that Pod (None: to none). Raises Forbidden."""
    if pod is None or bound.get("kind") != "Pod":
        why = "node requested token not bound to a pod"
    elif not bound.get("uid"):
        why = "node requested token with a pod binding without a uid"
    elif pod["spec"].get("nodeName") != node:
        why = "node requested token bound to a pod scheduled on a different node"
    else:
        return
    raise Forbidden(f'serviceaccounts "{account}" is forbidden: {why}')


def _refuse(resource: Resource, name: str, why: str) -> None:
    details = {"name": name, "kind": resource.plural} | ({"group": resource.group} if resource.group else {})
    raise Forbidden(f'{resource} "{name}" is forbidden: {why}', details)
