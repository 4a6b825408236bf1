"""A container runtime in a dictionary, and a Pod network in a set: kubelets without a kernel.

`FakeRuntime` implements `cri.Runtime`. Containers "run" until a test ends them (`end`) or until they are stopped; those
named in `stubborn` ignore the request to end and live through their grace period. `FakeNetwork` stands for CNI and
namespaces.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec

from netemu.kernel.inside import Stdio
from netemu.kernel.pidfd import Process
from netemu.model import times
from netemu.runtime.cri import (
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    ExecResult,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
)


class FakeRuntime:
    """See cri.Runtime for the verbs."""

    name = "emulated"
    instant = True

    def __init__(self, *, stubborn: frozenset[str] = frozenset(), unknown_images: frozenset[str] = frozenset()) -> None:
        self.stubborn, self.unknown_images = stubborn, unknown_images
        self.configs: dict[str, ContainerConfig] = {}
        """Container id to what it was created with."""
        self.exec_result = ExecResult(0, "")
        self._sandboxes: dict[str, SandboxStatus] = {}
        self._containers: dict[str, ContainerStatus] = {}
        self._exited: dict[str, asyncio.Event] = {}
        self._handlers: list[Callable[[ContainerEvent], None]] = []
        self._ids = itertools.count(1)

    def end(self, name: str, code: int) -> None:
        """The running container of that name exits by itself."""
        for status in list(self._containers.values()):
            if status.name == name and status.state is ContainerState.RUNNING:
                self._exit(status.id, code)

    async def start(self) -> None:
        """See cri.Runtime; what is here stays here."""

    async def close(self) -> None:
        """See cri.Runtime."""

    def subscribe(self, handler: Callable[[ContainerEvent], None]) -> None:
        """See cri.Runtime."""
        self._handlers.append(handler)

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """See cri.Runtime."""
        self._sandboxes[config.pod_uid] = SandboxStatus(
            id=config.pod_uid, ready=True, created_at=times.micro_now(), config=config
        )
        return config.pod_uid

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri.Runtime."""
        for status in await self.list_containers(sandbox_id):
            self._exit(status.id, 137)
        if sandbox_id in self._sandboxes:
            self._sandboxes[sandbox_id] = msgspec.structs.replace(self._sandboxes[sandbox_id], ready=False)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri.Runtime."""
        await self.stop_pod_sandbox(sandbox_id)
        self._sandboxes.pop(sandbox_id, None)
        for status in await self.list_containers(sandbox_id):
            self._containers.pop(status.id)

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxStatus | None:
        """See cri.Runtime."""
        return self._sandboxes.get(sandbox_id)

    async def list_pod_sandbox(self) -> list[SandboxStatus]:
        """See cri.Runtime."""
        return list(self._sandboxes.values())

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """See cri.Runtime."""
        if sandbox_id not in self._sandboxes:
            raise RuntimeFailure("SandboxNotFound", f"no sandbox {sandbox_id}")
        if config.image in self.unknown_images:
            raise RuntimeFailure("ErrImagePull", f"no image {config.image}")
        container_id = f"{config.name}-{next(self._ids)}"
        self.configs[container_id] = config
        self._exited[container_id] = asyncio.Event()
        self._containers[container_id] = ContainerStatus(
            id=container_id,
            sandbox_id=sandbox_id,
            name=config.name,
            image=config.image,
            image_id=config.image,
            attempt=config.attempt,
            state=ContainerState.CREATED,
            created_at=times.micro_now(),
        )
        return container_id

    async def start_container(self, container_id: str) -> None:
        """See cri.Runtime."""
        if container_id not in self._containers:
            raise RuntimeFailure("ContainerNotFound", f"no container {container_id}")
        self._change(container_id, state=ContainerState.RUNNING, started_at=times.micro_now())
        if self.configs[container_id].init:
            self._exit(container_id, 0)

    async def stop_container(self, container_id: str, timeout: float) -> None:
        """See cri.Runtime."""
        status = self._containers.get(container_id)
        if status is None or status.state is not ContainerState.RUNNING:
            return
        if status.name not in self.stubborn:
            self._exit(container_id, 0)
            return
        try:
            await asyncio.wait_for(self._exited[container_id].wait(), timeout)
        except TimeoutError:
            self._exit(container_id, 137)

    async def remove_container(self, container_id: str) -> None:
        """See cri.Runtime."""
        await self.stop_container(container_id, 0)
        self._containers.pop(container_id, None)

    async def container_status(self, container_id: str) -> ContainerStatus | None:
        """See cri.Runtime."""
        return self._containers.get(container_id)

    async def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        """See cri.Runtime."""
        return [status for status in self._containers.values() if not sandbox_id or status.sandbox_id == sandbox_id]

    async def exec_sync(self, container_id: str, command: tuple[str, ...], timeout: float) -> ExecResult:
        """See cri.Runtime: `exec_result`, whatever the command."""
        return self.exec_result

    async def exec(self, container_id: str, command: tuple[str, ...], stdio: Stdio) -> Process:
        """See cri.Runtime; there is nothing here in which a command could run."""
        raise RuntimeFailure("ExecError", "this runtime has no processes")

    def interactive(self, container_id: str) -> bool:
        """See cri.Runtime; nobody can attach here."""
        return False

    async def attach(self, container_id: str, stdio: Stdio) -> Process:
        """See cri.Runtime."""
        raise RuntimeFailure("AttachError", "this runtime has no processes")

    async def attached_exited(self, container_id: str, exit_code: int) -> None:
        """See cri.Runtime."""

    def container_input_path(self, container_id: str) -> Path | None:
        """See cri.Runtime; there are none."""
        return None

    def container_log_path(self, container_id: str) -> Path | None:
        """See cri.Runtime; there are none."""
        return None

    def _change(self, container_id: str, **fields: object) -> ContainerStatus:
        changed = msgspec.structs.replace(self._containers[container_id], **fields)
        self._containers[container_id] = changed
        return changed

    def _exit(self, container_id: str, code: int) -> None:
        if self._containers[container_id].state is not ContainerState.RUNNING:
            return
        status = self._change(
            container_id,
            state=ContainerState.EXITED,
            exit_code=code,
            finished_at=times.micro_now(),
            reason="Error" if code else "Completed",
        )
        self._exited[container_id].set()
        for handler in self._handlers:
            handler(ContainerEvent(status.sandbox_id, container_id))


class FakeNetwork:
    """CNI and namespaces of one node: every Pod has an address of 127.0.0.0/8, so that probes reach something."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.addresses: dict[str, str] = {}

    def add(self, netns: str) -> tuple[str, ...]:
        """See kubelet.sandbox.PodNetwork."""
        return (self.addresses.setdefault(netns, f"127.0.1.{len(self.addresses) + 1}"),)

    def delete(self, netns: str) -> None:
        """See kubelet.sandbox.PodNetwork, and Namespaces."""
        self.addresses.pop(netns, None)
        self.namespaces.discard(netns)

    def ensure(self, name: str) -> bool:
        """See kubelet.sandbox.Namespaces."""
        made = name not in self.namespaces
        self.namespaces.add(name)
        return made

    def exists(self, name: str) -> bool:
        """See kubelet.sandbox.Namespaces."""
        return name in self.namespaces
