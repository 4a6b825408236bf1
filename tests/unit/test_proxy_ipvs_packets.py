"""ipvs mode: where packets go, through the rules, sets and virtual servers that Services and endpoints come to.

The table leans on where this mode differs from the others; what they share stands in the table of all modes.
Sources: a client outside (203.0.113.9), a Pod (10.180.0.200), this node itself (192.168.0.2), and endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from netemu.kernel.ipvs import ServerKey
from netemu.proxy.facts import Detector
from netemu.testing.packets import Fate, Packet
from tests.unit.ipvs_world import programmed, traced
from tests.unit.proxy_world import NODE, endpoint_slice, service

VIP, EXTERNAL, BALANCER, NODE_IP, SECOND_IP = "172.30.0.10", "198.51.100.7", "1.2.3.4", "192.168.0.2", "192.168.7.2"
CLIENT, POD = "203.0.113.9", "10.180.0.200"
A, B, C = "10.180.0.1", "10.180.1.1", "10.180.2.1"
HERE, THERE, FAR = (A, "test-node"), (B, "node-b"), (C, "node-c")

PLAIN: dict[str, Any] = {}
OPEN: dict[str, Any] = {
    "type": "LoadBalancer",
    "node_ports": {"http": 30080},
    "external_ips": [EXTERNAL],
    "ingress": [BALANCER],
}
E_LOCAL = {**OPEN, "external_policy": "Local"}
I_LOCAL = {"internal_policy": "Local"}
BOTH_LOCAL = {**E_LOCAL, **I_LOCAL}
RANGES = {**OPEN, "ranges": ["203.0.113.0/25", " 10.180.0.0/24"]}
NODE_RANGE = {**OPEN, "ranges": ["192.168.0.0/24"]}
ALL_RANGE = {**OPEN, "ranges": ["0.0.0.0/0"]}
UDP = {"ports": {"http": "80/UDP"}, "type": "NodePort", "node_ports": {"http": 30080}}
SCTP = {"ports": {"http": "80/SCTP"}, "type": "NodePort", "node_ports": {"http": 30080}, "external_policy": "Local"}

OUT = {"source": CLIENT}
IN = {"source": POD, "interface": "veth1"}
SELF = {"source": NODE_IP, "interface": ""}
KERNEL = {"source": "", "interface": ""}
LOOP = {"source": "127.0.0.1", "interface": ""}

REJECT, DROP, PASS = Fate("reject"), Fate("drop"), Fate("accept")


def dnat(*ips: str, masquerade: bool = False) -> Fate:
    return Fate("dnat", frozenset(f"{ip}:8080" for ip in ips), masquerade)


def masq(*ips: str) -> Fate:
    return dnat(*ips, masquerade=True)


TO_VIP, TO_EXT, TO_LB, TO_NP = (VIP, 80), (EXTERNAL, 80), (BALANCER, 80), (NODE_IP, 30080)
BOTH = (HERE, THERE)
GONE: tuple[tuple[str, ...], ...] = ()

CASES = [
    # cluster IP
    pytest.param(PLAIN, BOTH, IN, TO_VIP, dnat(A, B), id="a Pod reaches any endpoint of a ClusterIP"),
    pytest.param(PLAIN, BOTH, OUT, TO_VIP, masq(A, B), id="an outside client of a ClusterIP is masqueraded"),
    pytest.param(PLAIN, BOTH, SELF, TO_VIP, masq(A, B), id="the node is masqueraded on its way to a ClusterIP"),
    pytest.param(PLAIN, BOTH, KERNEL, TO_VIP, masq(A, B), id="so it is with the source that the kernel picks"),
    pytest.param(PLAIN, (HERE,), {**IN, "source": A}, TO_VIP, masq(A), id="an endpoint that reaches itself"),
    pytest.param(PLAIN, (THERE,), {**IN, "source": B}, TO_VIP, dnat(B), id="no hairpin entry for endpoints elsewhere"),
    pytest.param(PLAIN, GONE, IN, TO_VIP, REJECT, id="a ClusterIP without endpoints refuses"),
    pytest.param(PLAIN, BOTH, IN, (VIP, 81), REJECT, id="a port that no Service has on a ClusterIP refuses"),
    pytest.param(PLAIN, BOTH, SELF, (VIP, 22), REJECT, id="the host's own ports do not answer on a ClusterIP"),
    pytest.param(PLAIN, BOTH, IN, ("172.30.0.99", 80), PASS, id="an address nobody has is routed on"),
    pytest.param(I_LOCAL, BOTH, IN, TO_VIP, dnat(A), id="internal Local keeps to this node's endpoints"),
    pytest.param(I_LOCAL, (THERE,), IN, TO_VIP, REJECT, id="internal Local without one here, reached only inside"),
    pytest.param(BOTH_LOCAL, (THERE,), IN, TO_VIP, dnat(B), id="internal Local without one here, open to the outside"),
    # node ports
    pytest.param(OPEN, BOTH, OUT, TO_NP, masq(A, B), id="a node port from outside"),
    pytest.param(OPEN, BOTH, OUT, (SECOND_IP, 30080), masq(A, B), id="node ports answer on every address"),
    pytest.param(OPEN, BOTH, SELF, TO_NP, masq(A, B), id="a node port from the node"),
    pytest.param(OPEN, BOTH, LOOP, ("127.0.0.1", 30080), PASS, id="node ports do not answer on loopback"),
    pytest.param(OPEN, BOTH, IN, (VIP, 30080), REJECT, id="node ports do not answer on Service addresses"),
    pytest.param(OPEN, GONE, OUT, TO_NP, REJECT, id="a node port without endpoints refuses"),
    pytest.param(E_LOCAL, BOTH, OUT, TO_NP, dnat(A), id="external Local keeps the source"),
    pytest.param(E_LOCAL, BOTH, IN, TO_NP, dnat(A), id="external Local keeps Pods to this node's endpoints too"),
    pytest.param(E_LOCAL, (THERE,), OUT, TO_NP, dnat(B), id="external Local without one here goes elsewhere"),
    pytest.param(UDP, BOTH, {**OUT, "protocol": "udp"}, TO_NP, masq(A, B), id="a UDP node port"),
    pytest.param(UDP, BOTH, OUT, TO_NP, PASS, id="TCP to a UDP node port is for the host"),
    pytest.param(SCTP, BOTH, {**OUT, "protocol": "sctp"}, TO_NP, dnat(A), id="an SCTP node port, Local"),
    # external and load balancer addresses
    pytest.param(OPEN, BOTH, OUT, TO_EXT, masq(A, B), id="an external IP from outside"),
    pytest.param(OPEN, BOTH, IN, TO_EXT, masq(A, B), id="a Pod is masqueraded on its way to an external IP"),
    pytest.param(E_LOCAL, BOTH, OUT, TO_EXT, dnat(A), id="an external IP with external Local"),
    pytest.param(OPEN, BOTH, OUT, TO_LB, masq(A, B), id="a load balancer from outside"),
    pytest.param(E_LOCAL, BOTH, OUT, TO_LB, dnat(A), id="a load balancer with external Local keeps the source"),
    pytest.param(E_LOCAL, (THERE,), OUT, TO_LB, dnat(B), id="a load balancer with external Local and none here"),
    pytest.param(E_LOCAL, BOTH, SELF, TO_LB, dnat(A), id="the node, to a load balancer with external Local"),
    pytest.param(OPEN, BOTH, OUT, (BALANCER, 22), REJECT, id="other ports of a load balancer's address refuse"),
    # source ranges
    pytest.param(RANGES, BOTH, OUT, TO_LB, masq(A, B), id="a client in a source range"),
    pytest.param(RANGES, BOTH, {"source": "203.0.113.200"}, TO_LB, DROP, id="a client in none"),
    pytest.param(RANGES, BOTH, IN, TO_LB, masq(A, B), id="a Pod in a source range"),
    pytest.param(RANGES, BOTH, {"source": "203.0.113.200"}, TO_NP, masq(A, B), id="source ranges and node ports"),
    pytest.param(RANGES, BOTH, {"source": "203.0.113.200"}, TO_EXT, masq(A, B), id="and external IPs"),
    pytest.param(RANGES, BOTH, KERNEL, TO_LB, DROP, id="this node, in no source range"),
    pytest.param(NODE_RANGE, BOTH, KERNEL, TO_LB, masq(A, B), id="this node, in a source range"),
    pytest.param(NODE_RANGE, BOTH, {"source": BALANCER}, TO_LB, DROP, id="the load balancer's address, from outside"),
    pytest.param(NODE_RANGE, BOTH, OUT, TO_LB, DROP, id="a client outside of the node's range"),
    pytest.param(ALL_RANGE, BOTH, OUT, TO_LB, masq(A, B), id="the range of all addresses"),
    pytest.param(RANGES, GONE, OUT, TO_LB, REJECT, id="a client in a range, no endpoints"),
    pytest.param(RANGES, GONE, {"source": "203.0.113.200"}, TO_LB, DROP, id="a client in no range, no endpoints"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "at", "packet", "to", "fate"), CASES)
async def test_a_packet_meets_its_fate(
    fields: dict[str, Any], at: Sequence[Sequence[str]], packet: dict[str, Any], to: tuple[str, int], fate: Fate
) -> None:
    protocol = str(fields.get("ports", {"http": 80})["http"]).partition("/")[2]
    slices = endpoint_slice("default/web", at, {"http": f"8080/{protocol}" if protocol else 8080})

    assert await traced(Packet(destination=to[0], port=to[1], **packet), service(**fields), slices) == fate


async def test_without_a_detector_only_the_node_is_masqueraded() -> None:
    blind = replace(NODE, detector=Detector())
    objects = service(), endpoint_slice("default/web", BOTH)

    assert await traced(Packet(CLIENT, VIP, 80), *objects, node=blind) == dnat(A, B)
    assert await traced(Packet("", VIP, 80, interface=""), *objects, node=blind) == masq(A, B)


async def test_with_masquerade_all_pods_are_masqueraded_too() -> None:
    objects = service(), endpoint_slice("default/web", BOTH)

    assert await traced(Packet(POD, VIP, 80), *objects, node=replace(NODE, masquerade_all=True)) == masq(A, B)


async def test_node_port_addresses_choose_where_node_ports_answer() -> None:
    node = replace(NODE, node_port_networks=("192.168.7.0/24",))
    objects = service(**OPEN), endpoint_slice("default/web", BOTH)

    assert await traced(Packet(CLIENT, SECOND_IP, 30080), *objects, node=node) == masq(A, B)
    assert await traced(Packet(CLIENT, NODE_IP, 30080), *objects, node=node) == PASS


async def test_an_external_ip_that_the_node_has_is_not_bound_and_keeps_its_other_ports() -> None:
    bed = await programmed(service(external_ips=[SECOND_IP]), endpoint_slice("default/web", BOTH))

    assert SECOND_IP not in bed.bound
    assert bed.view().trace(Packet(CLIENT, SECOND_IP, 80)) == masq(A, B)
    assert bed.view().trace(Packet(CLIENT, SECOND_IP, 22)) == PASS


async def test_a_health_check_node_port_is_let_in() -> None:
    bed = await programmed(service(**E_LOCAL, health=31000), endpoint_slice("default/web", BOTH))

    assert bed.view().trace(Packet(CLIENT, NODE_IP, 31000)) == PASS


async def test_a_remembered_client_stays_with_its_endpoint_on_that_address_only() -> None:
    bed = await programmed(service(**OPEN, affinity=60), endpoint_slice("default/web", BOTH))
    bed.balancer.connect(ServerKey("tcp", VIP, 80), CLIENT, f"{B}:8080")

    assert bed.view(CLIENT).trace(Packet(CLIENT, VIP, 80)) == masq(B)
    assert bed.view(CLIENT).trace(Packet(CLIENT, NODE_IP, 30080)) == masq(A, B)
