"""iptables mode: what the core asks of it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sys
from collections.abc import Mapping, Sequence

from netemu.kernel import sysctl
from netemu.kernel.iptables import IptablesTool, choose
from netemu.kernel.iptables_resident import ResidentIptables
from netemu.model.errors import KernelError
from netemu.proxy import rulefiles
from netemu.proxy.config import PRIMARY, KubeProxyConfiguration
from netemu.proxy.iptables_programmer import PIECE, IptablesProgrammer
from netemu.proxy.modes import Mode, Periods, Site, listed_networks
from netemu.proxy.services import Family, networks_of_family

log = logging.getLogger(__name__)


class IptablesMode:
    """See Mode."""

    def periods(self, config: KubeProxyConfiguration) -> Periods:
        """See Mode."""
        return Periods(config.iptables.sync_period, config.iptables.min_sync_period)

    def masquerade_all(self, config: KubeProxyConfiguration) -> bool:
        """See Mode."""
        return config.iptables.masquerade_all

    def node_port_networks(self, config: KubeProxyConfiguration, family: Family, node_ip: str) -> tuple[str, ...]:
        """See Mode."""
        return listed_networks(config, family, node_ip)

    def needs_addresses(self, networks: tuple[str, ...]) -> bool:
        """See Mode."""
        return bool(networks)

    def sysctls(self, config: KubeProxyConfiguration) -> Mapping[str, str | int]:
        """Node ports on 127.0.0.1 take route_localnet."""
        wanted = config.iptables.localhost_node_ports and _include_loopback(config.node_port_addresses)
        return {"net/ipv4/conf/all/route_localnet": 1} if wanted else {}

    async def programmer(self, config: KubeProxyConfiguration, family: Family, site: Site) -> IptablesProgrammer:
        """See Mode."""
        tool = await choose(site.netns, ipv6=family is Family.IPV6, lock_file=site.lock_file)
        liberal = await asyncio.to_thread(liberal_conntrack, site.netns)
        base = base_rules(config, family, liberal=liberal)
        # Each restore of the x_tables kind writes whole tables again, so one must do.
        return IptablesProgrammer(ResidentIptables(tool), base, piece=sys.maxsize if tool.legacy else PIECE)

    async def cleanup(self, config: KubeProxyConfiguration, site: Site, *, successor: str = "") -> None:
        """Both kinds of the tool: somebody may have switched between them."""
        kept = rulefiles.load("ipvs", ("base.rules",)) if successor == "ipvs" else None
        refused: list[KernelError] = []
        for family in Family:
            name = "ip6tables" if family is Family.IPV6 else "iptables"
            for kind in ("nft", "legacy"):
                tool = IptablesTool(f"{name}-{kind}", site.netns, site.lock_file)
                if await tool.answers():
                    try:
                        await IptablesProgrammer(tool, base_rules(config, family, liberal=False)).cleanup(kept)
                    except KernelError as error:
                        refused.append(error)
        if refused:
            raise refused[0]

    async def remains(self, site: Site) -> bool:
        """See Mode."""
        return True

    async def tidy(self, config: KubeProxyConfiguration, site: Site) -> bool:
        """Nothing is left: connections are conntrack's."""
        return False


MODE: Mode = IptablesMode()


def base_rules(config: KubeProxyConfiguration, family: Family, *, liberal: bool) -> rulefiles.Base:
    """The files of `rules/iptables` that apply."""
    names = ["base.rules"] if liberal else ["drop-invalid.rules", "base.rules"]
    if family is Family.IPV4 and config.iptables.localhost_node_ports:
        names.append("localhost-nodeports.rules")
    return rulefiles.load("iptables", names, mark=f"{1 << config.iptables.masquerade_bit:#x}")


def _include_loopback(node_port_addresses: Sequence[str]) -> bool:
    """Whether IPv4 node ports answer on some loopback address: on none of `primary`, on all where no CIDR is IPv4's."""
    if tuple(node_port_addresses) == (PRIMARY,):
        return False
    networks = networks_of_family(node_port_addresses, Family.IPV4)
    loopback = ipaddress.IPv4Network("127.0.0.0/8")
    return not networks or any(loopback.overlaps(ipaddress.IPv4Network(network)) for network in networks)


def liberal_conntrack(netns: str) -> bool:
    """Whether conntrack takes segments outside of the window for valid."""
    try:
        return sysctl.read("net/netfilter/nf_conntrack_tcp_be_liberal", netns) != "0"
    except KernelError:
        return False
