"""What the running kube-proxy tells and hears besides rules: its HTTP ports, Events, ServiceCIDRs."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from netemu.model.meta import decode
from netemu.model.objects import Node, ServiceCIDR
from netemu.proxy.services import Family
from tests.kernel.proxy_bed import CLIENT, NODE, NODE_OUTSIDE, Api, build, destroy, in_ns, proxy, sh, talk
from tests.kernel.test_proxy_packets import http
from tests.unit.proxy_world import endpoint_slice, service

BOTH = (Family.IPV4, Family.IPV6)


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build(1)
    try:
        yield
    finally:
        destroy()


def api(**fields: object) -> Api:
    made = Api()
    made.put(decode({"metadata": {"name": "test-node"}}, Node))
    made.put(service(**fields))  # type: ignore[arg-type]
    made.put(endpoint_slice("default/web", [("10.180.0.1", "test-node")]))
    return made


def cidr(name: str, *networks: str) -> ServiceCIDR:
    return decode({"metadata": {"name": name}, "spec": {"cidrs": networks}}, ServiceCIDR)


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(look):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # the kernel has no event for this


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
async def test_pages(mode: str, tmp_path: Path) -> None:
    async with proxy(api(), tmp_path, mode=mode, families=BOTH):
        get = partial(http, NODE, "127.0.0.1", 10249)
        paths = ("/proxyMode", "/configz", "/metrics", "/healthz", "/debug/pprof/")
        told, configz, metrics, ok, profiles = [await asyncio.to_thread(get, path) for path in paths]
        health = [await asyncio.to_thread(http, CLIENT, NODE_OUTSIDE, 10256, path) for path in ("/healthz", "/livez")]
        by_ipv6 = await asyncio.to_thread(http, NODE, "::1", 10256, "/livez")

    assert (told[2], ok[2], profiles[0], by_ipv6[0]) == (mode, "ok", 404, 200)
    assert json.loads(configz[2])["kubeproxy.config.k8s.io"]["mode"] == mode
    for family in BOTH:
        assert f'sync_proxy_rules_duration_seconds_count{{ip_family="{family.value}"}} 1' in metrics[2]
    for code, headers, body in health:
        said = json.loads(body)
        assert (code, headers["X-Content-Type-Options"], said["healthy"]) == (200, "nosniff", True)
        assert {name: one["healthy"] for name, one in said["status"].items()} == {"IPv4": True, "IPv6": True}


async def test_programming_is_measured_from_the_change_that_caused_it(tmp_path: Path) -> None:
    served = api()
    async with proxy(served, tmp_path) as server:
        piece = endpoint_slice("default/web", [])
        changed = {"endpoints.kubernetes.io/last-change-trigger-time": "2999-01-01T00:00:00Z"}
        await server.until(
            endpoint_slices=served.put(replace(piece, metadata=replace(piece.metadata, annotations=changed)))
        )
        _, _, body = await asyncio.to_thread(http, NODE, "127.0.0.1", 10249, "/metrics")

    assert 'kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"} 1' in body


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
async def test_local_policies_without_endpoints_here_are_counted(mode: str, tmp_path: Path) -> None:
    served = api()
    local = {"type": "NodePort", "node_ports": {"http": 30080}, "internal_policy": "Local", "external_policy": "Local"}
    served.put(service("default/lonely", "172.30.0.11", **local))  # type: ignore[arg-type]
    served.put(service("default/empty", "172.30.0.12", **{**local, "node_ports": {"http": 30081}}))  # type: ignore[arg-type]
    served.put(endpoint_slice("default/lonely", [("10.180.9.9", "node-b")]))
    async with proxy(served, tmp_path, mode=mode):
        _, _, body = await asyncio.to_thread(http, NODE, "127.0.0.1", 10249, "/metrics")

    for policy in ("internal", "external"):
        labels = f'ip_family="IPv4",traffic_policy="{policy}"'
        assert f"kubeproxy_sync_proxy_rules_no_local_endpoints_total{{{labels}}} 1" in body


async def test_a_health_check_port_that_is_taken_is_told_and_tried_again(tmp_path: Path) -> None:
    served = api(type="LoadBalancer", external_policy="Local", ingress=["1.2.3.4"], health=31000)
    with in_ns(NODE, lambda: socket.create_server(("0.0.0.0", 31000))):
        async with proxy(served, tmp_path) as server:
            await until(lambda: any(e["reason"] == "FailedToStartServiceHealthcheck" for e in served.events))
    async with proxy(served, tmp_path) as server:
        await server.until(endpoint_slices=served.put(endpoint_slice("default/web", [("10.180.0.9", "test-node")])))
        await until(lambda: _code(31000) == 200)

    (event,) = [e for e in served.events if e["reason"] == "FailedToStartServiceHealthcheck"]
    assert (event["involvedObject"]["namespace"], event["involvedObject"]["name"]) == ("default", "web")
    assert "listen on 0.0.0.0:31000 in" in event["message"]
    assert [e["involvedObject"]["name"] for e in served.events if e["reason"] == "Starting"] == ["test-node"] * 2


def _code(port: int) -> int:
    try:
        return http(NODE, "127.0.0.1", port, "/")[0]
    except OSError:
        return 0


async def test_the_networks_of_service_cidrs_are_those_of_cluster_ips(tmp_path: Path) -> None:
    served = api()
    served.put(cidr("kubernetes", "172.30.0.0/16", "fd00:172::/112"))
    async with proxy(served, tmp_path, mode="nftables", families=BOTH):
        first = [dropped(family) for family in ("ip", "ip6")]
        silent = await asyncio.to_thread(_fails, "172.30.9.9", 80)
        served.put(cidr("more", "10.99.0.0/24", "172.30.128.0/17", "nonsense"))
        await until(lambda: dropped("ip") != first[0])
        second = dropped("ip")
        served.drop(cidr("more"))
        served.drop(cidr("kubernetes"))
        await until(lambda: not dropped("ip") and not dropped("ip6"))

    assert first == [{"172.30.0.0/16"}, {"fd00:172::/112"}]
    assert second == {"172.30.0.0/16", "10.99.0.0/24"}
    assert silent is TimeoutError


def dropped(family: str) -> set[str]:
    """The networks in which addresses of no Service lead nowhere."""
    listed = sh(NODE, "nft", "list", "chain", family, "kube-proxy", "cluster-ips-check")
    return set(re.findall(r"[\w.:]+/\d+", listed))


def _fails(to: str, port: int) -> type[BaseException]:
    try:
        talk(CLIENT, to, port)
    except OSError as error:
        return type(error)
    raise AssertionError(f"somebody answers at {to}")


async def test_service_cidrs_are_not_asked_for_where_a_gate_says_so(tmp_path: Path) -> None:
    served = api()
    served.put(cidr("kubernetes", "172.30.0.0/16"))
    async with proxy(served, tmp_path, mode="nftables", featureGates={"MultiCIDRServiceAllocator": False}):
        assert dropped("ip") == set()
