"""Where Pods go: filters and scores as tables, the loop against an API server in memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from netemu import scheduler
from netemu.model.resources import EVENTS, NODES, PODS
from netemu.scheduler.filter import explain, filter_node
from netemu.scheduler.resources import quantity, requests
from netemu.scheduler.scheduler import decide
from netemu.scheduler.state import ClusterState
from netemu.testing.client import FakeClient
from netemu.testing.cluster import running, settled
from tests.unit.objects_world import a_node, a_pod, node, pod

pytestmark = pytest.mark.looptime  # pauses cost nothing, and a wait for what never comes fails at once

_DEDICATED = [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]
_WEB = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}


def _cpu(amount: str, **resources: str) -> dict[str, Any]:
    return {"containers": [{"name": "main", "resources": {"requests": {"cpu": amount, **resources}}}]}


def _port(number: int, address: str = "", protocol: str = "TCP") -> dict[str, Any]:
    port = {"containerPort": 80, "hostPort": number, "hostIP": address, "protocol": protocol}
    return {"containers": [{"name": "main", "ports": [port]}]}


def _affinity(kind: str) -> dict[str, Any]:
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [_WEB]}}}


def _in_zone(*zones: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": list(zones)}]}
    required = {"nodeSelectorTerms": [term]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


def _cluster(*nodes: dict[str, Any], pods: tuple[dict[str, Any], ...] = ()) -> ClusterState:
    state = ClusterState()
    for parts in nodes:
        state.set_node(a_node(**parts))
    for number, parts in enumerate(pods):
        state.add_pod(a_pod(f"old-{number}", **parts))
    return state


@pytest.mark.parametrize(
    ("node", "others", "pod", "reason"),
    [
        pytest.param({}, (), {}, None, id="an empty node takes a plain Pod"),
        pytest.param({"unschedulable": True}, (), {}, "node(s) were unschedulable", id="cordoned"),
        pytest.param(
            {"taints": _DEDICATED}, (), {}, "node(s) had untolerated taint {dedicated: db}", id="a taint refuses"
        ),
        pytest.param(
            {"taints": _DEDICATED},
            (),
            {"tolerations": [{"key": "dedicated", "operator": "Exists"}]},
            None,
            id="a tolerated taint does not",
        ),
        pytest.param(
            {"ready": "False"},
            (),
            {},
            "node(s) had untolerated taint {node.kubernetes.io/not-ready: }",
            id="not ready counts as its taint",
        ),
        pytest.param(
            {},
            (),
            {"nodeSelector": {"disk": "ssd"}},
            "node(s) didn't match Pod's node affinity/selector",
            id="a label is missing",
        ),
        pytest.param({"zone": "east"}, (), _in_zone("east", "west"), None, id="required affinity holds"),
        pytest.param(
            {"zone": "north"},
            (),
            _in_zone("east"),
            "node(s) didn't match Pod's node affinity/selector",
            id="required affinity fails",
        ),
        pytest.param(
            {},
            ({"node": "n1", **_port(80)},),
            _port(80),
            "node(s) didn't have free ports for the requested pod ports",
            id="host port taken",
        ),
        pytest.param(
            {}, ({"node": "n1", **_port(80)},), _port(80, protocol="UDP"), None, id="same number, other protocol"
        ),
        pytest.param(
            {},
            ({"node": "n1", **_port(80, "127.0.0.1")},),
            _port(80, "127.0.0.2"),
            None,
            id="same port on two addresses",
        ),
        pytest.param({}, ({"node": "n1", **_cpu("3500m")},), _cpu("500m"), None, id="exactly full"),
        pytest.param({}, ({"node": "n1", **_cpu("3500m")},), _cpu("501m"), "Insufficient cpu", id="one millicore over"),
        pytest.param({}, (), _cpu("1", memory="9Gi"), "Insufficient memory", id="too much memory"),
        pytest.param(
            {},
            ({"node": "n1"},),
            _affinity("podAntiAffinity"),
            "node(s) didn't match pod anti-affinity rules",
            id="wants to be alone",
        ),
        pytest.param(
            {},
            ({"node": "n1", **_affinity("podAntiAffinity")},),
            {},
            "node(s) didn't satisfy existing pods anti-affinity rules",
            id="somebody else wants to be alone",
        ),
        pytest.param(
            {},
            (),
            {**_affinity("podAffinity"), "metadata": {"labels": {"app": "cache"}}},
            "node(s) didn't match pod affinity rules",
            id="wants company that is not there",
        ),
        pytest.param({}, (), _affinity("podAffinity"), None, id="the first of a group may go anywhere"),
    ],
)
def test_why_a_node_cannot_take_a_pod(
    node: dict[str, Any], others: tuple[dict[str, Any], ...], pod: dict[str, Any], reason: str | None
) -> None:
    state = _cluster({"name": "n1", **node}, pods=others)

    assert filter_node(a_pod("new", **pod), state.nodes["n1"], state) == reason


def test_too_many_pods() -> None:
    state = _cluster({"name": "n1"}, pods=({"node": "n1"},) * 110)

    assert filter_node(a_pod("new"), state.nodes["n1"], state) == "Too many pods"


def test_hard_spread_constraint_keeps_the_skew() -> None:
    constraint = {**_WEB, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    state = _cluster({"name": "n1"}, {"name": "n2"}, pods=({"node": "n1"},))
    new = a_pod("new", topologySpreadConstraints=[constraint])

    assert filter_node(new, state.nodes["n1"], state) == "node(s) didn't match pod topology spread constraints"
    assert filter_node(new, state.nodes["n2"], state) is None


def test_pods_of_a_group_spread_over_zones_and_then_nodes() -> None:
    state = _cluster({"name": "a1", "zone": "a"}, {"name": "a2", "zone": "a"}, {"name": "b1", "zone": "b"})
    chosen = []
    for number in range(6):
        new = a_pod(f"new-{number}")
        found, _ = decide(new, state)
        assert found is not None
        state.add_pod(new, found.name)
        chosen.append(found.name)

    assert Counter(chosen) == {"b1": 3, "a1": 2, "a2": 1}
    assert chosen[:3] == ["a1", "b1", "a2"]


def test_of_equal_nodes_the_least_requested_is_taken() -> None:
    busy = {"node": "n1", "metadata": {"labels": {"app": "other"}}, **_cpu("2")}

    found, _ = decide(a_pod("new"), _cluster({"name": "n1"}, {"name": "n2"}, pods=(busy,)))

    assert found is not None
    assert found.name == "n2"


def test_the_message_counts_reasons_as_upstream_does() -> None:
    state = _cluster({"name": "n1", "taints": _DEDICATED}, {"name": "n2"}, {"name": "n3"})

    _, reasons = decide(a_pod("new", nodeSelector={"disk": "ssd"}), state)

    assert explain(reasons) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, "
        "2 node(s) didn't match Pod's node affinity/selector. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    assert explain({}) == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("text", "scale", "value"),
    [("250m", 1000, 250), ("1.5", 1000, 1500), ("2Gi", 1, 2**31), ("1e3", 1, 1000), ("5k", 1, 5000), ("1E", 1, 10**18)],
)
def test_quantities(text: str, scale: int, value: int) -> None:
    assert quantity(text, scale) == value


@pytest.mark.parametrize("text", ["", "much", "1KiB", "--1"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantity(text)


def test_a_large_init_container_decides_the_request() -> None:
    wanted = a_pod("p", **_cpu("1"), initContainers=[{"name": "i", "resources": {"requests": {"cpu": "3"}}}])

    assert requests(wanted) == {"cpu": 3000}


def _fresh(name: str, **parts: Any) -> dict[str, Any]:
    return {**pod(name, **parts), "status": {"phase": "Pending"}}


async def test_pods_are_bound_and_the_event_says_where() -> None:
    client = FakeClient()
    async with running(scheduler.run(client)):
        for name in ("n1", "n2", "n3"):
            await client.create(NODES, node(name))
        for number in range(30):
            await client.create(PODS, _fresh(f"p{number}"), "shop")
        await settled(client)

    assert Counter(p["spec"]["nodeName"] for p in client.stored(PODS)) == {"n1": 10, "n2": 10, "n3": 10}
    messages = {event["message"] for event in client.stored(EVENTS) if event["reason"] == "Scheduled"}
    assert f"Successfully assigned shop/p0 to {client.stored(PODS)[0]['spec']['nodeName']}" in messages


async def test_a_node_is_never_given_more_than_it_has() -> None:
    client = FakeClient(lag=0.01)
    async with running(scheduler.run(client)):
        await client.create(NODES, node("n1"))
        for number in range(10):
            await client.create(PODS, _fresh(f"p{number}", **_cpu("1")), "shop")
        while sum(bool(p["spec"].get("nodeName")) for p in client.stored(PODS)) < 4:
            await client.changed()
        await settled(client)

    assert sum(bool(p["spec"].get("nodeName")) for p in client.stored(PODS)) == 4


async def test_a_pod_that_fits_nowhere_says_why_and_is_tried_again_when_a_node_comes() -> None:
    client = FakeClient()
    async with running(scheduler.run(client)):
        await client.create(NODES, node("n1"))
        await client.create(PODS, _fresh("p", nodeSelector={"disk": "ssd"}), "shop")
        await settled(client)
        waiting = client.stored(PODS)[0]
        await client.create(NODES, node("n2", labels={"disk": "ssd"}))
        await settled(client)

    (condition,) = waiting["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "Unschedulable")
    assert any(event["reason"] == "FailedScheduling" for event in client.stored(EVENTS))
    assert client.stored(PODS)[0]["spec"]["nodeName"] == "n2"


async def test_room_that_a_deleted_pod_leaves_is_used() -> None:
    client = FakeClient()
    async with running(scheduler.run(client)):
        await client.create(NODES, node("n1"))
        await client.create(PODS, _fresh("first", **_cpu("3")), "shop")
        await settled(client)
        await client.create(PODS, _fresh("second", **_cpu("3")), "shop")
        await settled(client)
        await client.delete(PODS, "first", "shop", grace_period_seconds=0)
        await settled(client)

    assert [p["spec"].get("nodeName") for p in client.stored(PODS)] == ["n1"]


async def test_pods_of_other_schedulers_are_left_alone() -> None:
    client = FakeClient()
    async with running(scheduler.run(client)):
        await client.create(NODES, node("n1"))
        await client.create(PODS, _fresh("p", schedulerName="mine"), "shop")
        await settled(client)

    assert not client.stored(PODS)[0]["spec"]["nodeName"]
