"""scale, binding, the addresses of Services, and the two shapes of events."""

from __future__ import annotations

import asyncio

import pytest

from netemu.apiserver.registry import Registry
from netemu.model.errors import (
    BadRequest,
    Conflict,
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
    PODS,
    SERVICES,
)
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import CONFIG, DEPLOYMENT, NAMESPACE, POD, SERVICE, named, registry, serving, store

__all__ = ["registry", "store"]


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


DEBUGGER = {"name": "debugger", "image": "busybox", "stdin": True, "targetContainerName": ""}


async def debugged(registry: Registry, *containers: object, subresource: str = "ephemeralcontainers") -> list[str]:
    """The names of the Pod's ephemeral containers after a patch that brings some."""
    patch = {"spec": {"ephemeralContainers": list(containers)}}
    strategic = "application/strategic-merge-patch+json"
    name = POD["metadata"]["name"]
    pod = await registry.patch(PODS, name, patch, "shop", subresource=subresource, content_type=strategic)
    return [one["name"] for one in pod["spec"]["ephemeralContainers"]]


async def test_ephemeral_containers_are_added_one_by_one(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")
    await debugged(registry, DEBUGGER)

    assert set(await debugged(registry, {**DEBUGGER, "name": "second"})) == {"debugger", "second"}


@pytest.mark.parametrize(
    ("container", "why"),
    [
        ({**DEBUGGER, "image": "other"}, 'existing ephemeral containers "debugger" may not be changed'),
        ({"$patch": "delete", "name": "debugger"}, 'existing ephemeral containers "debugger" may not be removed'),
        ({"name": "new", "image": "x", "ports": [{"containerPort": 1}]}, "ports: Forbidden: cannot be set for an Eph"),
        ({"name": "new", "image": "x", "targetContainerName": "none"}, 'targetContainerName: Not found: "none"'),
        ({"name": "new"}, "image: Required value"),
        ({"name": "NEW", "image": "x"}, "name: Invalid value"),
    ],
)
async def test_ephemeral_containers_that_are_refused(registry: Registry, container: object, why: str) -> None:
    await registry.create(PODS, POD, "shop")
    await debugged(registry, DEBUGGER)

    with pytest.raises(Invalid, match=why):
        await debugged(registry, container)


async def test_ephemeral_containers_have_one_way_in(registry: Registry) -> None:
    pod = await registry.create(PODS, POD, "shop")
    with pytest.raises(Invalid, match="changed: ephemeralContainers"):
        await debugged(registry, DEBUGGER, subresource="")
    from_the_start = {**POD, "metadata": {"name": "q"}, "spec": {**POD["spec"], "ephemeralContainers": [DEBUGGER]}}
    with pytest.raises(Invalid, match="cannot be set on create"):
        await registry.create(PODS, from_the_start, "shop")
    await debugged(registry, DEBUGGER)

    pod["metadata"].pop("resourceVersion")
    kept = await registry.update(PODS, pod["metadata"]["name"], pod, "shop")

    assert [one["name"] for one in kept["spec"]["ephemeralContainers"]] == ["debugger"]


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


async def test_a_binding_cannot_be_put_past_the_rules(registry: Registry) -> None:
    made = await registry.create(PODS, POD, "shop")

    with pytest.raises(MethodNotAllowed):
        await registry.update(PODS, "p", {**made, "spec": {}}, "shop", subresource="binding")


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
