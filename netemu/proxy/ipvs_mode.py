"""ipvs mode: what the core asks of it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from netemu.kernel import sysctl
from netemu.kernel.conntrack import Conntrack
from netemu.kernel.ipset import IpsetNetlink
from netemu.kernel.iptables import IptablesTool, choose
from netemu.kernel.ipvs import IpvsNetlink, SetTimeouts, Timeouts
from netemu.kernel.netlink import Netlink
from netemu.model.errors import KernelError, KernelNotFound, UserError
from netemu.proxy import rulefiles
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.ipvs import DEFAULT_SCHEDULER
from netemu.proxy.ipvs_edge import IpvsEdge
from netemu.proxy.ipvs_programmer import IpvsProgrammer
from netemu.proxy.modes import Mode, Periods, Site, listed_networks
from netemu.proxy.services import Family, networks_of_family

log = logging.getLogger(__name__)

_LINGER_SECONDS = 5.0
_INSTEAD = "set mode to iptables or nftables on this machine"


class IpvsMode:
    """See Mode."""

    def periods(self, config: KubeProxyConfiguration) -> Periods:
        """Every sync period everything is looked at again."""
        return Periods(config.ipvs.sync_period, config.ipvs.min_sync_period, config.ipvs.sync_period)

    def masquerade_all(self, config: KubeProxyConfiguration) -> bool:
        """iptables' setting holds here too."""
        return config.iptables.masquerade_all

    def node_port_networks(self, config: KubeProxyConfiguration, family: Family, node_ip: str) -> tuple[str, ...]:
        """See Mode."""
        return listed_networks(config, family, node_ip)

    def needs_addresses(self, networks: tuple[str, ...]) -> bool:
        """The programmer reads them, because it must tell those on kube-ipvs0 from the others."""
        return False

    def sysctls(self, config: KubeProxyConfiguration) -> Mapping[str, str | int]:
        """Those of IPVS are there only once the kernel's module is, so the programmer's factory sets them."""
        strict = {"net/ipv4/conf/all/arp_ignore": 1, "net/ipv4/conf/all/arp_announce": 2}
        return {"net/ipv4/ip_forward": 1, **(strict if config.ipvs.strict_arp else {})}

    async def programmer(self, config: KubeProxyConfiguration, family: Family, site: Site) -> IpvsProgrammer:
        """See Mode."""
        tool = await choose(site.netns, ipv6=family is Family.IPV6, lock_file=site.lock_file)
        await asyncio.to_thread(_prepare, config, family, site)
        return _programmer(config, family, site, tool)

    async def cleanup(self, config: KubeProxyConfiguration, site: Site, *, successor: str = "") -> None:
        """Both families, and both kinds of the tool: somebody may have switched between them."""
        try:
            fronts = await asyncio.to_thread(_udp_fronts, config, site)
        except KernelError as error:
            log.debug("proxy: nothing of ipvs mode to clean up: %s", error)
            return
        kept = rulefiles.load("iptables", ("base.rules",)) if successor == "iptables" else rulefiles.Base({}, ())
        for programmer in _every_programmer(config, site):
            try:
                await programmer.cleanup(kept if successor else None)
            except KernelError as error:
                log.debug("proxy: not cleaned up: %s", error)
        if fronts:
            await asyncio.to_thread(_forget_flows, fronts, site)

    async def linger(self, config: KubeProxyConfiguration, site: Site) -> None:
        """See Mode."""
        for programmer in _every_programmer(config, site):
            with suppress(KernelError):
                while not await programmer.linger():  # noqa: ASYNC110
                    await asyncio.sleep(_LINGER_SECONDS)  # the kernel has no event for the end of a connection


MODE: Mode = IpvsMode()


def ipvs_sysctls(release: str) -> dict[str, str | int]:
    """IPVS' own sysctls, for a kernel release such as 6.1.0-18-amd64."""
    values: dict[str, str | int] = {
        # Without it no packet that IPVS translates could be masqueraded.
        "net/ipv4/vs/conntrack": 1,
        "net/ipv4/vs/expire_nodest_conn": 1,
        "net/ipv4/vs/expire_quiescent_template": 1,
    }
    found = re.match(r"(\d+)\.(\d+)", release)
    # Before 5.9 a client's port used again cost a second of delay; later kernels need no such setting.
    if found and (4, 1) <= (int(found[1]), int(found[2])) < (5, 9):
        values["net/ipv4/vs/conn_reuse_mode"] = 0
    return values


def _programmer(config: KubeProxyConfiguration, family: Family, site: Site, tool: IptablesTool) -> IpvsProgrammer:
    scheduler, mark = config.ipvs.scheduler or DEFAULT_SCHEDULER, f"{1 << config.iptables.masquerade_bit:#x}"
    return IpvsProgrammer(lambda: _edge(config, family, site), tool, scheduler=scheduler, mark=mark)


def _every_programmer(config: KubeProxyConfiguration, site: Site) -> Iterator[IpvsProgrammer]:
    for family in Family:
        name = "ip6tables" if family is Family.IPV6 else "iptables"
        for kind in ("nft", "legacy"):
            yield _programmer(config, family, site, IptablesTool(f"{name}-{kind}", site.netns, site.lock_file))


def _udp_fronts(config: KubeProxyConfiguration, site: Site) -> frozenset[tuple[str, int]]:
    """Where UDP senders are served from now. Raises KernelError where the kernel has no IPVS."""
    edge = _edge(config, Family.IPV4, site)
    try:
        return frozenset((s.key.address, s.key.port) for s in edge.balancer.servers() if s.key.protocol == "udp")
    finally:
        edge.close()


def _forget_flows(fronts: Collection[tuple[str, int]], site: Site) -> None:
    """A tracked flow meets no rule of the next mode, and without IPVS nobody would translate its packets."""
    conntrack = Conntrack(site.netns)
    for ipv6 in (False, True):
        flows = conntrack.flows("udp", ipv6=ipv6)
        conntrack.delete([flow for flow in flows if (flow.destination, flow.port) in fronts], ipv6=ipv6)


def _edge(config: KubeProxyConfiguration, family: Family, site: Site) -> IpvsEdge:
    """Raises KernelError where the kernel lacks something."""
    excluded = networks_of_family(config.ipvs.exclude_cidrs, family)
    balancer = IpvsNetlink(site.netns)
    return IpvsEdge(balancer, IpsetNetlink(site.netns), Netlink(site.netns), family, excluded)


def _prepare(config: KubeProxyConfiguration, family: Family, site: Site) -> None:
    """Find out whether the kernel can do it, and set what is set once. Raises UserError naming what is missing."""
    ipvs = config.ipvs
    try:
        edge = _edge(config, family, site)
    except KernelNotFound as error:
        raise UserError(f"kube-proxy's ipvs mode: {error}; {_INSTEAD}") from error
    try:
        edge.prove(ipvs.scheduler or DEFAULT_SCHEDULER)
        sysctl.write(ipvs_sysctls(os.uname().release), site.netns)
        timeouts = Timeouts(int(ipvs.tcp_timeout), int(ipvs.tcp_fin_timeout), int(ipvs.udp_timeout))
        if timeouts != Timeouts():
            edge.balancer.apply(SetTimeouts(timeouts))
    except KernelError as error:
        raise UserError(f"kube-proxy's ipvs mode: {error}; {_INSTEAD}") from error
    finally:
        edge.close()
