"""Events: what is stored when something is said once, often, differently, or too often."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.client.events import EventRecorder
from netemu.client.index import Index
from netemu.client.informer import Informer
from netemu.model.pods import Pod
from netemu.model.resources import EVENTS, PODS
from netemu.testing.client import FakeClient
from netemu.testing.cluster import running, settled
from tests.unit.objects_world import a_pod, pod


async def _stored(*said: tuple[str, str], about: Any = None) -> list[dict[str, Any]]:
    client = FakeClient()
    recorder = EventRecorder(client, "kubelet", host="n1")
    for reason, message in said:
        recorder.event(about or a_pod("p"), "Warning", reason, message)
    await recorder.close()
    return list(client.stored(EVENTS))


async def test_an_event_names_its_object_and_its_source() -> None:
    (event,) = await _stored(("BackOff", "Back-off"))

    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "p",
        "uid": "uid-p",
    }
    assert event["source"] == {"component": "kubelet", "host": "n1"}
    assert (event["metadata"]["namespace"], event["count"], event["type"]) == ("shop", 1, "Warning")


async def test_the_same_said_again_is_counted() -> None:
    (event,) = await _stored(*[("BackOff", "Back-off")] * 3)

    assert event["count"] == 3


async def test_many_messages_of_one_reason_are_combined() -> None:
    events = await _stored(*[("Unhealthy", f"probe {number}") for number in range(15)])

    assert len(events) == 11
    assert (events[-1]["message"], events[-1]["count"]) == ("(combined from similar events): probe 14", 5)


async def test_one_object_cannot_flood_the_server() -> None:
    events = await _stored(*[(f"Reason{number}", "x") for number in range(100)])

    assert len(events) == 25


async def test_cluster_scoped_objects_have_their_events_in_default() -> None:
    (event,) = await _stored(("NodeReady", "x"), about={"kind": "Node", "metadata": {"name": "n1", "uid": "n1"}})

    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("n1.")


async def test_an_event_that_expired_is_made_anew() -> None:
    client = FakeClient()
    recorder = EventRecorder(client, "kubelet")
    recorder.event(a_pod("p"), "Normal", "Pulled", "x")
    await recorder.close()
    await client.delete(EVENTS, client.stored(EVENTS)[0]["metadata"]["name"], "shop")
    recorder.event(a_pod("p"), "Normal", "Pulled", "x")
    await recorder.close()

    assert [event["count"] for event in client.stored(EVENTS)] == [1]


@pytest.mark.parametrize(("value", "names"), [("n1", ["a", "b"]), ("n2", []), ("n3", ["c"])])
async def test_index_follows_its_informer(value: str, names: list[str]) -> None:
    client = FakeClient()
    informer = Informer(client, PODS, Pod)
    index = Index(informer, lambda pod: (pod.spec.node_name,))
    async with running(informer.run()):
        for name, node in (("b", "n1"), ("a", "n1"), ("c", "n2"), ("d", "n2")):
            await client.create(PODS, pod(name, node=node), "shop")
        await client.patch(PODS, "c", {"spec": {"nodeName": "n3"}}, "shop")
        await client.delete(PODS, "d", "shop", grace_period_seconds=0)
        await settled(client)

    assert [found.name for found in index[value]] == names
