"""Several API servers give cluster IPs and node ports at the same time, and never one of them twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from netemu.apiserver.allocation import IPS, NODE_PORTS, Value, values_of
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.errors import Invalid, ServiceUnavailable
from netemu.model.resources import NAMESPACES, SERVICES
from netemu.store.base import OutcomeUnknown
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import NAMESPACE, serving, store

__all__ = ["store"]

_SMALL = "10.96.0.0/27"
"""30 addresses, so that servers that pick at random often pick the same."""
SPEC: Obj = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
_FOLDERS = {IPS: "/registry/ipaddresses/", NODE_PORTS: "/registry/ranges/servicenodeports/"}


@asynccontextmanager
async def two(store: MemoryStore) -> AsyncIterator[tuple[Registry, Registry]]:
    store.shared = True
    async with serving(store, _SMALL) as a, serving(store, _SMALL) as b:
        await a.create(NAMESPACES, NAMESPACE)
        yield a, b


def service(name: str, **spec: Any) -> Obj:
    return {"metadata": {"name": name}, "spec": {**SPEC, "type": "NodePort", **spec}}


async def claims(store: MemoryStore) -> set[Value]:
    """What is claimed in the store."""
    return {
        (kind, item.key.removeprefix(folder))
        for kind, folder in _FOLDERS.items()
        for item in (await store.list(folder)).items
    }


def held(*services: Obj) -> set[Value]:
    return {value for obj in services for value in values_of(obj)}


async def test_two_servers_that_fill_a_range_at_once_give_no_address_twice(store: MemoryStore) -> None:
    async with two(store) as servers:
        made = await asyncio.gather(
            *(servers[number % 2].create(SERVICES, service(f"s{number}"), "shop") for number in range(29))
        )
        for kind in ("clusterIP", "nodePort"):
            values = Counter(obj["spec"].get(kind) or obj["spec"]["ports"][0][kind] for obj in made)
            assert values.most_common(1)[0][1] == 1, kind

        assert await claims(store) == held(*made)


@pytest.mark.parametrize("spec", [{"clusterIP": "10.96.0.9"}, {"ports": [{"port": 80, "nodePort": 30080}]}])
async def test_a_value_that_is_asked_for_of_two_servers_at_once_is_given_once(store: MemoryStore, spec: Obj) -> None:
    async with two(store) as (a, b):
        done = await asyncio.gather(
            a.create(SERVICES, service("a", **spec), "shop"),
            b.create(SERVICES, service("b", **spec), "shop"),
            return_exceptions=True,
        )

        [refused] = [result for result in done if isinstance(result, Invalid)]
        assert "already allocated" in str(refused)
        [made] = [result for result in done if isinstance(result, dict)]
        assert await claims(store) == held(made)


async def test_what_one_server_freed_another_gives(store: MemoryStore) -> None:
    async with two(store) as (a, b):
        first = await a.create(SERVICES, service("a", clusterIP="10.96.0.9"), "shop")
        await b.delete(SERVICES, "a", "shop")

        again = await a.create(SERVICES, service("b", clusterIP="10.96.0.9"), "shop")

        assert again["spec"]["clusterIP"] == first["spec"]["clusterIP"]
        assert await claims(store) == held(again)


async def test_a_change_gives_back_what_it_no_longer_has(store: MemoryStore) -> None:
    async with two(store) as (a, b):
        await a.create(SERVICES, service("a"), "shop")
        changed = await b.patch(SERVICES, "a", {"spec": {"type": "ClusterIP"}}, "shop")

        assert not [value for value in await claims(store) if value[0] == NODE_PORTS]
        assert await claims(store) == held(changed)


async def test_a_refused_write_and_a_dry_run_leave_no_claim(store: MemoryStore) -> None:
    async with two(store) as (a, _):
        made = await a.create(SERVICES, service("a"), "shop")
        before = await claims(store)

        await a.create(SERVICES, service("b"), "shop", dry_run=True)
        store.full = True
        with pytest.raises(ServiceUnavailable):
            await a.create(SERVICES, service("b"), "shop")
        store.full = False

        assert await claims(store) == before == held(made)


@pytest.mark.looptime
async def test_a_claim_that_no_service_has_is_removed_and_a_missing_one_is_made(
    store: MemoryStore, looptime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(store) as (a, _):
        made = await a.create(SERVICES, service("a"), "shop")
        for value in held(made):
            await store.delete(_FOLDERS[value[0]] + value[1])
        create = store.create

        async def lost(key: str, value: bytes) -> int:
            if key.startswith("/registry/services/"):
                raise OutcomeUnknown("nobody tells")
            return await create(key, value)

        monkeypatch.setattr(store, "create", lost)
        with pytest.raises(OutcomeUnknown):
            await a.create(SERVICES, service("b"), "shop")
        monkeypatch.undo()
        await asyncio.sleep(0.1)
        assert len(await claims(store)) == 2
        await asyncio.sleep(181)
        assert held(made) < await claims(store)
        await asyncio.sleep(360)

        assert await claims(store) == held(made)


async def test_a_server_that_is_alone_claims_no_node_ports(store: MemoryStore) -> None:
    async with serving(store) as only:
        await only.create(NAMESPACES, NAMESPACE)
        made = await only.create(SERVICES, service("a"), "shop")

        assert await claims(store) == {(IPS, made["spec"]["clusterIP"])}
