"""kube-proxy of one node: wires informers, the engine of its mode, and the health servers.

Theory of operation (`cmd/kube-proxy/app/server.go`): watch Services and EndpointSlices with upstream's selectors, and
the own Node. Nothing is programmed before all caches are synced. When it ends, every rule stays, so connections and new
ones go on; a restart finds the rules and changes only what differs.

The mode may change while it runs: the new mode's rules come first, then the old mode's go. Both lead to the same
endpoints, and what is established lives in conntrack, so nobody notices.
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

import msgspec

from netemu.client.base import Client
from netemu.client.informer import Informer
from netemu.kernel.iptables import choose
from netemu.model import resources
from netemu.model.errors import KernelError, NetemuError, UserError
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.proxy import lock
from netemu.proxy.complaints import Complaints
from netemu.proxy.config import DEFAULT_MODE, MODES, KubeProxyConfiguration
from netemu.proxy.engine import Engine
from netemu.proxy.healthcheck import NOT_FOUND, Answer, Handler, ServiceHealth, health_answer, listen
from netemu.proxy.loop import Programmed
from netemu.proxy.metrics import exposition
from netemu.proxy.modes import Site, left_overs, mode_of
from netemu.proxy.services import HEADLESS_LABEL, PROXY_NAME_LABEL, Family, family_of
from netemu.proxy.tracker import Table

log = logging.getLogger(__name__)

SELECTOR = f"!{HEADLESS_LABEL},!{PROXY_NAME_LABEL}"
_DRAIN_TAINT = "ToBeDeletedByClusterAutoscaler"
_LISTEN_RETRY = 5.0


class ProxyServer:
    """`run` until cancelled. `netns` "" is this process' own namespace; `state_dir` holds the node's own lock file.

    `mode_annotation` names an annotation of the Node that, where it is set, is the mode to use instead of the
    configured one; it may change at any time.
    """

    def __init__(
        self,
        client: Client,
        config: KubeProxyConfiguration,
        *,
        node_name: str,
        netns: str = "",
        state_dir: Path | None = None,
        families: Sequence[Family] = (Family.IPV4,),
        mode_annotation: str = "",
    ) -> None:
        self.config, self.node_name, self.netns, self._families = config, node_name, netns, families
        if state_dir:
            state_dir.mkdir(parents=True, exist_ok=True)
        self._site = Site(netns, state_dir / "xtables.lock" if state_dir else None)
        self._mode_annotation = mode_annotation
        self._services = Informer(client, resources.SERVICES, Service, label_selector=SELECTOR)
        self._slices = Informer(client, resources.ENDPOINTSLICES, EndpointSlice, label_selector=SELECTOR)
        self._nodes = Informer(client, resources.NODES, Node, field_selector=f"metadata.name={node_name}")
        self._engine: Engine | None = None
        self._next: Engine | None = None
        self._lingering: asyncio.Task[None] | None = None
        self._started, self._mode_wanted = asyncio.Event(), asyncio.Event()
        self.refused = ""
        """Why it cannot run, or cannot change its mode; part of `programmed`."""
        self._codes: Counter[tuple[str, int]] = Counter()
        self._had_health = False
        self._health_ports: dict[Family, dict[str, tuple[int, int]]] = {}
        self._service_health = ServiceHealth(netns, lambda: self.healthy)

    # --- status

    @property
    def mode(self) -> str:
        """The mode whose rules are in force."""
        return self._engine.name if self._engine else self.config.mode or DEFAULT_MODE

    @property
    def programmed(self) -> Programmed:
        """How far the rules have come; with two families, the slower one."""
        done = self._engine.programmed if self._engine else Programmed()
        return replace(done, error=self.refused) if self.refused and not done.error else done

    async def until(self, services: str = "", endpoint_slices: str = "") -> Programmed:
        """Wait until the rules reflect these resourceVersions of Services and EndpointSlices; "": a first sync."""
        await self._started.wait()
        if self._engine:
            await self._engine.until(services, endpoint_slices)
        return self.programmed

    @property
    def healthy(self) -> bool:
        """Whether no change has been waiting for longer than two sync periods."""
        oldest = self._engine.oldest_wait if self._engine else None
        return oldest is None or _now().timestamp() - oldest <= 2 * self.config.iptables.sync_period

    # --- running

    async def run(self) -> None:
        """Program until cancelled.

        Raises UserError where a tool is missing or another kube-proxy works in the namespace, KernelError where a
        sysctl is refused.
        """
        with lock.take(self.netns):
            self.refused = ""
            if not self._mode_annotation:
                self._engine = await self._prepared(self.config.mode)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for informer in (self._services, self._slices, self._nodes):
                        tasks.create_task(informer.run())
                    tasks.create_task(self._serve(self.config.healthz_bind_address, self._health))
                    tasks.create_task(self._serve(self.config.metrics_bind_address, self._metrics))
                    await self._begin(tasks)
            finally:
                self._service_health.close()
                for engine in self._engines():
                    engine.close()

    async def cleanup(self) -> None:
        """Remove every rule of the mode, as `kube-proxy --cleanup` does."""
        await mode_of(self.mode).cleanup(self.config, self._site)

    async def _prepared(self, mode: str) -> Engine:
        config = msgspec.structs.replace(self.config, mode=mode)
        engine = Engine(config, self.node_name, self._site, self._families)
        await engine.prepare(self._revisions, self._synced)
        return engine

    def _revisions(self) -> tuple[str, str] | None:
        """Of Services and EndpointSlices; None before everything has been listed once."""
        if not all(informer.synced.is_set() for informer in (self._services, self._slices, self._nodes)):
            return None
        return self._services.resource_version, self._slices.resource_version

    async def _begin(self, tasks: asyncio.TaskGroup) -> None:
        for informer in (self._services, self._slices, self._nodes):
            await informer.synced.wait()
        self._engine = self._engine or await self._prepared(self._wanted_mode())
        complaints = Complaints()
        self._services.on_change(complaints.look)
        self._slices.on_change(complaints.look)
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        self._nodes.on_change(lambda _old, _new: self._node_changed())
        self._node_changed()
        work = tasks.create_task(self._engine.run())
        self._started.set()
        tasks.create_task(self._sweep(self._engine))
        tasks.create_task(self._change_modes(tasks, work))

    async def _sweep(self, engine: Engine) -> None:
        """Once the rules are there: remove what another mode has left behind, as far as upstream does at a start."""
        await engine.until()
        for name in left_overs(engine.name):
            try:
                await mode_of(name).cleanup(self.config, self._site, successor=engine.name)
            except NetemuError as error:
                log.warning("proxy %s: rules of mode %s not removed: %s", self.node_name, name, error)

    # --- what is known

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        for engine in self._engines():
            engine.service_changed(old, new)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for engine in self._engines():
            engine.slice_changed(old, new)

    def _node_changed(self) -> None:
        for engine in self._engines():
            engine.node_changed(self._nodes.get(self.node_name))
        self._mode_wanted.set()

    def _engines(self) -> list[Engine]:
        return [engine for engine in (self._engine, self._next) if engine]

    async def _synced(self, family: Family, table: Table) -> None:
        self._health_ports[family] = _health_ports(table)
        merged: dict[str, tuple[int, int]] = {}
        for each in reversed(self._families):  # the first family's answer stands, as for who listens first
            merged.update(self._health_ports.get(each, {}))
        if merged or self._had_health:
            self._had_health = bool(merged)
            hosts = await self._engine.health_hosts() if self._engine else ()
            await self._service_health.update(merged, hosts)

    # --- another mode

    def _wanted_mode(self) -> str:
        node = self._nodes.get(self.node_name) if self._mode_annotation else None
        wanted = node.annotations.get(self._mode_annotation, "") if node else ""
        self.refused = ""
        if wanted and wanted not in MODES:
            self.refused = f"annotation {self._mode_annotation}: {wanted!r} is none of {', '.join(MODES)}"
            return self.mode
        return wanted or self.config.mode or DEFAULT_MODE

    async def _change_modes(self, tasks: asyncio.TaskGroup, work: asyncio.Task[None]) -> None:
        while self._mode_annotation:
            await self._mode_wanted.wait()
            self._mode_wanted.clear()
            if (wanted := self._wanted_mode()) != self.mode and self._engine:
                try:
                    work = await self._change_mode(wanted, tasks, work, self._engine)
                except NetemuError as error:
                    self.refused = f"mode {wanted} not taken: {error}"
                    log.error("proxy %s: %s", self.node_name, self.refused)

    async def _change_mode(
        self, wanted: str, tasks: asyncio.TaskGroup, work: asyncio.Task[None], old: Engine
    ) -> asyncio.Task[None]:
        """New rules first, then the old ones go. Raises NetemuError; then the old mode stays."""
        if self._lingering:
            await _stop(self._lingering)
        new = await self._prepared(wanted)
        for service in self._services.objects.values():
            new.service_changed(None, service)
        for piece in self._slices.objects.values():
            new.slice_changed(None, piece)
        self._next = new
        self._node_changed()
        next_work = tasks.create_task(new.run())
        try:
            await _first_sync(new)
        except NetemuError:
            await _stop(next_work)
            new.close()
            await new.mode.cleanup(self.config, self._site, successor=old.name)
            raise
        finally:
            self._next = None
        self._engine = new
        await _stop(work)
        old.close()
        await old.mode.cleanup(self.config, self._site, successor=new.name)
        self._lingering = tasks.create_task(old.mode.linger(self.config, self._site))
        log.info("proxy %s: mode %s instead of %s", self.node_name, new.name, old.name)
        return next_work

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
        updated = self._engine.programmed.at if self._engine else 0.0
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
            return Answer(200, self.mode, "text/plain; charset=utf-8")
        if path == "/healthz":
            return Answer(200, "ok", "text/plain; charset=utf-8")
        if path != "/metrics" or not self._engine or not self._engine.loops:
            return NOT_FOUND
        loop = next(iter(self._engine.loops.values()))
        text = exposition(loop.metrics, loop.tracker.pending, self._codes)
        return Answer(200, text, "text/plain; version=0.0.4; charset=utf-8")


async def _first_sync(engine: Engine) -> None:
    """Wait for the first sync. Raises KernelError where it fails."""
    while not (done := await engine.attempt()).syncs:
        if done.error:
            raise KernelError(f"program mode {engine.name}", engine.node_name, detail=done.error)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


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
        await ProxyServer(client, config, node_name=node_name, families=await families(config, Site())).run()


async def families(config: KubeProxyConfiguration, site: Site) -> tuple[Family, ...]:
    """The address families that kernel and tools can do here, the one of `bindAddress` first."""
    found = [Family.IPV4]
    if Path("/proc/self/net/if_inet6").exists() and (config.mode == "nftables" or await _has_ip6tables(site)):
        found.append(Family.IPV6)
    return tuple(sorted(found, key=lambda f: f is not family_of(config.bind_address)))


async def _has_ip6tables(site: Site) -> bool:
    try:
        tool = await choose(site.netns, ipv6=True, lock_file=site.lock_file)
        return await tool.has_chain("nat", "POSTROUTING")
    except NetemuError:
        return False
