"""What a lab is put back to between tests: which objects, and what of them."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.lab.changes import SETTLED_ANNOTATION
from netemu.model.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    PODS,
    SERVICES,
    Resource,
)
from netemu.testing.reset import Key, difference, follows, replacement


def obj(name: str, *, spec: Any = None, **meta: Any) -> dict[str, Any]:
    about = {"name": name, "namespace": "shop", "uid": "1", "resourceVersion": "5", **meta}
    return {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec or {}, "status": {"of": name}}


def key(name: str, resource: Resource = SERVICES) -> Key:
    return Key(resource, "shop", name)


def test_what_is_gone_new_and_changed_is_told() -> None:
    before = {key(name): obj(name) for name in ("kept", "gone", "ending", "changed")}
    now = {
        key("kept"): obj("kept", uid="2", resourceVersion="9", generation=3, managedFields=[]),
        key("ending"): obj("ending", deletionTimestamp="2001-01-01T00:00:00Z"),
        key("changed"): obj("changed", spec={"ports": []}),
        key("fresh"): obj("fresh"),
    }

    assert difference(before, now) == ([key("gone"), key("ending")], [key("fresh")], [key("changed")])


@pytest.mark.parametrize(
    ("meta", "changed"),
    [
        pytest.param({"labels": {"a": "b"}}, True, id="label"),
        pytest.param({"annotations": {"mine": "x"}}, True, id="annotation of somebody"),
        pytest.param({"annotations": {SETTLED_ANNOTATION: "7"}}, False, id="mark of settling"),
        pytest.param({"annotations": {"deployment.kubernetes.io/revision": "2"}}, False, id="revision of a rollout"),
        pytest.param({"annotations": {}}, False, id="no annotations"),
        pytest.param({"finalizers": ["mine"]}, True, id="finalizer"),
    ],
)
def test_what_counts_as_a_change(meta: dict[str, Any], changed: bool) -> None:
    found = difference({key("web"): obj("web")}, {key("web"): obj("web", **meta)})

    assert found.changed == [key("web")] * changed


def test_a_changed_object_is_replaced_by_what_it_was_at_the_revision_it_has() -> None:
    before = obj("web", spec={"replicas": 3}, annotations={"mine": "x", "deployment.kubernetes.io/revision": "1"})
    now = obj(
        "web", spec={"replicas": 0}, resourceVersion="9", labels={"a": "b"},
        annotations={"deployment.kubernetes.io/revision": "2"},
    )  # fmt: skip

    put = replacement(before, now | {"status": {"of": "now"}})

    assert put["metadata"] == {
        "name": "web", "namespace": "shop", "resourceVersion": "9",
        "annotations": {"mine": "x", "deployment.kubernetes.io/revision": "2"},
    }  # fmt: skip
    assert (put["spec"], put["status"]) == ({"replicas": 3}, {"of": "now"})


@pytest.mark.parametrize(
    ("resource", "meta", "left_alone"),
    [
        pytest.param(PODS, {"ownerReferences": [{"kind": "ReplicaSet", "controller": True}]}, True, id="Pod of a set"),
        pytest.param(PODS, {}, False, id="Pod of its own"),
        pytest.param(
            ENDPOINTSLICES, {"labels": {"endpointslice.kubernetes.io/managed-by": "c"}}, True, id="controller's slice"
        ),
        pytest.param(ENDPOINTSLICES, {}, False, id="slice by hand"),
        pytest.param(ENDPOINTS, {"name": "selecting"}, True, id="endpoints of a selector"),
        pytest.param(ENDPOINTS, {"name": "manual"}, False, id="endpoints by hand"),
        pytest.param(CONFIGMAPS, {"name": "kube-root-ca.crt"}, True, id="authority in each namespace"),
        pytest.param(DEPLOYMENTS, {}, False, id="Deployment"),
    ],
)
def test_what_follows_from_other_objects_is_left_alone(
    resource: Resource, meta: dict[str, Any], left_alone: bool
) -> None:
    name = meta.pop("name", "web")
    services = {("shop", "selecting"): True, ("shop", "manual"): False}

    assert follows(key(name, resource), obj(name, **meta), services) is left_alone
