"""ipvs mode on a real kernel: connections through virtual servers, affinity, real servers that leave, restarts."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from netemu.kernel import sysctl
from netemu.kernel.ipset import IpsetNetlink
from netemu.kernel.ipvs import IpvsNetlink, Timeouts
from netemu.proxy.modes import Site, mode_of
from tests.kernel.proxy_bed import (
    CLIENT,
    CLIENT_IP,
    NODE,
    NODE_OUTSIDE,
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
from tests.vm.ipvs_bed import EVERY, HERE, KEY, NODE_PORT, PATIENCE, VIP, api_with, behind, off, proxy, put


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build()
    try:
        yield
    finally:
        destroy()


async def test_every_endpoint_answers_on_every_way_and_sees_the_node(tmp_path: Path) -> None:
    addresses = [(VIP, 80, "tcp"), ("1.2.3.4", 80, "tcp"), (NODE_OUTSIDE, NODE_PORT, "tcp")]
    addresses += [(VIP, 53, "udp"), ("1.2.3.4", 53, "udp"), (NODE_OUTSIDE, 30053, "udp")]
    answers, seen = {}, set()
    with echoes():
        async with proxy(api_with(HERE), tmp_path):
            for to, port, protocol in addresses:
                found = await off(who_answers, CLIENT, to, port, 9, protocol=protocol)
                answers[to, port, protocol] = set(found)
                seen.add((await off(talk, CLIENT, to, port, protocol=protocol))[1])

    assert answers == dict.fromkeys(addresses, EVERY)
    assert seen == {"10.180.0.254"}


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
        async with proxy(api_with(HERE, ranges=[f"{CLIENT_IP}/32"]), tmp_path):
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
            async with asyncio.timeout(PATIENCE):
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
            async with asyncio.timeout(PATIENCE):
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
