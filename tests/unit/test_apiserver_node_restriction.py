"""What a kubelet may write of what it may write at all: the admission plugin NodeRestriction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from netemu.apiserver.admission import REQUESTER, Admission
from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import AUTHENTICATED, User
from netemu.apiserver.auth.jwt import Keys
from netemu.apiserver.auth.node_restriction import NodeRestriction
from netemu.apiserver.auth.service_accounts import ServiceAccountTokens
from netemu.apiserver.registry import Registry
from netemu.apiserver.rules import Rules
from netemu.apiserver.schema.kinds import Schema
from netemu.lab.authority import new_key
from netemu.model.errors import ApiError, Forbidden
from netemu.model.node_labels import kubelet_may_set
from netemu.model.resources import LEASES, NAMESPACES, NODES, PODS, SERVICEACCOUNTS
from netemu.testing.store import MemoryStore

NODE, ANN = User("system:node:n1", ("system:nodes", AUTHENTICATED)), User("ann", (AUTHENTICATED,))
TAINT = {"key": "only", "effect": "NoSchedule"}


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """Two nodes with a Pod each; from then on n1 is whose request is served."""
    store, admission = MemoryStore(), Admission()
    rules = admission.around(Rules.upstream())
    running = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]), rules=rules)
    await running.start()
    admission.begin(NodeRestriction(running))
    for name in ("default", "kube-node-lease"):
        await running.create(NAMESPACES, {"metadata": {"name": name}})
    await running.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    for name in ("n1", "n2"):
        spec = {"nodeName": name, "containers": [{"name": "c", "image": "nginx"}]}
        await running.create(PODS, {"metadata": {"name": f"on-{name}"}, "spec": spec}, "default")
    before = REQUESTER.set(NODE)
    yield running
    REQUESTER.reset(before)
    await running.close()
    await store.close()


@pytest.mark.parametrize(
    ("label", "free"),
    [
        ("disk", True),
        ("example.com/disk", True),
        ("topology.kubernetes.io/zone", True),
        ("kubernetes.io/hostname", True),
        ("beta.kubernetes.io/arch", True),
        ("kubelet.kubernetes.io/mine", True),
        ("gpu.node.kubernetes.io/mine", True),
        ("node-role.kubernetes.io/worker", False),
        ("node-restriction.kubernetes.io/pci", False),
        ("team.node-restriction.kubernetes.io/pci", False),
        ("kubernetes.io/role", False),
        ("other.k8s.io/x", False),
        ("notkubernetes.io/x", True),
    ],
)
def test_labels_that_a_kubelet_may_set(label: str, free: bool) -> None:
    assert kubelet_may_set(label) is free


async def test_a_node_registers_itself_with_taints_and_free_labels(registry: Registry) -> None:
    made = await registry.create(NODES, {"metadata": {"name": "n1", "labels": {"a": "b"}}, "spec": {"taints": [TAINT]}})

    assert made["spec"]["taints"] == [TAINT]


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"name": "n2"}, 'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'),
        (
            {"name": "n1", "labels": {"node-role.kubernetes.io/x": "", "k8s.io/a": "", "b": ""}},
            'nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: '
            "k8s.io/a, node-role.kubernetes.io/x",
        ),
    ],
)
async def test_a_node_registers_nothing_else(registry: Registry, metadata: dict[str, Any], why: str) -> None:
    with pytest.raises(Forbidden) as refused:
        await registry.create(NODES, {"metadata": metadata})

    assert refused.value.message == why


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"metadata": {"labels": {"mine": "1"}}}, ""),
        ({"metadata": {"labels": {"topology.kubernetes.io/zone": "b"}}}, ""),
        ({"metadata": {"labels": {"node-role.kubernetes.io/a": None}}}, "modify labels: node-role.kubernetes.io/a"),
        ({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "1"}}}, "modify labels: node-restriction."),
        ({"spec": {"taints": []}}, "modify taints"),
        ({"spec": {"unschedulable": True}}, ""),
    ],
)
async def test_what_a_node_changes_of_itself(registry: Registry, patch: dict[str, Any], why: str) -> None:
    REQUESTER.set(ANN)
    labels = {"node-role.kubernetes.io/a": ""}
    await registry.create(NODES, {"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": [TAINT]}})
    REQUESTER.set(NODE)
    said = ""
    try:
        await registry.patch(NODES, "n1", patch)
    except Forbidden as refused:
        said = refused.message

    assert bool(said) is bool(why)
    assert why in said


@pytest.mark.parametrize(
    ("annotated", "node", "owner", "spec", "why"),
    [
        (True, "n1", "n1", {}, ""),
        (False, "n1", "n1", {}, "can only create mirror pods"),
        (True, "n2", "n1", {}, "can only create pods with spec.nodeName set to itself"),
        (True, "n1", "n2", {}, "can only create pods with an owner reference set to itself"),
        (True, "n1", "n1", {"serviceAccountName": "default"}, "reference a service account"),
        (True, "n1", "n1", {"volumes": [{"name": "v", "secret": {"secretName": "key"}}]}, "reference secrets"),
        (True, "n1", "n1", {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}, "reference configmaps"),
    ],
)
async def test_a_node_creates_mirrors_of_its_own_pods_only(
    registry: Registry, annotated: bool, node: str, owner: str, spec: dict[str, Any], why: str
) -> None:
    uid = (await registry.create(NODES, {"metadata": {"name": "n1"}}))["metadata"]["uid"]
    annotations = {"kubernetes.io/config.mirror": "abc"} if annotated else {}
    ours = {"apiVersion": "v1", "kind": "Node", "name": owner, "uid": uid, "controller": True}
    metadata = {"name": "static-n1", "annotations": annotations, "ownerReferences": [ours]}
    whole = {"nodeName": node, "containers": [{"name": "c", "image": "nginx"}], **spec}
    said = ""
    try:
        made = await registry.create(PODS, {"metadata": metadata, "spec": whole}, "default")
        assert "serviceAccountName" not in made["spec"]
    except Forbidden as refused:
        said = refused.message

    assert bool(said) is bool(why)
    assert why in said


async def test_a_node_has_its_own_lease_only(registry: Registry) -> None:
    await registry.create(LEASES, {"metadata": {"name": "n1"}, "spec": {}}, "kube-node-lease")

    with pytest.raises(Forbidden, match="same name as the requesting node"):
        await registry.create(LEASES, {"metadata": {"name": "n2"}, "spec": {}}, "kube-node-lease")


@pytest.mark.parametrize(
    ("kind", "pod", "with_uid", "why"),
    [
        ("Pod", "on-n1", True, ""),
        ("Pod", "on-n1", False, "a pod binding without a uid"),
        ("Pod", "on-n2", True, "a pod scheduled on a different node"),
        ("", "", False, "token not bound to a pod"),
        ("Node", "n1", True, "token not bound to a pod"),
    ],
)
async def test_a_node_asks_for_tokens_of_its_pods_only(
    registry: Registry, kind: str, pod: str, with_uid: bool, why: str
) -> None:
    node = await registry.create(NODES, {"metadata": {"name": "n1"}})
    bound = node if kind == "Node" else registry.find(PODS, pod, "default")
    uid = {"uid": bound["metadata"]["uid"]} if bound and with_uid else {}
    ref = {"kind": kind, "apiVersion": "v1", "name": pod, **uid} if kind else None
    tokens = ServiceAccountTokens(registry, Keys(new_key()), "https://issuer", "https://server")
    said = ""
    try:
        tokens.create("default", "default", {"spec": {"boundObjectRef": ref}}, NODE)
    except ApiError as refused:
        said = refused.message

    assert bool(said) is bool(why)
    assert why in said
    tokens.create("default", "default", {"spec": {}}, ANN)
