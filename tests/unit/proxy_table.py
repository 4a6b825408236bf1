"""The packet table: who sends what to where, and what must become of it, in every mode.

A case that differs between modes says so with `nft=` or `ipvs=`; what is not said holds in all of them. Upstream's
modes differ by design in four ways:

- ipvs treats Pods and the node itself as everybody else, drops what others send with an address of a Service, keeps
  sources wherever the external policy is Local, and falls back to endpoints of other nodes where a Local policy finds
  none here;
- a port that a cluster IP does not have is rejected in nftables and ipvs and passes untranslated in iptables; in ipvs
  that is so for every virtual address;
- node ports answer on all addresses of a node (iptables, with loopback; ipvs, without) or its primary one (nftables);
- iptables has no rule about absent endpoints of external addresses in OUTPUT, and no firewall without endpoints.
"""

from __future__ import annotations

from typing import Any

from tests.unit.proxy_scene import (
    AWAY,
    CLIENT,
    DROP,
    FAR,
    HERE,
    LOOP,
    NODE_IP,
    NODE_OUTSIDE,
    NONE,
    OUT,
    PEER,
    POD,
    REJECT,
    SELF,
    THERE,
    A,
    B,
    C,
    Case,
    To,
    away,
    case,
    dnat,
    masq,
    outside,
    pod,
)

VIP, EXTERNAL, BALANCER = "172.30.0.10", "198.51.100.7", "1.2.3.4"
ENDING_HERE, ENDING_THERE, ENDED = (*HERE, "ending"), (*THERE, "ending"), (*HERE, "ended")
SILENT = (*THERE, "silent")

PLAIN: dict[str, Any] = {}
OPEN: dict[str, Any] = {
    "type": "LoadBalancer",
    "node_ports": {"http": 30080},
    "external_ips": [EXTERNAL],
    "ingress": [BALANCER],
}
I_LOCAL = {"internal_policy": "Local"}
E_LOCAL = {**OPEN, "external_policy": "Local"}
BOTH_LOCAL = {**E_LOCAL, **I_LOCAL}
RANGES = {**OPEN, "ranges": ["203.0.113.0/25", " 10.180.0.0/25 "]}
NODE_RANGE = {**OPEN, "ranges": ["192.168.0.0/24"]}
E_RANGES = {**E_LOCAL, "ranges": ["203.0.113.0/25", "10.180.0.0/24"]}
UDP = {"ports": {"http": "80/UDP"}, "type": "NodePort", "node_ports": {"http": 30080}}
SCTP = {"ports": {"http": "80/SCTP"}, "type": "NodePort", "node_ports": {"http": 30080}}

TO_VIP, TO_EXT, TO_LB, TO_NP = To(VIP, 80), To(EXTERNAL, 80), To(BALANCER, 80), To(NODE_IP, 30080)
NP_LOOP, NP_SECOND = To("127.0.0.1", 30080), To(NODE_OUTSIDE, 30080)
VIP_UDP, VIP_SCTP = To(VIP, 80, "udp"), To(VIP, 80, "sctp")
NP_UDP, NP_SCTP = To(NODE_IP, 30080, "udp"), To(NODE_IP, 30080, "sctp")
FROM_A, FROM_B = pod(A, "veth1"), away(B)
IN_RANGE, BEYOND = pod("10.180.0.9", "veth9"), outside("203.0.113.200")
FROM_LB = outside(BALANCER)

# fmt: off
CLUSTER_IP = [
    case("pod to cluster IP uses every endpoint", PLAIN, [HERE, THERE], POD, TO_VIP, dnat(A, B)),
    case("pod of another node to cluster IP keeps its source", PLAIN, [HERE, THERE], AWAY, TO_VIP, dnat(A, B)),
    case("outside to cluster IP is masqueraded", PLAIN, [HERE, THERE], OUT, TO_VIP, masq(A, B)),
    case("node to cluster IP is masqueraded", PLAIN, [HERE, THERE], SELF, TO_VIP, masq(A, B)),
    case("three endpoints are all reached", PLAIN, [HERE, FAR, THERE], POD, TO_VIP, dnat(A, B, C)),
    case("cluster IP without endpoints rejects pods", PLAIN, [], POD, TO_VIP, REJECT),
    case("cluster IP without endpoints rejects pods of other nodes", PLAIN, [], AWAY, TO_VIP, REJECT),
    case("cluster IP without endpoints rejects outside", PLAIN, [], OUT, TO_VIP, REJECT),
    case("cluster IP without endpoints rejects the node", PLAIN, [], SELF, TO_VIP, REJECT),
    case("pod reaches itself through its service masqueraded", PLAIN, [HERE], FROM_A, TO_VIP, masq(A)),
    case("pod elsewhere reaches itself through this node", PLAIN, [THERE], FROM_B, TO_VIP, masq(B), ipvs=dnat(B)),
    case("endpoint to another endpoint of its service keeps its source", PLAIN, [THERE], FROM_A, TO_VIP, dnat(B)),
    case("other port of a cluster IP", PLAIN, [HERE], POD, To(VIP, 81), NONE, nft=REJECT, ipvs=REJECT),
    case("other port of a cluster IP, from the node", PLAIN, [HERE], SELF, To(VIP, 81), NONE, nft=REJECT, ipvs=REJECT),
    case("other port of a cluster IP, from outside", PLAIN, [HERE], OUT, To(VIP, 81), NONE, nft=REJECT, ipvs=REJECT),
    case("other protocol of a cluster IP", PLAIN, [HERE], POD, VIP_UDP, NONE, nft=REJECT, ipvs=REJECT),
    case("endpoint's own port on the cluster IP", PLAIN, [HERE], POD, To(VIP, 8080), NONE, nft=REJECT, ipvs=REJECT),
    case("address of no service passes", PLAIN, [HERE], POD, To("172.30.9.9", 80), NONE),
    case("endpoint itself is not translated", PLAIN, [HERE], AWAY, To(A, 8080), NONE),
    case("udp cluster IP", UDP, [HERE, THERE], POD, VIP_UDP, dnat(A, B)),
    case("udp cluster IP from outside", UDP, [HERE, THERE], OUT, VIP_UDP, masq(A, B)),
    case("udp cluster IP from the node", UDP, [HERE, THERE], SELF, VIP_UDP, masq(A, B)),
    case("udp cluster IP without endpoints", UDP, [], POD, VIP_UDP, REJECT),
    case("udp node port", UDP, [HERE], OUT, NP_UDP, masq(A)),
    case("udp node port without endpoints", UDP, [], OUT, NP_UDP, REJECT),
    case("sctp cluster IP", SCTP, [HERE, THERE], POD, VIP_SCTP, dnat(A, B)),
    case("sctp cluster IP from outside", SCTP, [HERE], OUT, VIP_SCTP, masq(A)),
    case("sctp cluster IP without endpoints", SCTP, [], POD, VIP_SCTP, REJECT),
    case("sctp node port", SCTP, [HERE], OUT, NP_SCTP, masq(A)),
    case("sctp node port without endpoints", SCTP, [], OUT, NP_SCTP, REJECT),
]

CONDITIONS = [
    case("endpoint that is not ready does not count", PLAIN, [SILENT], POD, TO_VIP, REJECT),
    case("ready one beside one that is not", PLAIN, [HERE, SILENT], POD, TO_VIP, dnat(A)),
    case("endpoint that has ended does not count", PLAIN, [ENDED], POD, TO_VIP, REJECT),
    case("unset conditions mean ready", PLAIN, [(*HERE, "unset")], POD, TO_VIP, dnat(A)),
    case("only terminating endpoints are used", PLAIN, [ENDING_HERE, ENDING_THERE], POD, TO_VIP, dnat(A, B)),
    case("ready beats terminating", PLAIN, [ENDING_HERE, THERE], POD, TO_VIP, dnat(B)),
    case("serving and terminating beats ended", PLAIN, [ENDED, ENDING_THERE], POD, TO_VIP, dnat(B)),
    case("publishNotReadyAddresses: ready though not serving", PLAIN, [(*HERE, "published")], POD, TO_VIP, dnat(A)),
    case("publishNotReadyAddresses: ready though terminating", PLAIN, [(*HERE, "parting")], POD, TO_VIP, dnat(A)),
    case("serving, not ready, not terminating does not count", PLAIN, [(*HERE, "warming")], POD, TO_VIP, REJECT),
    case("terminating counts even without word about serving", PLAIN, [(*HERE, "leaving")], POD, TO_VIP, dnat(A)),
    case("node port falls back to terminating", OPEN, [ENDING_THERE], OUT, TO_NP, masq(B)),
    case("node port rejects when the last one has ended", OPEN, [ENDED], OUT, TO_NP, REJECT),
    case("load balancer falls back to terminating", OPEN, [ENDING_HERE, SILENT], OUT, TO_LB, masq(A)),
    case("endpoint without a node is used by the cluster policy", PLAIN, [(A, "")], POD, TO_VIP, dnat(A)),
    case("endpoint without a node is nobody's local one", E_LOCAL, [(A, "")], OUT, TO_NP, DROP, ipvs=dnat(A)),
]

INTERNAL_LOCAL = [
    case("internal Local keeps to this node", I_LOCAL, [HERE, THERE], POD, TO_VIP, dnat(A)),
    case("internal Local keeps pods of other nodes here", I_LOCAL, [HERE, THERE], AWAY, TO_VIP, dnat(A)),
    case("internal Local masquerades outside sources", I_LOCAL, [HERE, THERE], OUT, TO_VIP, masq(A)),
    case("internal Local masquerades the node", I_LOCAL, [HERE, THERE], SELF, TO_VIP, masq(A)),
    case("internal Local with only remote endpoints", I_LOCAL, [THERE], POD, TO_VIP, DROP, ipvs=REJECT),
    case("internal Local drops the node too", I_LOCAL, [THERE], SELF, TO_VIP, DROP, ipvs=REJECT),
    case("internal Local drops outside too", I_LOCAL, [THERE], OUT, TO_VIP, DROP, ipvs=REJECT),
    case("internal Local without any endpoint rejects", I_LOCAL, [], POD, TO_VIP, REJECT),
    case("internal Local falls back to terminating", I_LOCAL, [ENDING_HERE, THERE], POD, TO_VIP, dnat(A)),
    case("internal Local does not use what has ended", I_LOCAL, [ENDED, THERE], POD, TO_VIP, DROP, ipvs=REJECT),
    case("internal Local reaches itself masqueraded", I_LOCAL, [HERE, THERE], FROM_A, TO_VIP, masq(A)),
    case("internal Local beside an open node port: cluster IP",
         {**OPEN, **I_LOCAL}, [THERE], POD, TO_VIP, DROP, ipvs=dnat(B)),
    case("internal Local beside an open node port: node port", {**OPEN, **I_LOCAL}, [THERE], OUT, TO_NP, masq(B)),
    case("internal Local beside a load balancer: its address",
         {**OPEN, **I_LOCAL}, [HERE, THERE], OUT, TO_LB, masq(A, B)),
]

EXTERNAL_CLUSTER = [
    *(case(f"{who} to {what}", OPEN, [HERE, THERE], source, to, masq(A, B))
      for who, source in (("outside", OUT), ("pod", POD), ("pod of another node", AWAY), ("node", SELF))
      for what, to in (("node port", TO_NP), ("external IP", TO_EXT), ("load balancer IP", TO_LB))),
    case("node port on loopback", OPEN, [HERE, THERE], LOOP, NP_LOOP, masq(A, B), nft=NONE, ipvs=NONE),
    case("node port on a second address", OPEN, [HERE, THERE], OUT, NP_SECOND, masq(A, B), nft=NONE),
    case("node port without endpoints rejects", OPEN, [], OUT, TO_NP, REJECT),
    case("node port without endpoints rejects pods", OPEN, [], POD, TO_NP, REJECT),
    case("node port without endpoints rejects the node", OPEN, [], SELF, TO_NP, REJECT),
    case("node port on loopback without endpoints", OPEN, [], LOOP, NP_LOOP, REJECT, nft=NONE, ipvs=NONE),
    case("node port on a second address without endpoints", OPEN, [], OUT, NP_SECOND, REJECT, nft=NONE),
    case("external IP without endpoints rejects", OPEN, [], OUT, TO_EXT, REJECT),
    case("external IP without endpoints rejects pods", OPEN, [], POD, TO_EXT, REJECT),
    case("external IP without endpoints, from the node", OPEN, [], SELF, TO_EXT, NONE, nft=REJECT, ipvs=REJECT),
    case("load balancer IP without endpoints rejects", OPEN, [], OUT, TO_LB, REJECT),
    case("load balancer IP without endpoints, from the node", OPEN, [], SELF, TO_LB, NONE, nft=REJECT, ipvs=REJECT),
    case("service port on the node's address is the host's", OPEN, [HERE], OUT, To(NODE_IP, 80), NONE),
    case("node port of another node is none of ours", OPEN, [HERE], POD, To(PEER, 30080), NONE),
    case("node port of another protocol", OPEN, [HERE], OUT, NP_UDP, NONE),
    case("node port on the cluster IP", OPEN, [HERE], POD, To(VIP, 30080), NONE, nft=REJECT, ipvs=REJECT),
    case("node port on the external IP", OPEN, [HERE], OUT, To(EXTERNAL, 30080), NONE, ipvs=REJECT),
    case("other port of an external IP", OPEN, [HERE], OUT, To(EXTERNAL, 81), NONE, ipvs=REJECT),
    case("other port of a load balancer IP", OPEN, [HERE], POD, To(BALANCER, 81), NONE, ipvs=REJECT),
    case("pod reaches itself through a node port", OPEN, [HERE], FROM_A, TO_NP, masq(A)),
    case("pod reaches itself through the load balancer", OPEN, [HERE], FROM_A, TO_LB, masq(A)),
    case("service of type ClusterIP with an external IP",
         {"external_ips": [EXTERNAL]}, [HERE, THERE], OUT, TO_EXT, masq(A, B)),
    case("external IP that is the node's own address",
         {"external_ips": [NODE_IP]}, [HERE], OUT, To(NODE_IP, 80), masq(A)),
    case("other port of an external IP that is the node's own",
         {"external_ips": [NODE_IP]}, [HERE], OUT, To(NODE_IP, 81), NONE),
    case("load balancer IP that is the node's own address",
         {"type": "LoadBalancer", "ingress": [NODE_OUTSIDE]}, [HERE], OUT, To(NODE_OUTSIDE, 80), masq(A)),
    case("load balancer without node ports still has its address",
         {"type": "LoadBalancer", "ingress": [BALANCER]}, [HERE], OUT, TO_LB, masq(A)),
    case("load balancer without node ports has none",
         {"type": "LoadBalancer", "ingress": [BALANCER]}, [HERE], OUT, TO_NP, NONE),
    case("second ingress address", {**OPEN, "ingress": [BALANCER, "1.2.3.5"]}, [HERE], OUT, To("1.2.3.5", 80), masq(A)),
    case("ipMode VIP", {**OPEN, "ingress": [{"ip": BALANCER, "ipMode": "VIP"}]}, [HERE], OUT, TO_LB, masq(A)),
    case("ipMode Proxy leaves the address to the balancer",
         {**OPEN, "ingress": [{"ip": BALANCER, "ipMode": "Proxy"}]}, [HERE], POD, TO_LB, NONE),
    case("ipMode Proxy leaves the node port alone",
         {**OPEN, "ingress": [{"ip": BALANCER, "ipMode": "Proxy"}]}, [HERE], OUT, TO_NP, masq(A)),
    case("ingress by host name has no address", {**OPEN, "ingress": [{"hostname": "x"}]}, [HERE], POD, TO_LB, NONE),
    case("port of the health check is the host's",
         {**E_LOCAL, "health": 31000}, [HERE], OUT, To(NODE_IP, 31000), NONE),
]

EXTERNAL_LOCAL = [
    *(case(f"external Local keeps the client's source on the {what}", E_LOCAL, [HERE, THERE], OUT, to, dnat(A))
      for what, to in (("node port", TO_NP), ("external IP", TO_EXT), ("load balancer IP", TO_LB))),
    *(case(f"external Local with only remote endpoints: {what}", E_LOCAL, [THERE], OUT, to, DROP, ipvs=dnat(B))
      for what, to in (("node port", TO_NP), ("external IP", TO_EXT), ("load balancer IP", TO_LB))),
    *(case(f"external Local without any endpoint rejects on the {what}", E_LOCAL, [], OUT, to, REJECT)
      for what, to in (("node port", TO_NP), ("external IP", TO_EXT), ("load balancer IP", TO_LB))),
    *(case(f"{who} short-circuits external Local to {what}", E_LOCAL, [HERE, THERE], source, to,
           dnat(A, B), ipvs=dnat(A))
      for who, source in (("pod", POD), ("pod of another node", AWAY))
      for what, to in (("node port", TO_NP), ("external IP", TO_EXT), ("load balancer IP", TO_LB))),
    *(case(f"node short-circuits external Local to {what}", E_LOCAL, [HERE, THERE], SELF, to, masq(A, B), ipvs=dnat(A))
      for what, to in (("node port", TO_NP), ("external IP", TO_EXT), ("load balancer IP", TO_LB))),
    case("pods reach remote endpoints by an external Local node port", E_LOCAL, [THERE], POD, TO_NP, dnat(B)),
    case("pods reach remote endpoints by an external Local balancer", E_LOCAL, [THERE], POD, TO_LB, dnat(B)),
    *(case(f"node reaches remote endpoints by external Local {what}", E_LOCAL, [THERE], SELF, to, masq(B), ipvs=dnat(B))
      for what, to in (("node port", TO_NP), ("external IP", TO_EXT), ("load balancer IP", TO_LB))),
    case("external Local node port on loopback", E_LOCAL, [THERE], LOOP, NP_LOOP, masq(B), nft=NONE, ipvs=NONE),
    case("external Local on a second address", E_LOCAL, [THERE], OUT, NP_SECOND, DROP, nft=NONE, ipvs=dnat(B)),
    case("external Local leaves the cluster IP alone", E_LOCAL, [HERE, THERE], POD, TO_VIP, dnat(A, B)),
    case("external Local does not spare outside the masquerade to a cluster IP",
         E_LOCAL, [HERE, THERE], OUT, TO_VIP, masq(A, B)),
    case("external Local uses the local terminating one", E_LOCAL, [ENDING_HERE, THERE], OUT, TO_NP, dnat(A)),
    case("while the cluster IP uses the ready remote one", E_LOCAL, [ENDING_HERE, THERE], POD, TO_VIP, dnat(B)),
    case("external Local does not use what has ended", E_LOCAL, [ENDED, THERE], OUT, TO_NP, DROP, ipvs=dnat(B)),
    case("external Local reaches itself masqueraded", E_LOCAL, [HERE], FROM_A, TO_LB, masq(A)),
    case("external Local by the external IP of a ClusterIP service",
         {"external_ips": [EXTERNAL], "external_policy": "Local"}, [HERE, THERE], OUT, TO_EXT, dnat(A)),
    case("external Local of a plain ClusterIP service means nothing",
         {"external_policy": "Local"}, [THERE], POD, TO_VIP, dnat(B)),
    case("external Local by udp", {**UDP, "external_policy": "Local"}, [HERE, THERE], OUT, NP_UDP, dnat(A)),
    case("external Local by udp with only remote endpoints",
         {**UDP, "external_policy": "Local"}, [THERE], OUT, NP_UDP, DROP, ipvs=dnat(B)),
    case("both Local: cluster IP", BOTH_LOCAL, [HERE, THERE], POD, TO_VIP, dnat(A)),
    case("both Local: node port", BOTH_LOCAL, [HERE, THERE], OUT, TO_NP, dnat(A)),
    case("both Local: pods short-circuit the node port", BOTH_LOCAL, [THERE], POD, TO_NP, dnat(B)),
    case("both Local: cluster IP with only remote endpoints", BOTH_LOCAL, [THERE], POD, TO_VIP, DROP, ipvs=dnat(B)),
]

SOURCE_RANGES = [
    case("source inside the ranges may", RANGES, [HERE], OUT, TO_LB, masq(A)),
    case("source outside of the ranges may not", RANGES, [HERE], BEYOND, TO_LB, DROP),
    case("pod inside the ranges may", RANGES, [HERE], IN_RANGE, TO_LB, masq(A)),
    case("pod outside of the ranges may not", RANGES, [HERE], POD, TO_LB, DROP),
    case("pod of another node outside of the ranges may not", RANGES, [HERE], AWAY, TO_LB, DROP),
    case("node outside of the ranges may not", RANGES, [HERE], SELF, TO_LB, DROP),
    case("node inside the ranges may", NODE_RANGE, [HERE], SELF, TO_LB, masq(A)),
    case("balancer on the node's network may send with its address",
         NODE_RANGE, [HERE], FROM_LB, TO_LB, masq(A), ipvs=DROP),
    case("balancer elsewhere may not", RANGES, [HERE], FROM_LB, TO_LB, DROP),
    case("ranges do not guard node ports", RANGES, [HERE], BEYOND, TO_NP, masq(A)),
    case("ranges do not guard external IPs", RANGES, [HERE], BEYOND, TO_EXT, masq(A)),
    case("ranges do not guard cluster IPs", RANGES, [HERE], BEYOND, TO_VIP, masq(A)),
    case("ranges without endpoints, source outside of them", RANGES, [], BEYOND, TO_LB, REJECT, nft=DROP, ipvs=DROP),
    case("ranges without endpoints, source inside of them", RANGES, [], OUT, TO_LB, REJECT),
    case("ranges and external Local, source inside", E_RANGES, [HERE, THERE], OUT, TO_LB, dnat(A)),
    case("ranges and external Local, source outside", E_RANGES, [HERE, THERE], BEYOND, TO_LB, DROP),
    case("ranges and external Local, pod inside", E_RANGES, [HERE, THERE], POD, TO_LB, dnat(A, B), ipvs=dnat(A)),
    case("ranges and external Local, pod outside", E_RANGES, [HERE, THERE], AWAY, TO_LB, DROP),
    case("ranges and external Local, only remote endpoints", E_RANGES, [THERE], OUT, TO_LB, DROP, ipvs=dnat(B)),
    case("ranges of every address", {**OPEN, "ranges": ["0.0.0.0/0"]}, [HERE], BEYOND, TO_LB, masq(A)),
    case("range of a single address", {**OPEN, "ranges": [f"{CLIENT}/32"]}, [HERE], OUT, TO_LB, masq(A)),
    case("ranges of the other family are no ranges", {**OPEN, "ranges": ["fd00::/8"]}, [HERE], BEYOND, TO_LB, masq(A)),
    case("ranges without sense are left out",
         {**OPEN, "ranges": ["nonsense", "203.0.113.0/25"]}, [HERE], BEYOND, TO_LB, DROP),
]
# fmt: on

BASIC: list[Case] = [
    *CLUSTER_IP,
    *CONDITIONS,
    *INTERNAL_LOCAL,
    *EXTERNAL_CLUSTER,
    *EXTERNAL_LOCAL,
    *SOURCE_RANGES,
]
