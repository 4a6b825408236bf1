"""How each mode's fake kernel answers where a packet goes: one class per mode, and `MODES`, which names them.

A mode joins the packet table by one line there. What stands behind it is its real programmer over fakes, and a tracer
that reads nothing but what the programmer has put into them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from netemu.model.meta import KubeObject
from netemu.model.objects import EndpointSlice, Service
from netemu.proxy import nftables_mode
from netemu.proxy.config import KubeProxyConfiguration, parse
from netemu.proxy.facts import NodeFacts
from netemu.proxy.iptables_mode import base_rules
from netemu.proxy.iptables_programmer import IptablesProgrammer
from netemu.proxy.ipvs_edge import IpvsEdge
from netemu.proxy.ipvs_programmer import IpvsProgrammer
from netemu.proxy.modes import mode_of
from netemu.proxy.nftables_programmer import NftablesProgrammer
from netemu.proxy.node import detector, node_ip
from netemu.proxy.programmer import Programmer, Written
from netemu.proxy.services import Family
from netemu.proxy.tracker import Tracker
from netemu.testing import nft_packets
from netemu.testing.iptables import FakeIptables
from netemu.testing.nftables import FakeNft
from netemu.testing.packets import Fate, Node, Packet
from tests.unit.ipvs_world import IpvsBed
from tests.unit.proxy_scene import NODE, World, configuration, in_mode, node_object


class FakeKernel(Protocol):
    """What a mode brings."""

    @property
    def programmer(self) -> Programmer:
        """What programs it."""
        ...

    def trace(self, packet: Packet) -> Fate:
        """What becomes of a packet by what is programmed."""
        ...


class IptablesKernel:
    """Rules that a fake iptables holds."""

    def __init__(self, config: KubeProxyConfiguration, family: Family) -> None:
        self._tool = FakeIptables()
        self.programmer = IptablesProgrammer(self._tool, base_rules(config, family, liberal=False))

    def trace(self, packet: Packet) -> Fate:
        """See FakeKernel."""
        return Node(self._tool.tables, frozenset(NODE.addresses)).trace(packet)


class NftablesKernel:
    """A ruleset that a fake nf_tables holds."""

    def __init__(self, config: KubeProxyConfiguration, family: Family) -> None:
        self._fake = FakeNft()
        self.programmer = NftablesProgrammer(self._fake, nftables_mode.base_rules(config))

    def trace(self, packet: Packet) -> Fate:
        """See FakeKernel."""
        tables = [held.ruleset() for held in self._fake.tables.values()]
        return nft_packets.Node(tables, frozenset(NODE.addresses)).trace(packet)


class IpvsKernel:
    """Rules, sets, virtual servers and a dummy link, all of them fakes."""

    def __init__(self, config: KubeProxyConfiguration, family: Family) -> None:
        self._bed = bed = IpvsBed([f"{ip}/{64 if ':' in ip else 24}" for ip in NODE.addresses])
        edge = IpvsEdge(bed.balancer, bed.sets, bed.links, family, config.ipvs.exclude_cidrs)
        self.programmer = IpvsProgrammer(lambda: edge, bed.iptables, scheduler=config.ipvs.scheduler or "rr")

    def trace(self, packet: Packet) -> Fate:
        """See FakeKernel. What the node sends to one of its addresses, bound ones included, comes from that address."""
        view = self._bed.view()
        own = view.addresses | view.bound
        chosen = packet.source in own and packet.destination in own and not packet.interface
        return view.trace(replace(packet, source=packet.destination) if chosen else packet)


MODES: dict[str, Callable[[KubeProxyConfiguration, Family], FakeKernel]] = {
    "iptables": IptablesKernel,
    "nftables": NftablesKernel,
    "ipvs": IpvsKernel,
}


class Proxy:
    """The proxy of the node in one mode and family: shown one world after another, it programs what differs."""

    def __init__(self, mode: str, world: World, family: Family) -> None:
        config = parse(configuration(in_mode(mode, world)))
        self._kernel = MODES[mode](config, family)
        self._facts = facts(mode, world, config, family)
        self._tracker = Tracker(family, NODE.name)
        self._shown: dict[tuple[type, str], KubeObject] = {}
        self._first = True
        self.trace = self._kernel.trace

    async def show(self, world: World) -> None:
        """From now on the API holds the objects of this world and no others."""
        wanted = {(type(obj), obj.key): obj for obj in world.objects}
        for key in self._shown.keys() | wanted.keys():
            self._changed(self._shown.get(key), wanted.get(key))
        self._shown = wanted
        changes = self._tracker.take()
        await self._kernel.programmer.program(
            self._tracker.table, self._facts, None if self._first else changes.touched
        )
        self._first = False

    async def resync(self) -> Written:
        """A full sync, though nothing has changed."""
        return await self._kernel.programmer.program(self._tracker.table, self._facts, None)

    def _changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        either = new or old
        if isinstance(either, Service):
            self._tracker.service_changed(old, new)  # type: ignore[arg-type]
        elif isinstance(either, EndpointSlice):
            self._tracker.slice_changed(old, new)  # type: ignore[arg-type]


def facts(mode: str, world: World, config: KubeProxyConfiguration, family: Family) -> NodeFacts:
    """What the proxy of the node finds out about itself."""
    node, of_mode = node_object(), mode_of(mode)
    primary = node_ip(config.bind_address, node, family)
    networks = of_mode.node_port_networks(config, family, primary)
    own = [ip for ip in (*NODE.addresses, "127.0.0.1", "::1") if (":" in ip) == (family is Family.IPV6)]
    return NodeFacts(
        family,
        node_ip=primary,
        labels=node.labels,
        name=node.name,
        detector=detector(config, node, family),
        masquerade_all=of_mode.masquerade_all(config),
        localhost_node_ports=config.iptables.localhost_node_ports,
        node_port_networks=networks,
        addresses=tuple(own) if of_mode.needs_addresses(networks) else (),
        service_cidrs=world.settings.service_cidrs,
    )


def family_of(packet: Packet) -> Family:
    """By its destination."""
    return Family.IPV6 if ":" in packet.destination else Family.IPV4


async def fate(mode: str, world: World, packet: Packet) -> Fate:
    """What becomes of one packet in a world of its own."""
    proxy = Proxy(mode, world, family_of(packet))
    await proxy.show(world)
    return proxy.trace(packet)
