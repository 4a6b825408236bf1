"""Reading the rules of a node back from the kernel, whatever mode its proxy is in, with a sentence for each.

Rules of more than one mode may be there at once, while a node changes its mode or because something was left behind:
all of them are read. `mode` is the one that holds Services: IPVS's if there are virtual servers, nftables' if there is
kube-proxy's table, else iptables'.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing
from typing import Final

from netemu.kernel.ipset import IpSet, IpsetNetlink
from netemu.kernel.iptables import IptablesTool, has_xtables
from netemu.kernel.ipvs import IpvsNetlink
from netemu.kernel.nft_tool import NftTool, listing_of_others
from netemu.kernel.nftables import NftNetlink
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.observe.names import Names
from netemu.observe.rules.iptables import chains_of_iptables
from netemu.observe.rules.ipvs import Servers, chains_of_ipvs
from netemu.observe.rules.listed import chains_of_listing
from netemu.observe.rules.nftables import chains_of_nftables
from netemu.observe.rules.walk import OLDER, NodeRules
from netemu.observe.rules.words import Words

TABLE: Final = "kube-proxy"
_KNOWN: Final = frozenset((TABLE, "filter", "nat", "mangle", "raw", "security"))
"""Tables that are read by other ways: kube-proxy's and those of iptables."""


async def read_rules(netns: str, names: Names, *, ipv6: bool = False) -> NodeRules:
    """Everything of one IP family. Raises KernelError."""
    words = Words(names)
    table = nft.Table("ip6" if ipv6 else "ip", TABLE)
    tool = NftTool(netns)
    (sets, servers), (newer, older), ruleset, listed = await asyncio.gather(
        asyncio.to_thread(_ipvs, netns, ipv6),
        _saved(netns, ipv6),
        _ruleset(netns, table),
        listing_of_others(tool, table.family, _KNOWN),
    )
    named = frozenset(each.spec.name for each in sets)
    chains = chains_of_iptables(newer or older, words, sets=named)
    if newer and older:
        chains |= chains_of_iptables(older, words, sets=named, prefix=OLDER)
    mode = "iptables"
    if servers:
        mode = "ipvs"
        chains |= chains_of_ipvs(sets, servers, words)
    if ruleset is not None:
        mode = mode if servers else "nftables"
        chains |= chains_of_nftables(ruleset, words)
    return NodeRules(table.family, mode, chains | chains_of_listing(listed))


async def _saved(netns: str, ipv6: bool) -> tuple[str, str]:
    """The rules of iptables over nf_tables, and of the older kind; each "" where there is not a single rule."""
    family = "ip6" if ipv6 else "ip"
    kinds = ["nft", *(["legacy"] if await asyncio.to_thread(has_xtables, netns, (family,)) else [])]
    texts = await asyncio.gather(*(_text(IptablesTool(f"{family}tables-{kind}", netns)) for kind in kinds))
    held = [text if "-A " in text else "" for text in texts]
    return held[0], held[1] if len(held) > 1 else ""


async def _text(tool: IptablesTool) -> str:
    try:
        return await tool.save(counters=True)
    except KernelError:  # neither the kernel nor the machine need have every kind
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
    """Sets and virtual servers; nothing where the kernel has no IPVS, or no ipsets."""
    with ExitStack() as stack:
        try:
            balancer = stack.enter_context(closing(IpvsNetlink(netns)))
            kernel = stack.enter_context(closing(IpsetNetlink(netns)))
        except KernelError:
            return [], {}
        servers = [server for server in balancer.servers() if server.key.ipv6 == ipv6]
        if not servers:
            return [], {}
        found = {server.key: (server, balancer.destinations(server.key)) for server in servers}
        mine = [name for name in kernel.names() if name.startswith("KUBE-6-" if ipv6 else "KUBE-")]
        return [kernel.get(name) for name in mine if ipv6 or not name.startswith("KUBE-6-")], found
