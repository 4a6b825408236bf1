"""One Pod: a loop that compares what should run with what does, does the next thing, and tells the API.

Woken by the Pod's changes, container exits, probe results and its own timers. `sync` is upstream's SyncPod: sandbox,
volumes, init containers in order, containers, restarts. `terminate` is SyncTerminatingPod and SyncTerminatedPod: stop
with grace, last status, remove everything, then delete the API object. Errors of one round are told as events and
tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netemu.client.base import Client
from netemu.client.events import EventRecorder
from netemu.kubelet import attempts, hooks
from netemu.kubelet.backoff import BackOff
from netemu.kubelet.materials import Materials
from netemu.kubelet.mounted import MountedSources
from netemu.kubelet.probes import Attempt, Kind, Outcome, ProbeHooks, Prober
from netemu.kubelet.reporter import Reporter
from netemu.kubelet.sandbox import Sandboxes
from netemu.kubelet.settings import KubeletSettings, NodeFacts
from netemu.kubelet.slots import Slot, wanted
from netemu.kubelet.starter import PodVoice, Starter
from netemu.kubelet.status import PodView, told
from netemu.model import times
from netemu.model.errors import ApiError, NetemuError, NotFound, UserError
from netemu.model.pods import Pod, Probe
from netemu.model.resources import PODS
from netemu.runtime.cri import ExecResult, Runtime, SandboxConfig

log = logging.getLogger(__name__)

_RETRY = (0.2, 10.0)
_DEFAULT_GRACE = 30


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the workers of one kubelet share."""

    client: Client
    node: NodeFacts
    settings: KubeletSettings
    sandboxes: Sandboxes
    materials: Materials
    mounted: MountedSources
    events: EventRecorder


class PodWorker:
    """Runs one Pod from its binding to its end."""

    def __init__(self, pod: Pod, runtime: Runtime, around: Surroundings) -> None:
        self.pod, self._runtime, self._around = pod, runtime, around
        self._wake = asyncio.Event()
        self._gone = False
        """The API object is deleted already: nobody to tell, no grace."""
        self._sandbox: SandboxConfig | None = None
        self._attempt = 0
        self._places: Mapping[str, str] | None = None
        self._remount = False
        """Something that is mounted has changed."""
        self._failed: tuple[str, str] | None = None
        self._finished = False
        self._reporter = Reporter(around.client)
        self._say = PodVoice(around.events, pod)
        self._starter = Starter(runtime, around.materials, around.sandboxes, self._say)
        self._start_time = pod.status.start_time or times.now()
        first, longest = around.settings.back_off
        self._init = [Slot(one, True, BackOff(first, longest)) for one in pod.spec.init_containers]
        self._main = [Slot(one, False, BackOff(first, longest)) for one in pod.spec.containers]
        self._ephemeral: list[Slot] = []

    @property
    def _slots(self) -> list[Slot]:
        return self._init + self._main + self._ephemeral

    def update(self, pod: Pod) -> None:
        """A newer version of the Pod."""
        self.pod = pod
        self._wake.set()

    def deleted(self) -> None:
        """The API object is gone."""
        self._gone = True
        self._wake.set()

    def _mounted_changed(self) -> None:
        self._remount = True
        self._wake.set()

    def wake(self) -> None:
        """Something happened: look."""
        self._wake.set()

    async def run(self) -> None:
        """Until the Pod is gone, or cancelled; a cancelled worker leaves the Pod running."""
        pause = _RETRY[0]
        try:
            while True:
                self._wake.clear()
                try:
                    if self._gone or self.pod.deleting:
                        await self._terminate()
                        return
                    due = await self._sync()
                    pause = _RETRY[0]
                except (NetemuError, OSError) as error:
                    log.debug("pod %s: %s", self.pod.key, error)
                    due, pause = pause, min(pause * 2, _RETRY[1])
                except Exception:  # a worker that ends leaves its Pod to nobody
                    log.exception("pod %s", self.pod.key)
                    due, pause = pause, min(pause * 2, _RETRY[1])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), due)
        finally:
            self._around.mounted.forget(self.pod.metadata.uid)
            self._around.materials.tokens.forget(self.pod.metadata.uid)
            for slot in self._slots:
                await slot.stop_probing()

    # --- one round

    async def _sync(self) -> float | None:
        """Do what can be done now; in how many seconds to look again (None: when woken)."""
        if self._finished or (self.pod.finished and self._sandbox is None):
            self._finished = True
            return None
        if self._sandbox is None and not await self._ensure_sandbox():
            return self._next_retry()
        assert self._sandbox is not None
        if self._remount:
            self._remount = False
            await self._mount_volumes()
        known = {slot.spec.name for slot in self._ephemeral}
        added = [one for one in self.pod.spec.ephemeral_containers if one.name not in known]
        self._ephemeral += [Slot(one, False, BackOff(*self._around.settings.back_off)) for one in added]
        await self._refresh()
        if self._overdue():
            await self._stop_all(self._grace())
        else:
            for is_init, index in wanted(
                [slot.view() for slot in self._init], [slot.view() for slot in self._main], self.pod.spec.restart_policy
            ):
                slot = self._init[index] if is_init else self._main[index]
                if await self._starter.start(slot, self.pod, self._sandbox, self._places or {}):
                    await self._refresh()
            for slot in self._ephemeral:  # whatever becomes of them, they start once
                if slot.current is None and await self._starter.start(
                    slot, self.pod, self._sandbox, self._places or {}
                ):
                    await self._refresh()
            # Init containers of emulated images end as they start: go on at once.
            if any(slot.init and slot.running for slot in self._slots) or self._wake.is_set():
                await self._refresh()
        await self._report()
        return self._next_retry()

    async def _refresh(self) -> None:
        """Take the runtime's word for what runs, and act on probes that want a container killed."""
        assert self._sandbox is not None
        found = await self._runtime.list_containers(self._sandbox.pod_uid)
        for slot in self._slots:
            slot.adopt(found)
            if slot.running and slot.prober is None:
                self._probe(slot)
            if not slot.running and slot.prober is not None:
                await slot.stop_probing()
            for old in slot.old_attempts(found):
                await self._runtime.remove_container(old)
            if slot.running and slot.prober is not None and slot.prober.broken and slot.stopping is None:
                self._say(
                    "Normal",
                    "Killing",
                    f"Container {slot.spec.name} failed {slot.prober.broken} probe, will be restarted",
                    slot,
                )
                slot.stopping = asyncio.create_task(self._stop(slot, self._grace()))
            if not slot.running:
                slot.stopping = None

    async def _ensure_sandbox(self) -> bool:
        """Adopt the sandbox of an earlier run, or make one. False if that failed: told, and to be tried again."""
        around = self._around
        found = await self._runtime.pod_sandbox_status(self.pod.metadata.uid)
        if found is not None and found.ready and around.sandboxes.usable(found.config):
            self._sandbox = found.config
            self._places = {
                v.name: str(around.sandboxes.directory(found.id) / "volumes") for v in self.pod.spec.volumes
            }
            self._places = await self._mount_volumes() or self._places
            return True
        if found is not None:
            await around.sandboxes.unmake(found.config, self._runtime)
            self._attempt = found.config.attempt + 1
        try:
            self._places = await self._mount_volumes()
            if self._places is None:
                await self._report()
                return False
            config, warnings = await around.sandboxes.make(self.pod, self._runtime, self._attempt)
        except (NetemuError, OSError) as error:
            self._say("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            await self._report()
            raise NetemuError(str(error)) from error
        self._sandbox = config
        for warning in warnings:
            if warning.of_node:
                node = around.node.name  # as its uid too: upstream's kubelet says so before it knows the real one
                about = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "uid": node}}
                around.events.event(about, "Warning", warning.reason, warning.message)
            else:
                self._say("Warning", warning.reason, warning.message)
        return True

    async def _mount_volumes(self) -> Mapping[str, str] | None:
        directory = self._around.sandboxes.directory(self.pod.metadata.uid) / "volumes"
        self._around.mounted.follow(self.pod, self._mounted_changed)
        try:
            places, ignored = await self._around.materials.mount_volumes(self.pod, directory)
        except (UserError, OSError) as error:
            self._say("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
            self._retry_all()
            return None
        for one in ignored:
            self._say("Warning", "FailedMount", f"volume {one} is not supported and stays empty")
        if (seconds := self._around.materials.tokens.renew_in(self.pod.metadata.uid)) is not None:
            self._around.mounted.again_in(seconds, self.pod, self._mounted_changed)
        return places

    def _retry_all(self) -> None:
        at = asyncio.get_running_loop().time() + 2.0
        for slot in self._slots:
            slot.retry_at = at

    # --- containers

    def _asking(self, slot: Slot) -> Attempt:
        assert slot.current is not None
        container_id = slot.current.id

        async def run(command: tuple[str, ...]) -> ExecResult:
            return await self._runtime.exec_sync(container_id, command, 0)

        async def attempt(probe: Probe) -> Outcome:
            assert self._sandbox is not None
            address = self._sandbox.addresses[0]
            return await attempts.attempt(
                probe, node_netns=self._around.node.netns, address=address, ports=slot.spec.ports, run=run
            )

        return attempt

    def _probe(self, slot: Slot) -> None:
        def unhealthy(kind: Kind, text: str) -> None:
            self._say("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {text}", slot)

        honour = not self._runtime.instant or self._around.settings.honour_initial_delay
        probing = ProbeHooks(self._asking(slot), self.wake, unhealthy)
        assert slot.current is not None
        known = told(self.pod, slot.current)
        slot.prober = Prober(
            slot.spec,
            probing,
            running_for=times.seconds_since(slot.current.started_at or slot.current.created_at) if honour else math.inf,
            started=known is not None and known.started is True,
            ready=known is not None and known.ready,
        )
        slot.prober.start()

    async def _stop(self, slot: Slot, grace: float) -> None:
        """End a container: its preStop, SIGTERM, and what is left of the grace period; without grace, at once."""
        if slot.hook is not None:
            slot.hook.cancel()
        if slot.current is not None:
            before = slot.spec.lifecycle.pre_stop if slot.spec.lifecycle else None
            if grace > 0 and slot.running and before is not None:
                slot.hook = asyncio.create_task(hooks.run(before, self._asking(slot)), name="preStop")
                grace, trouble = await hooks.within(slot.hook, grace)
                slot.hook = None
                if trouble:
                    self._say("Warning", "FailedPreStopHook", f"PreStopHook failed: {trouble}", slot)
            await self._runtime.stop_container(slot.current.id, grace)
        self.wake()

    # --- the end

    async def _terminate(self) -> None:
        """Stop, tell, remove, delete; each step is tried until it works, for the Pod's name is taken until then."""
        if self._sandbox is None:
            found = await self._runtime.pod_sandbox_status(self.pod.metadata.uid)
            self._sandbox = found.config if found else None
        if self._sandbox is not None:
            await self._refresh()
            for slot in self._slots:
                if slot.running:
                    self._say("Normal", "Killing", f"Stopping container {slot.spec.name}", slot)
                await slot.stop_probing()
            await self._stop_all(0 if self._gone else self._grace())
            await self._refresh()
            if not self._gone:
                await self._report(ended=True)
            await self._around.sandboxes.unmake(self._sandbox, self._runtime)
            self._sandbox = None
        if not self._gone:
            with contextlib.suppress(NotFound):
                await self._around.client.delete(
                    PODS, self.pod.name, self.pod.namespace, grace_period_seconds=0, uid=self.pod.metadata.uid
                )

    async def _stop_all(self, grace: float) -> None:
        """Stop every container with grace; a deletion without grace that comes meanwhile cuts it short."""
        for slot in self._slots:
            if slot.stopping is not None:
                slot.stopping.cancel()
        running = [slot for slot in self._slots if slot.running]
        stopping = asyncio.gather(*(self._stop(slot, grace) for slot in running))
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not stopping.done():
            self._wake.clear()
            waiter = asyncio.ensure_future(self._wake.wait())
            either: set[asyncio.Future[Any]] = {stopping, waiter}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            allowed = 0.0 if self._gone else self._grace()
            if not stopping.done() and allowed < grace and loop.time() - started >= allowed:
                for slot in running:
                    await self._stop(slot, 0)
        await stopping

    def _grace(self) -> float:
        given = self.pod.metadata.deletion_grace_period_seconds
        if given is None:
            given = self.pod.spec.termination_grace_period_seconds
        return float(_DEFAULT_GRACE if given is None else given)

    def _overdue(self) -> bool:
        limit = self.pod.spec.active_deadline_seconds
        if limit is not None and times.seconds_since(self._start_time) >= limit:
            self._failed = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        return self._failed is not None

    # --- telling

    async def _report(self, *, ended: bool = False) -> None:
        view = PodView(
            pod=self.pod,
            init=[slot.view() for slot in self._init],
            containers=[slot.view() for slot in self._main],
            ephemeral=[slot.view() for slot in self._ephemeral],
            host_ips=self._around.node.addresses,
            pod_ips=self._sandbox.addresses if self._sandbox else (),
            sandbox_ready=self._sandbox is not None and not ended,
            start_time=self._start_time,
            now=times.now(),
            failed=self._failed,
            ended=ended,
        )
        try:
            newer = await self._reporter.send(view)
        except NotFound:
            return
        except ApiError:
            if not ended:
                raise
            return
        if newer is not None and _is_newer(newer, self.pod):
            self.pod = newer
        if self._reporter.phase in ("Succeeded", "Failed") and not ended and self._sandbox is not None:
            await self._around.sandboxes.disconnect(self._sandbox, self._runtime)
            self._finished = True

    def _next_retry(self) -> float | None:
        """Seconds until the earliest timer."""
        loop = asyncio.get_running_loop()
        timers = [
            slot.retry_at - loop.time() for slot in self._slots if not slot.running and slot.retry_at > loop.time()
        ]
        if (limit := self.pod.spec.active_deadline_seconds) is not None and self._failed is None:
            timers.append(max(0.0, limit - times.seconds_since(self._start_time)))
        return min(timers, default=None)


def _is_newer(one: Pod, other: Pod) -> bool:
    try:
        return int(one.metadata.resource_version) > int(other.metadata.resource_version)
    except ValueError:  # revisions are opaque; then wait for the watch
        return False
