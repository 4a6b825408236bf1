"""nftables mode: what the core asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from netemu.kernel.nftables import Nft, NftNetlink
from netemu.model import nft
from netemu.proxy import nftables_base
from netemu.proxy.config import PRIMARY, KubeProxyConfiguration
from netemu.proxy.facts import NodeFacts
from netemu.proxy.modes import Mode, Periods, Site, listed_networks
from netemu.proxy.nftables import TABLE_NAME, family_name, interface_pattern, matches_all
from netemu.proxy.nftables_programmer import NftablesProgrammer
from netemu.proxy.services import Family


class NftablesMode:
    """See Mode."""

    def periods(self, config: KubeProxyConfiguration) -> Periods:
        """See Mode."""
        return Periods(config.nftables.sync_period, config.nftables.min_sync_period)

    def masquerade_all(self, config: KubeProxyConfiguration) -> bool:
        """See Mode."""
        return config.nftables.masquerade_all

    def node_port_networks(self, config: KubeProxyConfiguration, family: Family, node_ip: str) -> tuple[str, ...]:
        """Only the node's primary address where none of the family is listed; nowhere, where it has none."""
        primary = msgspec.structs.replace(config, node_port_addresses=(PRIMARY,))
        return listed_networks(config, family, node_ip) or listed_networks(primary, family, node_ip)

    def needs_addresses(self, networks: tuple[str, ...]) -> bool:
        """See Mode."""
        return any(not n.endswith(("/0", "/128" if ":" in n else "/32")) for n in networks)

    def sysctls(self, config: KubeProxyConfiguration) -> Mapping[str, str | int]:
        """See Mode."""
        return {}

    async def programmer(self, config: KubeProxyConfiguration, family: Family, site: Site) -> NftablesProgrammer:
        """See Mode."""
        return NftablesProgrammer(NftNetlink(site.netns), base_rules(config), mark=masquerade_mark(config))

    async def cleanup(self, config: KubeProxyConfiguration, site: Site, *, successor: str = "") -> None:
        """See Mode."""
        kernel = NftNetlink(site.netns)
        try:
            for family in Family:
                await remove(kernel, family)
        finally:
            kernel.close()

    async def remains(self, site: Site) -> bool:
        """See Mode."""
        return True

    async def tidy(self, config: KubeProxyConfiguration, site: Site) -> bool:
        """Nothing is left: connections are conntrack's."""
        return False


MODE: Mode = NftablesMode()


def masquerade_mark(config: KubeProxyConfiguration) -> int:
    """The bit of a packet's mark that has it masqueraded."""
    return 1 << config.nftables.masquerade_bit


def base_rules(config: KubeProxyConfiguration) -> Callable[[NodeFacts], nftables_base.Base]:
    """The files of `rules/nftables` that apply to a node."""
    mark = f"{masquerade_mark(config):#010x}"

    def load(node: NodeFacts) -> nftables_base.Base:
        names = ["base.nft", "nodeports-all.nft" if matches_all(node) else "nodeports-listed.nft"]
        defines = {"masquerade_mark": mark}
        if node.masquerade_all:
            names.append("masquerade-all.nft")
        elif node.detector.network:
            names.append("masquerade-by-network.nft")
            defines["pod_network"] = node.detector.network
        elif node.detector:
            names.append("masquerade-by-interface.nft")
            defines["pod_interface"] = f'"{interface_pattern(node.detector)}"'
        if node.service_cidrs:
            names.append("service-cidrs.nft")
            defines["service_cidrs"] = f"{{ {', '.join(node.service_cidrs)} }}"
        return nftables_base.load(names, family_name(node.family), defines)

    return load


async def remove(kernel: Nft, family: Family) -> None:
    """Delete the table of one family; absent is success."""
    table = nft.Table(family_name(family), TABLE_NAME)
    if await kernel.dump(table) is not None:
        await kernel.run(nft.Transaction(table, (nft.Delete(table),)))
