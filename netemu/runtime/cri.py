"""The verbs between a kubelet and a container runtime.

Names and meanings are those of `runtime.v1.RuntimeService` (k8s.io/cri-api), without gRPC between the two and with two
differences: the kubelet makes the Pod's network and hands over the namespace, and a runtime *tells* of exits, so that
no kubelet has to list containers every second (upstream's "evented PLEG").
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from netemu.kernel.inside import Stdio
from netemu.kernel.pidfd import Process
from netemu.model.errors import NetemuError
from netemu.model.meta import Struct


class RuntimeFailure(NetemuError):
    """A verb failed. `reason` is what the container's waiting state shows: ErrImagePull, RunContainerError ..."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class PortMapping(Struct, frozen=True):
    """A port that a container declares; hostPort is the network's matter."""

    container_port: int
    protocol: str = "TCP"


class Mount(Struct, frozen=True):
    """A file or directory of the host at a path inside the container."""

    container_path: str
    host_path: str
    readonly: bool = False


class SandboxConfig(Struct, frozen=True):
    """What `run_pod_sandbox` needs. `directory` is the Pod's own, with resolv.conf, hosts and hostname in it."""

    pod_uid: str
    pod_name: str
    pod_namespace: str
    node_name: str
    directory: str
    netns: str
    hostname: str
    domainname: str = ""
    addresses: tuple[str, ...] = ()
    host_network: bool = False
    attempt: int = 0


class ContainerConfig(Struct, frozen=True):
    """What `create_container` needs; environment and command already expanded."""

    name: str
    image: str
    attempt: int = 0
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    init: bool = False
    """Whether the container must run to its end before others start; an emulated one then ends at once."""
    stdin: bool = False
    """Whether it reads what somebody who attaches to it types; an emulated one then runs its command for them."""
    ephemeral: bool = False
    """Whether it was added to a running Pod; where it says no command it is a shell, as images for that are."""
    stdin_once: bool = False
    """Whether it does so for the first one only, and ends with them; a process then begins when they come."""


class ContainerState(StrEnum):
    """As in CRI, in the words that its tools print."""

    CREATED = "Created"
    RUNNING = "Running"
    EXITED = "Exited"


class ContainerStatus(Struct, frozen=True):
    """One container as its runtime knows it. Times are RFC 3339; empty before they happen."""

    id: str
    sandbox_id: str
    name: str
    image: str
    image_id: str
    attempt: int
    state: ContainerState
    created_at: str
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    reason: str = ""
    message: str = ""


class SandboxStatus(Struct, frozen=True):
    """One sandbox; its id is the Pod's UID."""

    id: str
    ready: bool
    created_at: str
    config: SandboxConfig


class ContainerEvent(NamedTuple):
    """A container of that sandbox exited."""

    sandbox_id: str
    container_id: str


class ExecResult(NamedTuple):
    """What a command said and how it ended."""

    exit_code: int
    output: str


class Runtime(Protocol):
    """Verbs are idempotent where CRI's are: stopping the stopped and removing the absent succeed."""

    name: str
    """The RuntimeClass handler, for example `emulated`."""
    instant: bool
    """Whether its containers are ready to serve the moment they have started."""

    async def start(self) -> None:
        """Find what an earlier run left in the sandbox directories of this node and carry on with it."""
        ...

    async def close(self) -> None:
        """Let go of everything without stopping what can live on its own."""
        ...

    def subscribe(self, handler: Callable[[ContainerEvent], None]) -> None:
        """Call `handler` after every exit. It must not block."""
        ...

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """A new sandbox's id. Raises RuntimeFailure."""
        ...

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Stop its containers at once; it is then not ready."""
        ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Stop and forget it, and remove its directory."""
        ...

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxStatus | None:
        """None if there is no such sandbox."""
        ...

    async def list_pod_sandbox(self) -> list[SandboxStatus]:
        """All of this node."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """A new container's id. Raises RuntimeFailure, for example with reason ErrImagePull."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Start it. Raises RuntimeFailure; a container that starts and then fails is an exit instead."""
        ...

    async def stop_container(self, container_id: str, timeout: float) -> None:
        """Ask it to end, and make it end after `timeout` seconds; returns when it has."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Forget an exited container; its log stays until the sandbox goes."""
        ...

    async def container_status(self, container_id: str) -> ContainerStatus | None:
        """None if there is no such container."""
        ...

    async def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        """Those of one sandbox, or all."""
        ...

    async def exec_sync(self, container_id: str, command: tuple[str, ...], timeout: float) -> ExecResult:
        """Run a command in the container. Raises TimeoutError, RuntimeFailure."""
        ...

    async def exec(self, container_id: str, command: tuple[str, ...], stdio: Stdio) -> Process:
        """Start a command in a running container; the caller waits for its end. Raises RuntimeFailure, KernelError."""
        ...

    def interactive(self, container_id: str) -> bool:
        """Whether a running container waits for somebody to attach to it, to run its command for them."""
        ...

    async def attach(self, container_id: str, stdio: Stdio) -> Process:
        """Run the command of an interactive container; the caller waits for its end, and tells.

        Raises RuntimeFailure (AttachError) where somebody else has been faster, which changes nothing; for any other
        RuntimeFailure and for KernelError the container has ended.
        """
        ...

    async def attached_exited(self, container_id: str, exit_code: int) -> None:
        """That command has ended, and the container ends with it."""
        ...

    def container_input_path(self, container_id: str) -> Path | None:
        """The named pipe that a running container reads from, where it reads what those who attach send."""
        ...

    def container_log_path(self, container_id: str) -> Path | None:
        """Where its log is, in CRI's log format."""
        ...
