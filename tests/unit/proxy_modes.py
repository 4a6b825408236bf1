"""How each mode's fake answers where a packet goes: one function per mode, and `MODES`, which names them.

A mode joins the packet table by one line there. What it gets is a world and a family, what it gives a function from
packets to fates that reads nothing but what its programmer has put into its fake kernel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from netemu.proxy.config import KubeProxyConfiguration, parse
from netemu.proxy.facts import NodeFacts
from netemu.proxy.iptables_mode import base_rules
from netemu.proxy.iptables_programmer import IptablesProgrammer
from netemu.proxy.modes import mode_of
from netemu.proxy.node import detector, node_ip
from netemu.proxy.programmer import Programmer
from netemu.proxy.services import Family
from netemu.proxy.tracker import Tracker
from netemu.testing.iptables import FakeIptables
from netemu.testing.packets import Fate, Node, Packet
from tests.unit.proxy_scene import NODE, World, configuration, in_mode, node_object

Trace = Callable[[Packet], Fate]


def config_of(mode: str, world: World) -> KubeProxyConfiguration:
    """The proxy's configuration in that world."""
    return parse(configuration(in_mode(mode, world)))


def facts(mode: str, config: KubeProxyConfiguration, family: Family) -> NodeFacts:
    """What the proxy of the node finds out about itself."""
    node, of_mode = node_object(), mode_of(mode)
    primary = node_ip(config.bind_address, node, family)
    loopback = "::1" if family is Family.IPV6 else "127.0.0.1"
    return NodeFacts(
        family,
        node_ip=primary,
        labels=node.labels,
        name=node.name,
        detector=detector(config, node, family),
        masquerade_all=of_mode.masquerade_all(config),
        localhost_node_ports=config.iptables.localhost_node_ports,
        node_port_networks=of_mode.node_port_networks(config, family, primary),
        addresses=tuple(ip for ip in (*NODE.addresses, loopback) if (":" in ip) == (family is Family.IPV6)),
    )


async def program(programmer: Programmer, mode: str, world: World, family: Family) -> None:
    """A first sync."""
    tracker = Tracker(family, NODE.name)
    for service in world.services:
        tracker.service_changed(None, service)
    for piece in world.slices:
        tracker.slice_changed(None, piece)
    tracker.take()
    await programmer.program(tracker.table, facts(mode, config_of(mode, world), family), None)


async def iptables(world: World, family: Family) -> Trace:
    """Through the rules that the fake iptables holds."""
    fake = FakeIptables()
    base = base_rules(config_of("iptables", world), family, liberal=False)
    await program(IptablesProgrammer(fake, base), "iptables", world, family)
    return Node(fake.tables, frozenset(NODE.addresses)).trace


MODES: dict[str, Callable[[World, Family], Awaitable[Trace]]] = {
    "iptables": iptables,
}


async def fate(mode: str, world: World, packet: Packet) -> Fate:
    """What becomes of one packet."""
    family = Family.IPV6 if ":" in packet.destination else Family.IPV4
    return (await MODES[mode](world, family))(packet)
