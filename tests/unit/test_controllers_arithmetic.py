"""The numbers of Deployments, the hash of templates and the order in which Pods go."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from netemu.controllers import replicaset, rollout, rollout_status
from netemu.controllers.template import normal, template_hash
from netemu.model import times
from netemu.model.meta import Condition, decode
from netemu.model.objects import Deployment, DeploymentStatus, ReplicaSet
from netemu.model.pods import Pod
from tests.unit.objects_world import a_pod, deployment, replica_set

_NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def _deployment(replicas: int, surge: int | str = "25%", unavailable: int | str = "25%", **spec: Any) -> Deployment:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    return decode(deployment(replicas=replicas, **{"strategy": strategy, **spec}), Deployment)


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        pytest.param(1, "25%", "25%", (1, 0), id="one replica: surge rounds up, unavailable down"),
        pytest.param(10, "25%", "25%", (3, 2), id="ten replicas"),
        pytest.param(4, 0, "10%", (0, 1), id="both zero would never move"),
        pytest.param(2, 5, 5, (5, 2), id="no more unavailable than there are"),
        pytest.param(0, "25%", "25%", (0, 0), id="no replicas"),
    ],
)
def test_surge_and_unavailable(
    replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]
) -> None:
    assert rollout.limits(_deployment(replicas, surge, unavailable)) == expected


def test_recreate_has_neither_surge_nor_unavailable() -> None:
    assert rollout.limits(_deployment(4, strategy={"type": "Recreate"})) == (0, 0)


@pytest.mark.parametrize(
    ("new", "old", "size"),
    [
        pytest.param(0, 4, 1, id="as many as surge allows"),
        pytest.param(1, 4, 1, id="no room"),
        pytest.param(1, 2, 3, id="room where old ones went"),
        pytest.param(3, 0, 4, id="never above what is wanted"),
    ],
)
def test_how_large_the_new_set_may_be(new: int, old: int, size: int) -> None:
    young, aged = replica_set("new", new, new), replica_set("old", old, old)

    assert rollout.new_size(_deployment(4, 1, 0), young, [young, aged]) == size


@pytest.mark.parametrize(
    ("new", "old", "sizes"),
    [
        pytest.param((1, 0), [(4, 4)], {}, id="nothing while the new Pod is not available"),
        pytest.param((1, 1), [(4, 4)], {"old-0": 3}, id="one for one"),
        pytest.param((1, 0), [(4, 2)], {}, id="unhealthy old ones are kept if the new one is unavailable too"),
        pytest.param((1, 1), [(4, 3)], {"old-0": 3}, id="the unhealthy old one goes first"),
        pytest.param((2, 2), [(1, 1), (2, 2)], {"old-0": 0}, id="the oldest set goes first"),
        pytest.param((1, 1), [(3, 4)], {}, id="Pods that are on their way out do not count"),
    ],
)
def test_how_far_old_sets_shrink(new: tuple[int, int], old: list[tuple[int, int]], sizes: dict[str, int]) -> None:
    aged = [replica_set(f"old-{n}", *counts) for n, counts in enumerate(old)]

    assert rollout.shrink_old(_deployment(4, 1, 0), replica_set("new", *new), aged) == sizes


@pytest.mark.parametrize(
    ("replicas", "before", "sizes"),
    [
        pytest.param(20, {"old": 10, "new": 5}, {"old": 17, "new": 8}, id="grows by share"),
        pytest.param(5, {"old": 10, "new": 5}, {"old": 5, "new": 2}, id="shrinks by share"),
        pytest.param(0, {"old": 10, "new": 5}, {"old": 0, "new": 0}, id="to nothing"),
    ],
)
def test_scaling_in_the_middle_of_a_rollout(replicas: int, before: dict[str, int], sizes: dict[str, int]) -> None:
    notes = {"annotations": {rollout.MAXIMUM: "15"}}
    active = [replica_set(name, size, size, **notes) for name, size in before.items()]

    found = rollout.proportional(_deployment(replicas), active)

    assert found == sizes
    assert sum(found.values()) == (replicas + rollout.limits(_deployment(replicas))[0] if replicas else 0)


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(lambda t: t["metadata"].update(creationTimestamp=None), id="a null creation time"),
        pytest.param(lambda t: t["metadata"]["labels"].update({"pod-template-hash": "x"}), id="the hash label itself"),
        pytest.param(lambda t: t["spec"].update(dnsPolicy="ClusterFirst", securityContext={}), id="Pod defaults"),
        pytest.param(lambda t: t["spec"]["containers"][0].update(resources={}), id="empty resources"),
        pytest.param(
            lambda t: t["spec"]["containers"][0].update(terminationMessagePolicy="File"), id="container defaults"
        ),
    ],
)
def test_templates_that_mean_the_same_have_one_hash(noise: Any) -> None:
    template = deployment()["spec"]["template"]
    noisy = copy.deepcopy(template)
    noise(noisy)

    assert noisy != template
    assert (normal(noisy), template_hash(noisy)) == (normal(template), template_hash(template))


def test_templates_that_differ_have_different_hashes() -> None:
    one, two = (deployment(image=image)["spec"]["template"] for image in ("one", "two"))

    assert len({template_hash(one), template_hash(two), template_hash(one, collisions=1)}) == 3
    assert set(template_hash(one)) <= set("bcdfghjklmnpqrstvwxz2456789")


_EARLIER = times.time_text(_NOW - timedelta(hours=20))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"node": ""}, {"node": "n"}, id="unassigned before assigned"),
        pytest.param({"status": {"phase": "Pending"}}, {}, id="pending before running"),
        pytest.param({"ready": False}, {}, id="not ready before ready"),
        pytest.param(
            {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}, {}, id="cheap first"
        ),
        pytest.param({}, {"created": _EARLIER}, id="young before old"),
        pytest.param(
            {"status": {"containerStatuses": [{"name": "main", "restartCount": 3}]}}, {}, id="often restarted first"
        ),
        pytest.param({"node": "full"}, {"node": "n"}, id="from the crowded node first"),
    ],
)
def test_which_pod_goes_first(first: dict[str, Any], second: dict[str, Any]) -> None:
    # The uid, which decides last, speaks for the other one.
    one, two = a_pod("zz", **{"node": "n", **first}), a_pod("aa", **{"node": "n", **second})
    crowd = [one, two, a_pod("c", node="full"), a_pod("d", node="full")]
    related = crowd if first == {"node": "full"} else [one, two]

    assert replicaset.victims([two, one], 1, related, _NOW) == [one]


def test_available_only_after_min_ready_seconds() -> None:
    pod: Pod = a_pod("p")
    just = datetime(2026, 1, 1, 12, 0, 4, tzinfo=UTC)

    assert replicaset.available_in(pod, 10, just) == 6.0
    assert replicaset.available_in(pod, 3, just) == 0.0
    assert replicaset.available_in(a_pod("q", ready=False), 0, just) == -1


def test_foreign_pods_are_not_claimed() -> None:
    mine = decode(
        {
            "metadata": {"name": "rs", "uid": "rs", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
        },
        ReplicaSet,
    )
    other = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": True}
    foreign = a_pod("p", metadata={"ownerReferences": [other]})

    assert replicaset.claim(mine, [foreign, a_pod("q", metadata={"labels": {"app": "x"}})]) == ([], [])


def _progressing(reason: str, age: float) -> DeploymentStatus:
    stamp = times.time_text(_NOW - timedelta(seconds=age))
    condition = Condition("Progressing", "True", reason, last_update_time=stamp, last_transition_time=stamp)
    return DeploymentStatus(replicas=3, updated_replicas=3, conditions=(condition,))


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(599, "ReplicaSetUpdated", id="before the deadline"),
        pytest.param(601, "ProgressDeadlineExceeded", id="after the deadline"),
    ],
)
def test_progress_deadline(age: float, reason: str) -> None:
    stuck = msgspec.structs.replace(_deployment(3), status=_progressing("ReplicaSetUpdated", age))

    new = replica_set("web-1", 3, 0)

    found = rollout_status.status(stuck, new, [new], _NOW)

    condition = rollout_status.condition(found, "Progressing")
    assert condition is not None
    assert condition.reason == reason
