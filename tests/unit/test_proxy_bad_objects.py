"""Objects of an API server that does not validate, and hints of those that come from newer ones."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.proxy.complaints import Complaints
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.endpoints import Endpoint, choose, slice_endpoints
from netemu.proxy.node import detector
from netemu.proxy.services import Family, PortKey, service_ports
from netemu.testing.packets import Packet
from tests.unit.proxy_modes import MODES, Proxy, fate
from tests.unit.proxy_scene import NODE, World
from tests.unit.proxy_world import endpoint_slice, service


def test_one_bad_port_does_not_hide_the_others() -> None:
    ports = service_ports(service(ports={"good": 80, "far": 70000, "odd": "53/DCCP"}), Family.IPV4)

    assert [key.port for key in ports] == ["good"]


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\nb", "-a", ""])
def test_a_name_that_could_break_out_of_a_rule_is_not_used(name: str) -> None:
    assert service_ports(service(f"default/{name}"), Family.IPV4) == {}
    assert service_ports(service(ports={name or "-": 80}), Family.IPV4) == {}


def test_bad_addresses_and_ranges_are_left_out() -> None:
    (port,) = service_ports(
        service(external_ips=["198.51.100.7", "256.1.1.1"], ingress=["x"], ranges=["10.0.0.0/8", "10.0.0.0/40"]),
        Family.IPV4,
    ).values()

    assert (port.external_ips, port.load_balancer_ips, port.source_ranges) == (("198.51.100.7",), (), ("10.0.0.0/8",))


def test_a_cluster_ip_counts_for_its_own_family_only(caplog: pytest.LogCaptureFixture) -> None:
    swapped = service(ipFamilies=["IPv4", "IPv6"], clusterIPs=["fd00::5", "172.30.0.2"])
    Complaints().look(None, swapped)

    assert [service_ports(swapped, family) for family in Family] == [{}, {}]
    assert caplog.messages == [
        "proxy: Service default/web: clusterIP 'fd00::5' is no IPv4 address; left out",
        "proxy: Service default/web: clusterIP '172.30.0.2' is no IPv6 address; left out",
    ]


def test_bad_pod_cidrs_leave_the_good_one_of_each_family(caplog: pytest.LogCaptureFixture) -> None:
    cidrs = ["garbage/24", "10.180.0.0/99", "10.180.7.1/24", "x::/64", "fd00:7::/64"]
    node: Node = decode({"metadata": {"name": "test-node"}, "spec": {"podCIDRs": cidrs}}, Node)
    config = KubeProxyConfiguration(detect_local_mode="NodeCIDR")
    Complaints().look(None, node)

    assert [detector(config, node, family).network for family in Family] == ["10.180.7.0/24", "fd00:7::/64"]
    told = [f"proxy: Node test-node: podCIDR '{cidr}' is no CIDR; left out" for cidr in (*cidrs[:2], cidrs[3])]
    assert caplog.messages == told


NO_HOSTS = ("0.0.0.0", "127.0.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255", "::", "::1", "ff02::1")


@pytest.mark.parametrize("address", NO_HOSTS)
def test_what_is_no_address_of_one_host_is_nobodys(address: str, caplog: pytest.LogCaptureFixture) -> None:
    family, good = (Family.IPV6, "fd00::7") if ":" in address else (Family.IPV4, "198.51.100.7")
    outside = service(ip=good, external_ips=[address, good])
    bad, piece = service(ip=address), endpoint_slice("default/web", [(address, "n")], address_type=family.value)
    for obj in (outside, bad, piece):
        Complaints().look(None, obj)

    (port,) = service_ports(outside, family).values()
    assert (port.external_ips, service_ports(bad, family)) == ((good,), {})
    assert not any(slice_endpoints(piece, family, "n").values())
    what = [text.split(" is no host's address (")[0].rpartition(": ")[2] for text in caplog.messages]
    assert what == [f"externalIP '{address}'", f"clusterIP '{address}'", f"endpoint '{address}'"]


@pytest.mark.parametrize(
    "address", ["1.0.0.0", "169.254.1.1", "223.255.255.255", "240.0.0.1", "ff::1", "fe80::1", "::2"]
)
def test_any_other_address_may_be_a_hosts(address: str) -> None:
    family = Family.IPV6 if ":" in address else Family.IPV4
    piece = endpoint_slice("default/web", [(address, "n")], address_type=family.value)

    assert len(service_ports(service(ip=address), family)) == 1
    assert [e.ip for found in slice_endpoints(piece, family, "n").values() for e in found] == [address]


def test_longer_names_than_kubernetes_has_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    longest, longer = "n" * 63, "n" * 64
    good, bad = service(f"{longest}/{longest}", ports={longest: 80, longer: 81}), service(f"{longer}/{longer}")
    for obj in (good, bad):
        Complaints().look(None, obj)

    assert [key.port for key in service_ports(good, Family.IPV4)] == [longest]
    assert service_ports(bad, Family.IPV4) == {}
    assert len(caplog.messages) == 3
    assert all(f"'{longer}' is no name of at most 63 letters" in text for text in caplog.messages)


def test_a_load_balancer_may_be_on_the_machine_itself_but_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    made = service(ingress=["127.0.0.1", "0.0.0.0", "224.0.0.1"])
    Complaints().look(None, made)

    assert [port.load_balancer_ips for port in service_ports(made, Family.IPV4).values()] == [("127.0.0.1",)]
    assert [text.split("'")[1] for text in caplog.messages] == ["0.0.0.0", "224.0.0.1"]


BAD_WORLD = World(
    (
        service(type="LoadBalancer", ingress=["0.0.0.0", "255.255.255.255"], external_ips=["127.0.0.1", "224.0.0.1"]),
        endpoint_slice("default/web", [(ip, NODE.name) for ip in ("10.180.0.1", *NO_HOSTS)]),
        service("default/swapped", ipFamilies=["IPv4", "IPv6"], clusterIPs=["fd00::5", "172.30.0.2"]),
        service("default/own", ip="127.0.0.1"),
        endpoint_slice("default/own", [("10.180.0.2", NODE.name)]),
        service("n" * 200 + "/" + "n" * 200, ip="172.30.0.3", ports={"n" * 100: 80}),
    )
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("packet", "verdict"),
    [
        pytest.param(Packet("203.0.113.9", "172.30.0.10", 80), "dnat", id="to a good Service"),
        pytest.param(Packet("127.0.0.1", "127.0.0.1", 80, interface=""), "accept", id="of the node to itself"),
        pytest.param(Packet("127.0.0.1", "127.0.0.1", 22, interface=""), "accept", id="on another port"),
    ],
)
async def test_bad_objects_change_nothing_for_others(mode: str, packet: Packet, verdict: str) -> None:
    found = await fate(mode, BAD_WORLD, packet)

    assert (found.verdict, set(found.destinations)) == (verdict, {"10.180.0.1:8080"} if verdict == "dnat" else set())


def everything_on(name: str, address: str) -> World:
    """A Service and its endpoint, of that name everywhere, with all features whose rules have names in them."""
    key, port = f"{name}/{name}", {name: 8080}
    outside: dict[str, Any] = {"external_ips": ["198.51.100.7"], "ingress": ["198.51.100.8"], "ranges": ["10.0.0.0/8"]}
    made = service(
        key, type="LoadBalancer", ports={name: 80}, node_ports={name: 30080}, affinity=60, external_policy="Local",
        health=31000, **outside,
    )  # fmt: skip
    return World((made, endpoint_slice(key, [(address, NODE.name)], port)))


@pytest.mark.parametrize("mode", MODES)
async def test_rules_with_the_longest_names_are_kept_as_they_are_written(mode: str) -> None:
    proxy = Proxy(mode, world := everything_on("n" * 63, "10.180.0.1"), Family.IPV4)
    await proxy.show(world)

    assert (await proxy.resync()).chains == 0


@pytest.mark.parametrize("zone", ["eth0", "x\n-A INPUT -j DROP"])
def test_an_address_with_a_zone_is_no_address(zone: str) -> None:
    address = f"fe80::1%{zone}"
    (port,) = service_ports(service(external_ips=[address], ingress=[address]), Family.IPV4).values()
    piece = endpoint_slice("default/web", [(address, "n")], address_type="IPv6")

    assert service_ports(service(ip=address), Family.IPV6) == {}
    assert (port.external_ips, port.load_balancer_ips) == ((), ())
    assert not any(slice_endpoints(piece, Family.IPV6, "n").values())


@pytest.mark.parametrize(("seconds", "kept"), [(-5, 0), (0, 0), (1, 1), (86400, 86400), (86401, 0)])
def test_an_affinity_that_no_tool_takes_is_none(seconds: int, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    made: Service = decode(
        {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "clusterIP": "172.30.0.10",
                "ports": [{"port": 80}],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
            },
        },
        Service,
    )
    Complaints().look(None, made)

    (port,) = service_ports(made, Family.IPV4).values()
    assert (port.affinity_seconds, len(caplog.messages)) == (kept, 0 if kept else 1)


def test_null_is_what_is_not_there_and_the_rest_counts() -> None:
    made: Service = decode(
        {
            "metadata": {"name": "web", "namespace": "default", "labels": None},
            "spec": {
                "clusterIP": "172.30.0.10",
                "externalIPs": None,
                "ports": [{"port": 80, "nodePort": None, "name": None}, {"name": "none"}],
            },
            "status": None,
        },
        Service,
    )
    piece: EndpointSlice = decode(
        {
            "metadata": {"name": "x", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "", "port": 80}],
            "endpoints": [{"addresses": None}, {}, {"addresses": ["10.0.0.1"], "conditions": None}],
        },
        EndpointSlice,
    )

    assert [(key.port, port.port) for key, port in service_ports(made, Family.IPV4).items()] == [("", 80)]
    assert [e.ip for found in slice_endpoints(piece, Family.IPV4, "n").values() for e in found] == ["10.0.0.1"]


def test_bad_endpoints_are_left_out() -> None:
    piece = endpoint_slice(
        "default/web", [("10.0.0.1", "n"), ("nonsense", "n"), ("fd00::1", "n")], {"http": 8080, "x": 99999}
    )

    assert [e.ip for found in slice_endpoints(piece, Family.IPV4, "n").values() for e in found] == ["10.0.0.1"]


def test_what_is_left_out_is_told_once_with_the_name_of_the_object(caplog: pytest.LogCaptureFixture) -> None:
    complaints, bad = Complaints(), service(external_ips=["256.1.1.1"])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            complaints.look(None, bad)
        complaints.look(None, endpoint_slice("default/web", [("nonsense", "n")]))

    assert caplog.messages == [
        "proxy: Service default/web: externalIP '256.1.1.1' is no address; left out",
        "proxy: EndpointSlice default/web-1: endpoint 'nonsense' is no IPv4 address; left out",
    ]


def test_it_is_told_again_after_it_was_good(caplog: pytest.LogCaptureFixture) -> None:
    complaints, bad = Complaints(), service(external_ips=["256.1.1.1"])
    for obj in (bad, service(), bad):
        complaints.look(None, obj)

    assert len(caplog.messages) == 2


HERE = Endpoint("10.0.0.1", 80, node_hints=frozenset({"n"}), zone_hints=frozenset({"a"}))
NEAR = Endpoint("10.0.0.2", 80, node_hints=frozenset({"m"}), zone_hints=frozenset({"a"}))
FAR = Endpoint("10.0.0.3", 80, node_hints=frozenset({"o"}), zone_hints=frozenset({"b"}))


@pytest.mark.parametrize(
    ("endpoints", "node", "chosen"),
    [
        pytest.param((HERE, NEAR, FAR), "n", ["10.0.0.1"], id="the node comes first"),
        pytest.param((NEAR, FAR), "n", ["10.0.0.2"], id="then the zone"),
        pytest.param((FAR,), "n", ["10.0.0.3"], id="then everybody"),
        pytest.param((HERE, Endpoint("10.0.0.4", 80)), "n", ["10.0.0.1", "10.0.0.4"], id="only if all have hints"),
    ],
)
def test_traffic_distribution_keeps_traffic_near(endpoints: tuple[Endpoint, ...], node: str, chosen: list[str]) -> None:
    asking: Service = service(trafficDistribution="PreferSameNode")
    port = service_ports(asking, Family.IPV4)[PortKey("default", "web", "http", "TCP")]

    found = choose(port, endpoints, {"topology.kubernetes.io/zone": "a"}, node)

    assert [e.ip for e in found.cluster] == chosen


def test_node_hints_are_read_from_slices() -> None:
    piece = decode(
        {
            "metadata": {"name": "x", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "hints": {"forNodes": [{"name": "n"}], "forZones": [{"name": "a"}]}}
            ],
        },
        EndpointSlice,
    )

    ((endpoint,),) = slice_endpoints(piece, Family.IPV4, "n").values()
    assert (set(endpoint.node_hints), set(endpoint.zone_hints)) == ({"n"}, {"a"})
