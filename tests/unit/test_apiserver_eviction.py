"""pods/eviction: which Pods go, which must wait, and what is said then."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from netemu.apiserver.keys import key_of
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, Conflict, Forbidden, InternalError, NotFound, TooManyRequests
from netemu.model.resources import NAMESPACES, PODDISRUPTIONBUDGETS, PODS
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_http import Http, serving
from tests.unit.apiserver_kit import NAMESPACE, POD, named, registry, store
from tests.unit.apiserver_kit import serving as registry_on

__all__ = ["registry", "store"]

MERGE = "application/merge-patch+json"
BUDGET: Obj = {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1}}


async def pod(registry: Registry, name: str = "p", *, phase: str = "Running", ready: bool = True) -> None:
    """A Pod on a node, which its kubelet would end."""
    spec = {**POD["spec"], "nodeName": "n1"}
    await registry.create(PODS, {**named(POD, name), "spec": spec}, "shop")
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    await registry.patch(PODS, name, {"status": status}, "shop", subresource="status")


async def budget(registry: Registry, name: str = "web", *, allowed: int = 0, policy: str = "", **status: Any) -> None:
    """A budget whose status says what the disruption controller would."""
    spec = {**BUDGET["spec"], **({"unhealthyPodEvictionPolicy": policy} if policy else {})}
    await registry.create(PODDISRUPTIONBUDGETS, {"metadata": {"name": name}, "spec": spec}, "shop")
    condition = {"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": ""}
    told = {"observedGeneration": 1, "disruptionsAllowed": allowed, "conditions": [condition], **status}
    await registry.patch(PODDISRUPTIONBUDGETS, name, {"status": told}, "shop", subresource="status")


async def evict(registry: Registry, name: str = "p", *, dry_run: bool = False, **options: Any) -> Obj:
    eviction = {"metadata": {"name": name, "namespace": "shop"}, "deleteOptions": options}
    return await registry.create_subresource(PODS, name, "eviction", eviction, "shop", dry_run=dry_run)


def going(registry: Registry, name: str = "p") -> bool:
    """Whether the Pod is gone or on its way."""
    found = registry.find(PODS, name, "shop")
    return found is None or "deletionTimestamp" in found["metadata"]


def status_of(registry: Registry) -> Obj:
    found = registry.find(PODDISRUPTIONBUDGETS, "web", "shop")
    assert found
    status: Obj = found["status"]
    return status


async def test_without_a_budget_a_pod_goes_and_says_why(registry: Registry) -> None:
    await pod(registry)

    answer = await evict(registry, gracePeriodSeconds=7)

    found = await registry.get(PODS, "p", "shop")
    target = next(c for c in found["status"]["conditions"] if c["type"] == "DisruptionTarget")
    assert (answer["status"], answer["code"]) == ("Success", 201)
    assert found["metadata"]["deletionGracePeriodSeconds"] == 7
    assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")


async def test_a_granted_eviction_is_taken_from_the_budget(registry: Registry) -> None:
    await pod(registry)
    await budget(registry, allowed=1)

    await evict(registry)

    status = status_of(registry)
    assert going(registry)
    assert status["disruptionsAllowed"] == 0
    assert list(status["disruptedPods"]) == ["p"]
    assert (status["conditions"][0]["status"], status["conditions"][0]["reason"]) == ("False", "InsufficientPods")


async def test_a_used_up_budget_keeps_the_pod(registry: Registry) -> None:
    await pod(registry)
    await budget(registry, currentHealthy=1, desiredHealthy=1)

    with pytest.raises(TooManyRequests, match="would violate the pod's disruption budget") as caught:
        await evict(registry)

    why = "The disruption budget web needs 1 healthy pods and has 1 currently"
    assert caught.value.details["causes"] == [{"reason": "DisruptionBudget", "message": why}]
    assert not going(registry)


async def test_many_at_once_get_no_more_than_is_allowed(registry: Registry) -> None:
    for number in range(6):
        await pod(registry, f"p{number}")
    await budget(registry, allowed=2)

    answers = await asyncio.gather(*(evict(registry, f"p{n}") for n in range(6)), return_exceptions=True)

    assert sum(isinstance(answer, TooManyRequests) for answer in answers) == 4
    assert sum(going(registry, f"p{n}") for n in range(6)) == 2


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
async def test_pods_that_do_not_run_cost_nothing(registry: Registry, phase: str) -> None:
    await pod(registry, phase=phase, ready=False)
    await budget(registry)

    await evict(registry)

    assert going(registry)


async def test_a_pod_that_goes_already_costs_nothing(registry: Registry) -> None:
    await pod(registry)
    await budget(registry)
    await registry.delete(PODS, "p", "shop")

    assert (await evict(registry))["status"] == "Success"


@pytest.mark.parametrize(
    ("policy", "healthy", "desired", "goes"),
    [
        pytest.param("", 2, 2, True, id="the budget is kept without it"),
        pytest.param("", 1, 2, False, id="the budget is not kept"),
        pytest.param("", 0, 0, False, id="nothing is desired"),
        pytest.param("IfHealthyBudget", 1, 2, False, id="IfHealthyBudget"),
        pytest.param("AlwaysAllow", 1, 2, True, id="AlwaysAllow"),
    ],
)
async def test_a_pod_that_is_not_ready(registry: Registry, policy: str, healthy: int, desired: int, goes: bool) -> None:
    await pod(registry, ready=False)
    await budget(registry, policy=policy, currentHealthy=healthy, desiredHealthy=desired)

    (answer,) = await asyncio.gather(evict(registry), return_exceptions=True)

    assert isinstance(answer, TooManyRequests) is not goes
    assert going(registry) is goes


async def test_a_budget_that_was_not_looked_at_yet_asks_to_come_back(registry: Registry) -> None:
    await pod(registry)
    await registry.create(PODDISRUPTIONBUDGETS, BUDGET, "shop")

    with pytest.raises(TooManyRequests) as caught:
        await evict(registry)

    assert caught.value.details["retryAfterSeconds"] == 10
    assert "still being processed" in caught.value.details["causes"][0]["message"]


async def test_a_failed_count_is_told(registry: Registry) -> None:
    await pod(registry)
    failed = {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "found no controllers"}
    await budget(registry, conditions=[failed])

    with pytest.raises(TooManyRequests) as caught:
        await evict(registry)

    assert "because it failed sync: found no controllers" in caught.value.details["causes"][0]["message"]


async def test_too_many_unconfirmed_evictions_are_refused(registry: Registry) -> None:
    await pod(registry)
    await budget(registry, allowed=1, disruptedPods={f"q{n}": "2026-01-01T12:00:00Z" for n in range(2001)})

    with pytest.raises(Forbidden, match="DisruptedPods map too big"):
        await evict(registry)


async def test_a_budget_that_another_server_has_just_stored_counts(store: MemoryStore) -> None:
    store.shared = True
    async with registry_on(store) as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        await pod(registry)
        others = named(BUDGET, "web", namespace="shop", uid="u", generation=1)
        store.hold()
        await store.create(key_of(PODDISRUPTIONBUDGETS, "shop", "web"), msgspec.json.encode(others))
        evicting = asyncio.create_task(evict(registry))
        for _ in range(20):
            await asyncio.sleep(0)
        store.let_go()

        with pytest.raises(TooManyRequests):
            await evicting


async def test_two_budgets_of_one_pod_are_an_error(registry: Registry) -> None:
    await pod(registry)
    await budget(registry, allowed=1)
    await budget(registry, "other", allowed=1)

    with pytest.raises(InternalError, match="This pod has more than one PodDisruptionBudget"):
        await evict(registry)


@pytest.mark.parametrize(("selector", "goes"), [({}, False), (None, True), ({"matchLabels": {"app": "x"}}, True)])
async def test_whom_a_budget_is_for(registry: Registry, selector: Any, goes: bool) -> None:
    await pod(registry)
    spec = {"minAvailable": 1, **({"selector": selector} if selector is not None else {})}
    await registry.create(PODDISRUPTIONBUDGETS, {"metadata": {"name": "web"}, "spec": spec}, "shop")

    (answer,) = await asyncio.gather(evict(registry), return_exceptions=True)

    assert isinstance(answer, TooManyRequests) is not goes


@pytest.mark.parametrize("in_body", [True, False])
async def test_a_dry_run_asks_and_changes_nothing(registry: Registry, in_body: bool) -> None:
    await pod(registry)
    await budget(registry, allowed=1)
    trial: dict[str, Any] = {"dryRun": ["All"]} if in_body else {}

    await evict(registry, dry_run=not in_body, **trial)

    assert not going(registry)
    assert status_of(registry)["disruptionsAllowed"] == 1


async def test_preconditions_hold_or_nothing_goes(registry: Registry) -> None:
    await pod(registry)

    with pytest.raises(Conflict):
        await evict(registry, preconditions={"uid": "another"})
    with pytest.raises(Conflict):
        await evict(registry, preconditions={"resourceVersion": "1"})
    assert not going(registry)

    found = await registry.get(PODS, "p", "shop")
    await evict(registry, preconditions={key: found["metadata"][key] for key in ("uid", "resourceVersion")})
    assert going(registry)


async def test_the_names_must_agree_and_exist(registry: Registry) -> None:
    with pytest.raises(NotFound, match='pods "p" not found'):
        await evict(registry)
    with pytest.raises(BadRequest, match="name in URL does not match name in Eviction object"):
        await registry.create_subresource(PODS, "p", "eviction", {"metadata": {"name": "q"}}, "shop")


@pytest.fixture
async def http(tmp_path: Any) -> Any:
    async with serving(tmp_path) as running:
        yield running


async def test_a_refusal_says_over_http_when_to_come_back_only_if_it_is_known(http: Http) -> None:
    url = "/api/v1/namespaces/default/pods"
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    await http("POST", url, named(POD, "p"))
    await http(
        "PATCH", f"{url}/p/status", {"status": {"phase": "Running"}}, content_type="application/merge-patch+json"
    )
    await http("POST", budgets, BUDGET)

    early = await http("POST", f"{url}/p/eviction", {"metadata": {"name": "p"}})
    counted = {"status": {"observedGeneration": 1}}
    await http("PATCH", f"{budgets}/web/status", counted, content_type=MERGE)
    late = await http("POST", f"{url}/p/eviction", {"metadata": {"name": "p"}})

    assert (early.status, early.headers["Retry-After"]) == (429, "10")
    assert (late.status, "Retry-After" in late.headers) == (429, False)
    assert late.body["reason"] == "TooManyRequests"
