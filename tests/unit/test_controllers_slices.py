"""EndpointSlices, Endpoints and their mirror: what is written for which Pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from netemu import controllers
from netemu.controllers import endpoints, endpointslice
from netemu.controllers.actions import Action, Create, Delete, Patch
from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Service
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTS, ENDPOINTSLICES, PODS, SERVICES
from netemu.testing.client import FakeClient
from netemu.testing.cluster import running, settled
from tests.unit.objects_world import a_node, a_pod, a_service, pod, service

pytestmark = pytest.mark.looptime  # pauses cost nothing, and a wait for what never comes fails at once


def _applied(actions: Sequence[Action], slices: Sequence[EndpointSlice] = ()) -> list[EndpointSlice]:
    """The slices after `actions`."""
    found = {item.name: item for item in slices}
    for number, action in enumerate(actions):
        if isinstance(action, Create):
            name = f"new-{len(found)}-{number}"
            found[name] = decode({**action.obj, "metadata": {**action.obj["metadata"], "name": name}}, EndpointSlice)
        elif isinstance(action, Patch):
            old = found[action.name]
            changed = {key: decode(value, tuple[Any, ...]) for key, value in action.patch.items() if key != "metadata"}
            plain = {"metadata": {"name": old.name, "labels": old.labels}, "addressType": old.address_type}
            plain |= {"endpoints": _plain(old.endpoints), "ports": _plain(old.ports), **changed}
            found[action.name] = decode(plain, EndpointSlice)
        elif isinstance(action, Delete):
            del found[action.name]
    return list(found.values())


def _plain(items: Any) -> list[Any]:
    import msgspec

    return [msgspec.json.decode(msgspec.json.encode(item)) for item in items or ()]


def _slices(
    a_service: Service,
    pods: Sequence[Pod],
    before: Sequence[EndpointSlice] = (),
    nodes: Mapping[str, Any] | None = None,
) -> list[EndpointSlice]:
    return _applied(endpointslice.reconcile(a_service, pods, nodes or {}, before), before)


def _pods(count: int) -> list[Pod]:
    return [a_pod(f"p{n:03}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(count)]


def test_three_hundred_pods_fill_three_slices() -> None:
    assert sorted(len(s.endpoints or ()) for s in _slices(a_service(), _pods(300))) == [100, 100, 100]


def test_one_pod_that_flips_changes_one_slice() -> None:
    pods = _pods(300)
    before = _slices(a_service(), pods)
    pods[150] = a_pod("p150", "10.0.0.151", ready=False)

    actions = endpointslice.reconcile(a_service(), pods, {}, before)

    assert [type(action) for action in actions] == [Patch]
    unready = [e for s in _applied(actions, before) for e in s.endpoints or () if not e.conditions.ready]
    assert [e.target_ref.name for e in unready if e.target_ref] == ["p150"]


def test_nothing_is_written_when_nothing_changed() -> None:
    before = _slices(a_service(), _pods(7))

    assert endpointslice.reconcile(a_service(), list(reversed(_pods(7))), {}, before) == []


def test_a_new_pod_joins_the_slice_that_has_room() -> None:
    before = _slices(a_service(), _pods(150))

    after = _slices(a_service(), _pods(151), before)

    assert sorted(len(s.endpoints or ()) for s in after) == [51, 100]


def test_replaced_pods_stay_in_the_slice_that_is_edited_anyway() -> None:
    before = _slices(a_service(), _pods(200))
    pods = [*_pods(200)[1:], a_pod("fresh", "10.0.9.9")]

    actions = endpointslice.reconcile(a_service(), pods, {}, before)

    assert [type(action) for action in actions] == [Patch]


def test_selector_that_matches_nothing_has_one_empty_slice() -> None:
    (only,) = _slices(a_service(), [])

    assert (only.endpoints, only.ports) == ((), ())
    assert only.labels["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    assert endpointslice.reconcile(a_service(), [], {}, [only]) == []


def test_slice_that_loses_its_last_pod_becomes_the_empty_one() -> None:
    before = _slices(a_service(), _pods(1))

    actions = endpointslice.reconcile(a_service(), [], {}, before)

    assert [type(action) for action in actions] == [Patch]
    assert _applied(actions, before)[0].endpoints == ()


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"selector": None}, id="no selector"),
        pytest.param({"type": "ExternalName"}, id="external name"),
    ],
)
def test_services_that_somebody_else_fills_are_left_alone(spec: dict[str, Any]) -> None:
    assert endpointslice.reconcile(a_service(**spec), _pods(1), {}, []) == []


@pytest.mark.parametrize(
    ("ready", "deleting", "publish", "expected"),
    [
        pytest.param(True, False, False, (True, True, False), id="a ready Pod"),
        pytest.param(False, False, False, (False, False, False), id="not ready"),
        pytest.param(True, True, False, (False, True, True), id="terminating but still serving"),
        pytest.param(False, True, False, (False, False, True), id="terminating"),
        pytest.param(False, False, True, (True, False, False), id="published although not ready"),
        pytest.param(True, True, True, (True, True, True), id="published although terminating"),
    ],
)
def test_conditions_of_an_endpoint(ready: bool, deleting: bool, publish: bool, expected: tuple[bool, ...]) -> None:
    meta = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}
    pods = [a_pod("p", "10.0.0.1", ready=ready, metadata=meta)]

    (only,) = _slices(a_service(publishNotReadyAddresses=publish), pods)

    found = (only.endpoints or ())[0].conditions
    assert (found.ready, found.serving, found.terminating) == expected


def test_named_target_ports_that_differ_per_pod_make_a_slice_each() -> None:
    def one(name: str, address: str, port: int) -> Pod:
        ports = [{"name": "http", "containerPort": port}]
        return a_pod(name, address, containers=[{"name": "main", "ports": ports}])

    named = a_service(ports=[{"port": 80, "targetPort": "http"}])
    found = _slices(named, [one("a", "10.0.0.1", 8080), one("b", "10.0.0.2", 9090), one("c", "10.0.0.3", 8080)])

    assert {(s.ports or ())[0].port: len(s.endpoints or ()) for s in found} == {8080: 2, 9090: 1}


def test_headless_service_without_ports_lists_its_pods() -> None:
    (only,) = _slices(a_service(clusterIP="None", ports=[]), _pods(2))

    assert (len(only.endpoints or ()), only.ports) == (2, ())
    assert only.labels["service.kubernetes.io/headless"] == ""


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param({"hostname": "db-0", "subdomain": "web"}, "db-0", id="subdomain is the Service"),
        pytest.param({"hostname": "db-0", "subdomain": "other"}, None, id="subdomain is another Service"),
        pytest.param({"hostname": "db-0"}, None, id="no subdomain"),
    ],
)
def test_hostname_of_an_endpoint(parts: dict[str, str], expected: str | None) -> None:
    (only,) = _slices(a_service(), [a_pod("p", "10.0.0.1", **parts)])

    assert (only.endpoints or ())[0].hostname == expected


def test_dual_stack_service_has_slices_of_both_families() -> None:
    both = a_pod("p", status={"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})

    found = _slices(a_service(ipFamilies=["IPv4", "IPv6"]), [both])

    assert {s.address_type: (s.endpoints or ())[0].addresses for s in found} == {
        "IPv4": ("10.0.0.1",),
        "IPv6": ("fd00::1",),
    }


def test_endpoint_says_its_node_and_zone() -> None:
    nodes = {"n1": a_node("n1", zone="east")}

    (only,) = _slices(a_service(), [a_pod("p", "10.0.0.1", node="n1")], nodes=nodes)

    found = (only.endpoints or ())[0]
    assert (found.node_name, found.zone) == ("n1", "east")


def test_labels_of_the_service_are_followed() -> None:
    before = _slices(a_service(), _pods(1))
    labelled = a_service(metadata={"labels": {"team": "red"}})

    (action,) = endpointslice.reconcile(labelled, _pods(1), {}, before)

    assert isinstance(action, Patch)
    assert action.patch["metadata"]["labels"] == {"team": "red"}
    assert "endpoints" not in action.patch


def test_trigger_time_is_when_the_pod_changed() -> None:
    times = endpointslice.TriggerTimes()
    first = times.newest(a_service(), [a_pod("p", "10.0.0.1")])

    assert first == "2026-01-01T12:00:00Z"
    assert times.newest(a_service(), [a_pod("p", "10.0.0.1")]) == ""


def test_endpoints_keep_ready_and_not_ready_apart_and_drop_the_terminating() -> None:
    gone = a_pod("gone", "10.0.0.3", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    pods = [a_pod("b", "10.0.0.2"), a_pod("a", "10.0.0.1"), a_pod("c", "10.0.0.4", ready=False), gone]

    (subset,) = endpoints.subsets(a_service(), pods)

    assert [a.ip for a in subset.addresses or ()] == ["10.0.0.1", "10.0.0.2"]
    assert [a.ip for a in subset.not_ready_addresses or ()] == ["10.0.0.4"]


def test_endpoints_beyond_a_thousand_are_cut() -> None:
    wanted, truncated = endpoints.truncate(endpoints.subsets(a_service(), _pods(1001)))

    assert truncated
    assert sum(len(subset.addresses or ()) for subset in wanted) == 1000


async def test_services_and_pods_come_and_go() -> None:
    client = FakeClient()
    async with running(controllers.run(client)):
        await client.create(SERVICES, service(), "shop")
        await client.create(PODS, pod("p", "10.0.0.1"), "shop")
        await settled(client)
        (found,) = (await client.list(ENDPOINTSLICES)).items
        older = await client.get(ENDPOINTS, "web", "shop")
        writes = len(client.writes)
        await client.patch(PODS, "p", {"metadata": {"annotations": {"x": "y"}}}, "shop")
        await settled(client)
        idle = len(client.writes) - writes
        await client.delete(SERVICES, "web", "shop")
        await settled(client)

    assert found["endpoints"][0]["addresses"] == ["10.0.0.1"]
    assert older["subsets"][0]["addresses"][0]["ip"] == "10.0.0.1"
    assert idle == 1
    assert (await client.list(ENDPOINTSLICES)).items == (await client.list(ENDPOINTS)).items == []


async def test_deleted_slice_comes_back() -> None:
    client = FakeClient()
    async with running(controllers.run(client)):
        await client.create(SERVICES, service(), "shop")
        await settled(client)
        (found,) = (await client.list(ENDPOINTSLICES)).items
        await client.delete(ENDPOINTSLICES, found["metadata"]["name"], "shop")
        await settled(client)

    assert len((await client.list(ENDPOINTSLICES)).items) == 1


async def test_hand_made_endpoints_are_mirrored_until_told_otherwise() -> None:
    client = FakeClient()
    subsets = [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}], "ports": [{"port": 80}]}]
    async with running(controllers.run(client)):
        await client.create(SERVICES, service(selector=None), "shop")
        await client.create(ENDPOINTS, {"metadata": {"name": "web"}, "subsets": subsets}, "shop")
        await settled(client)
        (mirror,) = (await client.list(ENDPOINTSLICES)).items
        await client.patch(ENDPOINTS, "web", {"subsets": [{**subsets[0], "addresses": [{"ip": "192.0.2.7"}]}]}, "shop")
        await settled(client)
        (changed,) = (await client.list(ENDPOINTSLICES)).items
        label = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        await client.patch(ENDPOINTS, "web", {"metadata": {"labels": label}}, "shop")
        await settled(client)

    assert Counter(e["addresses"][0] for e in mirror["endpoints"]) == {"192.0.2.1": 1, "192.0.2.2": 1}
    assert [e["addresses"][0] for e in changed["endpoints"]] == ["192.0.2.7"]
    assert mirror["metadata"]["name"] == changed["metadata"]["name"]
    assert (await client.list(ENDPOINTSLICES)).items == []
