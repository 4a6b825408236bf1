"""What goes when something else goes: garbage, namespaces; and who gets an address or an account."""

from __future__ import annotations

from typing import Any

import pytest

from netemu import controllers
from netemu.controllers import garbage, servicelb
from netemu.controllers.actions import Delete, Patch, Say
from netemu.model.meta import KubeObject, decode
from netemu.model.resources import (
    CONFIGMAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICASETS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
)
from netemu.testing.client import FakeClient
from netemu.testing.cluster import kubelet, running, settled, until
from tests.unit.objects_world import a_service, deployment, service

pytestmark = pytest.mark.looptime  # pauses cost nothing, and a wait for what never comes fails at once


def _owned(*owners: str, name: str = "x", **meta: Any) -> garbage.Item:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": o, "uid": o, "blockOwnerDeletion": True} for o in owners
    ]
    obj = {"metadata": {"name": name, "namespace": "shop", "uid": name, "ownerReferences": references, **meta}}
    return garbage.Item(CONFIGMAPS, decode(obj, KubeObject))


@pytest.mark.parametrize(
    ("owners", "kind"),
    [
        pytest.param({"a": "solid"}, None, id="its owner is there"),
        pytest.param({"a": "gone"}, Delete, id="its only owner is gone"),
        pytest.param({"a": "gone", "b": "gone"}, Delete, id="all owners are gone"),
        pytest.param({"a": "gone", "b": "solid"}, Patch, id="one of two owners is gone"),
        pytest.param({"a": "waiting"}, Delete, id="its owner waits for it"),
    ],
)
def test_what_happens_to_an_owned_object(owners: dict[str, garbage.OwnerState], kind: type | None) -> None:
    actions = garbage.reconcile(_owned(*owners), owners, [])

    assert [type(action) for action in actions] == ([kind] if kind else [])


def test_foreground_owner_goes_after_what_it_owns() -> None:
    owner = _owned(name="o", deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[garbage.FOREGROUND])

    assert garbage.reconcile(owner, {}, [_owned("o")])[0] == Delete(CONFIGMAPS, "x", "shop", "x", "Foreground")
    (last,) = garbage.reconcile(owner, {}, [])
    assert isinstance(last, Patch)
    assert last.patch["metadata"]["finalizers"] is None


async def _rollout(client: FakeClient) -> None:
    await client.create(DEPLOYMENTS, deployment(replicas=2), "shop")
    await until(client, lambda: sum("podIP" in pod["status"] for pod in client.stored(PODS)) == 2)
    await settled(client)


async def test_deleting_a_deployment_takes_its_replica_sets_and_pods() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await _rollout(client)
        await client.delete(DEPLOYMENTS, "web", "shop", propagation_policy="Background")
        await settled(client)

    assert (client.stored(REPLICASETS), client.stored(PODS)) == ([], [])


async def test_orphaned_pods_stay() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await _rollout(client)
        name = client.stored(REPLICASETS)[0]["metadata"]["name"]
        await client.delete(DEPLOYMENTS, "web", "shop", propagation_policy="Orphan")
        await settled(client)
        await client.delete(REPLICASETS, name, "shop", propagation_policy="Orphan")
        await settled(client)

    assert (client.stored(DEPLOYMENTS), client.stored(REPLICASETS), len(client.stored(PODS))) == ([], [], 2)


async def test_foreground_deletion_ends_with_the_owner() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await _rollout(client)
        await client.delete(DEPLOYMENTS, "web", "shop", propagation_policy="Foreground")
        await settled(client)

    gone = [write[1] for write in client.writes if write[1] in ("pods", "deployments.apps")]
    assert gone[-1] == "deployments.apps"
    assert client.stored(DEPLOYMENTS) == client.stored(PODS) == []


async def test_namespace_is_emptied_and_then_gone() -> None:
    client = FakeClient()
    async with running(controllers.run(client), kubelet(client)):
        await client.create(NAMESPACES, {"metadata": {"name": "shop"}, "spec": {"finalizers": ["kubernetes"]}})
        await client.create(SECRETS, {"metadata": {"name": "key"}}, "shop")
        await client.create(SERVICES, service(), "shop")
        await _rollout(client)
        await client.delete(NAMESPACES, "shop")
        await until(client, lambda: not client.stored(NAMESPACES))

    left = [obj for r in (SECRETS, SERVICES, DEPLOYMENTS, PODS, SERVICEACCOUNTS) for obj in client.stored(r)]
    assert left == []


async def test_every_namespace_has_its_default_account() -> None:
    client = FakeClient()
    async with running(controllers.run(client)):
        await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
        await settled(client)
        await client.delete(SERVICEACCOUNTS, "default", "shop")
        await settled(client)

    assert [account["metadata"]["name"] for account in client.stored(SERVICEACCOUNTS)] == ["default"]


_POOLS = ("192.0.2.0/29", "2001:db8::/125")
_DUAL = {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}


def _has(*addresses: str) -> dict[str, Any]:
    return {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}


def _given(*services: dict[str, Any]) -> dict[str, Any]:
    """Name -> addresses, None for one that is taken away, the reason for one refused."""
    typed = []
    for number, parts in enumerate(services):
        status = parts.pop("status", {})
        one = service(f"s{number}", **{"type": "LoadBalancer", **parts})
        typed.append(decode({**one, "status": status}, type(a_service())))
    found: dict[str, Any] = {}
    for action in servicelb.reconcile(typed, _POOLS):
        if isinstance(action, Patch):
            ingress = action.patch["status"]["loadBalancer"]["ingress"]
            found[action.name] = ",".join(item["ip"] for item in ingress) if ingress else None
        elif isinstance(action, Say):
            found[action.about.name] = action.reason
    return found


@pytest.mark.parametrize(
    ("services", "given"),
    [
        pytest.param([{}, {}], {"s0": "192.0.2.1", "s1": "192.0.2.2"}, id="each its own"),
        pytest.param([{}, {"status": _has("192.0.2.1")}], {"s0": "192.0.2.2"}, id="what somebody has stays his"),
        pytest.param([{"loadBalancerIP": "192.0.2.5"}], {"s0": "192.0.2.5"}, id="the wanted one"),
        pytest.param(
            [{"status": _has("192.0.2.5")}, {"loadBalancerIP": "192.0.2.5"}],
            {"s1": "SyncLoadBalancerFailed"},
            id="the wanted one is taken",
        ),
        pytest.param([{"loadBalancerIP": "198.51.100.1"}], {"s0": "SyncLoadBalancerFailed"}, id="not of the pool"),
        pytest.param([_DUAL, {}], {"s0": "192.0.2.1,2001:db8::1", "s1": "192.0.2.2"}, id="one of each family"),
        pytest.param(
            [{**_DUAL, "status": _has("192.0.2.3")}], {"s0": "192.0.2.3,2001:db8::1"}, id="one more for the new family"
        ),
        pytest.param([{"status": _has("192.0.2.3", "2001:db8::1")}], {"s0": "192.0.2.3"}, id="a family fewer"),
        pytest.param([{**_DUAL, "status": _has("192.0.2.3", "2001:db8::1")}], {}, id="both are there"),
        pytest.param(
            [{**_DUAL, "loadBalancerIP": "2001:db8::5"}], {"s0": "192.0.2.1,2001:db8::5"}, id="one family's is wanted"
        ),
        pytest.param([{"type": "ClusterIP", "status": _has("192.0.2.1")}], {"s0": None}, id="no longer one"),
        pytest.param([{"loadBalancerClass": "example.com/own"}], {}, id="somebody else's class"),
        pytest.param(
            [{}] * 7,
            {**{f"s{n}": f"192.0.2.{n + 1}" for n in range(6)}, "s6": "SyncLoadBalancerFailed"},
            id="none left",
        ),
    ],
)
def test_load_balancer_addresses(services: list[dict[str, Any]], given: dict[str, Any]) -> None:
    assert _given(*(dict(parts) for parts in services)) == given
