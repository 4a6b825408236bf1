"""A tracker and the compiler of ipvs mode, driven by hand; packets are traced through what they come to."""

from __future__ import annotations

from dataclasses import replace

from netemu.model import objects
from netemu.model.objects import EndpointSlice, Service
from netemu.proxy import rulefiles
from netemu.proxy.facts import NodeFacts
from netemu.proxy.ipvs import compile_port
from netemu.proxy.ipvs_plan import Wishes
from netemu.proxy.ipvs_rules import files, rules
from netemu.proxy.ipvs_sets import IpSet
from netemu.proxy.tracker import Tracker
from netemu.testing.iptables import FakeIptables
from netemu.testing.ipvs_packets import IpvsNode
from netemu.testing.packets import Fate, Packet
from tests.unit import proxy_world

OWN = ("127.0.0.1", "192.168.0.2", "192.168.7.2")
"""The node's addresses: loopback, its primary one, and a second one."""
NODE = replace(proxy_world.NODE, addresses=OWN)


async def traced(packet: Packet, *objs: objects.KubeObject, node: NodeFacts = NODE) -> Fate:
    """The fate of a packet on a node that has programmed these Services and EndpointSlices."""
    return (await programmed(*objs, node=node)).trace(packet)


async def programmed(*objs: objects.KubeObject, node: NodeFacts = NODE) -> IpvsNode:
    """A node that has programmed these Services and EndpointSlices."""
    wishes = wished(*objs, node=node)
    iptables = FakeIptables()
    base = rulefiles.load("ipvs", files(node))
    lines: dict[str, list[str]] = {"nat": [], "filter": []}
    chains = rules(base, node, wishes.filled, wishes.barred)
    for (table, chain), _ in chains.items():
        lines[table].append(f":{chain} - [0:0]")
    for (table, chain), rule in base.jumps:
        lines[table].append(f"-I {chain} 1 {rule}")
    for (table, chain), written in chains.items():
        lines[table].extend(f"-A {chain} {rule}" for rule in written)
    await iptables.restore("".join(f"*{table}\n" + "\n".join(text) + "\nCOMMIT\n" for table, text in lines.items()))
    state = wishes.everything
    sets = {
        ipset.named(node.family): (ipset.type, {entry for of, entry in state.entries if of is ipset}) for ipset in IpSet
    }
    return IpvsNode(
        iptables.tables,
        sets,
        {
            (front.protocol, front.address, front.port): dict.fromkeys(server.targets, 1)
            for front, server in state.servers.items()
        },
        frozenset(node.addresses),
        frozenset(state.addresses),
    )


def wished(*objs: objects.KubeObject, node: NodeFacts = NODE) -> Wishes:
    """What these Services and EndpointSlices come to."""
    tracker = Tracker(node.family, "test-node")
    for obj in objs:
        if isinstance(obj, Service):
            tracker.service_changed(None, obj)
        elif isinstance(obj, EndpointSlice):
            tracker.slice_changed(None, obj)
    tracker.take()
    table = tracker.table
    return Wishes(compile_port(port, table.endpoints.get(key, ()), node) for key, port in table.ports.items())
