"""Nodes that fall silent, and what becomes of their Pods."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from netemu import controllers
from netemu.controllers import nodelifecycle, tainteviction
from netemu.controllers.actions import Again, Delete, Patch
from netemu.model.objects import Taint
from netemu.model.resources import LEASES, NODES, PODS
from netemu.testing.client import FakeClient
from netemu.testing.cluster import running, until
from tests.unit.objects_world import a_node, a_pod, node, pod

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
_STAMP = "2026-01-01T12:00:00Z"
_GONE = Taint("node.kubernetes.io/unreachable", "NoExecute", time_added="2026-01-01T11:59:00Z")


@pytest.mark.parametrize(
    ("parts", "any_ready", "taints"),
    [
        pytest.param({}, True, [], id="a ready node has none"),
        pytest.param({"ready": "False"}, True, ["not-ready:NoSchedule", "not-ready:NoExecute"], id="not ready"),
        pytest.param({"ready": "Unknown"}, True, ["unreachable:NoSchedule", "unreachable:NoExecute"], id="silent"),
        pytest.param({"ready": "Unknown"}, False, ["unreachable:NoSchedule"], id="all silent: nobody is evicted"),
        pytest.param({"unschedulable": True}, True, ["unschedulable:NoSchedule"], id="cordoned"),
        pytest.param(
            {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}, True, [], id="ready again"
        ),
        pytest.param(
            {"taints": [{"key": "mine", "effect": "NoSchedule"}]}, True, ["mine:NoSchedule"], id="others stay"
        ),
    ],
)
def test_taints_follow_the_conditions(parts: dict[str, Any], any_ready: bool, taints: list[str]) -> None:
    found = nodelifecycle.wanted_taints(a_node("n1", **parts), any_ready, _STAMP)

    assert [f"{taint.key.removeprefix('node.kubernetes.io/')}:{taint.effect}" for taint in found] == taints


def test_silence_makes_conditions_unknown() -> None:
    first, *_ = nodelifecycle.reconcile(a_node("n1"), 40.0, [], True, _NOW)

    assert isinstance(first, Patch)
    assert {c["type"]: c["status"] for c in first.patch["status"]["conditions"]}["Ready"] == "Unknown"


def test_a_node_that_was_heard_is_looked_at_again_when_it_is_due() -> None:
    (only,) = nodelifecycle.reconcile(a_node("n1"), 15.0, [], True, _NOW)

    assert isinstance(only, Again)
    assert only.seconds == pytest.approx(25.0, abs=0.1)


def test_pods_of_a_silent_node_are_no_longer_ready() -> None:
    actions = nodelifecycle.reconcile(a_node("n1", ready="Unknown"), 50.0, [a_pod("p", node="n1")], True, _NOW)

    (patch,) = [a for a in actions if isinstance(a, Patch) and a.resource == PODS]
    assert [c["status"] for c in patch.patch["status"]["conditions"] if c["type"] == "Ready"] == ["False"]


@pytest.mark.parametrize(
    ("tolerations", "left"),
    [
        pytest.param([], 0.0, id="no toleration"),
        pytest.param([{"operator": "Exists"}], None, id="tolerates everything for ever"),
        pytest.param(
            [{"key": _GONE.key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            240.0,
            id="300 s",
        ),
        pytest.param(
            [{"key": _GONE.key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}], 0.0, id="30 s"
        ),
    ],
)
def test_how_long_a_pod_may_stay(tolerations: list[dict[str, Any]], left: float | None) -> None:
    assert tainteviction.time_left(a_pod("p", tolerations=tolerations), [_GONE], _NOW) == left


def test_eviction_says_so_and_deletes() -> None:
    actions = tainteviction.reconcile(a_pod("p"), [_GONE], _NOW)

    assert isinstance(actions[-1], Delete)
    assert tainteviction.reconcile(a_pod("p"), [Taint("x", "NoSchedule")], _NOW) == []


@pytest.mark.looptime
async def test_a_kubelet_that_stops_renewing_costs_its_node_its_readiness() -> None:
    client = FakeClient()
    async with running(controllers.run(client)):
        for name in ("n1", "n2"):
            await client.create(NODES, node(name))
            await client.create(LEASES, {"metadata": {"name": name}, "spec": {"renewTime": "1"}}, "kube-node-lease")
        bound = pod("p", "10.0.0.1", node="n1", tolerations=[])
        await client.create(PODS, bound, "shop")

        def ready(name: str) -> str:
            found = next(n for n in client.stored(NODES) if n["metadata"]["name"] == name)
            return str(next(c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready"))

        async def renew() -> None:
            import asyncio

            for number in range(2, 12):
                await asyncio.sleep(10)
                spec = {"spec": {"renewTime": str(number)}}
                await client.patch(LEASES, "n2", spec, "kube-node-lease")

        async with running(renew()):
            await until(client, lambda: ready("n1") == "Unknown", within=60)
            await until(client, lambda: client.stored(PODS)[0]["metadata"].get("deletionTimestamp") is not None)

        assert ready("n2") == "True"
