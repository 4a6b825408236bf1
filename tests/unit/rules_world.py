"""The world of the proxy's golden dumps as `netemu rules` sees it, in every mode.

iptables rules are the recorded ones of a real kube-proxy; for the other modes fakes of the kernel hold what their
golden dumps have.
"""

from __future__ import annotations

import asyncio

from netemu.model import nft
from netemu.observe.names import NODE, POD, Names, Party, names_of
from netemu.observe.oracle import NodeView
from netemu.observe.rules.iptables import chains_of_iptables
from netemu.observe.rules.ipvs import chains_of_ipvs
from netemu.observe.rules.nftables import chains_of_nftables
from netemu.observe.rules.walk import Chain, NodeRules
from netemu.observe.rules.words import Words
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.ipvs_edge import IpvsEdge
from netemu.proxy.ipvs_programmer import IpvsProgrammer
from netemu.proxy.nftables_mode import base_rules
from netemu.proxy.nftables_programmer import NftablesProgrammer
from netemu.proxy.services import Family
from netemu.testing.nftables import FakeNft
from tests.unit.ipvs_world import IpvsBed
from tests.unit.nft_world import WORLD_NODE, world_table
from tests.unit.proxy_world import DATA, world
from tests.unit.proxy_world import NODE as FACTS

SERVICES, SLICES = world()
TEST_NODE = NodeView("test-node", ("192.168.0.2",), ("192.168.0.2",), "zone-a", ("10.180.0.0/24",))


def world_names() -> Names:
    """Pods are called after their Service and number: 10.180.1.3, of prod/lb-ranges, is prod/lb-ranges-3."""
    parties = [
        (endpoint.addresses[0], Party(POD, f"{piece.namespace}/{_name(piece.labels)}-{_last(endpoint.addresses[0])}",
                                      str(endpoint.node_name)))
        for piece in SLICES for endpoint in piece.endpoints or ()
    ]  # fmt: skip
    parties += [(address, Party(NODE, "test-node")) for address in ("192.168.0.2", "192.168.7.2")]
    return names_of(parties, SERVICES)


def _name(labels: dict[str, str]) -> str:
    return labels["kubernetes.io/service-name"]


def _last(address: str) -> str:
    return address.rpartition(".")[2]


def world_rules(mode: str, names: Names | None = None) -> NodeRules:
    """The node's rules in a mode."""
    words = Words(names or world_names())
    if mode == "iptables":
        return NodeRules("ip", mode, chains_of_iptables((DATA / "iptables-world.save").read_text(), words))
    if mode == "nftables":
        return NodeRules("ip", mode, chains_of_nftables(asyncio.run(_ruleset()), words))
    return NodeRules("ip", mode, asyncio.run(_ipvs(words)))


async def _ruleset() -> nft.Ruleset:
    kernel = FakeNft()
    await NftablesProgrammer(kernel, base_rules(KubeProxyConfiguration())).program(world_table(), WORLD_NODE, None)
    found = await kernel.dump(nft.Table("ip", "kube-proxy"))
    assert found is not None
    return found


async def _ipvs(words: Words) -> dict[tuple[str, str], Chain]:
    bed = IpvsBed()
    edge = IpvsEdge(bed.balancer, bed.sets, bed.links, Family.IPV4)
    await IpvsProgrammer(lambda: edge, bed.iptables).program(world_table(), FACTS, None)
    sets = [bed.sets.get(name) for name in bed.sets.names()]
    servers = {server.key: (server, bed.balancer.destinations(server.key)) for server in bed.balancer.servers()}
    chains = chains_of_iptables(await bed.iptables.save(), words, sets=frozenset(each.spec.name for each in sets))
    return chains | chains_of_ipvs(sets, servers, words)
