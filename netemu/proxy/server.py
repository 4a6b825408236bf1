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
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from netemu.client.base import Client
from netemu.client.events import EventRecorder
from netemu.client.informer import Informer
from netemu.model import resources
from netemu.model.errors import KernelError, NetemuError
from netemu.model.meta import KubeObject
from netemu.model.objects import EndpointSlice, Node, Service, ServiceCIDR
from netemu.proxy import lock
from netemu.proxy.complaints import Complaints
from netemu.proxy.config import DEFAULT_MODE, MODES, KubeProxyConfiguration
from netemu.proxy.endpoints import trimmed
from netemu.proxy.engine import Engine
from netemu.proxy.healthcheck import ServiceHealth, health_ports
from netemu.proxy.loop import Programmed
from netemu.proxy.metrics import FamilyMetrics
from netemu.proxy.modes import Site, left_overs, mode_of
from netemu.proxy.node import guard_pod_cidrs
from netemu.proxy.pages import FamilyHealth
from netemu.proxy.services import HEADLESS_LABEL, PROXY_NAME_LABEL, Family
from netemu.proxy.status_servers import StatusServers, View
from netemu.proxy.tracker import Table
from netemu.proxy.worker import to_its_end

log = logging.getLogger(__name__)

SELECTOR = f"!{HEADLESS_LABEL},!{PROXY_NAME_LABEL}"
_DRAIN_TAINT = "ToBeDeletedByClusterAutoscaler"
_TIDY_SECONDS, _WONDER_SECONDS = 5.0, 5.0


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
        self._slices = Informer(
            client, resources.ENDPOINTSLICES, EndpointSlice, label_selector=SELECTOR, transform=trimmed
        )
        self._nodes = Informer(client, resources.NODES, Node, field_selector=f"metadata.name={node_name}")
        self._service_cidrs = Informer(client, resources.SERVICECIDRS, ServiceCIDR, label_selector=SELECTOR)
        self._engine: Engine | None = None
        self._next: Engine | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._started, self._mode_wanted = asyncio.Event(), asyncio.Event()
        self.refused = ""
        """Why it cannot run, or cannot change its mode; part of `programmed`."""
        self.decided = ""
        """resourceVersion of the Node whose wish for a mode has been granted or refused."""
        self._had_health = False
        self._health_ports: dict[Family, dict[str, tuple[int, int]]] = {}
        self._service_health = ServiceHealth(netns, lambda: self.healthy, self._health_check_failed)
        self._events = EventRecorder(client, "kube-proxy", host=node_name)
        # As kubelets do it, Events about a Node have its name for a uid; it need not be there.
        self._node_ref = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name, "uid": node_name}}
        warn = partial(self._event, self._node_ref, "Warning")
        self._status_servers = StatusServers(config, netns, self._look, warn)
        complaints = Complaints(lambda piece, text: self._event(piece, "Warning", "KubeProxyIncorrectIPVersion", text))
        self._services.on_change(complaints.look)
        self._slices.on_change(complaints.look)
        if config.detect_local_mode == "NodeCIDR":
            self._nodes.on_change(complaints.look)
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        for informer in (self._nodes, self._service_cidrs):
            informer.on_change(lambda _old, _new: self._node_changed())

    # --- status

    @property
    def mode(self) -> str:
        """The mode whose rules are in force."""
        return self._engine.name if self._engine else self.config.mode or DEFAULT_MODE

    @property
    def programmed(self) -> Programmed:
        """How far the rules of all families have come."""
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
        return all(family.healthy for family in self._look().health.values())

    # --- running

    async def run(self) -> None:
        """Program until cancelled.

        Raises UserError where a tool is missing or another kube-proxy works in the namespace, KernelError where a
        sysctl is refused.
        """
        with lock.take(self.netns):
            self.refused, self.decided, self._engine = "", "", None
            self._started.clear()
            engine = None if self._mode_annotation else await self._prepared(self.config.mode)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for informer in (self._services, self._slices, self._nodes):
                        tasks.create_task(informer.run())
                    if self.config.asks_for_service_cidrs:
                        tasks.create_task(self._service_cidrs.run())
                    tasks.create_task(self._status_servers.run())
                    self._event(self._node_ref, "Normal", "Starting")
                    await self._begin(tasks, engine)
            finally:
                self._service_health.close()
                for each in {*self._engines(), *([engine] if engine else [])}:
                    each.close()
                await self._events.close()

    async def cleanup(self) -> None:
        """Remove every rule of the mode, as `kube-proxy --cleanup` does."""
        await mode_of(self.mode).cleanup(self.config, self._site)

    async def _prepared(self, mode: str) -> Engine:
        config = msgspec.structs.replace(self.config, mode=mode)
        engine = Engine(config, self.node_name, self._site, self._families)
        try:
            await engine.prepare(self._revisions, self._synced)
        except BaseException:
            engine.close()
            raise
        return engine

    def _revisions(self) -> tuple[str, str] | None:
        """Of Services and EndpointSlices; None before everything has been listed once."""
        if not all(informer.synced.is_set() for informer in (self._services, self._slices, self._nodes)):
            return None
        return self._services.resource_version, self._slices.resource_version

    async def _begin(self, tasks: asyncio.TaskGroup, engine: Engine | None) -> None:
        for informer in (self._services, self._slices, self._nodes):
            await self._listed(informer)
        if self.config.asks_for_service_cidrs:
            await self._service_cidrs.tried.wait()  # servers before 1.33 have none
        if self.config.detect_local_mode == "NodeCIDR":
            tasks.create_task(guard_pod_cidrs(self._nodes, self.node_name))
        self._engine = engine or await self._wished()
        self._feed(self._engine)
        work = tasks.create_task(self._engine.run())
        self._started.set()
        self._tidying = tasks.create_task(self._sweep(self._engine))
        tasks.create_task(self._change_modes(tasks, work))

    async def _listed(self, informer: Informer[Any]) -> None:
        """Wait for a first list; whoever looks at the log must not wonder what is waited for."""
        while not informer.synced.is_set():
            try:
                async with asyncio.timeout(_WONDER_SECONDS):
                    await informer.synced.wait()
            except TimeoutError:
                log.warning("proxy %s: still no list of %s: %s", self.node_name, informer.resource, informer.trouble)

    async def _sweep(self, engine: Engine) -> None:
        """Once the rules are there: remove what other modes have left behind, as far as upstream does at a start.

        Where the mode may change at any time, a change may have been interrupted anywhere; so there all of them go.
        """
        await engine.until()
        names = _others(engine.name) if self._mode_annotation else left_overs(engine.name)
        for name in names:
            if await mode_of(name).remains(self._site):
                await to_its_end(self._remove(name, engine.name))
        await self._tidy(names)

    async def _remove(self, name: str, successor: str) -> None:
        """Remove what a mode has left; what cannot be removed must not keep the mode in force from its work."""
        try:
            await mode_of(name).cleanup(self.config, self._site, successor=successor)
        except NetemuError as error:
            log.warning("proxy %s: rules of mode %s not removed: %s", self.node_name, name, error)

    async def _tidy(self, names: Sequence[str]) -> None:
        """Remove what modes have left for the sake of open connections, as these end."""
        while names := [name for name in names if await self._tidied(name)]:  # noqa: ASYNC110
            await asyncio.sleep(_TIDY_SECONDS)  # the kernel has no event for the end of a connection

    async def _tidied(self, name: str) -> bool:
        """Whether anything of a mode is left to wait for."""
        try:
            return await mode_of(name).tidy(self.config, self._site)
        except KernelError as error:
            log.warning("proxy %s: what mode %s has left stays: %s", self.node_name, name, error)
            return False

    # --- what is known

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        for engine in self._engines():
            engine.service_changed(old, new)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for engine in self._engines():
            engine.slice_changed(old, new)

    def _node_changed(self) -> None:
        for engine in self._engines():
            self._tell_facts(engine)
        self._mode_wanted.set()

    def _tell_facts(self, engine: Engine) -> None:
        networks = [network for each in self._service_cidrs.objects.values() for network in each.spec.cidrs]
        engine.service_cidrs_changed(networks)
        engine.node_changed(self._nodes.get(self.node_name))

    def _feed(self, engine: Engine) -> None:
        """Tell an engine that is new everything that there is."""
        for service in self._services.objects.values():
            engine.service_changed(None, service)
        for piece in self._slices.objects.values():
            engine.slice_changed(None, piece)
        self._tell_facts(engine)

    def _engines(self) -> list[Engine]:
        return [engine for engine in (self._engine, self._next) if engine]

    async def _synced(self, family: Family, table: Table) -> None:
        self._health_ports[family] = health_ports(table)
        merged: dict[str, tuple[int, int]] = {}
        for each in reversed(self._families):  # the first family's answer stands, as for who listens first
            merged.update(self._health_ports.get(each, {}))
        if merged or self._had_health:
            self._had_health = bool(merged)
            hosts = await self._engine.health_hosts() if self._engine else ()
            await self._service_health.update(merged, hosts)

    # --- another mode

    async def _wished(self) -> Engine:
        """The mode that the Node wishes for; where that cannot be had the configured one, and `refused` says why."""
        self._mode_wanted.clear()
        revision, wanted, configured = self._node_revision, self._wanted_mode(), self.config.mode or DEFAULT_MODE
        try:
            return await self._prepared(wanted)
        except NetemuError as error:
            if wanted == configured:
                raise
            self._refuse(wanted, error)
            return await self._prepared(configured)
        finally:
            self.decided = revision

    @property
    def _node_revision(self) -> str:
        node = self._nodes.get(self.node_name)
        return node.metadata.resource_version if node else ""

    def _refuse(self, wanted: str, error: NetemuError) -> None:
        self.refused = f"mode {wanted} not taken: {error}"
        log.error("proxy %s: %s", self.node_name, self.refused)

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
            revision = self._node_revision
            if (wanted := self._wanted_mode()) != self.mode and self._engine:
                try:
                    work = await self._change_mode(wanted, tasks, work, self._engine)
                except NetemuError as error:
                    self._refuse(wanted, error)
            self.decided = revision

    async def _change_mode(
        self, wanted: str, tasks: asyncio.TaskGroup, work: asyncio.Task[None], old: Engine
    ) -> asyncio.Task[None]:
        """New rules first, then the old ones go. Raises NetemuError; then the old mode stays."""
        new = await self._prepared(wanted)
        if self._tidying:
            await _stop(self._tidying)
        self._feed(new)
        self._next = new
        next_work = tasks.create_task(new.run())
        try:
            await _first_sync(new)
        except NetemuError:
            await _stop(next_work)
            new.close()
            await new.mode.cleanup(self.config, self._site, successor=old.name)
            self._tidying = tasks.create_task(self._tidy(_others(old.name)))
            raise
        finally:
            self._next = None
        self._engine = new
        await _stop(work)
        old.close()
        await self._remove(old.name, new.name)
        self._tidying = tasks.create_task(self._tidy(_others(new.name)))
        log.info("proxy %s: mode %s instead of %s", self.node_name, new.name, old.name)
        return next_work

    # --- what others see

    def _look(self) -> View:
        loops, now = self._engine.loops if self._engine else {}, time.time()
        longest = 2 * self.config.iptables.sync_period
        late = {family for family, loop in loops.items() if now - (loop.queued_since or now) > longest}
        node = self._nodes.get(self.node_name)
        drained = node is not None and (node.deleting or any(t.key == _DRAIN_TAINT for t in node.spec.taints))
        return View(
            self.mode,
            now,
            not drained,
            {f.value: FamilyHealth(loop.programmed.at, f not in late) for f, loop in loops.items()},
            {f.value: FamilyMetrics(loop.metrics, loop.tracker.pending) for f, loop in loops.items()},
        )

    def _event(self, about: KubeObject | Mapping[str, Any], type: str, reason: str, message: str = "") -> None:
        """Events are a courtesy: whether the server takes them does not matter."""
        self._events.event(about, type, reason, message)

    def _health_check_failed(self, service: str, why: str) -> None:
        if (found := self._services.get(service)) is not None:
            self._event(found, "Warning", "FailedToStartServiceHealthcheck", f"node {self.node_name}: {why}")


def _others(mode: str) -> tuple[str, ...]:
    return tuple(name for name in MODES if name != mode)


async def _first_sync(engine: Engine) -> None:
    """Wait for the first sync. Raises KernelError where it fails."""
    while not (done := await engine.attempt()).syncs:
        if done.error:
            raise KernelError(f"program mode {engine.name}", engine.node_name, detail=done.error)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
