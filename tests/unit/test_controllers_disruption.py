"""What a PodDisruptionBudget's status says, from its Pods and from what makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from netemu import controllers
from netemu.controllers.actions import Again, Patch, Say
from netemu.controllers.disruption import Scale, reconcile, staying
from netemu.model.meta import decode
from netemu.model.objects import PodDisruptionBudget
from netemu.model.pods import Pod
from netemu.model.resources import DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS
from netemu.testing.client import FakeClient
from netemu.testing.cluster import kubelet, running, until
from tests.unit.objects_world import deployment, pod

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
OWNER = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "rs", "controller": True}]
SELECTOR = {"matchLabels": {"app": "web"}}


def budget(status: dict[str, Any] | None = None, **spec: Any) -> PodDisruptionBudget:
    meta = {"name": "web", "namespace": "shop", "generation": 2, "resourceVersion": "7"}
    obj = {"metadata": meta, "spec": {"selector": SELECTOR, **spec}, "status": status or {}}
    return decode(obj, PodDisruptionBudget)


def pods(ready: int, unready: int = 0, *, owned: bool = True) -> list[Pod]:
    meta: dict[str, Any] = {"metadata": {"ownerReferences": OWNER}} if owned else {}
    every = [pod(f"web-{n}", ready=n < ready, **meta) for n in range(ready + unready)]
    return [decode(one, Pod) for one in every]


def four(_: Pod) -> Scale:
    return Scale("d", 4)


def status(pdb: PodDisruptionBudget, every: list[Pod], scale_of: Any = four) -> dict[str, Any]:
    """The patch to the status, without the condition's time."""
    (patch,) = [a for a in reconcile(pdb, every, scale_of, NOW) if isinstance(a, Patch)]
    assert (patch.subresource, patch.resource_version) == ("status", "7")
    return dict(patch.patch["status"])


@pytest.mark.parametrize(
    ("spec", "ready", "unready", "expected", "desired", "allowed"),
    [
        pytest.param({"minAvailable": 2}, 3, 0, 3, 2, 1, id="a number that must stay"),
        pytest.param({"minAvailable": 2}, 1, 2, 3, 2, 0, id="fewer healthy than must stay"),
        pytest.param({"minAvailable": "50%"}, 4, 0, 4, 2, 2, id="a share of the scale, not of the Pods there are"),
        pytest.param({"minAvailable": "30%"}, 4, 0, 4, 2, 2, id="a share rounds up"),
        pytest.param({"maxUnavailable": 1}, 4, 0, 4, 3, 1, id="a number that may be away"),
        pytest.param({"maxUnavailable": 1}, 3, 0, 4, 3, 0, id="a Pod that is not there is away"),
        pytest.param({"maxUnavailable": "30%"}, 4, 0, 4, 2, 2, id="a share that may be away rounds up"),
        pytest.param({"maxUnavailable": 9}, 4, 0, 4, 0, 4, id="more may be away than there are"),
        pytest.param({}, 2, 0, 0, 0, 0, id="a budget without amounts allows nothing"),
        pytest.param({"minAvailable": 0}, 0, 0, 0, 0, 0, id="no Pods, nothing to evict"),
    ],
)
def test_what_may_be_evicted(
    spec: dict[str, Any], ready: int, unready: int, expected: int, desired: int, allowed: int
) -> None:
    found = status(budget(**spec), pods(ready, unready))

    counts = [found.get(key, 0) for key in ("expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed")]
    (condition,) = found["conditions"]
    assert counts == [expected, ready, desired, allowed]
    assert condition["status"] == ("True" if allowed else "False")
    assert condition["reason"] == ("SufficientPods" if allowed else "InsufficientPods")
    assert condition["observedGeneration"] == found["observedGeneration"] == 2


def test_nothing_is_written_while_nothing_changes() -> None:
    first = status(budget(minAvailable=1), pods(2))

    assert [a for a in reconcile(budget(first, minAvailable=1), pods(2), four, NOW) if isinstance(a, Patch)] == []


def test_a_pod_that_was_granted_leave_is_not_healthy_until_it_is_seen_to_stay() -> None:
    granted = {"web-0": "2026-01-01T11:59:00Z", "web-1": "2026-01-01T11:57:59Z", "gone": "2026-01-01T11:59:30Z"}
    actions = reconcile(budget({"disruptedPods": granted}, minAvailable=1), pods(3), four, NOW)
    (patch,) = [a for a in actions if isinstance(a, Patch)]

    assert patch.patch["status"]["currentHealthy"] == 2
    assert patch.patch["status"]["disruptedPods"] == {"web-0": granted["web-0"], "web-1": None, "gone": None}
    assert Again(60.0) in actions


def test_a_pod_that_is_going_is_not_healthy() -> None:
    going = decode(pod("going", metadata={"deletionTimestamp": "2026-01-01T12:00:00Z"}), Pod)

    assert status(budget(minAvailable=1), [*pods(1), going])["currentHealthy"] == 1


def test_pods_of_an_unknown_controller_stop_all_evictions() -> None:
    before = {"disruptionsAllowed": 2, "observedGeneration": 1, "currentHealthy": 3}
    found = status(budget(before, maxUnavailable=1), pods(3), lambda _: None)

    assert found["disruptionsAllowed"] is None
    assert "currentHealthy" not in found
    assert found["conditions"][0]["reason"] == "SyncFailed"
    assert found["conditions"][0]["message"] == 'found no controllers for pod "web-0"'


def test_pods_that_nobody_controls_are_told_where_a_share_is_asked_for() -> None:
    share = reconcile(budget(minAvailable="50%"), pods(2, owned=False), four, NOW)
    number = reconcile(budget(minAvailable=1), pods(2, owned=False), four, NOW)

    assert "UnmanagedPods" in [a.reason for a in share if isinstance(a, Say)]
    assert not [a for a in number if isinstance(a, Say)]


def target(since: str, reason: str = "EvictionByEvictionAPI", **metadata: Any) -> Pod:
    obj = pod("p", metadata=metadata)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": since}
    obj["status"]["conditions"].append(condition)
    return decode(obj, Pod)


def test_a_pod_that_stays_is_told_so_after_two_minutes() -> None:
    (patch,) = staying(target("2026-01-01T11:58:00Z"), NOW)

    assert isinstance(patch, Patch)
    ready, taken_back = patch.patch["status"]["conditions"]
    assert ready["type"] == "Ready"
    assert taken_back == {"type": "DisruptionTarget", "status": "False", "lastTransitionTime": "2026-01-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("of", "actions"),
    [
        pytest.param(target("2026-01-01T11:59:00Z"), [Again(60.0)], id="not yet"),
        pytest.param(target("2026-01-01T11:00:00Z", deletionTimestamp="2026-01-01T12:00:00Z"), [], id="it goes"),
        pytest.param(target("2026-01-01T11:00:00Z", "TerminationByKubelet"), [], id="the kubelet ends it"),
        pytest.param(decode(pod("p"), Pod), [], id="nobody wants it to go"),
    ],
)
def test_conditions_that_stay(of: Pod, actions: list[Any]) -> None:
    assert staying(of, NOW) == actions


@pytest.mark.looptime
async def test_a_budget_follows_its_deployment() -> None:
    client = FakeClient()
    pdb = {"metadata": {"name": "web"}, "spec": {"selector": SELECTOR, "maxUnavailable": "50%"}}

    def allowed() -> Any:
        return (client.stored(PODDISRUPTIONBUDGETS)[0].get("status") or {}).get("disruptionsAllowed")

    async with running(controllers.run(client), kubelet(client)):
        await client.create(PODDISRUPTIONBUDGETS, pdb, "shop")
        await client.create(DEPLOYMENTS, deployment(replicas=4), "shop")
        await until(client, lambda: allowed() == 2)
        await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 2}}, "shop")
        await until(client, lambda: len(client.stored(PODS)) == 2 and allowed() == 1)
