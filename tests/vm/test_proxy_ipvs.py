"""ipvs mode on a real kernel: connections through virtual servers, affinity, real servers that leave, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from netemu.kernel import sysctl
from netemu.kernel.ipset import IpsetNetlink
from netemu.kernel.ipvs import Destination, IpvsNetlink, ServerKey, Timeouts
from netemu.proxy.modes import Site, mode_of
from netemu.proxy.server import ProxyServer
from tests.kernel.proxy_bed import (
    CLIENT,
    CLIENT_IP,
    NODE,
    NODE_OUTSIDE,
    Api,
    ask,
    build,
    configuration,
    destroy,
    echoes,
    endpoint_ns,
    in_ns,
    sh,
    talk,
    who_answers,
)
from tests.unit.proxy_world import endpoint_slice, service

T = TypeVar("T")
VIP, NODE_PORT = "172.30.0.10", 30080
KEY = ServerKey("tcp", VIP, 80)
WEB: dict[str, Any] = {
    "ip": VIP,
    "type": "LoadBalancer",
    "ports": {"http": 80, "dns": "53/UDP"},
    "node_ports": {"http": NODE_PORT, "dns": 30053},
    "ingress": ["1.2.3.4"],
}
PORTS: dict[str, int | str] = {"http": 8080, "dns": "8080/UDP"}
HERE = [(f"10.180.0.{i}", "test-node") for i in (1, 2, 3)]
EVERY = {ip for ip, _ in HERE}
_PATIENCE = 120.0
"""Seconds for what takes a blink of an eye where the processor is a real one."""


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build()
    try:
        yield
    finally:
        destroy()


async def off(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Blocking calls in a thread: the proxy works meanwhile."""
    return await asyncio.to_thread(function, *args, **kwargs)


@contextlib.asynccontextmanager
async def proxy(api: Api, state_dir: Path, **fields: Any) -> AsyncIterator[ProxyServer]:
    """A running kube-proxy in ipvs mode, past its first sync."""
    config = configuration(mode="ipvs", **fields)
    server = ProxyServer(api, config, node_name="test-node", netns=NODE, state_dir=state_dir)  # type: ignore[arg-type]
    task = asyncio.create_task(server.run())
    waiting = asyncio.create_task(server.until())
    await asyncio.wait({task, waiting}, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    try:
        assert waiting.done(), f"no first sync: {server.programmed}"
        yield server
    finally:
        waiting.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def api_with(at: Sequence[Sequence[str]], **fields: Any) -> Api:
    api = Api()
    api.put(service(**{**WEB, **fields}))
    api.put(endpoint_slice("default/web", at, PORTS))
    return api


async def put(api: Api, server: ProxyServer, at: Sequence[Sequence[str]]) -> None:
    """These endpoints, programmed."""
    async with asyncio.timeout(_PATIENCE):
        await server.until(endpoint_slices=api.put(endpoint_slice("default/web", at, PORTS)))


def behind(key: ServerKey) -> dict[str, Destination]:
    """The real servers behind a virtual server of the node."""
    kernel = IpvsNetlink(NODE)
    try:
        return {each.address: each for each in kernel.destinations(key)}
    finally:
        kernel.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("to", "port"), [(VIP, 0), ("1.2.3.4", 0), (NODE_OUTSIDE, 30000)])
async def test_every_endpoint_answers_and_sees_the_node(tmp_path: Path, to: str, port: int, protocol: str) -> None:
    number = {"tcp": (80, NODE_PORT), "udp": (53, 30053)}[protocol][port > 0]
    with echoes():
        async with proxy(api_with(HERE), tmp_path):
            answers = await off(who_answers, CLIENT, to, number, 9, protocol=protocol)
            _, seen = await off(talk, CLIENT, to, number, protocol=protocol)

    assert answers.keys() == EVERY
    assert seen == "10.180.0.254"


async def test_a_pod_keeps_its_address_and_reaches_itself_masqueraded(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE[1:2]), tmp_path):
            from_another = await off(talk, endpoint_ns(1), VIP, 80)
            from_itself = await off(talk, endpoint_ns(2), VIP, 80)
            from_the_node = await off(talk, NODE, VIP, 80)

    assert from_another == ("10.180.0.2", "10.180.0.1")
    assert from_itself == ("10.180.0.2", "10.180.0.254")
    assert from_the_node == ("10.180.0.2", "10.180.0.254")


async def test_external_local_keeps_the_clients_address(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE, external_policy="Local"), tmp_path):
            _, seen = await off(talk, CLIENT, NODE_OUTSIDE, NODE_PORT)

    assert seen == CLIENT_IP


@pytest.mark.parametrize(("at", "port"), [([], 80), (HERE, 81), (HERE, 22)])
async def test_no_endpoint_and_no_such_port_refuse(tmp_path: Path, at: Sequence[Sequence[str]], port: int) -> None:
    listener = in_ns(NODE, lambda: socket.create_server(("0.0.0.0", 22)))
    with listener, echoes():
        async with proxy(api_with(at), tmp_path):
            with pytest.raises(ConnectionRefusedError):
                await off(talk, CLIENT, VIP, port)


async def test_source_ranges_hold_for_clients_and_for_the_node_itself(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE, ranges=["203.0.113.0/24"]), tmp_path):
            answers = await off(who_answers, CLIENT, "1.2.3.4", 80, 3)
            with pytest.raises(TimeoutError):
                await off(talk, NODE, "1.2.3.4", 80)
            with pytest.raises(TimeoutError):
                await off(talk, endpoint_ns(1), "1.2.3.4", 80)

    assert set(answers) <= EVERY


async def test_affinity_keeps_a_client_until_its_endpoint_goes(tmp_path: Path) -> None:
    with echoes():
        api = api_with(HERE, affinity=600)
        async with proxy(api, tmp_path) as server:
            before = await off(who_answers, CLIENT, VIP, 80, 10)
            (first,) = before
            await put(api, server, [at for at in HERE if at[0] != first])
            after = await off(who_answers, CLIENT, VIP, 80, 10)

    assert len(after) == 1
    assert first not in after


async def test_a_real_server_that_leaves_keeps_its_connections_until_they_end(tmp_path: Path) -> None:
    with echoes():
        api = api_with(HERE[:1])
        async with proxy(api, tmp_path, ipvs={"syncPeriod": "2s"}) as server:
            with in_ns(CLIENT, lambda: socket.create_connection((VIP, 80), 10)) as old:
                await put(api, server, HERE[1:2])
                established = await off(ask, old)
                fresh = await off(who_answers, CLIENT, VIP, 80, 5)
                weights = {ip: each.weight for ip, each in behind(KEY).items()}
                # A reset ends the connection at once, where a farewell would be remembered for two minutes.
                old.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            async with asyncio.timeout(_PATIENCE):
                while "10.180.0.1" in behind(KEY):  # noqa: ASYNC110
                    await asyncio.sleep(0.5)  # the kernel has no event for this

    assert established[0] == "10.180.0.1"
    assert set(fresh) == {"10.180.0.2"}
    assert weights == {"10.180.0.1": 0, "10.180.0.2": 1}


async def test_a_restart_writes_no_rule_again_and_keeps_connections(tmp_path: Path) -> None:
    with echoes():
        api = api_with(HERE)
        async with proxy(api, tmp_path):
            old = in_ns(CLIENT, lambda: socket.create_connection((VIP, 80), 10))
            before = counted()
        with old:
            async with proxy(api, tmp_path):
                after = counted()
                answer = await off(ask, old)

    # A chain that is written again counts from 0.
    assert any(before.values())
    assert all(after[rule] >= packets for rule, packets in before.items())
    assert answer[0] in EVERY


def counted() -> dict[str, int]:
    """The node's rules, and how many packets each has seen."""
    lines = [line.partition("] ") for line in sh(NODE, "iptables-save", "-c").splitlines() if line.startswith("[")]
    return {rule: int(counters[1:].partition(":")[0]) for counters, _, rule in lines}


async def test_what_somebody_removed_comes_back(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE), tmp_path, ipvs={"syncPeriod": "2s"}) as server:
            sh(NODE, "ip", "link", "del", "kube-ipvs0")
            sh(NODE, "iptables", "-t", "nat", "-F", "KUBE-SERVICES")
            sh(NODE, "ipset", "flush", "KUBE-CLUSTER-IP")
            before = server.programmed.syncs
            async with asyncio.timeout(_PATIENCE):
                while server.programmed.syncs < before + 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            answers = await off(who_answers, CLIENT, VIP, 80, 6)

    assert answers.keys() == EVERY


async def test_settings_reach_the_kernel(tmp_path: Path) -> None:
    fields = {"scheduler": "lc", "tcpTimeout": "100s", "udpTimeout": "20s", "strictARP": True}
    async with proxy(api_with(HERE), tmp_path, ipvs=fields):
        kernel = IpvsNetlink(NODE)
        try:
            timeouts, schedulers = kernel.timeouts(), {server.scheduler for server in kernel.servers()}
        finally:
            kernel.close()
        names = ("vs/conntrack", "vs/expire_nodest_conn", "vs/expire_quiescent_template", "ip_forward")
        values = [sysctl.read(f"net/ipv4/{name}", NODE) for name in names]
        arp = [sysctl.read(f"net/ipv4/conf/all/{name}", NODE) for name in ("arp_ignore", "arp_announce")]

    assert timeouts == Timeouts(100, timeouts.tcp_fin, 20)
    assert schedulers == {"lc"}
    assert (values, arp) == (["1"] * 4, ["1", "2"])


async def test_cleanup_leaves_nothing(tmp_path: Path) -> None:
    async with proxy(api_with(HERE), tmp_path):
        pass
    await mode_of("ipvs").cleanup(configuration(mode="ipvs"), Site(NODE, tmp_path / "xtables.lock"))
    kernel, sets = IpvsNetlink(NODE), IpsetNetlink(NODE)
    try:
        left = kernel.servers(), sets.names()
    finally:
        kernel.close()
        sets.close()

    assert left == ([], [])
    assert "KUBE" not in sh(NODE, "iptables-save")
    assert "kube-ipvs0" not in sh(NODE, "ip", "link")
