"""One mode at work on one node: a tracker, a programmer and a sync loop per address family.

Theory of operation (upstream's MetaProxier): every event goes to all families, each takes what is of its own. An engine
programs one mode and is thrown away when the node changes to another, while informers and servers stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from netemu.kernel.conntrack import ConntrackNetlink
from netemu.kernel.netlink import Netlink
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.proxy.config import DEFAULT_MODE, KubeProxyConfiguration
from netemu.proxy.facts import NodeFacts, listed_addresses
from netemu.proxy.flows import forget_stale
from netemu.proxy.loop import Programmed, SyncLoop, together
from netemu.proxy.modes import Site, mode_of
from netemu.proxy.node import detector, node_ip, pod_cidrs, set_sysctls
from netemu.proxy.services import Family, disjoint, of_family
from netemu.proxy.tracker import Changes, Table, Tracker

log = logging.getLogger(__name__)

Synced = Callable[[Family, Table], Awaitable[None]]
_NEED_SERVICE_CIDRS = ("nftables",)
"""Modes with rules about addresses that no Service has."""


class Engine:
    """`prepare`, then feed it with objects and `run` it."""

    def __init__(self, config: KubeProxyConfiguration, node_name: str, site: Site, families: Sequence[Family]) -> None:
        self.config, self.node_name, self.site = config, node_name, site
        self.name = config.mode or DEFAULT_MODE
        self.mode = mode_of(self.name)
        self.families = families
        self.loops: dict[Family, SyncLoop] = {}
        self._node: Node | None = None
        self._told_of_node, self._service_cidrs = False, tuple[str, ...]()

    async def prepare(self, revisions: Callable[[], tuple[str, str] | None], synced: Synced) -> None:
        """Set sysctls and find the tools. Raises UserError where one is missing, KernelError where one is refused."""
        await asyncio.to_thread(set_sysctls, self.config, self.site.netns, self.mode.sysctls(self.config))
        for family in self.families:
            self.loops[family] = await self._loop(family, revisions, synced)

    async def run(self) -> None:
        """Until cancelled; rules stay behind."""
        async with asyncio.TaskGroup() as tasks:
            for loop in self.loops.values():
                tasks.create_task(loop.run())

    def close(self) -> None:
        """Give sockets back; rules stay."""
        for loop in self.loops.values():
            loop.programmer.close()

    # --- status

    @property
    def programmed(self) -> Programmed:
        """How far the rules of all families have come."""
        return together(loop.programmed for loop in self.loops.values())

    async def until(self, services: str = "", endpoint_slices: str = "") -> Programmed:
        """Wait until both revisions are in the rules of all families."""
        for loop in self.loops.values():
            await loop.until(services, endpoint_slices)
        return self.programmed

    async def attempt(self) -> Programmed:
        """Wait until all families have tried a sync, and tell how it went."""
        for loop in self.loops.values():
            await loop.attempt()
        return self.programmed

    # --- what is known

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """Informer handler."""
        for loop in self.loops.values():
            loop.service_changed(old, new)

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Informer handler."""
        for loop in self.loops.values():
            loop.slice_changed(old, new)

    def node_changed(self, node: Node | None) -> None:
        """The own Node as it is now. The first call makes syncs possible."""
        self._node, self._told_of_node = node, True
        self._facts_changed()

    def service_cidrs_changed(self, networks: Sequence[str]) -> None:
        """The networks of all ServiceCIDRs as they are now."""
        self._service_cidrs = tuple(networks)
        if self._told_of_node:
            self._facts_changed()

    def _facts_changed(self) -> None:
        node = self._node
        if self.config.detect_local_mode == "NodeCIDR" and not (node and pod_cidrs(node)):
            return  # without it Pods could not be told from strangers
        for family, loop in self.loops.items():
            loop.node_changed(self._facts(node, family))

    def _facts(self, node: Node | None, family: Family) -> NodeFacts:
        config, mode = self.config, self.mode
        primary = node_ip(config.bind_address, node, family)
        return NodeFacts(
            family,
            node_ip=primary,
            labels=node.labels if node else {},
            name=self.node_name,
            detector=detector(config, node, family),
            masquerade_all=mode.masquerade_all(config),
            localhost_node_ports=config.iptables.localhost_node_ports,
            node_port_networks=mode.node_port_networks(config, family, primary),
            service_cidrs=disjoint(self._service_cidrs, family) if self.name in _NEED_SERVICE_CIDRS else (),
        )

    async def health_hosts(self) -> tuple[str, ...]:
        """Where health check node ports answer: where node ports do, but never on loopback alone."""
        hosts: list[str] = []
        for loop in self.loops.values():
            if (node := loop.node) is None:
                continue
            if not node.node_port_networks or any(n.endswith("/0") for n in node.node_port_networks):
                hosts.append("::" if node.family is Family.IPV6 else "0.0.0.0")
            else:
                hosts += listed_addresses(await self._with_addresses(node))
        # A wildcard socket of IPv6 takes IPv4 too, and both would not fit on one port.
        return ("::",) if "::" in hosts else tuple(hosts)

    async def _with_addresses(self, facts: NodeFacts) -> NodeFacts:
        """Interfaces get and lose addresses without the API's knowing, so each sync looks again."""
        if not self.mode.needs_addresses(facts.node_port_networks):
            return facts
        return replace(facts, addresses=await asyncio.to_thread(own_addresses, self.site.netns, facts.family))

    async def _loop(self, family: Family, revisions: Callable[[], tuple[str, str] | None], synced: Synced) -> SyncLoop:
        periods = self.mode.periods(self.config)
        return SyncLoop(
            Tracker(family, self.node_name),
            await self.mode.programmer(self.config, family, self.site),
            sync_period=periods.sync,
            min_sync_period=periods.min_sync,
            longest_period=periods.longest,
            revisions=revisions,
            clean_flows=self._clean_flows(family),
            addresses=self._with_addresses,
            synced=lambda table: synced(family, table),
        )

    def _clean_flows(self, family: Family) -> Callable[[Table, Changes], Awaitable[int]]:
        conntrack, netns = ConntrackNetlink(self.site.netns), self.site.netns

        async def clean(table: Table, changes: Changes) -> int:
            def work() -> int:
                own = frozenset(own_addresses(netns, family))
                return forget_stale(conntrack, table, changes, own, ipv6=family is Family.IPV6)

            if deleted := await asyncio.to_thread(work):
                log.info("proxy %s: %d stale UDP flows removed", self.node_name, deleted)
            return deleted

        return clean


def own_addresses(netns: str, family: Family) -> tuple[str, ...]:
    """The addresses of all interfaces of a namespace."""
    with Netlink(netns) as netlink:
        return tuple(sorted(of_family((a.address.split("/")[0] for a in netlink.addresses()), family)))
