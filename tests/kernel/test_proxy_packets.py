"""Real packets through real rules of the running proxy."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from netemu.model.errors import KernelError
from netemu.model.meta import decode
from netemu.model.objects import Node
from netemu.proxy.server import ProxyServer
from tests.kernel.proxy_bed import (
    CLIENT,
    CLIENT_IP,
    NODE,
    NODE_IP,
    NODE_OUTSIDE,
    Api,
    ask,
    build,
    destroy,
    echoes,
    endpoint_ns,
    in_ns,
    proxy,
    sh,
    talk,
    who_answers,
)
from tests.unit.proxy_world import endpoint_slice, service

T = TypeVar("T")
VIP, NODE_PORT = "172.30.0.10", 30080
WEB_FIELDS: dict[str, Any] = {
    "ip": VIP,
    "type": "NodePort",
    "ports": {"http": 80, "dns": "53/UDP"},
    "node_ports": {"http": NODE_PORT, "dns": 30053},
}
WEB = service(**WEB_FIELDS)
HERE = [(f"10.180.0.{i}", "test-node") for i in (1, 2, 3)]
PORTS: dict[str, int | str] = {"http": 8080, "dns": "8080/UDP"}


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


async def put(api: Api, server: ProxyServer, *at: tuple[str, str]) -> None:
    """The endpoints of WEB are these from now on, and the rules say so."""
    revision = api.put(endpoint_slice("default/web", at, PORTS))
    async with asyncio.timeout(10):
        await server.until(endpoint_slices=revision)


def api_with(*at: tuple[str, str], **fields: Any) -> Api:
    api = Api()
    api.put(service(**{**WEB_FIELDS, **fields}))
    api.put(endpoint_slice("default/web", at, PORTS))
    return api


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    "kind", ["cluster IP from outside", "node port", "cluster IP from the node", "node port on loopback"]
)
async def test_every_endpoint_answers(protocol: str, kind: str, tmp_path: Path) -> None:
    namespace = CLIENT if "outside" in kind or kind == "node port" else NODE
    to = {"node port": NODE_IP, "node port on loopback": "127.0.0.1"}.get(kind, VIP)
    port = {"tcp": 80, "udp": 53} if to == VIP else {"tcp": NODE_PORT, "udp": 30053}
    if kind == "node port":
        sh(CLIENT, "ip", "route", "add", NODE_IP, "via", NODE_OUTSIDE)

    with echoes():
        async with proxy(api_with(*HERE), tmp_path):
            answers = await off(who_answers, namespace, to, port[protocol], 60, protocol=protocol)

    assert set(answers) == {"10.180.0.1", "10.180.0.2", "10.180.0.3"}


async def test_outside_traffic_is_masqueraded_to_the_node(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(*HERE), tmp_path):
            by_node_port = await off(talk, CLIENT, NODE_OUTSIDE, NODE_PORT)
            by_cluster_ip = await off(talk, CLIENT, VIP, 80)

    assert by_node_port[1] == by_cluster_ip[1] == "10.180.0.254"


async def test_pods_keep_their_source(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE[0]), tmp_path):
            answer = await off(talk, endpoint_ns(2), VIP, 80)

    assert answer == ("10.180.0.1", "10.180.0.2")


async def test_local_policy_keeps_the_clients_source(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE[0], ("10.180.9.9", "node-b"), external_policy="Local"), tmp_path):
            answer = await off(talk, CLIENT, NODE_OUTSIDE, NODE_PORT)

    assert answer == ("10.180.0.1", CLIENT_IP)


async def test_local_policy_without_local_endpoint_is_silent(tmp_path: Path) -> None:
    async with proxy(api_with(("10.180.9.9", "node-b"), external_policy="Local"), tmp_path):
        with pytest.raises(TimeoutError):
            await off(talk, CLIENT, NODE_OUTSIDE, NODE_PORT)


async def test_pod_reaches_itself_through_its_service(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE[0]), tmp_path):
            answer = await off(talk, endpoint_ns(1), VIP, 80)

    assert answer == ("10.180.0.1", "10.180.0.254")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("to", "port"), [(VIP, 80), (NODE_OUTSIDE, NODE_PORT)], ids=["cluster IP", "node port"])
async def test_no_endpoints_means_connection_refused(to: str, port: int, protocol: str, tmp_path: Path) -> None:
    if protocol == "udp":
        port = {80: 53, NODE_PORT: 30053}[port]

    async with proxy(api_with(), tmp_path):
        with pytest.raises(ConnectionRefusedError):
            await off(talk, CLIENT, to, port, protocol=protocol)


async def test_affinity_keeps_a_client_on_one_endpoint(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(*HERE, affinity=600), tmp_path):
            answers = await off(who_answers, CLIENT, VIP, 80, 30)

    assert len(answers) == 1


async def test_affine_client_moves_when_its_endpoint_is_gone(tmp_path: Path) -> None:
    with echoes():
        api = api_with(*HERE, affinity=600)
        async with proxy(api, tmp_path) as server:
            (first, _) = await off(talk, CLIENT, VIP, 80)
            await put(api, server, *(at for at in HERE if at[0] != first))
            answers = await off(who_answers, CLIENT, VIP, 80, 20)

    assert len(answers) == 1
    assert first not in answers


async def test_removed_endpoint_keeps_its_connections_and_gets_no_new_ones(tmp_path: Path) -> None:
    with echoes():
        api = api_with(HERE[0])
        async with proxy(api, tmp_path) as server:
            with in_ns(CLIENT, lambda: socket.create_connection((VIP, 80), 2)) as old:
                await put(api, server, HERE[1])
                established = await off(ask, old)
                fresh = await off(who_answers, CLIENT, VIP, 80, 10)

    assert established[0] == "10.180.0.1"
    assert set(fresh) == {"10.180.0.2"}


@pytest.mark.parametrize(("to", "port"), [(VIP, 53), (NODE_OUTSIDE, 30053)], ids=["cluster IP", "node port"])
async def test_udp_sender_with_a_fixed_port_follows_a_replaced_endpoint(to: str, port: int, tmp_path: Path) -> None:
    with echoes():
        api = api_with(HERE[0])
        async with proxy(api, tmp_path) as server:
            before = await off(talk, CLIENT, to, port, protocol="udp", source_port=4444)
            await put(api, server, HERE[1])
            after = await off(talk, CLIENT, to, port, protocol="udp", source_port=4444)

    assert (before[0], after[0]) == ("10.180.0.1", "10.180.0.2")


async def test_udp_sender_is_refused_once_the_last_endpoint_is_gone(tmp_path: Path) -> None:
    with echoes():
        api = api_with(HERE[0])
        async with proxy(api, tmp_path) as server:
            await off(talk, CLIENT, VIP, 53, protocol="udp", source_port=4444)
            await put(api, server)
            with pytest.raises(ConnectionRefusedError):
                await off(talk, CLIENT, VIP, 53, protocol="udp", source_port=4444)


async def test_deleted_service_leaves_no_udp_flow(tmp_path: Path) -> None:
    with echoes():
        api = api_with(HERE[0])
        async with proxy(api, tmp_path) as server:
            await off(talk, CLIENT, VIP, 53, protocol="udp", source_port=4444)
            await server.until(services=api.drop(WEB))
            left = await off(sh, NODE, "conntrack", "-L", "-p", "udp", "--orig-dst", VIP)

    assert left == ""


async def test_change_of_one_service_leaves_counters_of_others_alone(tmp_path: Path) -> None:
    with echoes():
        api = api_with(*HERE)
        api.put(service("default/other", "172.30.0.11"))
        api.put(endpoint_slice("default/other", HERE[:1]))
        async with proxy(api, tmp_path) as server:
            await off(who_answers, CLIENT, VIP, 80, 10)
            before = counters("default/web:http")
            revision = api.put(endpoint_slice("default/other", HERE[:2]))
            await server.until(endpoint_slices=revision)
            after = counters("default/web:http")

    assert before == after
    assert any(not line.startswith("[0:0]") for line in after)


def counters(comment: str) -> list[str]:
    return [line for line in sh(NODE, "iptables-save", "-c", "-t", "nat").splitlines() if comment in line]


async def test_foreign_rules_stay(tmp_path: Path) -> None:
    sh(
        NODE,
        "iptables-restore",
        "--noflush",
        text="*filter\n:MINE - [0:0]\n-A FORWARD -j MINE\n-A MINE -p icmp -j DROP\nCOMMIT\n",
    )

    async with proxy(api_with(*HERE), tmp_path) as server:
        during = sh(NODE, "iptables-save", "-t", "filter").splitlines()
        await server.cleanup()
    after = sh(NODE, "iptables-save", "-t", "filter").splitlines()

    for dump in (during, after):
        assert {"-A FORWARD -j MINE", "-A MINE -p icmp -j DROP"} <= set(dump)


async def test_cleanup_leaves_only_what_the_kubelet_shares(tmp_path: Path) -> None:
    async with proxy(api_with(*HERE), tmp_path) as server:
        await server.cleanup()

    chains = {line.split()[0] for line in sh(NODE, "iptables-save").splitlines() if line.startswith(":KUBE")}
    assert chains == {":KUBE-MARK-MASQ", ":KUBE-FIREWALL", ":KUBE-PROXY-CANARY"}


async def test_cleanup_tells_what_it_could_not_remove(tmp_path: Path) -> None:
    foreign = ("OUTPUT", "-d", "198.51.100.1", "-g", "KUBE-SERVICES")
    async with proxy(api_with(*HERE), tmp_path) as server:
        sh(NODE, "iptables", "-t", "nat", "-A", *foreign)
        with pytest.raises(KernelError, match="KUBE-SERVICES"):
            await server.cleanup()

        sh(NODE, "iptables", "-t", "nat", "-D", *foreign)
        await server.cleanup()

    assert ":KUBE-SERVICES" not in sh(NODE, "iptables-save")


async def test_restart_changes_nothing_when_nothing_changed(tmp_path: Path) -> None:
    with echoes():
        api = api_with(*HERE, affinity=600)
        async with proxy(api, tmp_path):
            await off(who_answers, CLIENT, VIP, 80, 5)
            before = sh(NODE, "iptables-save", "-c", "-t", "nat")
        async with proxy(api, tmp_path):
            after = sh(NODE, "iptables-save", "-c", "-t", "nat")

    assert rules(before) == rules(after)
    assert "--to-destination 10.180.0.1:8080" in after


def rules(dump: str) -> list[str]:
    return [line for line in dump.splitlines() if not line.startswith("#")]


async def test_flushed_tables_are_programmed_again(tmp_path: Path) -> None:
    with echoes():
        periods = {"minSyncPeriod": "1ms", "syncPeriod": "200ms"}
        async with proxy(api_with(*HERE), tmp_path, iptables=periods) as server:
            syncs = server.programmed.syncs
            for table in ("mangle", "nat", "filter"):
                sh(NODE, "iptables", "-t", table, "-F")
                sh(NODE, "iptables", "-t", table, "-X")
            async with asyncio.timeout(10):
                while server.programmed.syncs == syncs:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            answer = await off(talk, CLIENT, VIP, 80)

    assert answer[0].startswith("10.180.0.")


def http(namespace: str, to: str, port: int, path: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of a GET."""
    with in_ns(namespace, lambda: socket.create_connection((to, port), 2)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    head, _, body = text.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
async def test_healthy_when_everything_is_programmed(path: str, tmp_path: Path) -> None:
    async with proxy(api_with(*HERE), tmp_path):
        code, headers, body = await off(http, CLIENT, NODE_OUTSIDE, 10256, path)

    assert (code, headers["Content-Type"]) == (200, "application/json")
    assert ("nodeEligible" in json.loads(body)) == (path == "/healthz")


async def test_node_that_is_about_to_go_is_not_eligible(tmp_path: Path) -> None:
    api = api_with(*HERE)
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    api.put(decode({"metadata": {"name": "test-node"}, "spec": {"taints": [taint]}}, Node))

    async with proxy(api, tmp_path):
        healthz = await off(http, CLIENT, NODE_OUTSIDE, 10256, "/healthz")
        livez = await off(http, CLIENT, NODE_OUTSIDE, 10256, "/livez")

    assert (healthz[0], livez[0]) == (503, 200)


async def test_metrics_count_rules_under_upstreams_names(tmp_path: Path) -> None:
    async with proxy(api_with(*HERE), tmp_path):
        code, _, body = await off(http, NODE, "127.0.0.1", 10249, "/metrics")
        mode = await off(http, NODE, "127.0.0.1", 10249, "/proxyMode")
        rules = sum(line.startswith("-A") for line in sh(NODE, "iptables-save", "-t", "nat").splitlines())

    assert (code, mode[2]) == (200, "iptables")
    assert f'kubeproxy_sync_proxy_rules_iptables_total{{ip_family="IPv4",table="nat"}} {rules}' in body
    assert 'kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1' in body


async def test_health_check_node_port_counts_ready_endpoints_here(tmp_path: Path) -> None:
    fields = {"type": "LoadBalancer", "external_policy": "Local", "health": 31000}
    api = api_with(*HERE[:2], ("10.180.9.9", "node-b"), **fields)
    async with proxy(api, tmp_path) as server:
        with_two = await off(http, CLIENT, NODE_OUTSIDE, 31000, "/")
        await put(api, server, ("10.180.9.9", "node-b"))
        await put(api, server, ("10.180.9.8", "node-b"))
        with_none = await off(http, CLIENT, NODE_OUTSIDE, 31000, "/")

    assert (with_two[0], with_two[1]["X-Load-Balancing-Endpoint-Weight"]) == (200, "2")
    assert (with_none[0], json.loads(with_none[2])["localEndpoints"]) == (503, 0)


async def test_loopback_is_guarded_where_node_ports_use_it(tmp_path: Path) -> None:
    async with proxy(api_with(*HERE), tmp_path):
        routed = sh(NODE, "sysctl", "-n", "net.ipv4.conf.all.route_localnet").strip()

    assert routed == "1"
