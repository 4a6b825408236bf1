"""The IPAddress objects of cluster IPs, and the ServiceCIDRs that they come from."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from netemu.apiserver.keys import key_of
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.errors import AlreadyExists, InternalError, Invalid, ServiceUnavailable
from netemu.model.resources import IPADDRESSES, NAMESPACES, SERVICECIDRS, SERVICES
from netemu.store.sqlite import SqliteStore
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import NAMESPACE, SERVICE, named, registry, serving, store

__all__ = ["registry", "store"]


def service(name: str = "s", **spec: Any) -> Obj:
    obj = named(SERVICE, name)
    return {**obj, "spec": {**obj["spec"], **spec}}


def addresses(registry: Registry) -> dict[str, str]:
    """Each IPAddress and the name in its reference."""
    found = registry.objects(IPADDRESSES)
    return {obj["metadata"]["name"]: obj["spec"]["parentRef"]["name"] for obj in found}


async def cidr(registry: Registry, name: str, *networks: str, ready: str = "True") -> None:
    await registry.create(SERVICECIDRS, {"metadata": {"name": name}, "spec": {"cidrs": list(networks)}})
    condition = {"type": "Ready", "status": ready, "reason": "", "message": "", "lastTransitionTime": None}
    await registry.patch(SERVICECIDRS, name, {"status": {"conditions": [condition]}}, subresource="status")


async def test_a_service_has_an_ipaddress_that_names_it(registry: Registry) -> None:
    made = await registry.create(SERVICES, service(), "shop")

    (address,) = registry.objects(IPADDRESSES)
    assert address["metadata"]["name"] == made["spec"]["clusterIP"]
    assert address["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    assert address["spec"] == {"parentRef": {"resource": "services", "namespace": "shop", "name": "s"}}
    assert address["metadata"]["managedFields"][0]["manager"] == "kube-apiserver"


async def test_the_ipaddress_goes_with_the_service(registry: Registry) -> None:
    await registry.create(SERVICES, service(clusterIP="10.96.0.9"), "shop")
    await registry.delete(SERVICES, "s", "shop")

    assert addresses(registry) == {}
    await registry.create(SERVICES, service("t", clusterIP="10.96.0.9"), "shop")
    assert addresses(registry) == {"10.96.0.9": "t"}


async def test_services_without_an_address_have_none(registry: Registry) -> None:
    await registry.create(SERVICES, service(clusterIP="None"), "shop")
    await registry.create(SERVICES, service("x", type="ExternalName", externalName="a.example"), "shop")

    assert addresses(registry) == {}


async def test_a_service_that_changes_its_type_changes_its_addresses(registry: Registry) -> None:
    await registry.create(SERVICES, service("x", type="ExternalName", externalName="a.example"), "shop")
    await registry.patch(SERVICES, "x", {"spec": {"type": "ClusterIP", "externalName": None}}, "shop")
    assert list(addresses(registry).values()) == ["x"]

    outside = {"type": "ExternalName", "externalName": "a.example", "clusterIP": None, "clusterIPs": None}
    await registry.patch(SERVICES, "x", {"spec": outside}, "shop")
    assert addresses(registry) == {}


async def test_a_dry_run_leaves_nothing(registry: Registry) -> None:
    await registry.create(SERVICES, service(), "shop", dry_run=True)
    kept = await registry.create(SERVICES, service(), "shop")
    await registry.delete(SERVICES, "s", "shop", dry_run=True)

    assert addresses(registry) == {kept["spec"]["clusterIP"]: "s"}


class NoServices(MemoryStore):
    """Refuses Services, as a disk that fills up between two writes."""

    async def create(self, key: str, value: bytes) -> int:
        if key.startswith("/registry/services/"):
            raise ServiceUnavailable("the store cannot serve this: database or disk is full")
        return await super().create(key, value)


async def test_a_write_that_fails_leaves_nothing() -> None:
    store = NoServices()
    async with serving(store) as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        before = store.revision
        with pytest.raises(ServiceUnavailable):
            await registry.create(SERVICES, service(), "shop")

        assert addresses(registry) == {}
        assert store.revision == before + 2  # it was there, and it went
    await store.close()


async def test_two_creations_of_one_name_leave_one_address(registry: Registry) -> None:
    answers = await asyncio.gather(
        *(registry.create(SERVICES, service(), "shop") for _ in range(4)), return_exceptions=True
    )

    assert sum(isinstance(answer, AlreadyExists) for answer in answers) == 3
    made = await registry.get(SERVICES, "s", "shop")
    assert addresses(registry) == {made["spec"]["clusterIP"]: "s"}


async def test_an_address_that_a_user_reserved_is_not_given(registry: Registry) -> None:
    reference = {"resource": "gateways", "group": "acme.io", "name": "g"}
    mine = {"metadata": {"name": "10.96.0.9"}, "spec": {"parentRef": reference}}
    await registry.create(IPADDRESSES, mine)

    with pytest.raises(Invalid, match="provided IP is already allocated"):
        await registry.create(SERVICES, service(clusterIP="10.96.0.9"), "shop")
    assert addresses(registry) == {"10.96.0.9": "g"}


async def test_addresses_come_from_the_service_cidrs_that_are_ready(registry: Registry) -> None:
    await cidr(registry, "kubernetes", "10.96.0.0/30")
    for name in ("a", "b"):
        await registry.create(SERVICES, service(name), "shop")
    with pytest.raises(InternalError, match="range is full"):
        await registry.create(SERVICES, service("c"), "shop")

    await cidr(registry, "late", "10.98.0.0/24", ready="False")
    with pytest.raises(InternalError, match="range is full"):
        await registry.create(SERVICES, service("c"), "shop")
    await cidr(registry, "more", "10.97.0.0/24")
    made = await registry.create(SERVICES, service("c"), "shop")

    assert ip_address(made["spec"]["clusterIP"]) in ip_network("10.97.0.0/24")
    assert (await registry.create(SERVICES, service("d", clusterIP="10.97.0.7"), "shop"))["spec"]["clusterIP"]
    with pytest.raises(Invalid, match=r"The range of valid IPs is 10.96.0.0/30, 10.97.0.0/24"):
        await registry.create(SERVICES, service("e", clusterIP="10.98.0.7"), "shop")


async def test_every_address_of_a_wide_network_can_be_had(store: MemoryStore) -> None:
    async with serving(store, "fd00:10:96::/112") as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        await cidr(registry, "wide", "fd00:97::/64")
        last = await registry.create(SERVICES, service("a", clusterIP="fd00:97::ffff:ffff:ffff:ffff"), "shop")
        picked = await registry.create(SERVICES, service("b"), "shop")

        assert last["spec"]["clusterIPs"] == ["fd00:97::ffff:ffff:ffff:ffff"]
        assert ip_address(picked["spec"]["clusterIP"]) in ip_network("fd00:97::/64")


async def test_a_service_cidr_that_is_going_gives_no_more_addresses(registry: Registry) -> None:
    await cidr(registry, "kubernetes", "10.96.0.0/30")
    await cidr(registry, "more", "10.97.0.0/24")
    await registry.patch(SERVICECIDRS, "more", {"metadata": {"finalizers": ["x.io/y"]}})
    await registry.delete(SERVICECIDRS, "more")

    with pytest.raises(Invalid, match=r"The range of valid IPs is 10.96.0.0/30\b"):
        await registry.create(SERVICES, service(clusterIP="10.97.0.7"), "shop")


# --- what an end in the middle of a write leaves


async def test_a_start_puts_right_what_a_kill_has_left(store: MemoryStore) -> None:
    async with serving(store) as before:
        await before.create(NAMESPACES, NAMESPACE)
        for name, ip in (("a", "10.96.0.7"), ("b", "10.96.0.8"), ("c", "10.96.0.9")):
            await before.create(SERVICES, service(name, clusterIP=ip), "shop")
        reserved = {"metadata": {"name": "10.96.0.99"}, "spec": {"parentRef": {"resource": "x", "name": "mine"}}}
        await before.create(IPADDRESSES, reserved)
    await store.delete(key_of(SERVICES, "shop", "a"))  # before its IPAddress could go
    await store.delete(key_of(IPADDRESSES, "", "10.96.0.8"))  # a store from before there were IPAddresses

    async with serving(store) as after:
        newest = await store.newest()
        await after.list(IPADDRESSES, resource_version=str(newest))
        assert addresses(after) == {"10.96.0.8": "b", "10.96.0.9": "c", "10.96.0.99": "mine"}
        await after.create(SERVICES, service("d", clusterIP="10.96.0.7"), "shop")


_WRITER = """
import asyncio, sys
from pathlib import Path
from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.model.resources import NAMESPACES, SERVICES
from netemu.store.sqlite import SqliteStore

async def main():
    registry = Registry(await SqliteStore.open(Path(sys.argv[1])), Schema.load(), ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    await registry.create(NAMESPACES, {"metadata": {"name": "shop"}})
    async def write(worker):
        number = 0
        while True:
            name = f"s-{worker}-{number}"
            service = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
            made = await registry.create(SERVICES, service, "shop")
            if number % 2:
                await registry.delete(SERVICES, name, "shop")
            else:
                sys.stdout.write(f"{name} {made['spec']['clusterIP']}\\n")
                sys.stdout.flush()
            number += 1
    await asyncio.gather(*(write(worker) for worker in range(8)))

asyncio.run(main())
"""


def killed_while_writing(path: Path) -> dict[str, str]:
    """The Services that a process was told were made and stay, with their addresses, before it was killed."""
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        told = [child.stdout.readline() for _ in range(100)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    child.wait()
    return dict(line.split() for line in told if line.endswith("\n"))


async def test_a_kill_at_any_moment_leaves_each_service_its_own_address(tmp_path: Path) -> None:
    told = await asyncio.to_thread(killed_while_writing, tmp_path / "store.db")

    store = await SqliteStore.open(tmp_path / "store.db")
    async with serving(store) as registry:
        services = {obj["spec"]["clusterIP"]: obj["metadata"]["name"] for obj in registry.objects(SERVICES)}
        assert addresses(registry) == services
        assert {ip: name for name, ip in told.items()}.items() <= services.items()
    await store.close()


async def test_names_of_ipaddresses_are_canonical_and_parents_stay(registry: Registry) -> None:
    spec = {"parentRef": {"resource": "services", "namespace": "shop", "name": "s"}}
    for name, why in (
        ("web", "must be a valid IP address"),
        ("fd00::0:1", 'must be in canonical form \\("fd00::1"\\)'),
    ):
        with pytest.raises(Invalid, match=why):
            await registry.create(IPADDRESSES, {"metadata": {"name": name}, "spec": spec})
    with pytest.raises(Invalid, match=r"spec\.parentRef: Required value"):
        await registry.create(IPADDRESSES, {"metadata": {"name": "10.0.0.1"}, "spec": {}})
    with pytest.raises(Invalid, match=r"spec\.parentRef\.name: Required value"):
        await registry.create(IPADDRESSES, {"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"resource": "x"}}})
    await registry.create(IPADDRESSES, {"metadata": {"name": "10.0.0.1"}, "spec": spec})

    with pytest.raises(Invalid, match=r"spec\.parentRef: Invalid value: .*: field is immutable"):
        await registry.patch(IPADDRESSES, "10.0.0.1", {"spec": {"parentRef": {"name": "t"}}})
