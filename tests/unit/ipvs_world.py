"""A node in ipvs mode over fakes, driven by hand; packets are traced through what its programmer puts there."""

from __future__ import annotations

from collections.abc import Sequence

from netemu.kernel.rtnetlink import AddAddress, AddDummy, SetLink
from netemu.model import meta
from netemu.model.objects import EndpointSlice, Service
from netemu.proxy.facts import NodeFacts
from netemu.proxy.ipvs import DUMMY_LINK
from netemu.proxy.ipvs_edge import IpvsEdge
from netemu.proxy.ipvs_programmer import IpvsProgrammer
from netemu.proxy.programmer import Written
from netemu.proxy.rulefiles import Base
from netemu.proxy.tracker import Tracker
from netemu.testing.ipset import FakeIpset
from netemu.testing.iptables import FakeIptables
from netemu.testing.ipvs import FakeIpvs
from netemu.testing.ipvs_packets import IpvsNode
from netemu.testing.netlink import FakeHost
from netemu.testing.packets import Fate, Packet
from tests.unit.proxy_world import NODE

OWN = ("192.168.0.2/24", "192.168.7.2/24", "fd00:192::2/64")
"""The node's addresses besides loopback: its primary ones, and a second one."""


class IpvsBed:
    """Everything of one node that the mode touches, and nobody else: the fakes of a kernel."""

    def __init__(self, addresses: Sequence[str] = OWN) -> None:
        self.iptables, self.balancer, self.host = FakeIptables(), FakeIpvs(), FakeHost("node")
        self.sets = FakeIpset(self.iptables.tables)
        self.links = self.host.netlink("node")
        self.links.apply(SetLink("lo", up=True), AddDummy("eth0"), *(AddAddress("eth0", a) for a in addresses))

    @property
    def bound(self) -> set[str]:
        """What is on kube-ipvs0."""
        index = {link.name: link.index for link in self.links.links()}.get(DUMMY_LINK)
        return {each.address.partition("/")[0] for each in self.links.addresses() if each.index == index}

    @property
    def asked(self) -> int:
        """How many changes were asked of the kernel so far."""
        changes = len(self.sets.requests) + len(self.balancer.requests) + len(self.host.requests)
        return changes + len(self.iptables.restores)

    def view(self, client: str = "") -> IpvsNode:
        """For tracing packets (of `client`)."""
        every = {each.address.partition("/")[0] for each in self.links.addresses()}
        return IpvsNode(
            self.iptables.tables,
            self.sets.sets,
            self.balancer.weights,
            frozenset(every - self.bound),
            frozenset(self.bound),
            self.balancer.remembered(client) if client else {},
        )


class IpvsProxy:
    """A tracker and a programmer on a bed. Another one on the same bed is a restart."""

    def __init__(
        self,
        bed: IpvsBed | None = None,
        *,
        node: NodeFacts = NODE,
        iptables: FakeIptables | None = None,
        scheduler: str = "rr",
        excluded: Sequence[str] = (),
    ) -> None:
        self.bed, self.node, self.now = bed or IpvsBed(), node, 0.0
        self.tracker = Tracker(node.family, "test-node")
        self.edge = IpvsEdge(self.bed.balancer, self.bed.sets, self.bed.links, node.family, excluded)
        self.programmer = IpvsProgrammer(
            lambda: self.edge, iptables or self.bed.iptables, scheduler=scheduler, clock=lambda: self.now
        )

    def add(self, *objs: meta.KubeObject) -> None:
        """Objects appear, or replace what is there."""
        for obj in objs:
            if isinstance(obj, Service):
                self.tracker.service_changed(None, obj)
            elif isinstance(obj, EndpointSlice):
                self.tracker.slice_changed(None, obj)

    def remove(self, *objs: meta.KubeObject) -> None:
        """Objects disappear."""
        for obj in objs:
            if isinstance(obj, Service):
                self.tracker.service_changed(obj, None)
            elif isinstance(obj, EndpointSlice):
                self.tracker.slice_changed(obj, None)

    async def leave(self) -> None:
        """Another mode, which has nothing in common with this one, takes over."""
        await self.programmer.cleanup(Base({}, ()))

    async def sync(self, *objs: meta.KubeObject, full: bool = False) -> Written:
        """Objects appear, then one sync."""
        self.add(*objs)
        touched = self.tracker.take().touched
        return await self.programmer.program(self.tracker.table, self.node, None if full else touched)


async def programmed(*objs: meta.KubeObject, node: NodeFacts = NODE) -> IpvsBed:
    """A node that has programmed these Services and EndpointSlices."""
    proxy = IpvsProxy(node=node)
    await proxy.sync(*objs, full=True)
    return proxy.bed


async def traced(packet: Packet, *objs: meta.KubeObject, node: NodeFacts = NODE) -> Fate:
    """The fate of a packet on a node that has programmed these Services and EndpointSlices."""
    return (await programmed(*objs, node=node)).view().trace(packet)
