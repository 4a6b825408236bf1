"""What a DELETE does to Pods, Namespaces, and objects with finalizers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from netemu.apiserver.deletion import after_delete, parse
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound
from netemu.model.resources import CONFIGMAPS, NAMESPACES, PODS, SERVICES
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import CONFIG, POD, SERVICE, named, registry, store

__all__ = ["registry", "store"]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pod(**metadata: Any) -> Obj:
    return {
        "metadata": {"name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "7", **metadata},
        "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 20},
        "status": {"phase": "Running"},
    }


async def test_an_object_nobody_waits_for_is_gone_at_once(registry: Registry) -> None:
    made = await registry.create(CONFIGMAPS, CONFIG, "shop")

    obj, gone = await registry.delete(CONFIGMAPS, "c", "shop")

    assert gone
    assert obj["metadata"]["uid"] == made["metadata"]["uid"]
    with pytest.raises(NotFound):
        await registry.get(CONFIGMAPS, "c", "shop")


async def test_an_object_with_a_finalizer_stays_until_the_finalizer_is_gone(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, named(CONFIG, "c", finalizers=["x.io/y"]), "shop")

    obj, gone = await registry.delete(CONFIGMAPS, "c", "shop")
    assert (gone, "deletionTimestamp" in obj["metadata"]) == (False, True)

    await registry.patch(CONFIGMAPS, "c", {"metadata": {"finalizers": None}}, "shop")
    with pytest.raises(NotFound):
        await registry.get(CONFIGMAPS, "c", "shop")


async def test_a_second_delete_changes_nothing(registry: Registry, store: MemoryStore) -> None:
    await registry.create(CONFIGMAPS, named(CONFIG, "c", finalizers=["x.io/y"]), "shop")
    first = await registry.delete(CONFIGMAPS, "c", "shop")
    before = store.revision

    assert await registry.delete(CONFIGMAPS, "c", "shop") == first
    assert store.revision == before


async def test_an_object_that_goes_away_takes_no_new_finalizers(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, named(CONFIG, "c", finalizers=["x.io/y"]), "shop")
    await registry.delete(CONFIGMAPS, "c", "shop")

    with pytest.raises(Invalid) as refused:
        await registry.patch(CONFIGMAPS, "c", {"metadata": {"finalizers": ["x.io/z", "x.io/y", "x.io/b"]}}, "shop")

    told = "no new finalizers can be added if the object is being deleted, found new finalizers "
    assert str(refused.value).endswith(f'metadata.finalizers: Forbidden: {told}[]string{{"x.io/b", "x.io/z"}}')


async def test_clearing_finalizers_of_a_live_object_keeps_it(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, named(CONFIG, "c", finalizers=["x.io/y"]), "shop")

    kept = await registry.patch(CONFIGMAPS, "c", {"metadata": {"finalizers": None}}, "shop")

    assert await registry.get(CONFIGMAPS, "c", "shop") == kept


@pytest.mark.parametrize(
    ("options", "finalizers"),
    [
        pytest.param({"propagationPolicy": "Foreground"}, ["foregroundDeletion"], id="foreground"),
        pytest.param({"propagationPolicy": "Orphan"}, ["orphan"], id="orphan"),
        pytest.param({"orphanDependents": True}, ["orphan"], id="orphan, the old way"),
    ],
)
async def test_a_policy_leaves_a_finalizer_for_the_garbage_collector(
    registry: Registry, options: dict[str, Any], finalizers: list[str]
) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    obj, gone = await registry.delete(CONFIGMAPS, "c", "shop", options=options)

    assert (gone, obj["metadata"]["finalizers"]) == (False, finalizers)


async def test_background_deletion_takes_back_what_foreground_demanded(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")
    await registry.delete(CONFIGMAPS, "c", "shop", options={"propagationPolicy": "Foreground"})

    _, gone = await registry.delete(CONFIGMAPS, "c", "shop", options={"propagationPolicy": "Background"})

    assert gone


@pytest.mark.parametrize("precondition", ["uid", "resourceVersion"])
async def test_a_precondition_that_does_not_hold_is_a_conflict(registry: Registry, precondition: str) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    with pytest.raises(Conflict, match="Precondition failed"):
        await registry.delete(CONFIGMAPS, "c", "shop", options={"preconditions": {precondition: "other"}})

    assert await registry.get(CONFIGMAPS, "c", "shop")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dryRun": ["Some"]}, BadRequest),
        ({"propagationPolicy": "Sideways"}, Invalid),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, Invalid),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(options)


@pytest.mark.parametrize(
    "options",
    [{"gracePeriodSeconds": "soon"}, {"preconditions": []}, {"propagationPolicy": {}}, {"dryRun": "All"}],
    ids=str,
)
async def test_options_of_wrong_types_are_refused(registry: Registry, options: dict[str, Any]) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    with pytest.raises(BadRequest, match="DeleteOptions"):
        await registry.delete(CONFIGMAPS, "c", "shop", options=options)


async def test_a_dry_run_of_a_deletion_keeps_the_object(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    _, gone = await registry.delete(CONFIGMAPS, "c", "shop", options={"dryRun": ["All"]})

    assert gone
    assert await registry.get(CONFIGMAPS, "c", "shop")


async def test_a_dry_run_of_a_deletion_keeps_a_services_address(registry: Registry) -> None:
    made = await registry.create(SERVICES, SERVICE, "shop")
    await registry.delete(SERVICES, "s", "shop", dry_run=True)

    spec = {"clusterIP": made["spec"]["clusterIP"], "ports": [{"port": 80}]}
    with pytest.raises(Invalid, match="already allocated"):
        await registry.create(SERVICES, {**named(SERVICE, "t"), "spec": spec}, "shop")


async def test_deleting_a_collection_deletes_what_is_selected(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        await registry.create(CONFIGMAPS, named(CONFIG, name, labels={"keep": str(name == "b")}), "shop")

    left = await registry.delete_collection(CONFIGMAPS, "shop", label_selector="keep=False")

    assert [item["metadata"]["name"] for item in left.items] == ["a", "c"]
    assert [item["metadata"]["name"] for item in (await registry.list(CONFIGMAPS)).items] == ["b"]


# --- Pods


async def test_a_pod_without_a_node_is_gone_at_once(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")

    assert (await registry.delete(PODS, "p", "shop"))[1]


async def test_a_running_pod_stays_until_its_kubelet_deletes_it_without_grace(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")
    await registry.create_subresource(PODS, "p", "binding", {"target": {"name": "n1"}}, "shop")

    obj, gone = await registry.delete(PODS, "p", "shop")
    assert (gone, obj["metadata"]["deletionGracePeriodSeconds"]) == (False, 30)

    _, gone = await registry.delete(PODS, "p", "shop", options={"gracePeriodSeconds": 0})
    assert gone


def test_a_pods_deadline_is_its_own_grace_period_from_now() -> None:
    left = after_delete(PODS, pod(), parse({}), NOW)

    assert left is not None
    assert left["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:25Z"
    assert left["metadata"]["deletionGracePeriodSeconds"] == 20


@pytest.mark.parametrize(
    ("grace", "expected"),
    [
        pytest.param(5, ("2026-01-02T03:04:10Z", 5), id="shorter counts from the first delete"),
        pytest.param(60, ("2026-01-02T03:04:25Z", 20), id="longer is ignored"),
        pytest.param(None, ("2026-01-02T03:04:25Z", 20), id="none is ignored"),
    ],
)
def test_a_second_delete_may_only_shorten_a_pods_grace(grace: int | None, expected: tuple[str, int]) -> None:
    going = pod(deletionTimestamp="2026-01-02T03:04:25Z", deletionGracePeriodSeconds=20)

    left = after_delete(PODS, going, parse({"gracePeriodSeconds": grace}), NOW)

    assert left is not None
    assert (left["metadata"]["deletionTimestamp"], left["metadata"]["deletionGracePeriodSeconds"]) == expected


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_goes_at_once(phase: str) -> None:
    assert after_delete(PODS, {**pod(), "status": {"phase": phase}}, parse({}), NOW) is None


def test_a_negative_grace_period_is_one_second() -> None:
    left = after_delete(PODS, pod(), parse({"gracePeriodSeconds": -5}), NOW)

    assert left is not None
    assert left["metadata"]["deletionGracePeriodSeconds"] == 1


async def test_a_pod_that_lost_its_finalizer_still_waits_for_its_kubelet(registry: Registry) -> None:
    await registry.create(PODS, named(POD, "p", finalizers=["x.io/y"]), "shop")
    await registry.create_subresource(PODS, "p", "binding", {"target": {"name": "n1"}}, "shop")
    await registry.delete(PODS, "p", "shop")

    await registry.patch(PODS, "p", {"metadata": {"finalizers": None}}, "shop")
    assert await registry.get(PODS, "p", "shop")

    _, gone = await registry.delete(PODS, "p", "shop", options={"gracePeriodSeconds": 0})
    assert gone


async def test_a_pod_that_was_stopped_goes_with_its_last_finalizer(registry: Registry) -> None:
    await registry.create(PODS, named(POD, "p", finalizers=["x.io/y"]), "shop")
    _, gone = await registry.delete(PODS, "p", "shop", options={"gracePeriodSeconds": 0})
    assert not gone

    await registry.patch(PODS, "p", {"metadata": {"finalizers": None}}, "shop")

    with pytest.raises(NotFound):
        await registry.get(PODS, "p", "shop")


# --- Namespaces


async def test_a_namespace_terminates_until_it_is_finalized(registry: Registry) -> None:
    space, gone = await registry.delete(NAMESPACES, "shop")
    assert (gone, space["status"]["phase"], space["spec"]["finalizers"]) == (False, "Terminating", ["kubernetes"])

    emptied = {**space, "spec": {"finalizers": []}}
    await registry.update(NAMESPACES, "shop", emptied, subresource="finalize")

    with pytest.raises(NotFound):
        await registry.get(NAMESPACES, "shop")


async def test_a_namespaces_finalizers_change_only_through_finalize(registry: Registry) -> None:
    patched = await registry.patch(NAMESPACES, "shop", {"spec": {"finalizers": []}, "metadata": {"labels": {"a": "b"}}})

    assert patched["spec"]["finalizers"] == ["kubernetes"]
    assert patched["metadata"]["labels"]["a"] == "b"


async def test_finalizing_a_live_namespace_keeps_it(registry: Registry) -> None:
    space = await registry.get(NAMESPACES, "shop")

    await registry.update(NAMESPACES, "shop", {**space, "spec": {"finalizers": []}}, subresource="finalize")

    assert (await registry.get(NAMESPACES, "shop"))["spec"] == {}


async def test_deleting_a_terminating_namespace_again_keeps_its_deadline(registry: Registry) -> None:
    first, _ = await registry.delete(NAMESPACES, "shop")
    second, _ = await registry.delete(NAMESPACES, "shop")

    assert first == second


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_the_systems_namespaces_cannot_be_deleted(registry: Registry, name: str) -> None:
    await registry.create(NAMESPACES, {"metadata": {"name": name}})

    with pytest.raises(Forbidden, match="may not be deleted"):
        await registry.delete(NAMESPACES, name)
