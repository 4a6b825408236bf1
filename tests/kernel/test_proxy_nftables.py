"""nftables mode and changes of mode on a real kernel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from netemu.kernel.nftables import NftNetlink
from netemu.model.errors import UserError
from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Node
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.modes import mode_of
from netemu.proxy.nftables_mode import base_rules
from netemu.proxy.nftables_programmer import NftablesProgrammer
from netemu.proxy.server import ProxyServer
from netemu.proxy.services import Family
from tests.kernel.proxy_bed import (
    CLIENT,
    CLIENT_IP,
    NODE,
    NODE_IP,
    NODE_OUTSIDE,
    Api,
    ask,
    build,
    configuration,
    destroy,
    echoes,
    in_ns,
    proxy,
    sh,
    talk,
    who_answers,
)  # fmt: skip
from tests.unit.golden_worlds import NAMES, Golden
from tests.unit.nft_world import OLDER_TABLE, WORLD_NODE, blocks, dumped, world_table
from tests.unit.proxy_world import endpoint_slice, service

SERVICE = service(type="NodePort", node_ports={"http": 30080})
VIP = "172.30.0.10"


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build(3)
    try:
        yield
    finally:
        destroy()


def slices(*indexes: int) -> EndpointSlice:
    return endpoint_slice("default/web", [(f"10.180.0.{index}", "test-node") for index in indexes])


def node(mode: str = "") -> Node:
    annotations = {"netemu.dev/proxy-mode": mode} if mode else {}
    status = {"addresses": [{"type": "InternalIP", "address": NODE_OUTSIDE}]}
    return decode({"metadata": {"name": "test-node", "annotations": annotations}, "status": status}, Node)


def api(*indexes: int) -> Api:
    made = Api()
    made.put(node())
    made.put(SERVICE)
    made.put(slices(*indexes))
    return made


async def test_packets_reach_endpoints_and_only_those_that_are_there(tmp_path: Path) -> None:
    served = api(1, 2, 3)
    with echoes(3):
        async with proxy(served, tmp_path, mode="nftables") as running:
            three = await asyncio.to_thread(who_answers, CLIENT, NODE_OUTSIDE, 30080)
            vip = await asyncio.to_thread(talk, CLIENT, VIP, 80)
            await running.until(endpoint_slices=served.put(slices(2)))
            one = await asyncio.to_thread(who_answers, CLIENT, NODE_OUTSIDE, 30080)
            await running.until(endpoint_slices=served.put(slices()))
            with pytest.raises(ConnectionRefusedError):
                await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)

    assert set(three) == {"10.180.0.1", "10.180.0.2", "10.180.0.3"}
    assert (set(one), vip[1]) == ({"10.180.0.2"}, "10.180.0.254")


async def test_a_restart_with_nothing_changed_changes_nothing(tmp_path: Path) -> None:
    served = api(1, 2)
    async with proxy(served, tmp_path, mode="nftables"):
        pass
    before = await generation()
    async with proxy(served, tmp_path, mode="nftables"):
        pass

    assert await generation() == before


@pytest.mark.parametrize("piece", [1500, 3])
async def test_the_table_of_an_older_version_becomes_that_of_this_one(piece: int) -> None:
    """1.35 had a chain for each endpoint, and one that marks; what it left is in force until it is replaced."""
    sh(NODE, "nft", "-f", str(OLDER_TABLE))
    now = [0.0]
    base = base_rules(KubeProxyConfiguration())
    programmer = NftablesProgrammer(NftNetlink(NODE), base, clock=lambda: now[0], piece=piece)
    try:
        first = await programmer.program(world_table(), WORLD_NODE, None)
        now[0] += first.again
        await programmer.program(world_table(), WORLD_NODE, ())
        intact = await programmer.intact()
    finally:
        programmer.close()

    assert blocks(sh(NODE, "nft", "list", "table", "ip", "kube-proxy")) == dumped()
    assert intact


@pytest.mark.parametrize("name", NAMES)
async def test_other_golden_worlds_are_what_the_kernel_lists(name: str) -> None:
    golden = Golden(name, "nftables")
    programmer = NftablesProgrammer(NftNetlink(NODE), base_rules(golden.config))
    try:
        await programmer.program(golden.table(), golden.node(), None)
    finally:
        programmer.close()

    family = "ip6" if golden.family is Family.IPV6 else "ip"
    assert blocks(sh(NODE, "nft", "list", "table", family, "kube-proxy")) == blocks(golden.text)
    sh(NODE, "nft", "-c", "-f", str(golden.path))


async def test_the_table_comes_back_after_somebody_removed_it(tmp_path: Path) -> None:
    served = api(1)
    with echoes(1):
        async with proxy(served, tmp_path, mode="nftables", nftables={"syncPeriod": "100ms", "minSyncPeriod": "1ms"}):
            sh(NODE, "nft", "flush", "ruleset")
            answer = await _eventually(lambda: talk(CLIENT, NODE_OUTSIDE, 30080))

    assert answer[0] == "10.180.0.1"


async def test_start_removes_the_rules_of_iptables_mode(tmp_path: Path) -> None:
    served = api(1)
    async with proxy(served, tmp_path):
        pass
    async with proxy(served, tmp_path, mode="nftables"):
        rules = await _until(lambda: sh(NODE, "iptables-save", "-t", "nat"), lambda text: "KUBE-SVC" not in text)

    assert "KUBE-SERVICES" not in rules


async def test_start_in_iptables_mode_removes_the_table(tmp_path: Path) -> None:
    served = api(1)
    async with proxy(served, tmp_path, mode="nftables"):
        pass
    async with proxy(served, tmp_path):
        tables = await _until(lambda: sh(NODE, "nft", "list", "tables"), lambda text: "kube-proxy" not in text)

    assert "kube-proxy" not in tables


async def test_established_connections_survive_changes_of_mode(tmp_path: Path) -> None:
    served = api(1, 2)
    with echoes(2):
        async with _annotated(served, tmp_path) as running:
            with in_ns(CLIENT, lambda: _connected(NODE_OUTSIDE, 30080)) as connection:
                first = await asyncio.to_thread(ask, connection)
                seen = []
                for mode in ("nftables", "iptables", "nftables"):
                    served.put(node(mode))
                    await _until(lambda: running.mode, mode.__eq__)
                    seen.append(await asyncio.to_thread(ask, connection))
                    fresh = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
                    assert fresh[1] != CLIENT_IP

    assert seen == [first] * 3


async def test_an_unknown_mode_is_told_and_changes_nothing(tmp_path: Path) -> None:
    served = api(1)
    async with _annotated(served, tmp_path) as running:
        served.put(node("fast"))
        error = await _until(lambda: running.programmed.error, bool)

    assert (running.mode, "'fast' is none of iptables" in error) == ("iptables", True)


async def test_a_start_in_a_mode_that_cannot_be_had_is_one_in_the_configured_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> NoReturn:
        raise UserError("no IPVS here")

    monkeypatch.setattr(mode_of("ipvs"), "programmer", refuse)
    served = api(1)
    served.put(node("ipvs"))
    with echoes(2):
        async with _annotated(served, tmp_path) as running:
            refused, mode = running.programmed.error, running.mode
            await running.until(endpoint_slices=served.put(slices(2)))
            answer = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
            revision = served.put(node())
            await _until(lambda: running.decided, revision.__eq__)
            mended = running.programmed.error

    assert (mode, refused, mended) == ("iptables", "mode ipvs not taken: no IPVS here", "")
    assert answer[0] == "10.180.0.2"


async def test_a_second_proxy_in_the_namespace_refuses(tmp_path: Path) -> None:
    async with proxy(api(1), tmp_path):
        second = ProxyServer(api(1), configuration(), node_name="test-node", netns=NODE)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="another kube-proxy of netemu runs in network namespace"):
            await second.run()


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
async def test_one_proxy_programs_both_families(tmp_path: Path, mode: str) -> None:
    served = Api()
    served.put(node())
    served.put(service(clusterIPs=[VIP, "fd00:10:96::a"], ipFamilies=["IPv4", "IPv6"]))
    served.put(slices(1))
    served.put(endpoint_slice("default/web", [("fd00:10:244::1", "test-node")], suffix="6", address_type="IPv6"))
    async with proxy(served, tmp_path, mode=mode, families=(Family.IPV6, Family.IPV4)):
        if mode == "nftables":
            four, six = (sh(NODE, "nft", "list", "table", family, "kube-proxy") for family in ("ip", "ip6"))
        else:
            four, six = (sh(NODE, tool, "-t", "nat") for tool in ("iptables-save", "ip6tables-save"))

    assert ("10.180.0.1" in four, "fd00" in four) == (True, False)
    assert ("fd00:10:244::1" in six, "10.180" in six) == (True, False)


@pytest.mark.parametrize(("mode", "elsewhere"), [("iptables", True), ("nftables", False)])
async def test_health_checks_answer_where_node_ports_do(tmp_path: Path, mode: str, elsewhere: bool) -> None:
    served = api(1)
    served.put(service(type="LoadBalancer", external_policy="Local", ingress=["1.2.3.4"], health=31000))
    async with proxy(served, tmp_path, mode=mode):
        reached = await _until(lambda: str(_listens(NODE_OUTSIDE, 31000)), "True".__eq__)
        other = await asyncio.to_thread(_listens, NODE_IP, 31000)

    assert (reached, other) == ("True", elsewhere)


async def generation() -> int:
    """What counts the transactions in the node's namespace."""
    kernel = NftNetlink(NODE)
    try:
        return await kernel.generation()
    finally:
        kernel.close()


def _listens(address: str, port: int) -> bool:
    try:
        in_ns(NODE, partial(socket.create_connection, (address, port), 2)).close()
    except ConnectionRefusedError:
        return False
    return True


def _connected(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), 2)


def _annotated(served: Api, state_dir: Path) -> AbstractAsyncContextManager[ProxyServer]:
    return proxy(served, state_dir, mode_annotation="netemu.dev/proxy-mode")


async def _until(look: Callable[[], str], good: Callable[[str], bool]) -> str:
    async with asyncio.timeout(10):
        while not good(found := await asyncio.to_thread(look)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # the kernel has no event for this
    return found


async def _eventually(work: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.to_thread(work)
            except OSError:
                await asyncio.sleep(0.05)
