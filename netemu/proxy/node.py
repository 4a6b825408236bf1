"""What one node contributes: its Node object and settings to facts for the compiler, and its sysctls."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Mapping
from typing import NoReturn

from netemu.client.informer import Informer
from netemu.kernel import sysctl
from netemu.model.errors import KernelError, NetemuError
from netemu.model.objects import Node
from netemu.proxy.config import ConntrackConfiguration, KubeProxyConfiguration
from netemu.proxy.facts import Detector
from netemu.proxy.services import Family, networks_of_family, of_family

log = logging.getLogger(__name__)

_POD_CIDR_SECONDS = 300.0


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
            network = next(iter(networks_of_family(networks, family)), "")
        case _:
            network = config.cluster_network(family)
    return Detector.cidr(network) if network else Detector()


async def guard_pod_cidrs(nodes: Informer[Node], name: str, *, patience: float = _POD_CIDR_SECONDS) -> NoReturn:
    """For detectLocalMode NodeCIDR: without the Node's podCIDRs, or with old ones, a proxy ends, as upstream's does.

    Raises NetemuError where they are not there within `patience` seconds, and when they change after that: whoever
    supervises the proxy starts it again.
    """
    changed = asyncio.Event()
    nodes.on_change(lambda _old, _new: changed.set())
    try:
        async with asyncio.timeout(patience):
            while not (first := _known_cidrs(nodes, name)):
                await _next(changed)
    except TimeoutError:
        why = f"node {name} has had no podCIDRs for {patience:.0f} s, and detectLocalMode NodeCIDR needs them"
        raise NetemuError(why) from None
    while (now := _known_cidrs(nodes, name) or first) == first:
        await _next(changed)
    raise NetemuError(f"the podCIDRs of node {name} are {', '.join(now)} instead of {', '.join(first)}; start again")


def _known_cidrs(nodes: Informer[Node], name: str) -> tuple[str, ...]:
    node = nodes.get(name)
    return pod_cidrs(node) if node else ()


async def _next(changed: asyncio.Event) -> None:
    changed.clear()
    await changed.wait()


def node_ip(bind_address: str, node: Node | None, family: Family) -> str:
    """A specific bindAddress, else the Node's first InternalIP, else its first ExternalIP, of the family."""
    if bind_address not in ("0.0.0.0", "::") and of_family((bind_address,), family):
        return bind_address
    addresses = node.status.addresses if node else ()
    by_type = (a.address for kind in ("InternalIP", "ExternalIP") for a in addresses if a.type == kind)
    return next(iter(of_family(by_type, family)), "")


def set_sysctls(config: KubeProxyConfiguration, netns: str, of_mode: Mapping[str, str | int]) -> None:
    """What the mode (`of_mode`) and `conntrack` ask for. Raises KernelError where the mode's are refused.

    nf_conntrack_max is the machine's, so only its own namespace sets it. A container may look like that and not be
    allowed to; what `conntrack` asks for is then left as it is, with a warning, because rules work without it.
    """
    for name, value in _of_conntrack(config.conntrack, machine=not netns and _is_host_namespace()).items():
        try:
            sysctl.write({name: value}, netns, optional=True)
        except KernelError as error:
            if error.code not in (errno.EPERM, errno.EACCES, errno.EROFS):
                raise
            if sysctl.read(name, netns) != str(value):
                log.warning("proxy: %s; left as it is (0 in the configuration's `conntrack` asks for nothing)", error)
    sysctl.write(of_mode, netns, optional=True)


def _of_conntrack(conntrack: ConntrackConfiguration, *, machine: bool) -> dict[str, int]:
    values = {
        "tcp_timeout_established": int(conntrack.tcp_established_timeout),
        "tcp_timeout_close_wait": int(conntrack.tcp_close_wait_timeout),
        "udp_timeout": int(conntrack.udp_timeout),
        "udp_timeout_stream": int(conntrack.udp_stream_timeout),
        "tcp_be_liberal": int(conntrack.tcp_be_liberal),
    }
    if machine and conntrack.max_per_core:
        values["max"] = max(conntrack.min, conntrack.max_per_core * (os.cpu_count() or 1))
    return {f"net/netfilter/nf_conntrack_{name}": value for name, value in values.items() if value > 0}


def _is_host_namespace() -> bool:
    try:
        return os.stat("/proc/thread-self/ns/net").st_ino == os.stat("/proc/1/ns/net").st_ino
    except OSError:
        return False
