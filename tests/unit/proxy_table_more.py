"""The packet table, continued: shapes of Services and EndpointSlices, settings of the proxy, IPv6.

`TABLE` at the end is all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
    E_LOCAL,
    EXTERNAL,
    FROM_A,
    I_LOCAL,
    NP_LOOP,
    NP_SECOND,
    OPEN,
    PLAIN,
    TO_EXT,
    TO_LB,
    TO_NP,
    TO_VIP,
    VIP,
    VIP_UDP,
)
from tests.unit.proxy_world import endpoint_slice, service

HINTED = {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}
OLD_HINTED = {"annotations": {"service.kubernetes.io/topology-aware-hints": "Auto"}}
NOT_HINTED = {"annotations": {"service.kubernetes.io/topology-mode": "Disabled"}}
ZONES = {A: ["zone-a"], B: ["zone-b"], C: ["zone-a"]}
DISTRIBUTED = {"trafficDistribution": "PreferClose"}
SAME_NODE = {"trafficDistribution": "PreferSameNode"}
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

SKIPPED = [
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
    case("terminating endpoints are used whatever their hints", hinted(HINTED, {A: ["zone-b"]}, (*HERE, "ending")), [],
         POD, TO_VIP, dnat(A)),
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
    return {"settings": replace(DEFAULT, **settings)}


ALL = under(masquerade_all=True)
BLIND = under(cluster_cidr="")
NODE_CIDR = under(detect_local_mode="NodeCIDR")
BRIDGE = under(detect_local_mode="BridgeInterface", interface="cbr0")
VETH = under(detect_local_mode="InterfaceNamePrefix", interface="veth")
NO_LOOPBACK = under(localhost_node_ports=False)
THIS_NET, OTHER_NET = under(node_port_addresses=("192.168.0.0/24",)), under(node_port_addresses=("203.0.113.0/24",))
WITH_LOOPBACK = under(node_port_addresses=("127.0.0.0/8", "192.168.0.0/24"))
ANYWHERE = under(node_port_addresses=("0.0.0.0/0",))
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
    *HOST_NETWORK,
    *SETTINGS,
    *DUAL_STACK,
]
