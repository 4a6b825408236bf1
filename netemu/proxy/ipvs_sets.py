"""ipvs mode: the ipsets, with upstream's names and kinds (`pkg/proxy/ipvs/ipset.go`)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from netemu.proxy.services import Family

_LONGEST_NAME = 31


class Kind(NamedTuple):
    """The name for IPv4, and the type in ipset's words."""

    name: str
    type: str


class IpSet(Enum):
    """Each set, in upstream's order. What stands in it, as `ipset save` prints it, is behind its type."""

    LOOP_BACK = Kind("KUBE-LOOP-BACK", "hash:ip,port,ip")
    """Endpoints of this node, twice: `10.180.0.1,tcp:8080,10.180.0.1`."""
    CLUSTER_IP = Kind("KUBE-CLUSTER-IP", "hash:ip,port")
    EXTERNAL_IP = Kind("KUBE-EXTERNAL-IP", "hash:ip,port")
    EXTERNAL_IP_LOCAL = Kind("KUBE-EXTERNAL-IP-LOCAL", "hash:ip,port")
    LOAD_BALANCER = Kind("KUBE-LOAD-BALANCER", "hash:ip,port")
    LOAD_BALANCER_FW = Kind("KUBE-LOAD-BALANCER-FW", "hash:ip,port")
    LOAD_BALANCER_LOCAL = Kind("KUBE-LOAD-BALANCER-LOCAL", "hash:ip,port")
    LOAD_BALANCER_SOURCE_IP = Kind("KUBE-LOAD-BALANCER-SOURCE-IP", "hash:ip,port,ip")
    LOAD_BALANCER_SOURCE_CIDR = Kind("KUBE-LOAD-BALANCER-SOURCE-CIDR", "hash:ip,port,net")
    NODE_PORT_TCP = Kind("KUBE-NODE-PORT-TCP", "bitmap:port")
    NODE_PORT_LOCAL_TCP = Kind("KUBE-NODE-PORT-LOCAL-TCP", "bitmap:port")
    NODE_PORT_UDP = Kind("KUBE-NODE-PORT-UDP", "bitmap:port")
    NODE_PORT_LOCAL_UDP = Kind("KUBE-NODE-PORT-LOCAL-UDP", "bitmap:port")
    NODE_PORT_SCTP = Kind("KUBE-NODE-PORT-SCTP-HASH", "hash:ip,port")
    NODE_PORT_LOCAL_SCTP = Kind("KUBE-NODE-PORT-LOCAL-SCTP-HASH", "hash:ip,port")
    HEALTH_CHECK_NODE_PORT = Kind("KUBE-HEALTH-CHECK-NODE-PORT", "bitmap:port")
    IPVS_IPS = Kind("KUBE-IPVS-IPS", "hash:ip")
    """What is on kube-ipvs0."""

    @property
    def type(self) -> str:
        """`hash:ip,port` and the like."""
        return self.value.type

    def named(self, family: Family) -> str:
        """The set's name; a set of IPv6 addresses is another one."""
        if family is Family.IPV4:
            return self.value.name
        return f"KUBE-6-{self.value.name.removeprefix('KUBE-')}"[:_LONGEST_NAME]

    def __lt__(self, other: IpSet) -> bool:
        return self.value.name < other.value.name


NODE_PORT_SETS = {
    "tcp": (IpSet.NODE_PORT_TCP, IpSet.NODE_PORT_LOCAL_TCP),
    "udp": (IpSet.NODE_PORT_UDP, IpSet.NODE_PORT_LOCAL_UDP),
    "sctp": (IpSet.NODE_PORT_SCTP, IpSet.NODE_PORT_LOCAL_SCTP),
}
"""By protocol: all node ports, and those of which only endpoints of this node answer."""
