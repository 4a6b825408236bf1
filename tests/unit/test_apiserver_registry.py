"""Reading and writing objects through the registry, over the real rules and a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema import Schema
from netemu.client.base import JSON_PATCH, STRATEGIC_MERGE_PATCH, Obj
from netemu.model.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
)
from netemu.model.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    EVENTS_V1,
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
)
from netemu.store.base import Store
from netemu.testing.store import MemoryStore

NAMESPACE = {"metadata": {"name": "shop"}}
CONFIG = {"metadata": {"name": "c"}, "data": {"a": "1"}}
POD = {"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
SERVICE = {"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
DEPLOYMENT = {
    "metadata": {"name": "d"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD["spec"]},
    },
}


@asynccontextmanager
async def serving(store: Store, services: str = "10.96.0.0/16") -> AsyncIterator[Registry]:
    registry = Registry(store, Schema.load(), ServiceAllocator([services]))
    await registry.start()
    try:
        yield registry
    finally:
        await registry.close()


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    memory = MemoryStore()

    yield memory

    await memory.close()


@pytest.fixture
async def registry(store: MemoryStore) -> AsyncIterator[Registry]:
    async with serving(store) as running:
        await running.create(NAMESPACES, NAMESPACE)
        yield running


def named(template: Obj, name: str, **metadata: Any) -> Obj:
    return {**template, "metadata": {**template["metadata"], "name": name, **metadata}}


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


async def test_nulls_are_dropped(registry: Registry) -> None:
    given = {"metadata": {"name": "c", "creationTimestamp": None, "labels": {"x": None}}, "data": None}

    made = await registry.create(CONFIGMAPS, given, "shop")

    assert "data" not in made
    assert made["metadata"]["labels"] == {}


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


# --- subresources


async def test_scale_shows_and_sets_replicas(registry: Registry) -> None:
    await registry.create(DEPLOYMENTS, DEPLOYMENT, "shop")

    scale = await registry.get(DEPLOYMENTS, "d", "shop", subresource="scale")
    wanted = {**scale, "spec": {"replicas": 5}}
    answer = await registry.update(DEPLOYMENTS, "d", wanted, "shop", subresource="scale")

    deployment = await registry.get(DEPLOYMENTS, "d", "shop")
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=web")
    assert (answer["spec"]["replicas"], deployment["spec"]["replicas"]) == (5, 5)
    assert deployment["metadata"]["generation"] == 2


async def test_scale_can_be_patched_and_refuses_negative_replicas(registry: Registry) -> None:
    await registry.create(DEPLOYMENTS, DEPLOYMENT, "shop")
    await registry.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 0}}, "shop", subresource="scale")

    with pytest.raises(Invalid, match="greater than or equal to 0"):
        await registry.patch(DEPLOYMENTS, "d", {"spec": {"replicas": -1}}, "shop", subresource="scale")

    assert (await registry.get(DEPLOYMENTS, "d", "shop"))["spec"]["replicas"] == 0


async def test_scale_from_an_old_revision_is_a_conflict(registry: Registry) -> None:
    await registry.create(DEPLOYMENTS, DEPLOYMENT, "shop")
    scale = await registry.get(DEPLOYMENTS, "d", "shop", subresource="scale")
    await registry.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 3}}, "shop")

    with pytest.raises(Conflict):
        await registry.update(DEPLOYMENTS, "d", {**scale, "spec": {"replicas": 4}}, "shop", subresource="scale")


async def test_binding_assigns_a_pod_to_a_node(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")

    answer = await registry.create_subresource(PODS, "p", "binding", {"target": {"name": "node-1"}}, "shop")

    pod = await registry.get(PODS, "p", "shop")
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    assert pod["spec"]["nodeName"] == "node-1"
    assert [(c["type"], c["status"]) for c in pod["status"]["conditions"]] == [("PodScheduled", "True")]


async def test_a_pod_is_bound_only_once(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")

    answers = await asyncio.gather(
        *(
            registry.create_subresource(PODS, "p", "binding", {"target": {"name": f"node-{n}"}}, "shop")
            for n in range(5)
        ),
        return_exceptions=True,
    )

    assert [dict, Conflict, Conflict, Conflict, Conflict] == [type(answer) for answer in answers]


async def test_a_binding_without_a_target_is_a_bad_request(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")

    with pytest.raises(BadRequest, match=r"target\.name"):
        await registry.create_subresource(PODS, "p", "binding", {}, "shop")


async def test_subresources_that_do_not_exist_are_refused(registry: Registry) -> None:
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    with pytest.raises(NotFound):
        await registry.patch(CONFIGMAPS, "c", {}, "shop", subresource="status")
    with pytest.raises(MethodNotAllowed):
        await registry.create_subresource(CONFIGMAPS, "c", "binding", {}, "shop")


# --- Services


async def test_every_service_gets_its_own_address(registry: Registry) -> None:
    services = [await registry.create(SERVICES, named(SERVICE, f"s{n}"), "shop") for n in range(20)]

    assert len({service["spec"]["clusterIP"] for service in services}) == 20


async def test_addresses_of_deleted_and_of_refused_services_are_used_again(store: MemoryStore) -> None:
    async with serving(store, "10.96.0.0/29") as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        for round_ in range(5):
            for n in range(6):
                await registry.create(SERVICES, named(SERVICE, f"s{round_}-{n}"), "shop")
            store.full = True
            for n in range(6):
                with pytest.raises(ServiceUnavailable):
                    await registry.delete(SERVICES, f"s{round_}-{n}", "shop")
            store.full = False
            for n in range(6):
                await registry.delete(SERVICES, f"s{round_}-{n}", "shop")


async def test_a_creation_that_the_store_refuses_gives_its_address_back(store: MemoryStore) -> None:
    async with serving(store, "10.96.0.0/30") as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        store.full = True
        for n in range(5):
            with pytest.raises(ServiceUnavailable):
                await registry.create(SERVICES, named(SERVICE, f"s{n}"), "shop")
        store.full = False

        made = [await registry.create(SERVICES, named(SERVICE, f"s{n}"), "shop") for n in range(2)]

    assert {"10.96.0.1", "10.96.0.2"} == {service["spec"]["clusterIP"] for service in made}


async def test_a_service_replaced_without_its_addresses_keeps_them(registry: Registry) -> None:
    node_port = {**SERVICE, "spec": {**SERVICE["spec"], "type": "NodePort"}}  # type: ignore[dict-item]
    made = await registry.create(SERVICES, node_port, "shop")

    replaced = await registry.update(SERVICES, "s", named(node_port, "s", labels={"a": "b"}), "shop")

    assert replaced["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    assert replaced["spec"]["ports"] == made["spec"]["ports"]


async def test_a_clusterip_cannot_be_changed(registry: Registry) -> None:
    await registry.create(SERVICES, SERVICE, "shop")

    with pytest.raises(Invalid, match="clusterIPs"):
        await registry.patch(SERVICES, "s", {"spec": {"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"]}}, "shop")


async def test_node_ports_are_free_again_when_the_type_no_longer_has_them(registry: Registry) -> None:
    spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
    await registry.create(SERVICES, {**SERVICE, "spec": spec}, "shop")
    with pytest.raises(Invalid, match="already allocated"):
        await registry.create(SERVICES, {**named(SERVICE, "other"), "spec": spec}, "shop")

    await registry.patch(SERVICES, "s", {"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}, "shop")
    other = await registry.create(SERVICES, {**named(SERVICE, "other"), "spec": spec}, "shop")

    assert other["spec"]["ports"][0]["nodePort"] == 30080


# --- events


async def test_both_shapes_of_an_event_are_one_object(registry: Registry) -> None:
    event = {
        "metadata": {"name": "e"},
        "eventTime": "2026-01-02T03:04:05.000006Z",
        "reportingController": "kubelet",
        "reportingInstance": "node-1",
        "action": "Pulling",
        "reason": "Pulled",
        "note": "image is here",
        "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "shop"},
    }
    made = await registry.create(EVENTS_V1, event, "shop")

    core = await registry.get(EVENTS, "e", "shop")
    assert (made["apiVersion"], made["note"]) == ("events.k8s.io/v1", "image is here")
    assert (core["apiVersion"], core["message"], core["involvedObject"]["name"]) == ("v1", "image is here", "p")
    assert await registry.get(EVENTS_V1, "e", "shop") == made


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


# --- lists


async def test_lists_are_in_the_order_of_keys_and_tell_the_newest_revision(registry: Registry) -> None:
    await registry.create(NAMESPACES, {"metadata": {"name": "a"}})
    for space, name in (("shop", "b"), ("shop", "a"), ("a", "z")):
        await registry.create(CONFIGMAPS, named(CONFIG, name), space)

    found = await registry.list(CONFIGMAPS)

    keys = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found.items]
    assert keys == [("a", "z"), ("shop", "a"), ("shop", "b")]
    assert found.resource_version == str(registry.revision) == "5"


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        pytest.param({"label_selector": "app=web"}, ["p1", "p2"], id="a label"),
        pytest.param({"label_selector": "app notin (web)"}, ["p3"], id="not a label"),
        pytest.param({"field_selector": "metadata.name=p2"}, ["p2"], id="a name"),
        pytest.param({"field_selector": "spec.nodeName="}, ["p2", "p3"], id="no node yet"),
        pytest.param({"field_selector": "spec.nodeName=n1,status.phase!=Failed"}, ["p1"], id="node and phase"),
        pytest.param({"field_selector": "spec.hostNetwork=false"}, ["p1", "p2", "p3"], id="a flag that is absent"),
        pytest.param({"namespace": "other"}, [], id="another namespace"),
    ],
)
async def test_lists_are_narrowed_by_selectors(registry: Registry, selector: dict[str, Any], names: list[str]) -> None:
    for name, app in (("p1", "web"), ("p2", "web"), ("p3", "db")):
        await registry.create(PODS, named(POD, name, labels={"app": app}), "shop")
    await registry.create_subresource(PODS, "p1", "binding", {"target": {"name": "n1"}}, "shop")

    found = await registry.list(PODS, **selector)

    assert [item["metadata"]["name"] for item in found.items] == names


async def test_events_are_selected_by_what_they_are_about_in_both_shapes(registry: Registry) -> None:
    for name in ("p", "q"):
        event = {"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": name, "namespace": "shop"}}
        await registry.create(EVENTS, {**event, "reason": "r", "type": "Normal"}, "shop")

    core = await registry.list(EVENTS, field_selector="involvedObject.name=p,type=Normal")
    new = await registry.list(EVENTS_V1, field_selector="regarding.name=q")

    assert [item["metadata"]["name"] for item in core.items + new.items] == ["p", "q"]


@pytest.mark.parametrize(
    "selector",
    [
        {"field_selector": "spec.image=x"},
        {"field_selector": "spec.nodeName"},
        {"label_selector": "a in b"},
        {"resource_version": "x"},
        {"continue_": "nonsense"},
    ],
    ids=str,
)
async def test_a_list_that_cannot_be_understood_is_a_bad_request(registry: Registry, selector: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await registry.list(PODS, **selector)


async def test_a_list_of_the_future_is_expired(registry: Registry) -> None:
    with pytest.raises(Expired, match="too large resource version"):
        await registry.list(PODS, resource_version="999")


async def test_an_exact_revision_is_served_as_long_as_nothing_changed(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")
    seen = (await registry.list(PODS)).resource_version
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    exact = await registry.list(PODS, resource_version=seen, resource_version_match="Exact")
    await registry.create(PODS, named(POD, "q"), "shop")

    assert (exact.resource_version, len(exact.items)) == (seen, 1)
    with pytest.raises(Expired):
        await registry.list(PODS, resource_version=seen, resource_version_match="Exact")


@pytest.mark.parametrize(
    "query",
    [
        {"resource_version_match": "Exact"},
        {"resource_version_match": "Exact", "resource_version": "0"},
        {"resource_version_match": "Nearly", "resource_version": "1"},
    ],
    ids=str,
)
async def test_a_match_rule_that_makes_no_sense_is_invalid(registry: Registry, query: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="resourceVersionMatch"):
        await registry.list(PODS, **query)


async def test_pages_show_one_moment_whatever_happens_between_them(registry: Registry) -> None:
    for n in range(5):
        await registry.create(CONFIGMAPS, named(CONFIG, f"c{n}"), "shop")

    first = await registry.list(CONFIGMAPS, limit=2)
    await registry.delete(CONFIGMAPS, "c3", "shop")
    second = await registry.list(CONFIGMAPS, limit=2, continue_=first.continue_)
    third = await registry.list(CONFIGMAPS, limit=2, continue_=second.continue_)

    names = [[item["metadata"]["name"] for item in page.items] for page in (first, second, third)]
    assert names == [["c0", "c1"], ["c2", "c3"], ["c4"]]
    assert [(page.remaining, bool(page.continue_)) for page in (first, second, third)] == [
        (3, True),
        (1, True),
        (None, False),
    ]
    assert {page.resource_version for page in (first, second, third)} == {first.resource_version}


async def test_a_page_of_a_list_that_is_no_longer_kept_is_expired(registry: Registry) -> None:
    for n in range(3):
        await registry.create(CONFIGMAPS, named(CONFIG, f"c{n}"), "shop")
    first = await registry.list(CONFIGMAPS, limit=1)
    for _ in range(100):
        await registry.list(CONFIGMAPS, limit=1)

    with pytest.raises(Expired, match="too old to display a consistent list"):
        await registry.list(CONFIGMAPS, limit=1, continue_=first.continue_)
