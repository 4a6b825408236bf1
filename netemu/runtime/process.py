"""Containers that really run: a command of this machine, in the Pod's namespaces, with the Pod's own files.

The image is not looked at; the command is looked up in the machine's file system, of which the container sees a
copy-on-write view (`kernel.sandbox`). PATH begins with the directory of the running Python's scripts, so that
`netemu` is found wherever it is installed.

A container outlives this process: it writes to named pipes that it holds open at both ends itself, so a missing
reader neither ends nor loses anything (a full pipe makes it wait), and a restarted runtime adopts it by process
number and start time and reads on. With `stdin: true` its input is a third such pipe, into which goes what those who
attach send; it has no end. Any other reads nothing.

A container of one session (`stdinOnce`, or ephemeral), or one that has a shell for want of a command, is no such
process: it waits for somebody to attach, runs for them in a view that is held meanwhile, and ends with them (`shells`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from netemu.kernel.inside import Stdio, start_inside
from netemu.kernel.pidfd import Process, adopt
from netemu.kernel.sandbox import spawn
from netemu.model import times
from netemu.model.errors import KernelError, NetemuError
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
from netemu.runtime.logs import Splitter
from netemu.runtime.records import Records
from netemu.runtime.sandboxes import Container, Sandbox
from netemu.runtime.shells import Shells, command_of
from netemu.runtime.views import environment_of, view_of

log = logging.getLogger(__name__)

_PIPE_SIZE = 1024 * 1024
_LONGEST_OUTPUT = 16 * 1024 * 1024
_UNKNOWN = 255
"""Exit code of a process whose end nobody saw."""


class ProcessRuntime:
    """See cri.Runtime for the verbs."""

    name = "process"
    instant = False

    def __init__(self, node_name: str, pods: Path) -> None:
        """`pods`: the directory of sandbox directories."""
        self._records = Records(self.name, node_name, pods)
        self._shells = Shells(self._records, waits)
        self._running: dict[str, _Running] = {}

    async def start(self) -> None:
        """See cri.Runtime."""
        self._records.load()
        for entry in list(self._records.entries.values()):
            container = entry.container
            if container.state is not ContainerState.RUNNING or waits(container.config):
                continue
            process = adopt(container.pid, container.process_started)
            if process is not None:
                self._follow(container, process)
            else:
                self._records.exited(container.id, _UNKNOWN, reason="ContainerStatusUnknown")

    async def close(self) -> None:
        """See cri.Runtime."""
        for running in list(self._running.values()):
            await running.let_go()
        self._running.clear()
        await self._shells.close()

    def subscribe(self, handler: Callable[[ContainerEvent], None]) -> None:
        """See cri.Runtime."""
        self._records.subscribe(handler)

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """See cri.Runtime."""
        return self._records.add_sandbox(config)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri.Runtime."""
        ids = [entry.container.id for entry in self._records.of_sandbox(sandbox_id)]
        await asyncio.gather(*(self.stop_container(one, 0) for one in ids))
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
        """See cri.Runtime."""
        if not (config.command or config.args or config.stdin or config.ephemeral):
            raise RuntimeFailure(
                "CreateContainerError", "no command specified: process containers need command or args"
            )
        return self._records.add_container(sandbox_id, config)

    async def start_container(self, container_id: str) -> None:
        """See cri.Runtime. Raises RuntimeFailure (RunContainerError) where the command is not there."""
        container = self._records.entry(container_id).container
        if waits(container.config):
            self._records.change(container_id, state=ContainerState.RUNNING, started_at=times.micro_now())
            return
        sandbox = self._records.sandbox(container.sandbox_id)
        try:
            process, ends = await asyncio.to_thread(_start, sandbox, container)
        except (KernelError, OSError) as error:
            # 128 is what runc's callers report for a container whose process could not be started.
            self._records.exited(container_id, 128, reason="StartError", message=str(error))
            raise RuntimeFailure("RunContainerError", str(error)) from error
        started = self._records.change(
            container_id,
            state=ContainerState.RUNNING,
            started_at=times.micro_now(),
            pid=process.pid,
            process_started=process.started,
        )
        self._follow(started, process)
        for end in ends:  # only now: what a short-lived process said would be lost with the last open end
            os.close(end)

    async def stop_container(self, container_id: str, timeout: float) -> None:
        """See cri.Runtime."""
        running = self._running.get(container_id)
        if running is None:
            await self._end(container_id, 128 + signal.SIGKILL)
            return
        exited = self._records.entry(container_id).exited
        if timeout > 0:
            running.process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(exited.wait(), timeout)
        if not exited.is_set():
            running.process.kill()
            await exited.wait()

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
        """See cri.Runtime."""
        process = await self._process(container_id)
        config = self._records.entry(container_id).container.config
        inside = ("--mount", "--uts", "--net", "--pid", f"--wd={config.working_dir or '/'}")
        argv = ("nsenter", f"--target={process.pid}", *inside, "--", *command)
        child = await asyncio.create_subprocess_exec(
            *argv,
            env=environment_of(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(timeout or None):
                output, _ = await child.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            raise
        return ExecResult(child.returncode or 0, output[:_LONGEST_OUTPUT].decode(errors="replace"))

    async def exec(self, container_id: str, command: tuple[str, ...], stdio: Stdio) -> Process:
        """See cri.Runtime."""
        process = await self._process(container_id)
        container = self._records.entry(container_id).container
        config, sandbox = container.config, self._records.sandbox(container.sandbox_id)
        env = environment_of(config, sandbox.config.hostname, terminal=bool(stdio.tty))
        cwd = config.working_dir or "/"
        return await asyncio.to_thread(start_inside, process, command, env=env, cwd=cwd, stdio=stdio)

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
        await self._end(container_id, exit_code)

    def container_input_path(self, container_id: str) -> Path | None:
        """See cri.Runtime."""
        if container_id not in self._running:
            return None
        container = self._records.entry(container_id).container
        directory = self._records.sandbox(container.sandbox_id).directory
        return _pipe_path(directory, container_id, "stdin") if container.config.stdin else None

    def container_log_path(self, container_id: str) -> Path | None:
        """See cri.Runtime."""
        return self._records.log_path(container_id)

    async def _process(self, container_id: str) -> Process:
        """One that is in the view of a container. Raises RuntimeFailure."""
        if (running := self._running.get(container_id)) is not None:
            return running.process
        if not waits(self._records.entry(container_id).container.config):
            raise RuntimeFailure("ContainerNotRunning", f"container {container_id} is not running")
        return await self._shells.holder(container_id)

    async def _end(self, container_id: str, code: int, *, reason: str = "", message: str = "") -> None:
        """End a container that waits for somebody, or runs for them; any other is left as it is."""
        entry = self._records.entries.get(container_id)
        if entry is None or entry.container.state is not ContainerState.RUNNING or not waits(entry.container.config):
            return
        self._records.exited(container_id, code, reason=reason, message=message)
        await self._shells.end(container_id)

    def _follow(self, container: Container, process: Process) -> None:
        directory = self._records.sandbox(container.sandbox_id).directory
        path = container.log_path(directory)
        pipes = [Pipe(stream, _pipe_path(directory, container.id, stream), path) for stream in ("stdout", "stderr")]
        running = self._running[container.id] = _Running(process, pipes)
        running.task = asyncio.create_task(self._wait(container.id, running), name=f"container {container.config.name}")

    async def _wait(self, container_id: str, running: _Running) -> None:
        status = await running.process.wait()
        running.close_pipes()
        self._running.pop(container_id, None)
        if status is None:
            self._records.exited(container_id, _UNKNOWN, reason="ContainerStatusUnknown")
        else:
            self._records.exited(container_id, status if status >= 0 else 128 - status)


def waits(config: ContainerConfig) -> bool:
    """Whether such a container runs for whoever attaches, and not before."""
    return config.stdin and (config.stdin_once or not (config.command or config.args))


class _Running:
    """A process and who reads what it says."""

    def __init__(self, process: Process, pipes: list[Pipe]) -> None:
        self.process, self.pipes = process, pipes
        self.task: asyncio.Task[None] | None = None

    def close_pipes(self) -> None:
        """Take what is left and stop reading."""
        for pipe in self.pipes:
            pipe.close()

    async def let_go(self) -> None:
        """Stop following; the process goes on."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.close_pipes()


class Pipe:
    """Reads one stream of a container into its log."""

    def __init__(self, stream: str, path: Path, log_path: Path) -> None:
        self._splitter = Splitter(stream)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = log_path.open("ab", buffering=0)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> bool:
        """Take one piece; whether there may be more."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        if not data:  # nobody writes any more; the end of the process is noticed elsewhere
            asyncio.get_running_loop().remove_reader(self._fd)
            return False
        self._log.write(self._splitter.feed(data))
        return True

    def close(self) -> None:
        """Take what is there, and close."""
        if self._fd < 0:
            return
        while self._readable():
            pass
        self._log.write(self._splitter.finish())
        self._log.close()
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1


def _pipe_path(directory: Path, container_id: str, stream: str) -> Path:
    return directory / "containers" / f"{container_id}.{stream}"


def _start(sandbox: Sandbox, container: Container) -> tuple[Process, list[int]]:
    """Start the process on fresh named pipes, whose ends come along open. Blocking."""
    config = container.config
    ends: list[int] = []
    try:
        for stream in ("stdout", "stderr", *(["stdin"] if config.stdin else [])):
            path = _pipe_path(sandbox.directory, container.id, stream)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
            ends.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            with contextlib.suppress(OSError):  # over the user's limit: a smaller pipe does as well
                fcntl.fcntl(ends[-1], fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        process = spawn(
            command_of(config),
            view_of(sandbox, config),
            env=environment_of(config, sandbox.config.hostname),
            cwd=config.working_dir or "/",
            stdin=ends[2] if config.stdin else None,
            stdout=ends[0],
            stderr=ends[1],
        )
    except BaseException:
        for end in ends:
            os.close(end)
        raise
    return process, ends
