"""A lab network with one node's kubelet on it, against an API server in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from netemu.client.base import Obj
from netemu.kernel import netns
from netemu.kubelet import Kubelet, KubeletSettings, NodeFacts
from netemu.model.errors import NotFound
from netemu.model.resources import PODS
from netemu.network import names, underlay
from netemu.network.plan import NetworkPlan, NodePlan
from netemu.network.pods import PodNetwork
from netemu.runtime.cri import Runtime
from netemu.runtime.emulated import EmulatedRuntime
from netemu.runtime.process import ProcessRuntime
from netemu.testing.client import FakeClient

NODE = NodePlan("n1", ("172.18.0.2",), ("10.244.1.0/24",))


class Bed:
    """One node. `restart` ends its kubelet as a crash of the node agent would, without stopping Pods."""

    def __init__(self, lab: str, directory: Path, node: NodePlan) -> None:
        self.lab, self.node = lab, node
        self.client = FakeClient()
        self.pods_dir = directory / "pods"
        (directory / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch example.org\n")
        self.settings = KubeletSettings(pods_dir=str(self.pods_dir), resolv_conf=str(directory / "resolv.conf"))
        self.netns = names.node_netns(lab, node.name)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the kubelet until it has registered."""
        self.network = PodNetwork(self.lab, self.node)
        runtimes: dict[str, Runtime] = {
            "emulated": EmulatedRuntime(self.node.name, self.pods_dir),
            "process": ProcessRuntime(self.node.name, self.pods_dir),
        }
        facts = NodeFacts(self.node.name, self.node.addresses, self.netns, self.node.pod_cidrs)
        kubelet = Kubelet(self.client, facts, runtimes, self.network, self.settings, lab=self.lab)
        self._task = asyncio.create_task(kubelet.run(), name="kubelet")
        await asyncio.wait_for(kubelet.registered.wait(), 5)

    async def stop(self) -> None:
        """End the kubelet; Pods stay."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self.network.close()

    async def pod(self, name: str, spec: dict[str, Any]) -> None:
        """Create a Pod bound to the node."""
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}}
        await self.client.create(PODS, {**body, "spec": {"nodeName": self.node.name, **spec}}, "shop")

    async def until(self, name: str, holds: Callable[[Obj], bool], within: float = 10) -> Obj:
        """The Pod once that holds of it."""
        async with asyncio.timeout(within):
            version = "0"
            while True:
                pod = await self.client.get(PODS, name, "shop")
                if holds(pod):
                    return pod
                version = str(self.client.revision)
                events = self.client.watch(PODS, "shop", resource_version=version)
                try:
                    async for _ in events:
                        break
                finally:
                    await events.aclose()

    async def ready(self, name: str, within: float = 10) -> Obj:
        """The Pod once it is Ready."""
        return await self.until(name, is_ready, within)

    async def remove(self, name: str, grace: int | None = None, within: float = 10) -> None:
        """Delete the Pod and wait until it is gone."""
        await self.client.delete(PODS, name, "shop", grace_period_seconds=grace)
        async with asyncio.timeout(within):
            try:
                await self.until(name, lambda pod: False, within)
            except NotFound:
                return

    async def ask(self, address: str, port: int, message: bytes) -> bytes:
        """Everything a TCP server answers to `message`, asked from the node."""
        with netns.entered(self.netns):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(message)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
        return answer


def is_ready(pod: Obj) -> bool:
    """Whether the condition Ready is True."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions", ()))


@asynccontextmanager
async def bed(lab: str, directory: Path, node: NodePlan = NODE) -> AsyncIterator[Bed]:
    """A lab of one node with its kubelet running; nothing is left afterwards."""
    plan = NetworkPlan(lab, nodes=(node,))
    await asyncio.to_thread(underlay.build, plan)
    made = Bed(lab, directory, node)
    try:
        await made.start()
        yield made
        for pod in (await made.client.list(PODS)).items:
            await made.remove(pod["metadata"]["name"], grace=1)
    finally:
        await made.stop()
        await asyncio.to_thread(underlay.destroy, lab)
