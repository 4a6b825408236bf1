"""Creating, updating and patching objects through the registry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from netemu.apiserver.registry import Registry
from netemu.client.base import JSON_PATCH, STRATEGIC_MERGE_PATCH, Obj
from netemu.model.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ServiceUnavailable,
)
from netemu.model.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
)
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import CONFIG, DEPLOYMENT, NAMESPACE, POD, SERVICE, named, registry, serving, store

__all__ = ["registry", "store"]


# --- create


async def test_a_new_object_gets_what_the_server_sets(registry: Registry) -> None:
    made = await registry.create(DEPLOYMENTS, DEPLOYMENT, "shop")

    metadata = made["metadata"]
    assert (metadata["namespace"], metadata["generation"], metadata["resourceVersion"]) == ("shop", 1, "2")
    assert len(metadata["uid"]) == 36
    assert metadata["creationTimestamp"].endswith("Z")


async def test_what_create_answers_is_what_get_answers(registry: Registry) -> None:
    made = await registry.create(PODS, POD, "shop")

    assert await registry.get(PODS, "p", "shop") == made


async def test_a_client_cannot_choose_what_the_server_sets(registry: Registry) -> None:
    chosen = named(
        CONFIG, "c", uid="mine", creationTimestamp="2001-01-01T00:00:00Z", deletionTimestamp="2001-01-01T00:00:00Z"
    )

    metadata = (await registry.create(CONFIGMAPS, chosen, "shop"))["metadata"]

    assert metadata["uid"] != "mine"
    assert not metadata["creationTimestamp"].startswith("2001")
    assert "deletionTimestamp" not in metadata


async def test_objects_that_go_in_are_neither_changed_nor_kept(registry: Registry) -> None:
    mine: dict[str, Any] = {"metadata": {"name": "c"}, "data": {"a": "1"}}
    await registry.create(CONFIGMAPS, mine, "shop")
    mine["data"]["a"] = "2"

    assert mine["metadata"] == {"name": "c"}
    assert (await registry.get(CONFIGMAPS, "c", "shop"))["data"] == {"a": "1"}


async def test_null_is_an_absent_field_and_an_empty_value_of_a_map(registry: Registry) -> None:
    given = {"metadata": {"name": "c", "creationTimestamp": None, "labels": {"x": None}}, "data": None}

    made = await registry.create(CONFIGMAPS, given, "shop")

    assert "data" not in made
    assert made["metadata"]["labels"] == {"x": ""}


async def test_generated_names_differ_and_begin_as_asked(registry: Registry) -> None:
    template = {"metadata": {"generateName": "web-"}}

    names = {(await registry.create(CONFIGMAPS, template, "shop"))["metadata"]["name"] for _ in range(20)}

    assert len(names) == 20
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


async def test_an_object_needs_a_name(registry: Registry) -> None:
    with pytest.raises(Invalid, match="name or generateName is required"):
        await registry.create(CONFIGMAPS, {"metadata": {}}, "shop")


async def test_the_same_name_twice_is_refused(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")

    with pytest.raises(AlreadyExists, match='pods "p" already exists'):
        await registry.create(PODS, POD, "shop")


async def test_of_many_creations_of_one_name_exactly_one_succeeds(registry: Registry) -> None:
    answers = await asyncio.gather(
        *(registry.create(SERVICES, SERVICE, "shop") for _ in range(20)), return_exceptions=True
    )

    assert len([answer for answer in answers if isinstance(answer, dict)]) == 1
    assert len([answer for answer in answers if isinstance(answer, AlreadyExists)]) == 19


async def test_a_namespace_must_exist(registry: Registry) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await registry.create(PODS, POD, "nowhere")


async def test_a_namespace_that_goes_away_takes_nothing_new(registry: Registry) -> None:
    await registry.delete(NAMESPACES, "shop")

    with pytest.raises(Forbidden, match="because it is being terminated"):
        await registry.create(PODS, POD, "shop")


@pytest.mark.parametrize(
    "obj",
    [
        pytest.param({**CONFIG, "kind": "Secret"}, id="another kind"),
        pytest.param({**CONFIG, "apiVersion": "v2"}, id="another version"),
        pytest.param(named(CONFIG, "c", namespace="other"), id="another namespace than the request's"),
        pytest.param(named(CONFIG, "c", resourceVersion="7"), id="a resource version"),
        pytest.param({"metadata": ["c"]}, id="metadata that is no map"),
        pytest.param({**CONFIG, "data": "text"}, id="a field of the wrong type"),
    ],
)
async def test_what_cannot_be_an_object_of_the_kind_is_a_bad_request(registry: Registry, obj: Obj) -> None:
    with pytest.raises(BadRequest):
        await registry.create(CONFIGMAPS, obj, "shop")


async def test_an_object_that_breaks_the_rules_tells_every_field(registry: Registry) -> None:
    with pytest.raises(Invalid) as refusal:
        await registry.create(SERVICES, {**SERVICE, "spec": {"ports": [{"port": 0}]}}, "shop")

    causes = refusal.value.details["causes"]
    assert "spec.ports[0].port" in [cause["field"] for cause in causes]


async def test_status_cannot_be_created_except_with_a_node(registry: Registry) -> None:
    pod = await registry.create(PODS, {**POD, "status": {"phase": "Running", "podIP": "10.0.0.1"}}, "shop")
    node = await registry.create(NODES, {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}}})

    assert (pod["status"]["phase"], pod["status"].get("podIP")) == ("Pending", None)
    assert node["status"]["capacity"] == {"cpu": "4"}


async def test_a_pod_runs_as_default_and_tolerates_lost_nodes_for_five_minutes(registry: Registry) -> None:
    spec = (await registry.create(PODS, POD, "shop"))["spec"]

    assert spec["serviceAccountName"] == "default"
    assert [(toleration["key"], toleration["tolerationSeconds"]) for toleration in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]


async def test_a_dry_run_shows_the_object_and_stores_nothing(registry: Registry, store: MemoryStore) -> None:
    before = store.revision

    made = await registry.create(SERVICES, SERVICE, "shop", dry_run=True)

    assert made["spec"]["clusterIP"].startswith("10.96.")
    assert store.revision == before
    with pytest.raises(NotFound):
        await registry.get(SERVICES, "s", "shop")


# --- update and patch


async def test_an_update_bumps_the_generation_only_when_the_spec_changes(registry: Registry) -> None:
    made = await registry.create(DEPLOYMENTS, DEPLOYMENT, "shop")

    labelled = await registry.patch(DEPLOYMENTS, "d", {"metadata": {"labels": {"a": "b"}}}, "shop")
    more = {**made, "metadata": {"name": "d"}, "spec": {**made["spec"], "replicas": 3}}
    changed = await registry.update(DEPLOYMENTS, "d", more, "shop")

    assert (labelled["metadata"]["generation"], changed["metadata"]["generation"]) == (1, 2)


@pytest.mark.parametrize("field", ["uid", "creationTimestamp", "generation"])
async def test_an_update_without_them_keeps_what_the_server_set(registry: Registry, field: str) -> None:
    made = await registry.create(DEPLOYMENTS, DEPLOYMENT, "shop")

    updated = await registry.update(DEPLOYMENTS, "d", named(DEPLOYMENT, "d", labels={"x": "y"}), "shop")

    assert updated["metadata"][field] == made["metadata"][field]


async def test_an_update_from_an_old_revision_is_a_conflict(registry: Registry) -> None:
    made = await registry.create(CONFIGMAPS, CONFIG, "shop")
    await registry.update(CONFIGMAPS, "c", {**made, "data": {"a": "2"}}, "shop")

    with pytest.raises(Conflict, match="please apply your changes to the latest version"):
        await registry.update(CONFIGMAPS, "c", {**made, "data": {"a": "3"}}, "shop")


async def test_an_update_of_an_object_made_anew_is_a_conflict(registry: Registry) -> None:
    made = await registry.create(CONFIGMAPS, CONFIG, "shop")
    await registry.delete(CONFIGMAPS, "c", "shop")
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    with pytest.raises(Conflict, match="UID in precondition"):
        await registry.update(CONFIGMAPS, "c", named(CONFIG, "c", uid=made["metadata"]["uid"]), "shop")


async def test_an_update_without_a_revision_is_unconditional(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    updated = await registry.update(CONFIGMAPS, "c", {**CONFIG, "data": {"b": "2"}}, "shop")

    assert updated["data"] == {"b": "2"}


async def test_concurrent_patches_of_one_object_all_arrive(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    await asyncio.gather(*(registry.patch(CONFIGMAPS, "c", {"data": {f"k{n}": "v"}}, "shop") for n in range(30)))

    assert len((await registry.get(CONFIGMAPS, "c", "shop"))["data"]) == 31


@pytest.mark.parametrize("way", ["update", "patch", "status"])
async def test_a_write_that_changes_nothing_keeps_the_revision(
    registry: Registry, store: MemoryStore, way: str
) -> None:
    made = await registry.create(DEPLOYMENTS, DEPLOYMENT, "shop")
    before = store.revision

    if way == "update":
        answer = await registry.update(DEPLOYMENTS, "d", {**made, "metadata": {"name": "d"}}, "shop")
    else:
        answer = await registry.patch(
            DEPLOYMENTS, "d", {"metadata": {}}, "shop", subresource="" if way == "patch" else "status"
        )

    assert store.revision == before
    assert answer == made


async def test_the_object_itself_does_not_take_status_and_status_takes_nothing_else(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")
    change = {"metadata": {"labels": {"x": "y"}}, "status": {"phase": "Running"}}

    through_main = await registry.patch(PODS, "p", change, "shop")
    through_status = await registry.patch(
        PODS, "p", {"metadata": {"labels": {"x": "z"}}, "status": {"phase": "Running"}}, "shop", subresource="status"
    )

    assert (through_main["metadata"]["labels"]["x"], through_main["status"]["phase"]) == ("y", "Pending")
    assert (through_status["metadata"]["labels"]["x"], through_status["status"]["phase"]) == ("y", "Running")


async def test_a_revision_inside_a_patch_is_a_precondition(registry: Registry) -> None:
    made = await registry.create(CONFIGMAPS, CONFIG, "shop")
    seen = made["metadata"]["resourceVersion"]
    await registry.patch(CONFIGMAPS, "c", {"metadata": {"resourceVersion": seen}, "data": {"a": "2"}}, "shop")

    with pytest.raises(Conflict):
        await registry.patch(CONFIGMAPS, "c", {"metadata": {"resourceVersion": seen}, "data": {"a": "3"}}, "shop")


async def test_a_strategic_patch_merges_lists_by_key(registry: Registry) -> None:
    await registry.create(SERVICES, {**SERVICE, "spec": {"ports": [{"name": "a", "port": 80}]}}, "shop")

    patched = await registry.patch(
        SERVICES, "s", {"spec": {"ports": [{"name": "b", "port": 81}]}}, "shop", content_type=STRATEGIC_MERGE_PATCH
    )

    assert {80, 81} == {port["port"] for port in patched["spec"]["ports"]}


async def test_a_json_patch_whose_test_fails_changes_nothing(registry: Registry) -> None:
    made = await registry.create(CONFIGMAPS, CONFIG, "shop")
    patch = [{"op": "test", "path": "/data/a", "value": "9"}, {"op": "remove", "path": "/data"}]

    with pytest.raises(Invalid):
        await registry.patch(CONFIGMAPS, "c", patch, "shop", content_type=JSON_PATCH)

    assert await registry.get(CONFIGMAPS, "c", "shop") == made


async def test_a_patch_that_renames_is_refused(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    with pytest.raises(BadRequest, match="does not match the name on the URL"):
        await registry.patch(CONFIGMAPS, "c", {"metadata": {"name": "d"}}, "shop")


@pytest.mark.parametrize("verb", ["get", "update", "patch", "delete"])
async def test_what_is_not_there_is_not_found(registry: Registry, verb: str) -> None:
    requests: dict[str, Any] = {
        "get": lambda: registry.get(DEPLOYMENTS, "d", "shop"),
        "update": lambda: registry.update(DEPLOYMENTS, "d", DEPLOYMENT, "shop"),
        "patch": lambda: registry.patch(DEPLOYMENTS, "d", {}, "shop"),
        "delete": lambda: registry.delete(DEPLOYMENTS, "d", "shop"),
    }

    with pytest.raises(NotFound, match=r'deployments\.apps "d" not found'):
        await requests[verb]()


# --- the store behind it


async def test_a_full_store_refuses_writes_and_reads_go_on(registry: Registry, store: MemoryStore) -> None:
    await registry.create(PODS, POD, "shop")
    store.full = True

    with pytest.raises(ServiceUnavailable, match="full"):
        await registry.create(PODS, named(POD, "q"), "shop")
    assert len((await registry.list(PODS)).items) == 1

    store.full = False
    await registry.create(PODS, named(POD, "q"), "shop")


async def test_everything_is_there_again_after_a_restart(store: MemoryStore) -> None:
    async with serving(store) as first:
        await first.create(NAMESPACES, NAMESPACE)
        service = await first.create(SERVICES, SERVICE, "shop")

    async with serving(store) as second:
        address = service["spec"]["clusterIP"]
        taken = {**named(SERVICE, "t"), "spec": {"clusterIP": address, "ports": [{"port": 1}]}}
        assert await second.get(SERVICES, "s", "shop") == service
        with pytest.raises(Invalid, match="already allocated"):
            await second.create(SERVICES, taken, "shop")
