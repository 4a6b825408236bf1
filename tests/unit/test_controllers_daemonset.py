"""DaemonSets running against an API server in memory, with nodes that come, go and refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from netemu import controllers
from netemu.controllers.actions import Patch
from netemu.controllers.daemon_pods import belongs_on, node_of
from netemu.controllers.daemonset import reconcile
from netemu.controllers.revisions import HASH
from netemu.controllers.template import template_hash
from netemu.model import times
from netemu.model.meta import decode
from netemu.model.objects import Node
from netemu.model.pods import Pod
from netemu.model.resources import CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS, STATEFULSETS
from netemu.model.workloads import ControllerRevision, DaemonSet
from netemu.testing.client import FakeClient
from netemu.testing.cluster import kubelet, running, settled, until
from tests.unit.objects_world import NOW, daemon_set, node, pod, stateful_set

pytestmark = pytest.mark.looptime
TAINT = {"key": "only", "value": "me", "effect": "NoSchedule"}


@asynccontextmanager
async def cluster(*nodes: str, **fields: Any) -> AsyncIterator[FakeClient]:
    """Controllers, nodes, and Pods that become ready as soon as they are there."""
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client, **fields)):
        for name in nodes:
            await client.create(NODES, node(name))
        yield client


def _where(client: FakeClient) -> list[str]:
    """The node of each Pod that is not about to end."""
    pods = (decode(pod, Pod) for pod in client.stored(PODS))
    return sorted(node_of(pod) for pod in pods if not pod.deleting)


def _images(client: FakeClient) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in client.stored(PODS)}


def _status(client: FakeClient) -> dict[str, int]:
    found = client.stored(DAEMONSETS)[0]
    status: dict[str, int] = found.get("status") or {}
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return status if seen else {}


def _complete(client: FakeClient, count: int) -> bool:
    status = _status(client)
    counts = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
    return [status.get(name, 0) for name in counts] == [count] * 3 and len(client.stored(PODS)) == count


async def test_every_node_gets_a_pod_and_one_that_comes_later_too() -> None:
    async with cluster("a", "b") as client:
        await client.create(DAEMONSETS, daemon_set(), "shop")
        await until(client, lambda: _complete(client, 2))
        await client.create(NODES, node("c"))
        await until(client, lambda: _complete(client, 3))
        assert _where(client) == ["a", "b", "c"]
        await client.delete(NODES, "a")
        await until(client, lambda: _complete(client, 2))

        assert _where(client) == ["b", "c"]


async def test_a_pod_that_is_deleted_comes_again_on_its_node() -> None:
    async with cluster("a", "b") as client:
        await client.create(DAEMONSETS, daemon_set(), "shop")
        await until(client, lambda: _complete(client, 2))
        gone = client.stored(PODS)[0]["metadata"]
        await client.delete(PODS, gone["name"], "shop")
        await until(client, lambda: _complete(client, 2) and gone["uid"] not in str(client.stored(PODS)))

        assert _where(client) == ["a", "b"]


async def test_labels_of_a_node_decide_and_may_change() -> None:
    async with cluster("a", "b") as client:
        await client.create(DAEMONSETS, daemon_set(pod={"nodeSelector": {"disk": "ssd"}}), "shop")
        await settled(client)
        assert _where(client) == []
        await client.patch(NODES, "b", {"metadata": {"labels": {"disk": "ssd"}}})
        await until(client, lambda: _complete(client, 1))
        assert _where(client) == ["b"]
        await client.patch(NODES, "b", {"metadata": {"labels": {"disk": None}}})
        await until(client, lambda: _complete(client, 0))


def _says(taint: dict[str, Any], *tolerations: dict[str, Any], **parts: Any) -> tuple[bool, bool]:
    ds = decode(daemon_set(pod={"tolerations": list(tolerations), **parts}), DaemonSet)
    return belongs_on(ds, decode(node("a", taints=[taint]), Node))


def test_taints_keep_pods_off_or_only_new_ones_unless_tolerated() -> None:
    tolerated = {"key": "only", "operator": "Exists"}
    cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    no_network = {"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}

    assert _says(TAINT) == (False, True)
    assert _says({**TAINT, "effect": "NoExecute"}) == (False, False)
    assert _says({**TAINT, "effect": "PreferNoSchedule"}) == (True, True)
    assert _says(TAINT, tolerated) == _says(cordoned) == (True, True)
    assert _says(no_network) == (False, True)
    assert _says(no_network, hostNetwork=True) == (True, True)
    assert _says(TAINT, tolerated, nodeName="b") == (False, False)


@pytest.mark.parametrize(
    ("rolling", "least", "most"),
    [({"maxUnavailable": 1}, 3, 4), ({"maxUnavailable": "50%"}, 2, 4), ({"maxUnavailable": 0, "maxSurge": 1}, 4, 5)],
)
async def test_a_new_template_goes_from_node_to_node_within_the_limits(
    rolling: dict[str, Any], least: int, most: int
) -> None:
    seen: list[tuple[int, int]] = []
    async with cluster("a", "b", "c", "d") as client:
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
        await client.create(DAEMONSETS, daemon_set(updateStrategy=strategy), "shop")
        await until(client, lambda: _complete(client, 4))

        def look() -> None:
            pods = client.stored(PODS)
            up = [pod for pod in pods if "podIP" in pod["status"] and not pod["metadata"].get("deletionTimestamp")]
            seen.append((len(up), len(pods)))

        client.after_write.append(look)
        template = daemon_set(image="two")["spec"]["template"]
        await client.patch(DAEMONSETS, "web", {"spec": {"template": template}}, "shop")
        await until(client, lambda: _images(client) == {"two"} and _complete(client, 4))

    assert min(up for up, _ in seen) >= least
    assert max(count for _, count in seen) <= most
    assert len(set(_where(client))) == 4


async def test_on_delete_replaces_nothing_by_itself() -> None:
    async with cluster("a") as client:
        await client.create(DAEMONSETS, daemon_set(updateStrategy={"type": "OnDelete"}), "shop")
        await until(client, lambda: _complete(client, 1))
        template = daemon_set(image="two")["spec"]["template"]
        await client.patch(DAEMONSETS, "web", {"spec": {"template": template}}, "shop")
        await until(client, lambda: _status(client).get("numberAvailable") == 1)
        await settled(client)
        assert _images(client) == {"one"}
        await client.delete(PODS, client.stored(PODS)[0]["metadata"]["name"], "shop")
        await until(client, lambda: _images(client) == {"two"})


def _rolled_out(client: FakeClient, image: str) -> bool:
    return _images(client) == {image} and _complete(client, 1)


async def test_the_history_has_a_revision_for_each_template_and_one_that_comes_back_is_the_newest() -> None:
    async with cluster("a") as client:
        await client.create(DAEMONSETS, daemon_set(revisionHistoryLimit=1), "shop")
        for image in ("one", "two", "three", "two"):
            template = daemon_set(image=image)["spec"]["template"]
            await client.patch(DAEMONSETS, "web", {"spec": {"template": template}}, "shop")
            await until(client, partial(_rolled_out, client, image))
        await settled(client)

        revisions = {
            one["data"]["spec"]["template"]["spec"]["containers"][0]["image"]: one["revision"]
            for one in client.stored(CONTROLLERREVISIONS)
        }
    assert revisions == {"three": 3, "two": 4}


def test_a_failed_pod_is_replaced_after_a_while() -> None:
    ds = decode(daemon_set(), DaemonSet)
    labels = {"app": "web", HASH: template_hash(ds.spec.template)}
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web", "uid": "", "controller": True}
    failed = decode(pod("x", node="a", metadata={"labels": labels}, status={"phase": "Failed"}), Pod)
    history = {"metadata": {"name": "r", "labels": labels, "ownerReferences": [owner]}, "revision": 1}
    revision = decode({**history, "data": {"spec": {"template": ds.spec.template}}}, ControllerRevision)
    made = times.parse(NOW)

    def decided(seconds: float) -> list[str]:
        at = made + timedelta(seconds=seconds)
        actions = reconcile(ds, [failed], [decode(node("a"), Node)], [revision], at)
        return [type(action).__name__ for action in actions if not isinstance(action, Patch)]

    assert decided(1) == ["Again"]
    assert decided(11) == ["Say", "Delete", "Again"]


async def test_one_that_is_made_again_takes_in_the_pods_and_history_that_its_predecessor_left() -> None:
    async with cluster("a", "b") as client:
        await client.create(DAEMONSETS, daemon_set(), "shop")
        await until(client, lambda: _complete(client, 2))
        before = {pod["metadata"]["uid"] for pod in client.stored(PODS)}
        await client.delete(DAEMONSETS, "web", "shop", propagation_policy="Orphan")
        await until(client, lambda: not client.stored(DAEMONSETS))
        await client.create(DAEMONSETS, daemon_set(), "shop")
        await until(client, lambda: _complete(client, 2))
        await settled(client)

        assert {pod["metadata"]["uid"] for pod in client.stored(PODS)} == before
        assert len(client.stored(CONTROLLERREVISIONS)) == 1


async def test_a_stateful_set_of_the_same_name_and_template_is_not_in_the_way() -> None:
    async with cluster("a") as client:
        await client.create(STATEFULSETS, stateful_set(replicas=1), "shop")
        await until(client, lambda: len(client.stored(PODS)) == 1)
        await client.create(DAEMONSETS, daemon_set(), "shop")
        await until(client, lambda: _status(client).get("numberAvailable") == 1)

        assert len({one["metadata"]["name"] for one in client.stored(CONTROLLERREVISIONS)}) == 2


async def test_pods_and_history_go_with_their_set() -> None:
    async with cluster("a", "b") as client:
        await client.create(DAEMONSETS, daemon_set(), "shop")
        await until(client, lambda: _complete(client, 2))
        await client.delete(DAEMONSETS, "web", "shop")
        await until(client, lambda: not client.stored(PODS) and not client.stored(CONTROLLERREVISIONS))
