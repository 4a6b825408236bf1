"""What addresses and ports are called."""

from __future__ import annotations

import pytest

from netemu.model.meta import ObjectMeta
from netemu.model.objects import (
    LoadBalancerIngress,
    LoadBalancerStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)
from netemu.observe.names import CLIENT, NODE, POD, Names, Party, ServicePortName, names_of
from netemu.observe.service_ports import Via

WEB = Service(
    metadata=ObjectMeta(name="web", namespace="shop"),
    spec=ServiceSpec(
        type="LoadBalancer",
        cluster_ip="10.96.0.20",
        cluster_ips=("10.96.0.20", "fd00:10:96::20"),
        ip_families=("IPv4", "IPv6"),
        external_ips=("198.51.100.7", "10.244.1.5"),
        ports=(ServicePort(name="http", port=80, node_port=30080), ServicePort(name="dns", port=53, protocol="UDP")),
    ),
    status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=(LoadBalancerIngress(ip="172.18.255.1"),))),
)
HEADLESS = Service(metadata=ObjectMeta(name="db", namespace="shop"), spec=ServiceSpec(cluster_ip="None"))
PARTIES = (
    ("172.18.0.2", Party(POD, "kube-system/host", "worker")),
    ("172.18.0.2", Party(NODE, "worker")),
    ("10.244.1.5", Party(POD, "shop/web-1", "worker")),
    ("fd00:10:244::5", Party(POD, "shop/web-1", "worker")),
    ("203.0.113.10", Party(CLIENT, "laptop")),
)


@pytest.fixture
def names() -> Names:
    return names_of(PARTIES, [WEB, HEADLESS])


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("10.244.1.5", "shop/web-1"),
        ("fd00:10:244::5", "shop/web-1"),
        ("172.18.0.2", "node/worker"),
        ("203.0.113.10", "client/laptop"),
        ("10.96.0.20", "service/shop/web"),
        ("fd00:10:96::20", "service/shop/web"),
        ("198.51.100.7", "service/shop/web"),
        ("172.18.255.1", "service/shop/web"),
        ("192.0.2.1", "192.0.2.1"),
        ("None", "None"),
    ],
)
def test_an_address_has_the_name_of_its_owner(names: Names, address: str, text: str) -> None:
    assert names.text(address) == text


@pytest.mark.parametrize(
    ("protocol", "address", "port", "via"),
    [
        ("tcp", "10.96.0.20", 80, "cluster IP"),
        ("TCP", "fd00:10:96::20", 80, "cluster IP"),
        ("tcp", "198.51.100.7", 80, "external IP"),
        ("tcp", "172.18.255.1", 80, "load balancer IP"),
        ("tcp", "172.18.0.2", 30080, "node port"),
        ("udp", "172.18.0.2", 30080, ""),
        ("tcp", "203.0.113.10", 30080, ""),
        ("tcp", "10.96.0.20", 81, ""),
        ("udp", "10.96.0.20", 80, ""),
    ],
)
def test_a_service_port_is_known_by_all_its_ways(
    names: Names, protocol: str, address: str, port: int, via: str
) -> None:
    expected = ServicePortName("shop/web", 80, "http", Via(via)) if via else None

    assert names.service_port(protocol, address, port) == expected


@pytest.mark.parametrize(
    ("protocol", "address", "port", "text"),
    [
        ("tcp", "172.18.0.2", 30080, "service/shop/web:80"),
        ("tcp", "172.18.0.2", 10250, "node/worker:10250"),
        ("udp", "10.244.1.5", 53, "service/shop/web:53"),
        ("tcp", "10.244.1.5", 8080, "shop/web-1:8080"),
        ("icmp", "10.244.1.5", 0, "shop/web-1"),
        ("tcp", "192.0.2.1", 443, "192.0.2.1:443"),
        ("tcp", "2001:db8::1", 443, "[2001:db8::1]:443"),
        ("icmpv6", "2001:db8::1", 0, "2001:db8::1"),
    ],
)
def test_an_endpoint_is_a_name_and_a_port(names: Names, protocol: str, address: str, port: int, text: str) -> None:
    assert names.endpoint(protocol, address, port) == text
