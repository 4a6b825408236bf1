"""The packet table, continued: shapes of Services and EndpointSlices, settings of the proxy, IPv6.

`TABLE` at the end is all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msgspec import structs

from netemu.model.meta import KubeObject
from tests.unit.proxy_scene import (
    A6,
    AWAY,
    AWAY6,
    B6,
    DEFAULT,
    DROP,
    FAR,
    HERE,
    HERE6,
    LOOP,
    LOOP6,
    NODE6,
    NODE6_OUTSIDE,
    NODE_IP,
    NONE,
    OUT,
    OUT6,
    PEER,
    POD,
    POD6,
    REJECT,
    SELF,
    SELF6,
    THERE,
    THERE6,
    A,
    B,
    C,
    Case,
    To,
    case,
    dnat,
    masq,
    outside,
    pod,
)
from tests.unit.proxy_table import (
    BALANCER,
    BASIC,
    BEYOND,
    E_LOCAL,
    EXTERNAL,
    FROM_A,
    I_LOCAL,
    NP_LOOP,
    NP_SCTP,
    NP_SECOND,
    OPEN,
    PLAIN,
    SCTP,
    TO_EXT,
    TO_LB,
    TO_NP,
    TO_VIP,
    UDP,
    VIP,
    VIP_SCTP,
    VIP_UDP,
)
from tests.unit.proxy_world import endpoint_slice, service

HINTED = {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}
OLD_HINTED = {"annotations": {"service.kubernetes.io/topology-aware-hints": "Auto"}}
NOT_HINTED = {"annotations": {"service.kubernetes.io/topology-mode": "Disabled"}}
ZONES = {A: ["zone-a"], B: ["zone-b"], C: ["zone-a"]}
DISTRIBUTED: dict[str, Any] = {"trafficDistribution": "PreferClose"}
SAME_NODE: dict[str, Any] = {"trafficDistribution": "PreferSameNode"}
NODES = {A: ["test-node"], B: ["node-b"], C: ["node-c"]}
MANY = {"ports": {"dns": "53/UDP", "dns-tcp": "53/TCP", "dns-sctp": "53/SCTP"}}
MANY_TARGETS: dict[str, int | str] = {"dns": "5301/UDP", "dns-tcp": "5302/TCP", "dns-sctp": "5303/SCTP"}
TWO_PORTS = {"ports": {"http": 80, "https": 443}}
TWO_TARGETS: dict[str, int | str] = {"http": 8080, "https": 8443}


def hinted(
    fields: dict[str, Any], zones: dict[str, list[str]], *at: tuple[str, ...], nodes: dict[str, list[str]] | None = None
) -> list[KubeObject]:
    """Endpoints with hints."""
    return [service(**fields), endpoint_slice("default/web", at, zones=zones, nodes=nodes)]


def with_slices(*slices: KubeObject, **fields: Any) -> list[KubeObject]:
    """The Service with slices made by hand."""
    return [service(**fields), *slices]


def piece(*at: tuple[str, ...], **fields: Any) -> KubeObject:
    """A slice of it."""
    return endpoint_slice("default/web", at, fields.pop("ports", None), **fields)


# fmt: off
PORTS = [
    case("udp, tcp and sctp on one port number: udp", MANY, [HERE, THERE], POD, To(VIP, 53, "udp"),
         dnat(A, B, port=5301), ports=MANY_TARGETS),
    case("udp, tcp and sctp on one port number: tcp", MANY, [HERE, THERE], POD, To(VIP, 53),
         dnat(A, B, port=5302), ports=MANY_TARGETS),
    case("udp, tcp and sctp on one port number: sctp", MANY, [HERE, THERE], POD, To(VIP, 53, "sctp"),
         dnat(A, B, port=5303), ports=MANY_TARGETS),
    case("first of two ports", TWO_PORTS, [HERE], POD, TO_VIP, dnat(A), ports=TWO_TARGETS),
    case("second of two ports", TWO_PORTS, [HERE], POD, To(VIP, 443), dnat(A, port=8443), ports=TWO_TARGETS),
    case("one of two ports without endpoints rejects", TWO_PORTS, [HERE], POD, To(VIP, 443), REJECT,
         ports={"http": 8080}),
    case("port without a name", {"ports": {"": 80}}, [HERE], POD, TO_VIP, dnat(A)),
    case("node port of the second port", {**TWO_PORTS, "type": "NodePort", "node_ports": {"https": 30443}}, [HERE],
         OUT, To(NODE_IP, 30443), masq(A, port=8443), ports=TWO_TARGETS),
    case("port that the slice names otherwise has no endpoints", PLAIN, [HERE], POD, TO_VIP, REJECT,
         ports={"web": 8080}),
    case("port whose protocol the slice does not have has no endpoints", PLAIN, [HERE], POD, TO_VIP, REJECT,
         ports={"http": "8080/UDP"}),
    case("slice port without a number does not count", PLAIN, [HERE], POD, TO_VIP, REJECT, ports={"http": 0}),
]

SLICES = [
    case("several slices are one set", with_slices(piece(HERE), piece(THERE, suffix="2")), [], POD, TO_VIP, dnat(A, B)),
    case("slices may have the same name with different numbers",
         with_slices(piece(HERE), piece(HERE, suffix="2", ports={"http": 9090})), [], POD, TO_VIP,
         replace(dnat(A), destinations=frozenset({f"{A}:8080", f"{A}:9090"}))),
    case("endpoint in two slices counts once", with_slices(piece(HERE), piece(HERE, suffix="2")), [], POD, TO_VIP,
         dnat(A)),
    case("of two copies of an endpoint the local one counts",
         with_slices(piece((A, "")), piece(HERE, suffix="2"), **I_LOCAL), [], POD, TO_VIP, dnat(A)),
    case("slice of host names does not count", with_slices(piece(HERE, address_type="FQDN")), [], POD, TO_VIP, REJECT),
    case("slice of another service does not count",
         [service(), endpoint_slice("default/other", [HERE])], [], POD, TO_VIP, REJECT),
    case("slice of another namespace does not count",
         [service(), endpoint_slice("prod/web", [HERE])], [], POD, TO_VIP, REJECT),
    case("endpoint address with leading zeros", with_slices(piece(("10.180.00.001", "test-node"))), [], POD, TO_VIP,
         dnat(A)),
    case("endpoint address without sense is left out",
         with_slices(piece(("10.180.0.999", "test-node"), THERE)), [], POD, TO_VIP, dnat(B)),
    case("endpoint address of the other family is left out", with_slices(piece(HERE6, THERE)), [], POD, TO_VIP,
         dnat(B)),
    case("service of the same name in another namespace is another one",
         [service(), service("prod/web", "172.30.0.11"), piece(HERE), endpoint_slice("prod/web", [THERE])], [],
         POD, To("172.30.0.11", 80), dnat(B)),
    case("two services share a load balancer address: the first",
         [service("default/web", "172.30.0.10", ports={"http": 80}, type="LoadBalancer", ingress=[BALANCER]),
          service("default/api", "172.30.0.11", ports={"http": 81}, type="LoadBalancer", ingress=[BALANCER]),
          piece(HERE), endpoint_slice("default/api", [THERE])], [], OUT, TO_LB, masq(A)),
    case("two services share a load balancer address: the second",
         [service("default/web", "172.30.0.10", ports={"http": 80}, type="LoadBalancer", ingress=[BALANCER]),
          service("default/api", "172.30.0.11", ports={"http": 81}, type="LoadBalancer", ingress=[BALANCER]),
          piece(HERE), endpoint_slice("default/api", [THERE])], [], OUT, To(BALANCER, 81), masq(B)),
]

SCTP_OPEN, UDP_OPEN = {**OPEN, "ports": {"http": "80/SCTP"}}, {**OPEN, "ports": {"http": "80/UDP"}}
SCTP_LB, UDP_LB = To(BALANCER, 80, "sctp"), To(BALANCER, 80, "udp")
PROTOCOLS = [
    case("sctp by load balancer", SCTP_OPEN, [HERE, THERE], OUT, SCTP_LB, masq(A, B)),
    case("sctp by external IP", SCTP_OPEN, [HERE, THERE], OUT, To(EXTERNAL, 80, "sctp"), masq(A, B)),
    case("udp by load balancer", UDP_OPEN, [HERE, THERE], OUT, UDP_LB, masq(A, B)),
    case("udp by external IP", UDP_OPEN, [HERE, THERE], OUT, To(EXTERNAL, 80, "udp"), masq(A, B)),
    case("sctp and external Local", {**SCTP_OPEN, "external_policy": "Local"}, [HERE, THERE], OUT, SCTP_LB, dnat(A)),
    case("sctp and external Local by node port", {**SCTP_OPEN, "external_policy": "Local"}, [HERE, THERE], OUT, NP_SCTP,
         dnat(A)),
    case("sctp and external Local with only remote endpoints", {**SCTP_OPEN, "external_policy": "Local"}, [THERE], OUT,
         NP_SCTP, DROP, ipvs=dnat(B)),
    case("sctp and internal Local", {**SCTP_OPEN, **I_LOCAL}, [HERE, THERE], POD, VIP_SCTP, dnat(A)),
    case("sctp inside of the ranges", {**SCTP_OPEN, "ranges": ["203.0.113.0/25"]}, [HERE], OUT, SCTP_LB, masq(A)),
    case("sctp outside of the ranges", {**SCTP_OPEN, "ranges": ["203.0.113.0/25"]}, [HERE], BEYOND, SCTP_LB, DROP),
    case("udp outside of the ranges", {**UDP_OPEN, "ranges": ["203.0.113.0/25"]}, [HERE], BEYOND, UDP_LB, DROP),
    case("sctp and affinity", {**SCTP_OPEN, "affinity": 60}, [HERE, THERE], POD, VIP_SCTP, dnat(A, B), sticky=True),
    case("sctp falls back to terminating", SCTP_OPEN, [(*THERE, "ending")], OUT, NP_SCTP, masq(B)),
    case("pod reaches itself by udp", UDP_OPEN, [HERE], FROM_A, VIP_UDP, masq(A)),
    case("pod reaches itself by sctp", SCTP_OPEN, [HERE], FROM_A, VIP_SCTP, masq(A)),
    case("pod reaches itself by an external IP", OPEN, [HERE], FROM_A, TO_EXT, masq(A)),
    case("other protocol of a load balancer IP", SCTP_OPEN, [HERE], OUT, TO_LB, NONE, ipvs=REJECT),
]

SKIPPED = [
    case("headless service with external IPs is not proxied", {"ip": "None", "external_ips": [EXTERNAL]}, [HERE], OUT,
         TO_EXT, NONE),
    case("ExternalName with external IPs is not proxied", {"type": "ExternalName", "external_ips": [EXTERNAL]}, [HERE],
         OUT, TO_EXT, NONE),
    case("headless service is not proxied", {"ip": "None"}, [HERE], POD, TO_VIP, NONE),
    case("service without an address is not proxied", {"ip": "", "external_ips": [EXTERNAL]}, [HERE], OUT, TO_EXT,
         NONE),
    case("ExternalName is not proxied", {"type": "ExternalName"}, [HERE], POD, TO_VIP, NONE),
    case("service of another proxy is left to it",
         {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}, [HERE], POD, TO_VIP, NONE),
    case("node port of another proxy's service is left to it",
         {**OPEN, "labels": {"service.kubernetes.io/service-proxy-name": ""}}, [HERE], OUT, TO_NP, NONE),
    case("service with the headless label is not proxied",
         {"labels": {"service.kubernetes.io/headless": ""}}, [HERE], POD, TO_VIP, NONE),
]

AFFINITY = [
    case("affinity keeps a client on one endpoint", {"affinity": 60}, [HERE, THERE], POD, TO_VIP, dnat(A, B),
         sticky=True),
    case("affinity by node port", {**OPEN, "affinity": 10800}, [HERE, THERE], OUT, TO_NP, masq(A, B), sticky=True),
    case("affinity by load balancer", {**OPEN, "affinity": 60}, [HERE, THERE], OUT, TO_LB, masq(A, B), sticky=True),
    case("affinity by udp", {"ports": {"http": "80/UDP"}, "affinity": 60}, [HERE, THERE, FAR], POD, VIP_UDP,
         dnat(A, B, C), sticky=True),
    case("affinity without endpoints rejects", {"affinity": 60}, [], POD, TO_VIP, REJECT),
    case("affinity to oneself is masqueraded", {"affinity": 60}, [HERE], FROM_A, TO_VIP, masq(A), sticky=True),
]

HINTS = [
    case("hints keep traffic in the zone", hinted(HINTED, ZONES, HERE, THERE, FAR), [], POD, TO_VIP, dnat(A, C)),
    case("the older annotation asks for hints too", hinted(OLD_HINTED, ZONES, HERE, THERE, FAR), [], POD, TO_VIP,
         dnat(A, C)),
    case("hints that are disabled are not used", hinted(NOT_HINTED, ZONES, HERE, THERE, FAR), [], POD, TO_VIP,
         dnat(A, B, C)),
    case("incomplete hints are not used", hinted(HINTED, {A: ["zone-a"], B: ["zone-b"]}, HERE, THERE, FAR), [],
         POD, TO_VIP, dnat(A, B, C)),
    case("hints for other zones only are not used", hinted(HINTED, {A: ["zone-z"], B: ["zone-z"]}, HERE, THERE), [],
         POD, TO_VIP, dnat(A, B)),
    case("endpoint that is hinted for two zones", hinted(HINTED, {A: ["zone-b"], B: ["zone-b", "zone-a"]}, HERE, THERE),
         [], POD, TO_VIP, dnat(B)),
    case("hints of endpoints that are not ready do not matter",
         hinted(HINTED, {A: ["zone-a"]}, HERE, (*THERE, "silent")), [], POD, TO_VIP, dnat(A)),
    case("hints hold for node ports", hinted({**OPEN, **HINTED}, ZONES, HERE, THERE, FAR), [], OUT, TO_NP, masq(A, C)),
    case("hints mean nothing to a Local policy", hinted({**I_LOCAL, **HINTED}, {A: ["zone-b"]}, HERE), [], POD, TO_VIP,
         dnat(A)),
    case("trafficDistribution asks for hints as well", hinted(DISTRIBUTED, ZONES, HERE, THERE, FAR), [], POD, TO_VIP,
         dnat(A, C)),
    case("hints that nobody asked for are not used", hinted(PLAIN, ZONES, HERE, THERE, FAR), [], POD, TO_VIP,
         dnat(A, B, C)),
    case("hints for this node come before those for its zone",
         hinted(SAME_NODE, ZONES, HERE, THERE, FAR, nodes=NODES), [], POD, TO_VIP, dnat(A)),
    case("hints for other nodes leave it to the zone",
         hinted(SAME_NODE, ZONES, HERE, THERE, FAR, nodes={**NODES, A: ["node-b"]}), [], POD, TO_VIP, dnat(A, C)),
    case("incomplete hints for nodes leave it to the zone",
         hinted(SAME_NODE, ZONES, HERE, THERE, FAR, nodes={A: ["test-node"]}), [], POD, TO_VIP, dnat(A, C)),
    case("hints of a node that has no ready endpoint leave it to the zone",
         hinted(SAME_NODE, ZONES, (*HERE, "silent"), THERE, FAR, nodes=NODES), [], POD, TO_VIP, dnat(C)),
    case("hints hold for load balancer addresses", hinted({**OPEN, **SAME_NODE}, ZONES, HERE, THERE, FAR, nodes=NODES),
         [], OUT, TO_LB, masq(A)),
    case("hints narrow what pods reach by an external Local address",
         hinted({**E_LOCAL, **DISTRIBUTED}, ZONES, HERE, THERE, FAR), [], POD, TO_LB, dnat(A, C), ipvs=dnat(A)),
    case("hints do not narrow an external Local address from outside",
         hinted({**E_LOCAL, **DISTRIBUTED}, {A: ["zone-b"], B: ["zone-a"]}, HERE, THERE), [], OUT, TO_LB, dnat(A)),
    case("terminating endpoints are used whatever their hints", hinted(HINTED, {A: ["zone-b"]}, (*HERE, "ending")), [],
         POD, TO_VIP, dnat(A)),
]

ANNOTATION, OLDER = "service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"
ASKING = {
    "no annotation": ({}, False),
    "an empty annotation": ({ANNOTATION: ""}, False),
    "annotation Auto": ({ANNOTATION: "Auto"}, True),
    "annotation without sense": ({ANNOTATION: "nonsense"}, True),
    "annotation disabled": ({ANNOTATION: "disabled"}, False),
    "older annotation Disabled before newer Auto": ({OLDER: "Disabled", ANNOTATION: "Auto"}, False),
    "older annotation Auto before newer Disabled": ({OLDER: "Auto", ANNOTATION: "Disabled"}, True),
}
HINT_MATRIX = [
    case(f"hints of zones: {about}, {wanted or 'no trafficDistribution'}",
         hinted({"annotations": annotations, "trafficDistribution": wanted}, ZONES, HERE, THERE, FAR), [], POD, TO_VIP,
         dnat(A, C) if asked or wanted else dnat(A, B, C))
    for about, (annotations, asked) in ASKING.items()
    for wanted in (None, "PreferClose", "PreferSameZone", "PreferSameNode")
] + [
    case(f"hints of nodes and zones: {wanted}",
         hinted({"trafficDistribution": wanted}, ZONES, HERE, THERE, FAR, nodes=NODES), [], POD, TO_VIP, dnat(A))
    for wanted in ("PreferClose", "PreferSameZone", "PreferSameNode")
]

HOST = (NODE_IP, "test-node")
HOST_NETWORK = [
    case("pod to an endpoint on this node's own network", PLAIN, [HOST], POD, TO_VIP, dnat(NODE_IP)),
    case("outside keeps its source to an endpoint on this node's own network", OPEN, [HOST], OUT, TO_NP, dnat(NODE_IP)),
    case("node to an endpoint on its own network", PLAIN, [HOST], SELF, TO_VIP, masq(NODE_IP)),
    case("external Local counts endpoints of the node's own network", E_LOCAL, [HOST], OUT, TO_NP, dnat(NODE_IP)),
    case("endpoint on another node's network", PLAIN, [(PEER, "node-b")], POD, TO_VIP, dnat(PEER)),
    case("another node's network is not inside", PLAIN, [HERE], outside(PEER), TO_VIP, masq(A)),
]


def under(**settings: Any) -> dict[str, Any]:
    """Keyword arguments for a case."""
    return {"settings": structs.replace(DEFAULT, **settings)}


ALL = under(masquerade_all=True)
BLIND = under(cluster_cidr="")
ONLY_IPV4_PODS = under(cluster_cidr="10.0.0.0/8")
NODE_CIDR = under(detect_local_mode="NodeCIDR")
BRIDGE = under(detect_local_mode="BridgeInterface", interface="cbr0")
VETH = under(detect_local_mode="InterfaceNamePrefix", interface="veth")
NO_LOOPBACK = under(localhost_node_ports=False)
THIS_NET, OTHER_NET = under(node_port_addresses=("192.168.0.0/24",)), under(node_port_addresses=("203.0.113.0/24",))
WITH_LOOPBACK = under(node_port_addresses=("127.0.0.0/8", "192.168.0.0/24"))
ANYWHERE = under(node_port_addresses=("0.0.0.0/0",))
MAIN = under(node_port_addresses=("primary",))
ONLY_IPV6 = under(node_port_addresses=("fd00:192::/64",))
VETH_POD = pod("10.180.0.9", "veth9")

SETTINGS = [
    case("masqueradeAll includes pods", PLAIN, [HERE], POD, TO_VIP, masq(A), **ALL),
    case("masqueradeAll includes pods of other nodes", PLAIN, [HERE], AWAY, TO_VIP, masq(A), **ALL),
    case("masqueradeAll leaves external Local alone", E_LOCAL, [HERE, THERE], OUT, TO_LB, dnat(A), **ALL),
    case("masqueradeAll leaves the short circuit of pods alone", E_LOCAL, [THERE], POD, TO_LB, dnat(B), **ALL),
    case("no detector: nobody outside is masqueraded", PLAIN, [HERE], OUT, TO_VIP, dnat(A), **BLIND),
    case("no detector: nor is the node", PLAIN, [HERE], SELF, TO_VIP, dnat(A), ipvs=masq(A), **BLIND),
    case("no detector: external Cluster masquerades", OPEN, [HERE], OUT, TO_NP, masq(A), **BLIND),
    case("no detector: pods are outside for external Local", E_LOCAL, [HERE, THERE], POD, TO_LB, dnat(A), **BLIND),
    case("no detector: pods get no remote endpoint", E_LOCAL, [THERE], POD, TO_LB, DROP, ipvs=dnat(B), **BLIND),
    case("no detector: the node still short-circuits", E_LOCAL, [THERE], SELF, TO_NP, masq(B), ipvs=dnat(B), **BLIND),
    case("NodeCIDR: pods of this node are inside", PLAIN, [HERE], POD, TO_VIP, dnat(A), **NODE_CIDR),
    case("NodeCIDR: pods of other nodes are outside", PLAIN, [HERE], AWAY, TO_VIP, masq(A), **NODE_CIDR),
    case("NodeCIDR: pods of other nodes do not short-circuit", E_LOCAL, [HERE, THERE], AWAY, TO_LB, dnat(A),
         **NODE_CIDR),
    case("NodeCIDR: pods of this node do", E_LOCAL, [THERE], POD, TO_LB, dnat(B), **NODE_CIDR),
    case("BridgeInterface: by the bridge is inside", PLAIN, [HERE], POD, TO_VIP, dnat(A), **BRIDGE),
    case("BridgeInterface: by another interface is outside", PLAIN, [HERE], VETH_POD, TO_VIP, masq(A), **BRIDGE),
    case("BridgeInterface: pods of other nodes are outside", PLAIN, [HERE], AWAY, TO_VIP, masq(A), **BRIDGE),
    case("BridgeInterface: the node is outside", PLAIN, [HERE], SELF, TO_VIP, masq(A), **BRIDGE),
    case("BridgeInterface: pods short-circuit", E_LOCAL, [THERE], POD, TO_LB, dnat(B), **BRIDGE),
    case("InterfaceNamePrefix: a name that starts so is inside", PLAIN, [HERE], VETH_POD, TO_VIP, dnat(A), **VETH),
    case("InterfaceNamePrefix: another name is outside", PLAIN, [HERE], POD, TO_VIP, masq(A), **VETH),
    case("InterfaceNamePrefix: outside is outside", PLAIN, [HERE], OUT, TO_VIP, masq(A), **VETH),
    case("InterfaceNamePrefix: pods short-circuit", E_LOCAL, [THERE], VETH_POD, TO_NP, dnat(B), **VETH),
    case("no node ports on loopback", OPEN, [HERE], LOOP, NP_LOOP, NONE, **NO_LOOPBACK),
    case("no node ports on loopback, but on the node's address", OPEN, [HERE], OUT, TO_NP, masq(A), **NO_LOOPBACK),
    case("nodePortAddresses: this one", OPEN, [HERE], OUT, TO_NP, masq(A), **THIS_NET),
    case("nodePortAddresses: not that one", OPEN, [HERE], OUT, NP_SECOND, NONE, **THIS_NET),
    case("nodePortAddresses: not loopback", OPEN, [HERE], LOOP, NP_LOOP, NONE, **THIS_NET),
    case("nodePortAddresses: the other network", OPEN, [HERE], OUT, NP_SECOND, masq(A), **OTHER_NET),
    case("nodePortAddresses: not the node's IP", OPEN, [HERE], OUT, TO_NP, NONE, **OTHER_NET),
    case("nodePortAddresses: without endpoints iptables rejects everywhere", OPEN, [], OUT, TO_NP, REJECT, nft=NONE,
         ipvs=NONE, **OTHER_NET),
    case("nodePortAddresses with loopback", OPEN, [HERE], LOOP, NP_LOOP, masq(A), nft=NONE, ipvs=NONE,
         **WITH_LOOPBACK),
    case("nodePortAddresses of everything: second address", OPEN, [HERE], OUT, NP_SECOND, masq(A), **ANYWHERE),
    case("nodePortAddresses of everything: loopback", OPEN, [HERE], LOOP, NP_LOOP, masq(A), nft=NONE, ipvs=NONE,
         **ANYWHERE),
    case("nodePortAddresses of everything, without endpoints", OPEN, [], OUT, NP_SECOND, REJECT, **ANYWHERE),
    case("nodePortAddresses primary: the node's IP", OPEN, [HERE], OUT, TO_NP, masq(A), **MAIN),
    case("nodePortAddresses primary: not a second address", OPEN, [HERE], OUT, NP_SECOND, NONE, **MAIN),
    case("nodePortAddresses primary: not loopback", OPEN, [HERE], LOOP, NP_LOOP, NONE, **MAIN),
    case("nodePortAddresses of IPv6 only: IPv4 as if there were none", OPEN, [HERE], OUT, TO_NP, masq(A), **ONLY_IPV6),
    case("udp node port on loopback", UDP, [HERE], LOOP, To("127.0.0.1", 30080, "udp"), masq(A), nft=NONE, ipvs=NONE),
    case("no udp node port on loopback", UDP, [HERE], LOOP, To("127.0.0.1", 30080, "udp"), NONE, **NO_LOOPBACK),
    case("masqueradeAll holds for udp", UDP, [HERE], POD, VIP_UDP, masq(A), **ALL),
    case("masqueradeAll holds for sctp", SCTP, [HERE], POD, VIP_SCTP, masq(A), **ALL),
]

VIP6, EXTERNAL6, BALANCER6 = "fd00:172::10", "2001:db8:7::7", "2001:db8:1::4"
DUAL: dict[str, Any] = {
    "type": "LoadBalancer",
    "ipFamilies": ["IPv4", "IPv6"],
    "clusterIPs": [VIP, VIP6],
    "node_ports": {"http": 30080},
    "external_ips": [EXTERNAL, EXTERNAL6],
    "ingress": [BALANCER, BALANCER6],
}
ONLY6 = {"ip": VIP6, "ipFamilies": ["IPv6"], "clusterIPs": [VIP6]}
DUAL_LOCAL = {**DUAL, "external_policy": "Local"}
DUAL_RANGES = {**DUAL, "ranges": ["2001:db8:203::/64", "203.0.113.0/25"]}
BOTH, EVERY = [HERE, HERE6], [HERE, THERE, HERE6, THERE6]
TO_VIP6, TO_EXT6, TO_LB6, TO_NP6 = To(VIP6, 80), To(EXTERNAL6, 80), To(BALANCER6, 80), To(NODE6, 30080)
FROM_A6 = pod(A6, "veth1")

DUAL_STACK = [
    case("dual stack: pod to the IPv6 cluster IP", DUAL, EVERY, POD6, TO_VIP6, dnat(A6, B6)),
    case("dual stack: pod to the IPv4 cluster IP", DUAL, EVERY, POD, TO_VIP, dnat(A, B)),
    case("dual stack: pod of another node by IPv6", DUAL, EVERY, AWAY6, TO_VIP6, dnat(A6, B6)),
    case("dual stack: outside to the IPv6 cluster IP", DUAL, EVERY, OUT6, TO_VIP6, masq(A6, B6)),
    case("dual stack: node to the IPv6 cluster IP", DUAL, EVERY, SELF6, TO_VIP6, masq(A6, B6)),
    case("dual stack: IPv6 node port", DUAL, EVERY, OUT6, TO_NP6, masq(A6, B6)),
    case("dual stack: IPv6 node port on a second address", DUAL, BOTH, OUT6, To(NODE6_OUTSIDE, 30080), masq(A6),
         nft=NONE),
    case("dual stack: no IPv6 node port on loopback", DUAL, BOTH, LOOP6, To("::1", 30080), NONE),
    case("dual stack: IPv6 external IP", DUAL, EVERY, OUT6, TO_EXT6, masq(A6, B6)),
    case("dual stack: IPv6 load balancer IP", DUAL, EVERY, OUT6, TO_LB6, masq(A6, B6)),
    case("dual stack: endpoints of one family only, the other rejects", DUAL, [HERE], POD6, TO_VIP6, REJECT),
    case("dual stack: endpoints of one family only, that family works", DUAL, [HERE6], POD6, TO_VIP6, dnat(A6)),
    case("dual stack: IPv6 node port without endpoints rejects", DUAL, [HERE], OUT6, TO_NP6, REJECT),
    case("dual stack: itself by IPv6 is masqueraded", DUAL, BOTH, FROM_A6, TO_VIP6, masq(A6)),
    case("dual stack: external Local keeps an IPv6 source", DUAL_LOCAL, EVERY, OUT6, TO_NP6, dnat(A6)),
    case("dual stack: external Local with a local endpoint of the other family only", DUAL_LOCAL, [HERE, THERE6], OUT6,
         TO_LB6, DROP, ipvs=dnat(B6)),
    case("dual stack: pods short-circuit by IPv6", DUAL_LOCAL, EVERY, POD6, TO_LB6, dnat(A6, B6), ipvs=dnat(A6)),
    case("dual stack: IPv6 source inside of the ranges", DUAL_RANGES, BOTH, OUT6, TO_LB6, masq(A6)),
    case("dual stack: IPv6 source outside of the ranges", DUAL_RANGES, BOTH, POD6, TO_LB6, DROP),
    case("dual stack: other port of the IPv6 cluster IP", DUAL, BOTH, POD6, To(VIP6, 81), NONE, nft=REJECT,
         ipvs=REJECT),
    case("single stack IPv6", ONLY6, [HERE6], POD6, TO_VIP6, dnat(A6)),
    case("dual stack: affinity by IPv6", {**DUAL, "affinity": 60}, EVERY, POD6, TO_VIP6, dnat(A6, B6), sticky=True),
    case("dual stack: sctp by IPv6", {**DUAL, "ports": {"http": "80/SCTP"}}, EVERY, POD6, To(VIP6, 80, "sctp"),
         dnat(A6, B6)),
    case("dual stack: IPv6 node port by sctp", {**DUAL, "ports": {"http": "80/SCTP"}}, BOTH, OUT6,
         To(NODE6, 30080, "sctp"), masq(A6)),
    case("dual stack: IPv6 node port by udp", {**DUAL, "ports": {"http": "80/UDP"}}, BOTH, OUT6,
         To(NODE6, 30080, "udp"), masq(A6)),
    case("dual stack: hints of zones by IPv6",
         [service(**DUAL, **DISTRIBUTED), piece(HERE6, THERE6, address_type="IPv6", suffix="6",
                                                zones={A6: ["zone-b"], B6: ["zone-a"]})], [], POD6, TO_VIP6, dnat(B6)),
    case("dual stack: hints of one family do not concern the other",
         [service(**DUAL, **DISTRIBUTED), piece(HERE, THERE, zones={A: ["zone-b"], B: ["zone-a"]}),
          piece(HERE6, THERE6, address_type="IPv6", suffix="6")], [], POD6, TO_VIP6, dnat(A6, B6)),
    case("dual stack: internal Local by IPv6", {**DUAL, **I_LOCAL}, EVERY, POD6, TO_VIP6, dnat(A6)),
    case("dual stack: internal Local with only remote IPv6 endpoints", {**ONLY6, **I_LOCAL}, [THERE6], POD6, TO_VIP6,
         DROP, ipvs=REJECT),
    case("dual stack: IPv6 endpoint that terminates", DUAL, [(*HERE6, "ending")], POD6, TO_VIP6, dnat(A6)),
    case("dual stack: node short-circuits external Local by IPv6", DUAL_LOCAL, EVERY, SELF6, TO_LB6, masq(A6, B6),
         ipvs=dnat(A6)),
    case("dual stack: itself by the IPv6 load balancer", DUAL_LOCAL, BOTH, FROM_A6, TO_LB6, masq(A6)),
    case("dual stack: masqueradeAll", DUAL, BOTH, POD6, TO_VIP6, masq(A6), **ALL),
    case("dual stack: clusterCIDR of IPv4 only, outside by IPv6", DUAL, BOTH, OUT6, TO_VIP6, dnat(A6),
         **ONLY_IPV4_PODS),
    case("dual stack: clusterCIDR of IPv4 only, outside by IPv4", DUAL, BOTH, OUT, TO_VIP, masq(A), **ONLY_IPV4_PODS),
    case("dual stack: NodeCIDR, a pod of this node by IPv6", DUAL, BOTH, POD6, TO_VIP6, dnat(A6), **NODE_CIDR),
    case("dual stack: NodeCIDR, a pod of another node by IPv6", DUAL, BOTH, AWAY6, TO_VIP6, masq(A6), **NODE_CIDR),
    case("dual stack: BridgeInterface by IPv6", DUAL, BOTH, POD6, TO_VIP6, dnat(A6), **BRIDGE),
    case("dual stack: BridgeInterface, another interface by IPv6", DUAL, BOTH, FROM_A6, TO_VIP6, masq(A6), **BRIDGE),
    case("dual stack: InterfaceNamePrefix by IPv6", DUAL, EVERY, pod("fd00:10:180::9", "veth9"), TO_VIP6, dnat(A6, B6),
         **VETH),
    case("dual stack: nodePortAddresses primary, IPv6", DUAL, BOTH, OUT6, TO_NP6, masq(A6), **MAIN),
    case("dual stack: nodePortAddresses primary, a second IPv6 address", DUAL, BOTH, OUT6, To(NODE6_OUTSIDE, 30080),
         NONE, **MAIN),
    case("dual stack: nodePortAddresses of IPv6", DUAL, BOTH, OUT6, TO_NP6, masq(A6), **ONLY_IPV6),
    case("dual stack: nodePortAddresses of IPv6, a second address", DUAL, BOTH, OUT6, To(NODE6_OUTSIDE, 30080), NONE,
         **ONLY_IPV6),
    case("dual stack: endpoint on this node's own network by IPv6", DUAL, [(NODE6, "test-node")], POD6, TO_VIP6,
         dnat(NODE6)),
    case("dual stack: ipMode Proxy of the IPv6 address",
         {**DUAL, "ingress": [BALANCER, {"ip": BALANCER6, "ipMode": "Proxy"}]}, BOTH, POD6, TO_LB6, NONE),
    case("dual stack: IPv6 address first",
         {**DUAL, "ip": VIP6, "ipFamilies": ["IPv6", "IPv4"], "clusterIPs": [VIP6, VIP]}, EVERY, POD, TO_VIP,
         dnat(A, B)),
    case("dual stack: udp by IPv6", {**DUAL, "ports": {"http": "80/UDP"}}, EVERY, POD6, To(VIP6, 80, "udp"),
         dnat(A6, B6)),
]
# fmt: on

TABLE: list[Case] = [
    *BASIC,
    *PORTS,
    *SLICES,
    *SKIPPED,
    *AFFINITY,
    *HINTS,
    *HINT_MATRIX,
    *PROTOCOLS,
    *HOST_NETWORK,
    *SETTINGS,
    *DUAL_STACK,
]
