"""Where packets go: Services and endpoints in, the fate of a packet out, through the rules that the fake holds.

Sources: a client outside (203.0.113.9), a Pod (10.180.0.200), this node itself (192.168.0.2), and endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from netemu.proxy.facts import Detector, NodeFacts
from netemu.testing.packets import Fate, Node, Packet
from tests.unit.proxy_world import BASE, NODE, Proxy, endpoint_slice, service

VIP, EXTERNAL, BALANCER, NODE_IP = "172.30.0.10", "198.51.100.7", "1.2.3.4", "192.168.0.2"
CLIENT, POD = "203.0.113.9", "10.180.0.200"
A, B, C = "10.180.0.1", "10.180.1.1", "10.180.2.1"
HERE, THERE, FAR = (A, "test-node"), (B, "node-b"), (C, "node-c")
ENDING_HERE, ENDING_THERE, SILENT = (*HERE, "ending"), (*THERE, "ending"), (*FAR, "silent")
ENDED = (*HERE, "ended")

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
UDP = {"ports": {"http": "80/UDP"}, "type": "NodePort", "node_ports": {"http": 30080}}

OUT = {"source": CLIENT}
IN = {"source": POD, "interface": "veth1"}
SELF = {"source": NODE_IP, "interface": ""}
LOOP = {"source": "127.0.0.1", "interface": ""}

REJECT, DROP, PASS = Fate("reject"), Fate("drop"), Fate("accept")


def dnat(*ips: str, masquerade: bool = False) -> Fate:
    return Fate("dnat", frozenset(f"{ip}:8080" for ip in ips), masquerade)


def masq(*ips: str) -> Fate:
    return dnat(*ips, masquerade=True)


TO_VIP, TO_EXT, TO_LB = (VIP, 80), (EXTERNAL, 80), (BALANCER, 80)
TO_NP = (NODE_IP, 30080)
TO_NP_LO = ("127.0.0.1", 30080)

CASES = [
    # cluster IP
    pytest.param(PLAIN, [HERE, THERE], IN, TO_VIP, dnat(A, B), id="pod to cluster IP uses every endpoint"),
    pytest.param(PLAIN, [HERE, THERE], OUT, TO_VIP, masq(A, B), id="outside to cluster IP is masqueraded"),
    pytest.param(PLAIN, [HERE, THERE], SELF, TO_VIP, masq(A, B), id="node to cluster IP is masqueraded"),
    pytest.param(PLAIN, [], IN, TO_VIP, REJECT, id="cluster IP without endpoints rejects pods"),
    pytest.param(PLAIN, [], SELF, TO_VIP, REJECT, id="cluster IP without endpoints rejects the node"),
    pytest.param(PLAIN, [SILENT], IN, TO_VIP, REJECT, id="endpoint that is not ready does not count"),
    pytest.param(PLAIN, [ENDED], IN, TO_VIP, REJECT, id="endpoint that has ended does not count"),
    pytest.param(PLAIN, [(*HERE, "unset")], IN, TO_VIP, dnat(A), id="unset conditions mean ready"),
    pytest.param(PLAIN, [ENDING_HERE, ENDING_THERE], IN, TO_VIP, dnat(A, B), id="only terminating endpoints are used"),
    pytest.param(PLAIN, [ENDING_HERE, THERE], IN, TO_VIP, dnat(B), id="ready beats terminating"),
    pytest.param(PLAIN, [HERE], {"source": A, "interface": "v"}, TO_VIP, masq(A), id="hairpin is masqueraded"),
    pytest.param(PLAIN, [HERE, FAR, THERE], IN, TO_VIP, dnat(A, B, C), id="three endpoints are all reached"),
    pytest.param(PLAIN, [HERE], IN, (VIP, 81), PASS, id="other port of a cluster IP passes untranslated"),
    pytest.param(PLAIN, [HERE], {**IN, "protocol": "udp"}, TO_VIP, PASS, id="other protocol passes untranslated"),
    pytest.param(PLAIN, [HERE], IN, ("172.30.9.9", 80), PASS, id="unknown cluster IP passes untranslated"),
    pytest.param(UDP, [HERE, THERE], {**IN, "protocol": "udp"}, TO_VIP, dnat(A, B), id="udp cluster IP"),
    pytest.param(UDP, [], {**IN, "protocol": "udp"}, TO_VIP, REJECT, id="udp cluster IP without endpoints"),
    pytest.param(UDP, [HERE], {**OUT, "protocol": "udp"}, TO_NP, masq(A), id="udp node port"),
    pytest.param(UDP, [], {**OUT, "protocol": "udp"}, TO_NP, REJECT, id="udp node port without endpoints"),
    # internalTrafficPolicy Local
    pytest.param(I_LOCAL, [HERE, THERE], IN, TO_VIP, dnat(A), id="internal Local keeps to this node"),
    pytest.param(I_LOCAL, [HERE, THERE], OUT, TO_VIP, masq(A), id="internal Local masquerades outside sources"),
    pytest.param(I_LOCAL, [THERE], IN, TO_VIP, DROP, id="internal Local with only remote endpoints drops"),
    pytest.param(I_LOCAL, [], IN, TO_VIP, REJECT, id="internal Local without any endpoint rejects"),
    pytest.param(I_LOCAL, [ENDING_HERE, THERE], IN, TO_VIP, dnat(A), id="internal Local falls back to terminating"),
    pytest.param(I_LOCAL, [ENDED, THERE], IN, TO_VIP, DROP, id="internal Local does not use what has ended"),
    # externalTrafficPolicy Cluster
    pytest.param(OPEN, [HERE, THERE], OUT, TO_NP, masq(A, B), id="outside to node port"),
    pytest.param(OPEN, [HERE, THERE], OUT, TO_EXT, masq(A, B), id="outside to external IP"),
    pytest.param(OPEN, [HERE, THERE], OUT, TO_LB, masq(A, B), id="outside to load balancer IP"),
    pytest.param(OPEN, [HERE, THERE], IN, TO_NP, masq(A, B), id="pod to node port is masqueraded too"),
    pytest.param(OPEN, [HERE, THERE], IN, TO_LB, masq(A, B), id="pod to load balancer IP is masqueraded too"),
    pytest.param(OPEN, [HERE, THERE], SELF, TO_NP, masq(A, B), id="node to its own node port"),
    pytest.param(OPEN, [HERE, THERE], LOOP, TO_NP_LO, masq(A, B), id="node port on loopback"),
    pytest.param(OPEN, [], OUT, TO_NP, REJECT, id="node port without endpoints rejects"),
    pytest.param(OPEN, [], OUT, TO_EXT, REJECT, id="external IP without endpoints rejects"),
    pytest.param(OPEN, [], OUT, TO_LB, REJECT, id="load balancer IP without endpoints rejects"),
    pytest.param(OPEN, [ENDING_THERE], OUT, TO_NP, masq(B), id="node port falls back to terminating"),
    pytest.param(OPEN, [HERE], OUT, (NODE_IP, 80), PASS, id="service port on the node's address is the host's"),
    pytest.param(OPEN, [HERE], OUT, ("192.168.0.3", 30080), PASS, id="node port of another node is none of ours"),
    # externalTrafficPolicy Local
    pytest.param(E_LOCAL, [HERE, THERE], OUT, TO_NP, dnat(A), id="external Local keeps the client's source"),
    pytest.param(E_LOCAL, [HERE, THERE], OUT, TO_EXT, dnat(A), id="external Local on external IP"),
    pytest.param(E_LOCAL, [HERE, THERE], OUT, TO_LB, dnat(A), id="external Local on load balancer IP"),
    pytest.param(E_LOCAL, [THERE], OUT, TO_NP, DROP, id="external Local with only remote endpoints drops"),
    pytest.param(E_LOCAL, [THERE], OUT, TO_EXT, DROP, id="external Local drops on external IP"),
    pytest.param(E_LOCAL, [THERE], OUT, TO_LB, DROP, id="external Local drops on load balancer IP"),
    pytest.param(E_LOCAL, [], OUT, TO_NP, REJECT, id="external Local without any endpoint rejects"),
    pytest.param(E_LOCAL, [HERE, THERE], IN, TO_LB, dnat(A, B), id="pods short-circuit external Local"),
    pytest.param(E_LOCAL, [THERE], IN, TO_NP, dnat(B), id="pods reach remote endpoints by external Local"),
    pytest.param(E_LOCAL, [HERE, THERE], SELF, TO_LB, masq(A, B), id="node short-circuits external Local"),
    pytest.param(E_LOCAL, [THERE], SELF, TO_NP, masq(B), id="node reaches remote endpoints by external Local"),
    pytest.param(E_LOCAL, [HERE, THERE], IN, TO_VIP, dnat(A, B), id="external Local leaves the cluster IP alone"),
    pytest.param(
        E_LOCAL, [ENDING_HERE, THERE], OUT, TO_NP, dnat(A), id="external Local uses the local terminating one"
    ),
    pytest.param(
        E_LOCAL, [ENDING_HERE, THERE], IN, TO_VIP, dnat(B), id="while the cluster IP uses the ready remote one"
    ),
    pytest.param(E_LOCAL, [ENDED, THERE], OUT, TO_NP, DROP, id="external Local does not use what has ended"),
    pytest.param(BOTH_LOCAL, [HERE, THERE], IN, TO_VIP, dnat(A), id="both Local: cluster IP"),
    pytest.param(BOTH_LOCAL, [HERE, THERE], OUT, TO_NP, dnat(A), id="both Local: node port"),
    pytest.param(BOTH_LOCAL, [THERE], IN, TO_NP, dnat(B), id="both Local: pods short-circuit the node port"),
    pytest.param({**OPEN, **I_LOCAL}, [THERE], IN, TO_VIP, DROP, id="internal Local with open node port: cluster IP"),
    pytest.param({**OPEN, **I_LOCAL}, [THERE], OUT, TO_NP, masq(B), id="internal Local with open node port: node port"),
    # loadBalancerSourceRanges
    pytest.param(RANGES, [HERE], OUT, TO_LB, masq(A), id="source inside the ranges may"),
    pytest.param(RANGES, [HERE], {"source": "203.0.113.200"}, TO_LB, DROP, id="source outside of the ranges may not"),
    pytest.param(RANGES, [HERE], IN, TO_LB, masq(A), id="pod inside the ranges may"),
    pytest.param(
        RANGES, [HERE], {"source": "10.180.7.7", "interface": "v"}, TO_LB, DROP, id="pod outside of them may not"
    ),
    pytest.param(RANGES, [HERE], {"source": "203.0.113.200"}, TO_NP, masq(A), id="ranges do not guard node ports"),
    pytest.param(RANGES, [HERE], {"source": "203.0.113.200"}, TO_EXT, masq(A), id="ranges do not guard external IPs"),
    pytest.param(RANGES, [], {"source": "203.0.113.200"}, TO_LB, REJECT, id="without endpoints everybody is rejected"),
    pytest.param(NODE_RANGE, [HERE], SELF, TO_LB, masq(A), id="node inside the ranges may"),
    pytest.param(NODE_RANGE, [HERE], {"source": BALANCER}, TO_LB, masq(A), id="balancer on the node's network may"),
    pytest.param(RANGES, [HERE], {"source": BALANCER}, TO_LB, DROP, id="balancer elsewhere may not"),
    # load balancer addresses that do not count
    pytest.param(
        {**OPEN, "ingress": [{"ip": BALANCER, "ipMode": "Proxy"}]}, [HERE], IN, TO_LB, PASS, id="ipMode Proxy"
    ),
    pytest.param({**OPEN, "ingress": [{"hostname": "x"}]}, [HERE], IN, TO_LB, PASS, id="ingress by host name"),
]


async def node_with(
    fields: dict[str, Any], at: Sequence[Sequence[str]], facts: NodeFacts = NODE, base: Sequence[str] = BASE
) -> Node:
    proxy = Proxy(facts, base)
    proxy.add(service(**fields), endpoint_slice("default/web", at, {"http": "8080/UDP" if fields is UDP else 8080}))
    await proxy.sync()
    return Node(proxy.fake.tables, frozenset({NODE_IP}))


def packet(source: dict[str, Any], to: tuple[str, int]) -> Packet:
    return Packet(destination=to[0], port=to[1], **source)


@pytest.mark.parametrize(("fields", "at", "source", "to", "fate"), CASES)
async def test_packet(
    fields: dict[str, Any], at: Sequence[Sequence[str]], source: dict[str, Any], to: tuple[str, int], fate: Fate
) -> None:
    assert (await node_with(fields, at)).trace(packet(source, to)) == fate


FACTS = [
    pytest.param({"masquerade_all": True}, PLAIN, IN, TO_VIP, masq(A), id="masqueradeAll includes pods"),
    pytest.param({"detector": Detector()}, PLAIN, OUT, TO_VIP, dnat(A), id="without detector nobody is masqueraded"),
    pytest.param({"detector": Detector()}, E_LOCAL, IN, TO_LB, dnat(A), id="without detector pods are outside"),
    pytest.param({"detector": Detector.interface("br0")}, PLAIN, OUT, TO_VIP, masq(A), id="bridge: others are outside"),
    pytest.param(
        {"detector": Detector.interface("veth+")}, PLAIN, IN, TO_VIP, dnat(A), id="interface prefix: pods are inside"
    ),
    pytest.param({"localhost_node_ports": False}, OPEN, LOOP, TO_NP_LO, PASS, id="no node ports on loopback"),
    pytest.param({"localhost_node_ports": False}, OPEN, OUT, TO_NP, masq(A), id="but on the node's address"),
    pytest.param(
        {"node_port_networks": ("10.9.0.0/16",), "addresses": (NODE_IP,)}, OPEN, OUT, TO_NP, PASS, id="not this address"
    ),
    pytest.param(
        {"node_port_networks": ("192.168.0.0/24",), "addresses": (NODE_IP,)}, OPEN, OUT, TO_NP, masq(A), id="this one"
    ),
]


@pytest.mark.parametrize(("facts", "fields", "source", "to", "fate"), FACTS)
async def test_packet_under_other_settings(
    facts: dict[str, Any], fields: dict[str, Any], source: dict[str, Any], to: tuple[str, int], fate: Fate
) -> None:
    node = await node_with(fields, [HERE], replace(NODE, **facts))

    assert node.trace(packet(source, to)) == fate


async def test_remembered_client_goes_to_its_endpoint_only() -> None:
    node = await node_with({"affinity": 60}, [HERE, THERE])
    chain = next(c for c, rules in node.tables["nat"].items() if any(f"{B}:8080" in r for r in rules) and "SEP" in c)

    assert replace(node, remembered=frozenset({chain})).trace(packet(IN, TO_VIP)) == dnat(B)


async def test_martian_to_loopback_is_dropped() -> None:
    node = await node_with(OPEN, [HERE])

    assert node.trace(packet(OUT, ("127.0.0.1", 5432))) == DROP


ZONES = {A: ["zone-a"], B: ["zone-b"], C: ["zone-a"]}


@pytest.mark.parametrize(
    ("annotations", "zones", "reached"),
    [
        pytest.param("Auto", ZONES, {A, C}, id="hints keep traffic in the zone"),
        pytest.param("disabled", ZONES, {A, B, C}, id="disabled means every endpoint"),
        pytest.param("Auto", {A: ["zone-a"], B: ["zone-b"]}, {A, B, C}, id="incomplete hints are not used"),
        pytest.param("Auto", {A: ["zone-z"], B: ["zone-z"], C: ["zone-z"]}, {A, B, C}, id="no endpoint for this zone"),
    ],
)
async def test_topology_hints(annotations: str, zones: dict[str, list[str]], reached: set[str]) -> None:
    proxy = Proxy()
    proxy.add(service(annotations={"service.kubernetes.io/topology-mode": annotations}))
    proxy.add(endpoint_slice("default/web", [HERE, THERE, FAR], zones=zones))
    await proxy.sync()

    assert Node(proxy.fake.tables).trace(packet(IN, TO_VIP)) == dnat(*reached)
