"""The scheduling loop (`pkg/scheduler/schedule_one.go`).

Pods without a node are taken in the order of priority and arrival. A decision costs no request: the Pod counts on its
node at once (it is *assumed*) and the binding is sent on the side, many at a time. A binding that fails undoes the
assumption and brings the Pod back after a pause. A Pod that fits nowhere says why, in its PodScheduled condition and in
an Event, and waits until a node changes or a Pod makes room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from netemu.client.base import Client
from netemu.client.events import EventRecorder
from netemu.client.informer import Informer
from netemu.model import times
from netemu.model.errors import ApiError, Conflict, NotFound
from netemu.model.meta import encode
from netemu.model.objects import Node
from netemu.model.pods import Pod
from netemu.model.resources import NODES, PODS
from netemu.scheduler.filter import explain, filter_node
from netemu.scheduler.score import best
from netemu.scheduler.state import ClusterState, NodeState, effective_taints

log = logging.getLogger(__name__)

NAME = "default-scheduler"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_AT_ONCE = 32
_BREATH = 16
"""Decisions in a row before others on the loop get a turn."""


def decide(pod: Pod, state: ClusterState) -> tuple[NodeState | None, dict[str, str]]:
    """The node for `pod`, or None and each node's reason against it."""
    nodes = state.known()
    reasons = {node.name: reason for node in nodes if (reason := filter_node(pod, node, state))}
    fits = [node for node in nodes if node.name not in reasons]
    return (best(pod, fits, state), {}) if fits else (None, reasons)


def wants_node(pod: Pod) -> bool:
    """Whether this scheduler has to find a node for `pod`."""
    return (
        not pod.spec.node_name and not pod.deleting and not pod.finished and (pod.spec.scheduler_name or NAME) == NAME
    )


class Scheduler:
    """Schedules the Pods of a cluster until cancelled."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._recorder = EventRecorder(client, NAME)
        self.pods: Informer[Pod] = Informer(client, PODS, Pod)
        self.nodes: Informer[Node] = Informer(client, NODES, Node)
        self.state = ClusterState()
        self._queue: dict[str, None] = {}
        self._unschedulable: dict[str, str] = {}
        """Key -> what was last said about it."""
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._binding: set[asyncio.Task[None]] = set()
        self._limit = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """See the class."""
        self.nodes.on_change(self._node)
        self.pods.on_change(self._pod)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.nodes.run(), name="informer nodes")
                group.create_task(self.pods.run(), name="informer pods")
                await self.nodes.synced.wait()
                await self.pods.synced.wait()
                await self._schedule(group)
        finally:
            await self._recorder.close()

    async def _schedule(self, group: asyncio.TaskGroup) -> None:
        done = 0
        while True:
            while self._queue:
                key = min(self._queue, key=self._urgency) if len(self._queue) < 64 else next(iter(self._queue))
                del self._queue[key]
                pod = self.pods.get(key)
                if pod is not None and wants_node(pod) and not self.state.node_of(key):
                    self._one(pod, group)
                done += 1
                if done % _BREATH == 0:
                    await asyncio.sleep(0)
            self._wake.clear()
            await self._wake.wait()

    def _urgency(self, key: str) -> int:
        pod = self.pods.get(key)
        return -(pod.spec.priority or 0) if pod else 0

    def _one(self, pod: Pod, group: asyncio.TaskGroup) -> None:
        node, reasons = decide(pod, self.state)
        if node is not None:
            self.state.add_pod(pod, node.name)
            self._unschedulable.pop(pod.key, None)
            group.create_task(self._bind(pod, node.name), name=f"bind {pod.key}")
            return
        message = explain(reasons)
        if self._unschedulable.get(pod.key) != message:
            self._unschedulable[pod.key] = message
            self._recorder.event(pod, "Warning", "FailedScheduling", message)
            group.create_task(self._tell(pod, message), name=f"unschedulable {pod.key}")

    async def _bind(self, pod: Pod, node: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            async with self._limit:
                await self._client.create_subresource(PODS, pod.name, "binding", body, pod.namespace)
        except ApiError as error:
            self._undo(pod, node, error)
            return
        self._failures.pop(pod.key, None)
        self._recorder.event(pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {node}")

    def _undo(self, pod: Pod, node: str, error: ApiError) -> None:
        current = self.pods.get(pod.key)
        if current is None or not current.spec.node_name:
            self.state.remove_pod(pod.key)
        if isinstance(error, NotFound | Conflict):  # deleted, or bound by somebody else: the watch tells
            log.debug("bind %s to %s: %s", pod.key, node, error)
            return
        log.info("bind %s to %s: %s", pod.key, node, error)
        failures = self._failures[pod.key] = self._failures.get(pod.key, 0) + 1
        pause = min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE)
        asyncio.get_running_loop().call_later(pause, self._mark, pod.key)

    async def _tell(self, pod: Pod, message: str) -> None:
        """Write the PodScheduled condition."""
        old = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
        since = old.last_transition_time if old and old.status == "False" else times.now()
        mine = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": since,
        }
        others = [encode(c) for c in pod.status.conditions if c.type != "PodScheduled"]
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [*others, mine]}}
        try:
            await self._client.patch(PODS, pod.name, patch, pod.namespace, subresource="status")
        except ApiError as error:
            log.debug("condition of %s: %s", pod.key, error)

    # --- what the informers say

    def _mark(self, key: str) -> None:
        self._queue[key] = None
        self._wake.set()

    def _retry(self) -> None:
        """Something changed that may help: try again what fitted nowhere."""
        for key in self._unschedulable:
            self._mark(key)

    def _node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None:
                self.state.remove_node(old.name)
            return
        self.state.set_node(new)
        if old is None or _relevant(old) != _relevant(new):
            self._retry()

    def _pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or new.finished:
            key = (new or old).key  # type: ignore[union-attr]
            self._unschedulable.pop(key, None)
            self._failures.pop(key, None)
            if self.state.node_of(key):
                self.state.remove_pod(key)
                self._retry()
        elif new.spec.node_name:
            self._placed(old, new)
        elif wants_node(new):
            if old is not None and old.metadata.uid != new.metadata.uid:
                self.state.remove_pod(new.key)
            if old is None or old.spec != new.spec or old.labels != new.labels or new.key not in self._unschedulable:
                self._mark(new.key)

    def _placed(self, old: Pod | None, new: Pod) -> None:
        self._unschedulable.pop(new.key, None)
        known = self.state.node_of(new.key) == new.spec.node_name
        if not known or old is None or old.spec != new.spec or old.labels != new.labels:
            self.state.add_pod(new)
        if old is None or old.labels != new.labels or not old.spec.node_name:
            self._retry()  # required Pod affinity may have been waiting for it
        elif old.deleting != new.deleting:
            self.state.add_pod(new)
            self._retry()


def _relevant(node: Node) -> tuple[Mapping[str, str], object, object, object]:
    """What of a node decides whether Pods fit; heartbeats do not."""
    return node.labels, effective_taints(node), node.spec.unschedulable, node.status.allocatable


async def run(client: Client) -> None:
    """Schedule Pods of the API server of `client` until cancelled."""
    await Scheduler(client).run()
