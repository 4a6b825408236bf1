"""StatefulSets running against an API server in memory: names, order, updates, claims."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from netemu import controllers
from netemu.model.resources import CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS
from netemu.testing.client import FakeClient
from netemu.testing.cluster import kubelet, ready_status, running, settled, until
from tests.unit.objects_world import stateful_set

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def cluster(**fields: Any) -> AsyncIterator[FakeClient]:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client, **fields)):
        yield client


def _images(client: FakeClient) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in client.stored(PODS)}


def _complete(client: FakeClient, replicas: int, updated: int | None = None) -> bool:
    found = client.stored(STATEFULSETS)[0]
    status = found.get("status") or {}
    counts = [status.get(f"{kind}eplicas", 0) for kind in ("r", "readyR", "availableR")]
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return (
        seen
        and counts == [replicas] * 3
        and status.get("updatedReplicas", 0) == (replicas if updated is None else updated)
    )


async def _change(client: FakeClient, **spec: Any) -> None:
    await client.patch(STATEFULSETS, "web", {"spec": spec}, "shop")


def _template(image: str) -> Any:
    return stateful_set(image=image)["spec"]["template"]


async def test_pods_have_numbers_names_and_the_service_as_their_domain() -> None:
    async with cluster() as client:
        await client.create(STATEFULSETS, stateful_set(ordinals={"start": 5}), "shop")
        await until(client, lambda: _complete(client, 3))
        pods = client.stored(PODS)

    assert [pod["metadata"]["name"] for pod in pods] == ["web-5", "web-6", "web-7"]
    assert {(pod["spec"]["hostname"], pod["spec"]["subdomain"]) for pod in pods} == {
        (f"web-{number}", "web") for number in (5, 6, 7)
    }
    labels = pods[0]["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "web-5"
    assert labels["apps.kubernetes.io/pod-index"] == "5"


async def test_each_waits_for_the_one_before_unless_the_policy_is_parallel() -> None:
    for policy, made in (("OrderedReady", ["web-0"]), ("Parallel", ["web-0", "web-1", "web-2"])):
        async with cluster(accepts=lambda pod: False) as client:
            await client.create(STATEFULSETS, stateful_set(podManagementPolicy=policy), "shop")
            await until(client, lambda made=made, client=client: list(_images(client)) == made)  # type: ignore[misc]
            await settled(client)
            assert list(_images(client)) == made
            await client.patch(PODS, "web-0", {"status": ready_status("10.0.0.1")}, "shop", subresource="status")
            await until(client, lambda client=client: "web-1" in _images(client))  # type: ignore[misc]


async def test_scaling_down_goes_from_the_highest_number() -> None:
    async with cluster() as client:
        await client.create(STATEFULSETS, stateful_set(replicas=4), "shop")
        await until(client, lambda: _complete(client, 4))
        await _change(client, replicas=1)
        await until(client, lambda: _complete(client, 1) and len(client.stored(PODS)) == 1)
        gone = [write for write in client.writes if write[:2] == ("delete", "pods")]

    first = list(dict.fromkeys(name.rpartition("/")[2] for _, _, name in gone))
    assert first == ["web-3", "web-2", "web-1"]


async def test_an_update_goes_down_to_the_partition_and_a_lost_pod_below_it_comes_back_as_it_was() -> None:
    async with cluster() as client:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
        await client.create(STATEFULSETS, stateful_set(updateStrategy=strategy), "shop")
        await until(client, lambda: _complete(client, 3))
        await _change(client, template=_template("two"))
        await until(client, lambda: _complete(client, 3, updated=2))
        assert _images(client) == {"web-0": "one", "web-1": "two", "web-2": "two"}
        await client.delete(PODS, "web-0", "shop")
        await settled(client)
        assert _images(client)["web-0"] == "one"

        await _change(client, updateStrategy={"rollingUpdate": {"partition": 0}})
        await until(client, lambda: _complete(client, 3))
        status = client.stored(STATEFULSETS)[0]["status"]
        assert set(_images(client).values()) == {"two"}
        assert status["currentRevision"] == status["updateRevision"]
        assert status["currentReplicas"] == 3


async def test_never_is_more_than_one_pod_away_during_an_update() -> None:
    ready: list[int] = []
    async with cluster() as client:
        await client.create(STATEFULSETS, stateful_set(), "shop")
        await until(client, lambda: _complete(client, 3))

        def look() -> None:
            pods = [pod for pod in client.stored(PODS) if not pod["metadata"].get("deletionTimestamp")]
            ready.append(sum("podIP" in pod["status"] for pod in pods))

        client.after_write.append(look)
        await _change(client, template=_template("two"))
        await until(client, lambda: set(_images(client).values()) == {"two"} and _complete(client, 3))

    assert min(ready) == 2


async def test_on_delete_waits_for_somebody_to_delete() -> None:
    async with cluster() as client:
        await client.create(STATEFULSETS, stateful_set(updateStrategy={"type": "OnDelete"}), "shop")
        await until(client, lambda: _complete(client, 3))
        await _change(client, template=_template("two"))
        await settled(client)
        assert set(_images(client).values()) == {"one"}
        await client.delete(PODS, "web-1", "shop")
        await until(client, lambda: _images(client).get("web-1") == "two")


async def test_claims_are_made_with_their_pod_and_stay() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    async with cluster() as client:
        await client.create(STATEFULSETS, stateful_set(replicas=2, volumeClaimTemplates=[claim]), "shop")
        await until(client, lambda: _complete(client, 2))
        volumes = client.stored(PODS)[1]["spec"]["volumes"]
        await client.delete(STATEFULSETS, "web", "shop")
        await until(client, lambda: not client.stored(PODS) and not client.stored(CONTROLLERREVISIONS))
        left = [one["metadata"]["name"] for one in client.stored(PERSISTENTVOLUMECLAIMS)]

    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-1"}} in volumes
    assert left == ["data-web-0", "data-web-1"]


async def test_a_pod_that_ran_to_its_end_is_made_again() -> None:
    async with cluster() as client:
        await client.create(STATEFULSETS, stateful_set(replicas=1), "shop")
        await until(client, lambda: _complete(client, 1))
        uid = client.stored(PODS)[0]["metadata"]["uid"]
        await client.patch(PODS, "web-0", {"status": {"phase": "Failed"}}, "shop", subresource="status")
        await until(client, lambda: uid not in str(client.stored(PODS)) and _complete(client, 1))
