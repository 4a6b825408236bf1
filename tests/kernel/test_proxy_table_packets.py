"""The packet table with real packets: sent from namespaces, through rules of a running proxy, seen at the far ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from netemu.model.meta import KubeObject
from netemu.model.objects import Service
from netemu.observe.oracle import Settings
from netemu.proxy.config import MODES, parse
from netemu.proxy.server import ProxyServer
from netemu.proxy.services import Family
from netemu.testing.packets import Fate
from tests.kernel.proxy_bed import Api
from tests.kernel.raw_packets import RST
from tests.kernel.table_bed import NODE, Wire, build, destroy
from tests.unit.proxy_scene import (
    DROP,
    HERE,
    NONE,
    OUT,
    A,
    Case,
    To,
    World,
    case,
    configuration,
    in_mode,
    node_object,
)  # fmt: skip
from tests.unit.proxy_table_more import TABLE

pytestmark = pytest.mark.timeout(300)
_PATIENCE = 120.0
"""Seconds for what takes a blink of an eye where the processor is a real one, and has nothing else to do."""


def worlds() -> list[tuple[World, list[Case]]]:
    """Cases by world, worlds of equal settings one after another."""
    grouped: list[tuple[World, list[Case]]] = []
    for one in TABLE:
        known = next((cases for world, cases in grouped if world == one.world), None)
        if known is None:
            grouped.append((one.world, [one]))
        else:
            known.append(one)
    return sorted(grouped, key=lambda pair: repr(pair[0].settings))


@contextlib.asynccontextmanager
async def running(settings: Settings, api: Api, state_dir: Path) -> AsyncIterator[ProxyServer]:
    """The proxy of the node, past its first sync."""
    config = parse(configuration(settings))
    server = ProxyServer(
        api, config, node_name="test-node", netns=NODE, state_dir=state_dir, families=tuple(Family)  # type: ignore[arg-type]
    )  # fmt: skip
    task = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(_PATIENCE):
            await server.until()
        yield server
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def put(api: Api, server: ProxyServer, before: World | None, world: World) -> None:
    """The API holds the objects of `world` and nothing else, and the rules say so."""
    revisions = {"services": "", "endpoint_slices": ""}
    there = {(type(o), o.key) for o in world.objects}
    gone = [o for o in (before.objects if before else ()) if (type(o), o.key) not in there]
    for change, objects in ((api.drop, gone), (api.put, world.objects)):
        for obj in objects:
            revisions[_kind(obj)] = change(obj)
    async with asyncio.timeout(_PATIENCE):
        await server.until(**revisions)


def _kind(obj: KubeObject) -> str:
    return "services" if isinstance(obj, Service) else "endpoint_slices"


async def send_all(mode: str, state_dir: Path) -> dict[str, Fate]:
    """The fate of every packet of the table."""
    fates: dict[str, Fate] = {}
    todo, wire = worlds(), Wire()
    try:
        while todo:
            settings = todo[0][0].settings
            api, before = Api(), None
            api.put(node_object())
            async with running(in_mode(mode, todo[0][0]), api, state_dir) as server:
                while todo and todo[0][0].settings == settings:
                    world, cases = todo.pop(0)
                    await put(api, server, before, world)
                    fates |= await asyncio.to_thread(wire.fates, cases, mode)
                    before = world
                await server.cleanup()
    finally:
        wire.close()
    return fates


# ipvs mode needs a kernel that has IPVS: tests/vm sends the same packets there.
@pytest.fixture(scope="module", params=[mode for mode in MODES if mode != "ipvs"])
def sent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, Fate]]]:
    """Mode, and fates by case: everything is sent once."""
    destroy()
    try:
        build()
        yield request.param, asyncio.run(send_all(request.param, tmp_path_factory.mktemp("state")))
    finally:
        destroy()


@pytest.mark.parametrize("case", [pytest.param(one, id=one.about) for one in TABLE])
def test_packet(sent: tuple[str, dict[str, Fate]], case: Case) -> None:
    mode, fates = sent
    check(case, mode, fates[case.about])


def check(case: Case, mode: str, found: Fate) -> None:
    """Whether the fate is the one that the table says."""
    wanted = case.fates[mode]
    if case.sticky:
        assert (found.verdict, len(found.destinations)) == (wanted.verdict, 1)
        assert found.destinations <= wanted.destinations
        assert found.masquerade == wanted.masquerade
    else:
        assert found == wanted


@pytest.fixture
def bed() -> Iterator[None]:
    destroy()
    try:
        build()
        yield
    finally:
        destroy()


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.usefixtures("bed")
async def test_segment_of_no_connection_is_forwarded_in_nftables_mode_only(mode: str, tmp_path: Path) -> None:
    stray = case("a reset out of the blue", {}, [HERE], OUT, To(A, 8080), DROP, nft=NONE)
    api, wire = Api(), Wire()
    for obj in (node_object(), *stray.world.objects):
        api.put(obj)
    try:
        async with running(in_mode(mode, stray.world), api, tmp_path):
            fates = await asyncio.to_thread(wire.fates, [stray], mode, RST)
    finally:
        wire.close()

    assert fates == {stray.about: stray.fates[mode]}
