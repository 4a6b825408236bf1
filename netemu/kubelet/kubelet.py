"""A kubelet: the Pods of one node, from the API to the runtimes.

It watches Pods with `spec.nodeName` of its node and keeps a worker task per Pod UID. Exits that runtimes tell of wake
the worker. At start, sandboxes of an earlier run whose Pods are gone are removed; all others are adopted by their
workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from netemu.client.base import Client
from netemu.client.events import EventRecorder
from netemu.client.informer import Informer, wait_synced
from netemu.kubelet.materials import Materials
from netemu.kubelet.mounted import MountedSources
from netemu.kubelet.node import NodeKeeper
from netemu.kubelet.sandbox import HostPorts, KernelNamespaces, Namespaces, NoHostPorts, PodNetwork, Sandboxes
from netemu.kubelet.settings import KubeletSettings, NodeFacts
from netemu.kubelet.worker import PodWorker, Surroundings
from netemu.model.errors import ApiError, NetemuError
from netemu.model.objects import Service
from netemu.model.pods import Pod
from netemu.model.resources import PODS, RUNTIMECLASSES, SERVICES
from netemu.runtime.cri import ContainerEvent, Runtime

log = logging.getLogger(__name__)

_DEFAULT_RUNTIME = "emulated"


class Kubelet:
    """One node's. Several may share a process, each with runtimes of its own."""

    def __init__(
        self,
        client: Client,
        node: NodeFacts,
        runtimes: Mapping[str, Runtime],
        network: PodNetwork,
        settings: KubeletSettings,
        *,
        lab: str = "",
        services: Informer[Service] | None = None,
        namespaces: Namespaces | None = None,
        host_ports: HostPorts | None = None,
    ) -> None:
        """`runtimes` by RuntimeClass handler. `services`: an informer of all Services that somebody else runs.

        `lab` is what the namespaces of Pods are named after; without it, the first word of the node's namespace is.
        """
        lab = lab or node.netns.rpartition("/")[2].partition(".")[0] or node.name
        self._client, self._node, self._runtimes = client, node, runtimes
        self._services = services or Informer(client, SERVICES, Service)
        self._own_services = services is None
        self._pods = Informer(client, PODS, Pod, field_selector=f"spec.nodeName={node.name}")
        self._events = EventRecorder(client, "kubelet", host=node.name)
        self._keeper = NodeKeeper(client, node, settings)
        self._around = Surroundings(
            client,
            node,
            settings,
            Sandboxes(lab, node, settings, network, namespaces or KernelNamespaces(), host_ports or NoHostPorts()),
            Materials(client, self._services.objects.values),
            MountedSources(client),
            self._events,
        )
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, Pod] = {}
        """Pods whose name is still taken by the worker of a deleted one, by key."""
        self._taken: dict[str, str] = {}
        """Pod key to the UID that a task works on."""

    @property
    def registered(self) -> asyncio.Event:
        """Set once the API knows the node."""
        return self._keeper.registered

    def find(self, namespace: str, name: str) -> Pod | None:
        """The Pod of that name, if it is of this node."""
        return self._pods.get(f"{namespace}/{name}")

    def pods(self) -> list[Pod]:
        """All of this node."""
        return list(self._pods.objects.values())

    async def runtime_of(self, pod: Pod) -> Runtime | None:
        """The runtime that has its sandbox."""
        for runtime in self._runtimes.values():
            if await runtime.pod_sandbox_status(pod.metadata.uid) is not None:
                return runtime
        return None

    async def run(self) -> None:
        """Until cancelled. Pods and what is on disk stay; emulated containers are not served meanwhile."""
        for runtime in self._runtimes.values():
            runtime.subscribe(self._container_exited)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keeper.run(), name=f"kubelet {self._node.name} node")
                await asyncio.gather(*(runtime.start() for runtime in self._runtimes.values()))
                if self._own_services:
                    group.create_task(self._services.run(), name=f"kubelet {self._node.name} services")
                group.create_task(self._pods.run(), name=f"kubelet {self._node.name} pods")
                await self._synced()
                await self._remove_orphans()
                self._pods.on_change(self._pod_changed)
                log.info("kubelet %s: running", self._node.name)
                await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop working without stopping Pods."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._workers.clear()
        for runtime in self._runtimes.values():
            await runtime.close()
        await self._around.mounted.close()
        await self._events.close()

    async def _synced(self) -> None:
        while True:
            try:
                return await wait_synced(self._pods, self._services)
            except NetemuError as error:
                log.warning("kubelet %s: waiting for the API server: %s", self._node.name, error)

    async def _remove_orphans(self) -> None:
        """Sandboxes whose Pods were deleted while nobody looked, or that belong to another runtime by now."""
        living = {pod.metadata.uid for pod in self._pods.objects.values()}
        for runtime in self._runtimes.values():
            for sandbox in await runtime.list_pod_sandbox():
                if sandbox.id in living:
                    continue
                log.info("kubelet %s: removing sandbox of %s", self._node.name, sandbox.config.pod_name)
                try:
                    await self._around.sandboxes.unmake(sandbox.config, runtime)
                except NetemuError as error:
                    log.warning("kubelet %s: sandbox %s stays: %s", self._node.name, sandbox.id, error)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._waiting.pop(old.key, None)
            if worker := self._workers.get(old.metadata.uid):
                worker.deleted()
        if new is not None:
            self._place(new)

    def _place(self, pod: Pod) -> None:
        """Give the Pod to its worker, or a new one; a successor of the same name waits for its predecessor's end."""
        uid = pod.metadata.uid
        if worker := self._workers.get(uid):
            worker.update(pod)
        elif pod.key in self._taken:
            # The same Pod: its task is about to begin, and looks up the newest version then.
            if self._taken[pod.key] != uid:
                self._waiting[pod.key] = pod
        else:
            self._taken[pod.key] = uid
            self._tasks[uid] = asyncio.create_task(self._work(pod), name=f"pod {pod.key}")

    async def _work(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        try:
            runtime = await self._runtime_of(pod)
            current = self._pods.get(pod.key)
            if current is not None and current.metadata.uid == uid:
                pod = current
            if runtime is not None:
                worker = self._workers[uid] = PodWorker(pod, runtime, self._around)
                if pod is not current:
                    worker.deleted()
                await worker.run()
            elif pod.deleting:
                await self._client.delete(PODS, pod.name, pod.namespace, grace_period_seconds=0, uid=uid)
        except ApiError as error:
            log.warning("pod %s: %s", pod.key, error)
        finally:
            self._workers.pop(uid, None)
            self._tasks.pop(uid, None)
            self._taken.pop(pod.key, None)
        if (successor := self._waiting.pop(pod.key, None)) is not None:
            self._place(successor)

    async def _runtime_of(self, pod: Pod) -> Runtime | None:
        """The runtime of its RuntimeClass; None, and an event, if there is none."""
        name = pod.spec.runtime_class_name or _DEFAULT_RUNTIME
        if (runtime := self._runtimes.get(name)) is not None:
            return runtime
        try:
            handler = str((await self._client.get(RUNTIMECLASSES, name)).get("handler") or "")
        except ApiError:
            handler = ""
        if (runtime := self._runtimes.get(handler)) is None:
            self._event_about(pod, f'Failed to create pod sandbox: RuntimeClass "{name}" has no handler here')
        return runtime

    def _event_about(self, pod: Pod, message: str) -> None:
        about: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.metadata.uid},
        }
        self._events.event(about, "Warning", "FailedCreatePodSandBox", message)

    def _container_exited(self, event: ContainerEvent) -> None:
        if worker := self._workers.get(event.sandbox_id):
            worker.wake()
