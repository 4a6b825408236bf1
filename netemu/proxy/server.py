"""kube-proxy of one node: wires informers, the sync loop and the health servers.

Theory of operation (`cmd/kube-proxy/app/server.go`): watch Services and EndpointSlices with upstream's selectors, and
the own Node; one tracker, programmer and loop per address family. Nothing is programmed before all caches are synced.
When it ends, every rule stays, so connections and new ones go on; a restart finds the rules and changes only what
differs.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from netemu.client.base import Client
from netemu.client.informer import Informer
from netemu.kernel.conntrack import Conntrack
from netemu.kernel.netlink import Netlink
from netemu.model import resources
from netemu.model.errors import KernelError, UserError
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.facts import NodeFacts
from netemu.proxy.flows import stale_flows
from netemu.proxy.healthcheck import NOT_FOUND, Answer, Handler, ServiceHealth, health_answer, listen
from netemu.proxy.loop import Programmed, SyncLoop
from netemu.proxy.metrics import exposition
from netemu.proxy.modes import DEFAULT_MODE, MODES, Site, mode_of
from netemu.proxy.node import detector, node_ip, pod_cidrs, set_sysctls
from netemu.proxy.services import HEADLESS_LABEL, PROXY_NAME_LABEL, Family, of_family
from netemu.proxy.tracker import Changes, Table, Tracker

log = logging.getLogger(__name__)

SELECTOR = f"!{HEADLESS_LABEL},!{PROXY_NAME_LABEL}"
_DRAIN_TAINT = "ToBeDeletedByClusterAutoscaler"
_LISTEN_RETRY = 5.0


class ProxyServer:
    """`run` until cancelled. `netns` "" is this process' own namespace; `state_dir` holds the node's own lock file."""

    def __init__(
        self,
        client: Client,
        config: KubeProxyConfiguration,
        *,
        node_name: str,
        netns: str = "",
        state_dir: Path | None = None,
        families: Sequence[Family] = (Family.IPV4,),
    ) -> None:
        self.config, self.node_name, self.netns, self._families = config, node_name, netns, families
        if state_dir:
            state_dir.mkdir(parents=True, exist_ok=True)
        self._mode = mode_of(config.mode)
        self._site = Site(netns, state_dir / "xtables.lock" if state_dir else None)
        self._services = Informer(client, resources.SERVICES, Service, label_selector=SELECTOR)
        self._slices = Informer(client, resources.ENDPOINTSLICES, EndpointSlice, label_selector=SELECTOR)
        self._nodes = Informer(client, resources.NODES, Node, field_selector=f"metadata.name={node_name}")
        self._loops: dict[Family, SyncLoop] = {}
        self._started = asyncio.Event()
        self._codes: Counter[tuple[str, int]] = Counter()
        self._service_health = ServiceHealth(netns, lambda: self.healthy)

    # --- status

    @property
    def programmed(self) -> Programmed:
        """How far the rules have come; with two families, the slower one."""
        every = [loop.programmed for loop in self._loops.values()]
        return min(every, key=lambda p: (p.syncs > 0, int(p.services or 0), not p.error), default=Programmed())

    async def until(self, services: str = "", endpoint_slices: str = "") -> Programmed:
        """Wait until the rules reflect these resourceVersions of Services and EndpointSlices; "": a first sync."""
        await self._started.wait()
        for loop in self._loops.values():
            await loop.until(services, endpoint_slices)
        return self.programmed

    @property
    def healthy(self) -> bool:
        """Whether no change has been waiting for longer than two sync periods."""
        oldest = min((q for loop in self._loops.values() if (q := loop.queued_since) is not None), default=None)
        return oldest is None or _now().timestamp() - oldest <= 2 * self.config.iptables.sync_period

    # --- running

    async def run(self) -> None:
        """Program until cancelled. Raises UserError where a tool is missing, KernelError where a sysctl is refused."""
        await asyncio.to_thread(set_sysctls, self.config, self.netns, self._mode.sysctls(self.config))
        for family in self._families:
            self._loops[family] = await self._loop(family)
        for loop in self._loops.values():
            self._services.on_change(loop.service_changed)
            self._slices.on_change(loop.slice_changed)
        self._started.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                for informer in (self._services, self._slices, self._nodes):
                    tasks.create_task(informer.run())
                for loop in self._loops.values():
                    tasks.create_task(loop.run())
                tasks.create_task(self._begin())
                tasks.create_task(self._serve(self.config.healthz_bind_address, self._health))
                tasks.create_task(self._serve(self.config.metrics_bind_address, self._metrics))
        finally:
            self._service_health.close()

    async def cleanup(self) -> None:
        """Remove every rule of the mode, as `kube-proxy --cleanup` does."""
        await self._mode.cleanup(self.config, self._site)

    async def _loop(self, family: Family) -> SyncLoop:
        conntrack, ipv6 = Conntrack(self.netns), family is Family.IPV6

        async def clean(table: Table, changes: Changes) -> None:
            def work() -> int:
                stale = stale_flows(conntrack.flows("udp", ipv6=ipv6), table, changes)
                return conntrack.delete(stale, ipv6=ipv6)

            if deleted := await asyncio.to_thread(work):
                log.info("proxy %s: %d stale UDP flows removed", self.node_name, deleted)

        async def synced(table: Table) -> None:
            await self._service_health.update(_health_ports(table))

        periods = self._mode.periods(self.config)
        return SyncLoop(
            Tracker(family, self.node_name),
            await self._mode.programmer(self.config, family, self._site),
            sync_period=periods.sync,
            min_sync_period=periods.min_sync,
            longest_period=periods.longest,
            revisions=self._revisions,
            clean_flows=clean,
            addresses=self._with_addresses,
            synced=synced,
        )

    def _revisions(self) -> tuple[str, str] | None:
        """Of Services and EndpointSlices; None before everything has been listed once."""
        if not all(informer.synced.is_set() for informer in (self._services, self._slices, self._nodes)):
            return None
        return self._services.resource_version, self._slices.resource_version

    async def _begin(self) -> None:
        for informer in (self._services, self._slices, self._nodes):
            await informer.synced.wait()
        self._nodes.on_change(lambda _old, _new: self._node_changed())
        self._node_changed()

    def _node_changed(self) -> None:
        node = self._nodes.get(self.node_name)
        if self.config.detect_local_mode == "NodeCIDR" and not (node and pod_cidrs(node)):
            return  # without it Pods could not be told from strangers
        for family, loop in self._loops.items():
            loop.node_changed(self._facts(node, family))

    def _facts(self, node: Node | None, family: Family) -> NodeFacts:
        config, mode = self.config, self._mode
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
        )

    async def _with_addresses(self, facts: NodeFacts) -> NodeFacts:
        """Interfaces get and lose addresses without the API's knowing, so each sync looks again."""
        if not self._mode.needs_addresses(facts.node_port_networks):
            return facts
        return replace(facts, addresses=await asyncio.to_thread(self._own_addresses, facts.family))

    def _own_addresses(self, family: Family) -> tuple[str, ...]:
        with Netlink(self.netns) as netlink:
            return tuple(sorted(of_family((a.address.split("/")[0] for a in netlink.addresses()), family)))

    # --- HTTP

    async def _serve(self, address: str, handler: Handler) -> None:
        while True:
            try:
                server = await listen(address, self.netns, handler)
                break
            except KernelError as error:
                if self.config.bind_address_hard_fail:
                    raise
                log.error("proxy %s: %s; again in %.0f s", self.node_name, error, _LISTEN_RETRY)
                await asyncio.sleep(_LISTEN_RETRY)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()

    def _health(self, path: str) -> Answer:
        if path not in ("/healthz", "/livez"):
            return NOT_FOUND
        node = self._nodes.get(self.node_name)
        drained = node is not None and (node.deleting or any(t.key == _DRAIN_TAINT for t in node.spec.taints))
        updated = max((loop.programmed.at for loop in self._loops.values()), default=0.0)
        answer = health_answer(
            healthy=self.healthy,
            eligible=None if path == "/livez" else not drained,
            now=str(_now()),
            updated=str(datetime.fromtimestamp(updated, UTC)),
        )
        self._codes[path[1:], answer.code] += 1
        return answer

    def _metrics(self, path: str) -> Answer:
        if path == "/proxyMode":
            return Answer(200, self.config.mode or DEFAULT_MODE, "text/plain; charset=utf-8")
        if path == "/healthz":
            return Answer(200, "ok", "text/plain; charset=utf-8")
        if path != "/metrics" or not self._loops:
            return NOT_FOUND
        loop = next(iter(self._loops.values()))
        text = exposition(loop.metrics, loop.tracker.pending, self._codes)
        return Answer(200, text, "text/plain; version=0.0.4; charset=utf-8")


def _now() -> datetime:
    return datetime.now(UTC)


def _health_ports(table: Table) -> dict[str, tuple[int, int]]:
    """Service to (health check node port, distinct addresses of ready endpoints here)."""
    ports: dict[str, int] = {}
    ready: dict[str, set[str]] = {}
    for key, port in table.ports.items():
        if port.health_check_node_port:
            ports[key.service] = port.health_check_node_port
            here = {e.ip for e in table.endpoints.get(key, ()) if e.local and e.ready}
            ready.setdefault(key.service, set()).update(here)
    return {service: (number, len(ready[service])) for service, number in ports.items()}


async def run_standalone(config_path: Path, *, hostname_override: str = "", cleanup: bool = False) -> None:
    """`netemu proxy --config FILE`: in the namespace this process is in, against the API server of the kubeconfig.

    With `cleanup`, remove all rules and return. Raises UserError.
    """
    from netemu.client.http import HttpClient
    from netemu.client.kubeconfig import in_cluster, load_kubeconfig
    from netemu.proxy.config import load

    config = load(config_path)
    node_name = (hostname_override or config.hostname_override or socket.gethostname()).strip().lower()
    if not node_name:
        raise UserError("no node name: set hostnameOverride or give --hostname-override")
    path = config.client_connection.kubeconfig
    if cleanup:
        for mode in MODES:
            await mode_of(mode).cleanup(config, Site())
        return
    credentials = load_kubeconfig(config_path.parent / path) if path else in_cluster()
    async with HttpClient(credentials, user_agent="kube-proxy") as client:
        await ProxyServer(client, config, node_name=node_name).run()
