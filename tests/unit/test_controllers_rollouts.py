"""Deployments and ReplicaSets running against an API server in memory."""

from __future__ import annotations

from typing import Any

import pytest

from netemu import controllers
from netemu.controllers.template import template_hash
from netemu.model.resources import DEPLOYMENTS, EVENTS, PODS, REPLICASETS
from netemu.testing.client import FakeClient
from netemu.testing.cluster import kubelet, running, settled, until
from tests.unit.objects_world import deployment

pytestmark = pytest.mark.looptime  # pauses cost nothing, and a wait for what never comes fails at once


def _status(client: FakeClient) -> dict[str, Any]:
    return dict(client.stored(DEPLOYMENTS)[0].get("status", {}))


def _complete(client: FakeClient, replicas: int) -> bool:
    found = client.stored(DEPLOYMENTS)[0]
    status = found.get("status", {})
    counts = [status.get(f"{kind}eplicas", 0) for kind in ("r", "updatedR", "availableR")]
    return counts == [replicas] * 3 and status.get("observedGeneration") == found["metadata"]["generation"]


def _image(name: str) -> dict[str, Any]:
    template: dict[str, Any] = deployment(image=name)["spec"]["template"]
    return template


def _images(client: FakeClient) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in client.stored(PODS)}


async def _patch(client: FakeClient, spec: dict[str, Any]) -> None:
    await client.patch(DEPLOYMENTS, "web", {"spec": spec}, "shop")


@pytest.mark.parametrize("lag", [0.0, 0.02])
async def test_scaling_up_and_down_converges_without_ever_making_too_many(lag: float) -> None:
    client = FakeClient(lag=lag)
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(replicas=1), "shop")
        await until(client, lambda: _complete(client, 1))
        await _patch(client, {"replicas": 50})
        await until(client, lambda: _complete(client, 50))
        await _patch(client, {"replicas": 3})
        await until(client, lambda: _complete(client, 3))

    created = sum(write[:2] == ("create", "pods") for write in client.writes)
    assert (created, len(client.stored(PODS))) == (50, 3)


@pytest.mark.parametrize(
    ("strategy", "least", "most"),
    [
        pytest.param({"maxSurge": 1, "maxUnavailable": 0}, 4, 5, id="surge only"),
        pytest.param({"maxSurge": 0, "maxUnavailable": 1}, 3, 4, id="unavailable only"),
        pytest.param({"maxSurge": "25%", "maxUnavailable": "25%"}, 3, 5, id="a quarter of each"),
    ],
)
async def test_rolling_update_stays_within_its_limits(strategy: dict[str, Any], least: int, most: int) -> None:
    client = FakeClient()
    rolling = {"type": "RollingUpdate", "rollingUpdate": strategy}
    seen: list[tuple[int, int]] = []

    def look() -> None:
        pods = client.stored(PODS)
        seen.append((sum("podIP" in pod["status"] for pod in pods), len(pods)))

    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(replicas=4, strategy=rolling), "shop")
        await until(client, lambda: _complete(client, 4))
        client.after_write.append(look)
        await _patch(client, {"template": _image("two")})
        await until(client, lambda: _complete(client, 4))

    assert min(ready for ready, _ in seen) >= least
    assert max(total for _, total in seen) <= most
    assert _images(client) == {"two"}


async def test_rollback_reuses_the_old_replica_set_with_the_next_revision() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(), "shop")
        await until(client, lambda: _complete(client, 3))
        await _patch(client, {"template": _image("two")})
        await until(client, lambda: _complete(client, 3))
        undo = _image("one")
        undo["metadata"]["creationTimestamp"] = None
        await _patch(client, {"template": undo})
        await until(client, lambda: _complete(client, 3))
        await settled(client)

    notes = [item["metadata"]["annotations"] for item in client.stored(REPLICASETS)]
    revisions = {note["deployment.kubernetes.io/revision"] for note in notes}
    assert revisions == {"2", "3"}
    assert [n.get("deployment.kubernetes.io/revision-history") for n in notes].count("1") == 1
    found = client.stored(DEPLOYMENTS)[0]["metadata"]["annotations"]
    assert found["deployment.kubernetes.io/revision"] == "3"


async def test_history_beyond_the_limit_is_deleted() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(revisionHistoryLimit=1), "shop")
        for image in ("one", "two", "three", "four"):
            await _patch(client, {"template": _image(image)})
            await until(client, lambda: _complete(client, 3))
        await settled(client)

    revisions = {i["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for i in client.stored(REPLICASETS)}
    assert revisions == {"3", "4"}


async def test_recreate_ends_all_old_pods_before_it_makes_new_ones() -> None:
    client = FakeClient()
    mixed: list[set[str]] = []
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(strategy={"type": "Recreate"}), "shop")
        await until(client, lambda: _complete(client, 3))
        client.after_write.append(lambda: mixed.append(_images(client)))
        await _patch(client, {"template": _image("two")})
        await until(client, lambda: _images(client) == {"two"} and _complete(client, 3))

    assert {"one", "two"} not in mixed
    assert set() in mixed


async def test_paused_deployment_scales_but_does_not_roll() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(), "shop")
        await until(client, lambda: _complete(client, 3))
        await _patch(client, {"paused": True, "replicas": 5, "template": _image("two")})
        await until(client, lambda: _status(client).get("availableReplicas") == 5)
        await settled(client)

    assert _images(client) == {"one"}
    progressing = next(c for c in _status(client)["conditions"] if c["type"] == "Progressing")
    assert progressing["reason"] == "DeploymentPaused"


async def test_finished_rollout_says_so_and_then_writes_nothing_more() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(), "shop")
        await until(client, lambda: _complete(client, 3))
        await settled(client)
        before = client.revision
        await client.patch(DEPLOYMENTS, "web", {"metadata": {"labels": {"x": "y"}}}, "shop")
        await settled(client)

    reasons = {condition["type"]: condition["reason"] for condition in _status(client)["conditions"]}
    assert reasons == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}
    assert client.revision == before + 1


async def test_events_tell_of_scaling_and_of_each_pod() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(replicas=2), "shop")
        await until(client, lambda: _complete(client, 2))
        await settled(client)

    name = f"web-{template_hash(_image('one'))}"
    messages = {event["message"] for event in client.stored(EVENTS)}
    assert f"Scaled up replica set {name} from 0 to 2" in messages
    assert {f"Created pod: {pod['metadata']['name']}" for pod in client.stored(PODS)} <= messages


async def test_replica_set_takes_in_orphans_and_lets_go_of_relabelled_pods() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(replicas=2), "shop")
        await until(client, lambda: _complete(client, 2))
        first = client.stored(PODS)[0]["metadata"]["name"]
        await client.patch(PODS, first, {"metadata": {"labels": {"app": "debug"}}}, "shop")
        await until(client, lambda: len(client.stored(PODS)) == 3)
        await until(client, lambda: _complete(client, 2))
        released = await client.get(PODS, first, "shop")
        await client.patch(PODS, first, {"metadata": {"labels": {"app": "web"}}}, "shop")
        await until(client, lambda: len(client.stored(PODS)) == 2)

    assert "ownerReferences" not in released["metadata"]


async def test_controllers_continue_after_the_history_was_compacted() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(DEPLOYMENTS, deployment(replicas=1), "shop")
        await until(client, lambda: _complete(client, 1))
    async with running(controllers.run(client)):
        await settled(client)
        client.compact()
        await _patch(client, {"replicas": 4})
        await until(client, lambda: len(client.stored(PODS)) == 4)
        await settled(client)

    assert len(client.stored(PODS)) == 4
