"""Starting one container: whether it may start now, what it is made of, and what to say when it cannot.

Upstream: kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go (startContainer) and images/image_manager.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from netemu.client.events import EventRecorder
from netemu.kubelet.env import Place
from netemu.kubelet.materials import Materials
from netemu.kubelet.sandbox import Sandboxes
from netemu.kubelet.slots import Slot
from netemu.model.errors import UserError
from netemu.model.pods import Pod
from netemu.runtime.cri import ContainerState, Runtime, RuntimeFailure, SandboxConfig

_RETRY_SECONDS = 2.0


class PodVoice:
    """Says things about one Pod, or one of its containers, as Events."""

    def __init__(self, events: EventRecorder, pod: Pod) -> None:
        self._events = events
        self._about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.metadata.uid},
        }

    def __call__(self, kind: str, reason: str, message: str, slot: Slot | None = None) -> None:
        """`kind` is Normal or Warning."""
        part = "initContainers" if slot is not None and slot.init else "containers"
        path = f"spec.{part}{{{slot.spec.name}}}" if slot is not None else ""
        self._events.event(self._about, kind, reason, message, field_path=path)


class Starter:
    """Starts the containers of one Pod."""

    def __init__(self, runtime: Runtime, materials: Materials, sandboxes: Sandboxes, say: PodVoice) -> None:
        self._runtime, self._materials, self._sandboxes, self._say = runtime, materials, sandboxes, say

    async def start(self, slot: Slot, pod: Pod, sandbox: SandboxConfig, places: Mapping[str, str]) -> bool:
        """Start it unless it must wait; a failure becomes its waiting reason. Whether anything was tried."""
        now = asyncio.get_running_loop().time()
        if now < slot.retry_at or slot.stopping is not None:
            return False
        restart = slot.current is not None and slot.current.state is ContainerState.EXITED
        if restart and self._hold_back(slot, pod, now):
            return False
        try:
            await self._attempt(slot, pod, sandbox, places, restart=restart)
        except UserError as error:
            self._postpone(slot, "CreateContainerConfigError", str(error), now)
        except RuntimeFailure as error:
            if error.reason == "ErrImagePull":
                self._pull_failed(slot, error.message, now)
            else:
                self._postpone(slot, error.reason, error.message, now)
        else:
            slot.backing_off = False
        return True

    def _hold_back(self, slot: Slot, pod: Pod, now: float) -> bool:
        """Whether a container that ended has to wait before its next start."""
        due = slot.back_off.due(slot.ended_at)
        if now >= due:
            slot.back_off.started_again(now)
            return False
        full_name = f"{pod.name}_{pod.namespace}({pod.metadata.uid})"
        text = f"back-off {_span(slot.back_off.pause)} restarting failed container={slot.spec.name} pod={full_name}"
        slot.waiting, slot.backing_off, slot.retry_at = ("CrashLoopBackOff", text), True, due
        said = f"Back-off restarting failed container {slot.spec.name} in pod {full_name}"
        self._say("Warning", "BackOff", said, slot)
        return True

    async def _attempt(
        self, slot: Slot, pod: Pod, sandbox: SandboxConfig, places: Mapping[str, str], *, restart: bool
    ) -> None:
        node, settings = self._sandboxes.node, self._sandboxes.settings
        place = Place(node.name, node.addresses, sandbox.addresses, {"cpu": settings.cpu, "memory": settings.memory})
        ends = slot.init and slot.spec.restart_policy != "Always"
        config = await self._materials.config(pod, slot.spec, place, places, attempt=slot.next_attempt, init=ends)
        if all(mount.container_path != "/etc/hosts" for mount in config.mounts):
            self._sandboxes.write_hosts(pod, sandbox.addresses)
        container_id = await self._runtime.create_container(sandbox.pod_uid, config)
        if not restart:
            self._say("Normal", "Pulled", f'Container image "{slot.spec.image}" already present on machine', slot)
        self._say("Normal", "Created", f"Created container: {slot.spec.name}", slot)
        await self._runtime.start_container(container_id)
        self._say("Normal", "Started", f"Started container {slot.spec.name}", slot)

    def _postpone(self, slot: Slot, reason: str, message: str, now: float) -> None:
        self._say("Warning", "Failed", f"Error: {message}", slot)
        slot.waiting, slot.backing_off = (reason, message), slot.current is not None
        if slot.current is None or slot.current.state is not ContainerState.EXITED:
            slot.retry_at = now + _RETRY_SECONDS

    def _pull_failed(self, slot: Slot, message: str, now: float) -> None:
        image = slot.spec.image
        self._say("Warning", "Failed", f'Failed to pull image "{image}": {message}', slot)
        self._say("Warning", "Failed", "Error: ErrImagePull", slot)
        slot.pull.started_again(now)
        slot.retry_at = now + slot.pull.pause
        if slot.waiting[0] not in ("ErrImagePull", "ImagePullBackOff"):
            slot.waiting = ("ErrImagePull", message)
            return
        self._say("Normal", "BackOff", f'Back-off pulling image "{image}"', slot)
        slot.waiting = ("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {message}')


def _span(seconds: float) -> str:
    """`10s`, `1m20s`, as Go prints durations."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
