"""Containers without processes: each "runs" as sockets in its Pod's namespace, served by this process's event loop.

A socket belongs for ever to the namespace in which it was opened, so opening it is all that happens there; accepting
and answering are ordinary asyncio. A thousand echo Pods cost one process and a few KiB each.

What follows from there being no process: init containers end at once with success, commands of probes and hooks succeed
without running (only `sleep` takes its time), and a container needs no time to start (`instant`). On SIGTERM a server
closes idle connections and ends; while others are open it serves on until they end or the grace period does. Commands
that a person gives do run (`shells`), and so does that of a container with `stdin: true`, once somebody attaches to it.

Connections that are open when this process dies are lost. Listening sockets are not, where somebody keeps them
meanwhile (`socket_store`): a restarted runtime takes those of running containers back, and opens what nobody kept.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from netemu.kernel import netns
from netemu.kernel.inside import Stdio
from netemu.kernel.pidfd import Process
from netemu.kernel.process import raise_open_files
from netemu.model import times
from netemu.model.errors import KernelError, NetemuError
from netemu.runtime import logs
from netemu.runtime.cri import (
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    ExecResult,
    SandboxConfig,
    SandboxStatus,
)
from netemu.runtime.images import Listener, listeners
from netemu.runtime.records import Records
from netemu.runtime.sandboxes import Container, Sandbox
from netemu.runtime.servers.identity import Identity
from netemu.runtime.servers.tcp import TcpServer
from netemu.runtime.servers.udp import UdpServer
from netemu.runtime.shells import Shells
from netemu.runtime.socket_store import NoSocketStore, SocketStore, socket_name

log = logging.getLogger(__name__)

Server = TcpServer | UdpServer


class EmulatedRuntime:
    """See cri.Runtime for the verbs."""

    name = "emulated"
    instant = True

    def __init__(
        self, node_name: str, pods: Path, *, strict_images: bool = False, store: SocketStore | None = None
    ) -> None:
        """`pods`: the directory of sandbox directories. `strict_images`: unknown images give ErrImagePull.

        `store` keeps listening sockets open while no runtime runs; without one they end with this process.
        """
        self._records = Records(self.name, node_name, pods)
        self._strict = strict_images
        self._store: SocketStore = store or NoSocketStore()
        self._servers: dict[str, list[Server]] = {}
        self._shells = Shells(self._records, lambda config: config.stdin)

    async def start(self) -> None:
        """See cri.Runtime."""
        raise_open_files()
        self._records.load()
        for entry in list(self._records.entries.values()):
            if entry.container.state is ContainerState.RUNNING:
                await self._serve(entry.container)

    async def close(self) -> None:
        """See cri.Runtime; serving ends, and state stays, as do sockets that are kept."""
        for container_id in list(self._servers):
            self._shut(container_id)
        await self._shells.close()

    def subscribe(self, handler: Callable[[ContainerEvent], None]) -> None:
        """See cri.Runtime."""
        self._records.subscribe(handler)

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """See cri.Runtime."""
        return self._records.add_sandbox(config)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri.Runtime."""
        for entry in self._records.of_sandbox(sandbox_id):
            await self.stop_container(entry.container.id, 0)
        self._records.mark_stopped(sandbox_id)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri.Runtime."""
        await self.stop_pod_sandbox(sandbox_id)
        await self._records.remove_sandbox(sandbox_id)

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxStatus | None:
        """See cri.Runtime."""
        return self._records.sandbox_status(sandbox_id)

    async def list_pod_sandbox(self) -> list[SandboxStatus]:
        """See cri.Runtime."""
        return [sandbox.status() for sandbox in self._records.sandboxes.values()]

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """See cri.Runtime. Raises RuntimeFailure (ErrImagePull) where only known images are wanted."""
        listeners(config, strict=self._strict)
        return self._records.add_container(sandbox_id, config)

    async def start_container(self, container_id: str) -> None:
        """See cri.Runtime. A port that is taken makes the container exit with 1, as a real server would."""
        started = self._records.change(container_id, state=ContainerState.RUNNING, started_at=times.micro_now())
        if started.config.init:
            self._records.exited(container_id, 0)
        else:
            await self._serve(started)

    async def stop_container(self, container_id: str, timeout: float) -> None:
        """See cri.Runtime. Exit code 0: like most servers, these end cleanly on SIGTERM; 137 if they were cut off."""
        entry = self._records.entries.get(container_id)
        if entry is None or entry.container.state is ContainerState.EXITED:
            return
        # First of all: a successor on the same port finds it free once these servers have closed it.
        await self._store.forget(self._socket_names(entry.container))
        servers = self._servers.get(container_id, [])
        if timeout > 0:
            await asyncio.gather(*(server.drain(timeout) for server in servers))
        await self._end(container_id, 0)

    async def remove_container(self, container_id: str) -> None:
        """See cri.Runtime."""
        await self.stop_container(container_id, 0)
        self._records.remove_container(container_id)

    async def container_status(self, container_id: str) -> ContainerStatus | None:
        """See cri.Runtime."""
        return self._records.container_status(container_id)

    async def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        """See cri.Runtime."""
        return [entry.container.status() for entry in self._records.of_sandbox(sandbox_id)]

    async def exec_sync(self, container_id: str, command: tuple[str, ...], timeout: float) -> ExecResult:
        """See cri.Runtime. Nothing runs: success, with a line that says so. Only `sleep` is as long as it says."""
        self._records.entry(container_id)
        await asyncio.sleep(nap(command))
        return ExecResult(0, f"{' '.join(command)}: not run, the image is emulated\n")

    async def exec(self, container_id: str, command: tuple[str, ...], stdio: Stdio) -> Process:
        """See cri.Runtime."""
        return await self._shells.exec(container_id, command, stdio)

    def interactive(self, container_id: str) -> bool:
        """See cri.Runtime."""
        return self._shells.interactive(container_id)

    async def attach(self, container_id: str, stdio: Stdio) -> Process:
        """See cri.Runtime."""
        self._shells.claim(container_id)
        try:
            return await self._shells.attach(container_id, stdio)
        except (NetemuError, OSError) as error:
            await self._end(container_id, 128, reason="StartError", message=str(error))
            raise

    async def attached_exited(self, container_id: str, exit_code: int) -> None:
        """See cri.Runtime."""
        entry = self._records.entries.get(container_id)
        if entry is not None and entry.container.state is ContainerState.RUNNING:
            await self._store.forget(self._socket_names(entry.container))
            await self._end(container_id, exit_code)

    async def _end(self, container_id: str, code: int, *, reason: str = "", message: str = "") -> None:
        self._shut(container_id)
        await self._shells.end(container_id)
        self._records.exited(container_id, code, reason=reason, message=message)

    def container_input_path(self, container_id: str) -> Path | None:
        """See cri.Runtime; what is emulated reads nothing."""
        return None

    def container_log_path(self, container_id: str) -> Path | None:
        """See cri.Runtime."""
        return self._records.log_path(container_id)

    async def _serve(self, container: Container) -> None:
        sandbox = self._records.sandbox(container.sandbox_id)
        wanted = listeners(container.config)
        log_path = container.log_path(sandbox.directory)
        try:
            servers = _open(sandbox, container, self._store)
        except (OSError, KernelError) as error:
            await self._store.forget(self._socket_names(container))
            logs.append(log_path, "stderr", str(error))
            self._records.exited(container.id, 1, message=str(error))
            return
        self._servers[container.id] = servers
        for server in servers:
            await server.start()
        ports = ", ".join(f"{one.port}/{one.protocol} ({one.program})" for one in wanted)
        if ports or not container.config.stdin:
            logs.append(log_path, "stdout", f"listening on {ports}" if ports else "no ports to serve")

    def _socket_names(self, container: Container) -> list[str]:
        return [name for name, _, _ in _wanted(self._records.sandbox(container.sandbox_id), container)]

    def _shut(self, container_id: str) -> None:
        for server in self._servers.pop(container_id, []):
            server.close()


def nap(command: Sequence[str]) -> float:
    """Seconds that the `sleep`s of a command take: the usual preStop is `sh -c "sleep 5"`, with or without more."""
    return sum(float(seconds) for seconds in re.findall(r"(?<![\w-])sleep (\d+(?:\.\d+)?)", " ".join(command)))


def _wanted(sandbox: Sandbox, container: Container) -> list[tuple[str, Listener, socket.AddressFamily]]:
    """The sockets of a container, each with the name it is kept under."""
    # Namespaces may have IPv6 turned off, where an IPv6 socket would be refused.
    families = {socket.AF_INET6 if ":" in address else socket.AF_INET for address in sandbox.config.addresses}
    return [
        (
            socket_name(container.id, f"{one.protocol.lower()}{4 if family == socket.AF_INET else 6}", one.port),
            one,
            family,
        )
        for one in listeners(container.config)
        for family in families or {socket.AF_INET}
    ]


def _open(sandbox: Sandbox, container: Container, store: SocketStore) -> list[Server]:
    """Sockets in the Pod's namespace, all or none. Raises OSError naming the port, KernelError without a namespace."""
    config = sandbox.config
    who = Identity(config.pod_name, config.pod_namespace, config.node_name, config.hostname, container.config.name)
    opened: list[tuple[Listener, socket.socket]] = []
    fresh: list[tuple[str, socket.socket]] = []
    with netns.entered(config.netns):
        try:
            for name, one, family in _wanted(sandbox, container):
                sock = store.take(name)
                if sock is None:
                    sock = _listen(one, family)
                    fresh.append((name, sock))
                opened.append((one, sock))
        except OSError:
            for _, sock in opened:
                sock.close()
            raise
    for name, sock in fresh:
        store.keep(name, sock)
    return [
        TcpServer(sock, one.program, who) if one.protocol == "TCP" else UdpServer(sock, one.program, who)
        for one, sock in opened
    ]


def _listen(one: Listener, family: socket.AddressFamily) -> socket.socket:
    kind = socket.SOCK_STREAM if one.protocol == "TCP" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if one.protocol == "TCP":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", one.port))
        if one.protocol == "TCP":
            sock.listen(1024)
    except OSError as error:
        sock.close()
        where = f"listen {one.protocol.lower()} :{one.port}"
        raise OSError(error.errno, f"{where}: {error.strerror}") from error
    return sock
