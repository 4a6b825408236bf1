"""ipvs mode: what the core asks of it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TypeVar

from netemu.kernel import sysctl
from netemu.kernel.ipset import IpsetNetlink
from netemu.kernel.iptables import IptablesTool, choose
from netemu.kernel.ipvs import IpvsNetlink, SetTimeouts, Timeouts
from netemu.kernel.netlink import Netlink
from netemu.model.errors import KernelError, KernelNotFound, UserError
from netemu.proxy import ipvs_leaving, rulefiles
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.ipvs import DEFAULT_SCHEDULER, DUMMY_LINK
from netemu.proxy.ipvs_edge import IpvsEdge
from netemu.proxy.ipvs_programmer import IpvsProgrammer
from netemu.proxy.modes import Mode, Periods, Site, listed_networks
from netemu.proxy.rulefiles import Base
from netemu.proxy.services import Family, networks_of_family
from netemu.proxy.worker import in_thread

log = logging.getLogger(__name__)

T = TypeVar("T")
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
        await in_thread(_prepare, config, family, site)
        return _programmer(config, family, site, tool)

    async def cleanup(self, config: KubeProxyConfiguration, site: Site, *, successor: str = "") -> None:
        """Both families, and both kinds of the tool: somebody may have switched between them."""
        try:
            fronts = await in_thread(_with_edge, config, Family.IPV4, site, _udp_fronts)
        except KernelError as error:
            log.debug("proxy: nothing of ipvs mode to clean up: %s", error)
            return
        kept = rulefiles.load("iptables", ("base.rules",)) if successor == "iptables" else Base({}, ())
        programmers = [each async for each in _every_programmer(config, site)]
        try:
            await leave(programmers, kept if successor else None)
        finally:
            if fronts:
                await in_thread(ipvs_leaving.forget_flows, fronts, site.netns)

    async def remains(self, site: Site) -> bool:
        """Whether kube-ipvs0 is there: without it nothing of this mode is, unless somebody has removed it."""
        return await in_thread(_has_link, site.netns)

    async def tidy(self, config: KubeProxyConfiguration, site: Site) -> bool:
        """See Mode."""
        if not await self.remains(site):
            return False
        left = [await in_thread(_with_edge, config, family, site, ipvs_leaving.tidy) for family in Family]
        return any(left)


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


async def leave(programmers: Iterable[IpvsProgrammer], successor: Base | None) -> None:
    """Clean up after all these. Raises KernelError, the first there was, when the rest is done.

    Rules of either kind of the tool may refer to the same sets, so what one is refused is tried again after the others.
    """
    again = [each for each in programmers if await _refusal(each, successor)]
    refused = [error for each in again if (error := await _refusal(each, successor))]
    if refused:
        raise refused[0]


async def _refusal(programmer: IpvsProgrammer, successor: Base | None) -> KernelError | None:
    try:
        await programmer.cleanup(successor)
    except KernelError as error:
        return error
    return None


def _programmer(config: KubeProxyConfiguration, family: Family, site: Site, tool: IptablesTool) -> IpvsProgrammer:
    scheduler, mark = config.ipvs.scheduler or DEFAULT_SCHEDULER, f"{1 << config.iptables.masquerade_bit:#x}"
    return IpvsProgrammer(lambda: _edge(config, family, site), tool, scheduler=scheduler, mark=mark)


async def _every_programmer(config: KubeProxyConfiguration, site: Site) -> AsyncIterator[IpvsProgrammer]:
    for family in Family:
        name = "ip6tables" if family is Family.IPV6 else "iptables"
        for kind in ("nft", "legacy"):
            tool = IptablesTool(f"{name}-{kind}", site.netns, site.lock_file)
            if await tool.answers():
                yield _programmer(config, family, site, tool)


def _with_edge(config: KubeProxyConfiguration, family: Family, site: Site, work: Callable[[IpvsEdge], T]) -> T:
    """Raises KernelError where the kernel has no IPVS."""
    edge = _edge(config, family, site)
    try:
        return work(edge)
    finally:
        edge.close()


def _udp_fronts(edge: IpvsEdge) -> frozenset[tuple[str, int]]:
    """See ipvs_leaving. Raises KernelError where the kernel lacks ipsets, so that the mode never was at work."""
    edge.has_sets()
    return ipvs_leaving.udp_fronts(edge)


def _has_link(netns: str) -> bool:
    with Netlink(netns) as netlink:
        return any(link.name == DUMMY_LINK for link in netlink.links())


def _edge(config: KubeProxyConfiguration, family: Family, site: Site) -> IpvsEdge:
    """Raises KernelError where the kernel lacks something."""
    excluded = [network for each in Family for network in networks_of_family(config.ipvs.exclude_cidrs, each)]
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
