"""What one node contributes: its Node object and settings to facts for the compiler, and its sysctls."""

from __future__ import annotations

import os

from netemu.kernel import sysctl
from netemu.model.errors import KernelError
from netemu.model.objects import Node
from netemu.proxy import rulefiles
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.iptables import Detector
from netemu.proxy.services import Family, family_of, of_family


def pod_cidrs(node: Node) -> tuple[str, ...]:
    """The networks of a Node's Pods."""
    return node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())


def detector(config: KubeProxyConfiguration, node: Node | None, family: Family) -> Detector:
    """What `detectLocalMode` means here; matches nothing where the CIDR is not known."""
    local = config.detect_local
    match config.detect_local_mode:
        case "BridgeInterface":
            return Detector.interface(local.bridge_interface)
        case "InterfaceNamePrefix":
            return Detector.interface(local.interface_name_prefix + "+")
        case "NodeCIDR":
            networks = pod_cidrs(node) if node else ()
            network = next((n for n in networks if family_of(n) is family), "")
        case _:
            network = config.cluster_network(family)
    return Detector.cidr(network) if network else Detector()


def node_ip(bind_address: str, node: Node | None, family: Family) -> str:
    """A specific bindAddress, else the Node's first InternalIP, else its first ExternalIP, of the family."""
    if bind_address not in ("0.0.0.0", "::") and of_family((bind_address,), family):
        return bind_address
    addresses = node.status.addresses if node else ()
    by_type = (a.address for kind in ("InternalIP", "ExternalIP") for a in addresses if a.type == kind)
    return next(iter(of_family(by_type, family)), "")


def base_rules(config: KubeProxyConfiguration, family: Family, *, liberal: bool) -> rulefiles.Base:
    """The files of `rules/iptables` that apply."""
    names = ["base.rules"] if liberal else ["drop-invalid.rules", "base.rules"]
    if family is Family.IPV4 and config.iptables.localhost_node_ports:
        names.append("localhost-nodeports.rules")
    return rulefiles.load("iptables", names, mark=f"{1 << config.iptables.masquerade_bit:#x}")


def liberal_conntrack(netns: str) -> bool:
    """Whether conntrack takes segments outside of the window for valid."""
    try:
        return sysctl.read("net/netfilter/nf_conntrack_tcp_be_liberal", netns) != "0"
    except KernelError:
        return False


def set_sysctls(config: KubeProxyConfiguration, netns: str) -> None:
    """What the mode and `conntrack` ask for. nf_conntrack_max is the machine's, so only its own namespace sets it."""
    conntrack = config.conntrack
    timeouts = {
        "tcp_timeout_established": int(conntrack.tcp_established_timeout),
        "tcp_timeout_close_wait": int(conntrack.tcp_close_wait_timeout),
        "udp_timeout": int(conntrack.udp_timeout),
        "udp_timeout_stream": int(conntrack.udp_stream_timeout),
        "tcp_be_liberal": int(conntrack.tcp_be_liberal),
    }
    values: dict[str, str | int] = {f"net/netfilter/nf_conntrack_{k}": v for k, v in timeouts.items() if v > 0}
    if not netns and _is_host_namespace():
        wanted = max(conntrack.min, conntrack.max_per_core * (os.cpu_count() or 1)) if conntrack.max_per_core else 0
        if wanted and int(sysctl.read("net/netfilter/nf_conntrack_max")) != wanted:
            values["net/netfilter/nf_conntrack_max"] = wanted
    reachable = config.node_port_addresses
    if config.iptables.localhost_node_ports and (not reachable or any(n.startswith(("127.", "0.")) for n in reachable)):
        values["net/ipv4/conf/all/route_localnet"] = 1
    sysctl.write(values, netns, optional=True)


def _is_host_namespace() -> bool:
    try:
        return os.stat("/proc/thread-self/ns/net").st_ino == os.stat("/proc/1/ns/net").st_ino
    except OSError:
        return False
