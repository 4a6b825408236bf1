"""Reading the rules of a node back from the kernel, whatever mode its proxy is in, with a sentence for each.

Rules of more than one mode may be there at once, while a node changes its mode or because something was left behind:
all of them are read. `mode` is the one that holds Services: IPVS's if there are virtual servers, nftables' if there is
kube-proxy's table, else iptables'.
"""

from __future__ import annotations

import asyncio

from netemu.kernel.ipset import IpSet, IpsetNetlink
from netemu.kernel.iptables import choose
from netemu.kernel.ipvs import IpvsNetlink
from netemu.kernel.nftables import NftNetlink
from netemu.model import nft
from netemu.model.errors import KernelError, UserError
from netemu.observe.names import Names
from netemu.observe.rules import NodeRules
from netemu.observe.rules_iptables import chains_of_iptables
from netemu.observe.rules_ipvs import Servers, chains_of_ipvs
from netemu.observe.rules_nftables import chains_of_nftables
from netemu.observe.rules_words import Words

TABLE = "kube-proxy"


async def read_rules(netns: str, names: Names, *, ipv6: bool = False) -> NodeRules:
    """Everything of one IP family. Raises KernelError."""
    words = Words(names)
    table = nft.Table("ip6" if ipv6 else "ip", TABLE)
    (sets, servers), saved, ruleset = await asyncio.gather(
        asyncio.to_thread(_ipvs, netns, ipv6), _saved(netns, ipv6), _ruleset(netns, table)
    )
    chains = chains_of_iptables(saved, words, sets=frozenset(each.spec.name for each in sets))
    mode = "iptables"
    if servers:
        mode = "ipvs"
        chains |= chains_of_ipvs(sets, servers, words)
    if ruleset is not None:
        mode = mode if servers else "nftables"
        chains |= chains_of_nftables(ruleset, words)
    return NodeRules(table.family, mode, chains)


async def _saved(netns: str, ipv6: bool) -> str:
    try:
        tool = await choose(netns, ipv6=ipv6)
        return await tool.save(counters=True)
    except UserError:  # no iptables is installed, which nftables mode does not need
        return ""


async def _ruleset(netns: str, table: nft.Table) -> nft.Ruleset | None:
    kernel = NftNetlink(netns)
    try:
        return await kernel.dump(table)
    except KernelError:  # a kernel without nf_tables
        return None
    finally:
        kernel.close()


def _ipvs(netns: str, ipv6: bool) -> tuple[list[IpSet], Servers]:
    """Sets and virtual servers; nothing where the kernel has no IPVS."""
    try:
        balancer = IpvsNetlink(netns)
    except KernelError:
        return [], {}
    kernel = IpsetNetlink(netns)
    try:
        servers = [server for server in balancer.servers() if server.key.ipv6 == ipv6]
        if not servers:
            return [], {}
        found = {server.key: (server, balancer.destinations(server.key)) for server in servers}
        mine = [name for name in kernel.names() if name.startswith("KUBE-6-" if ipv6 else "KUBE-")]
        return [kernel.get(name) for name in mine if ipv6 or not name.startswith("KUBE-6-")], found
    finally:
        balancer.close()
        kernel.close()
