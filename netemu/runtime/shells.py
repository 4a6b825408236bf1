"""Commands in containers that have no process: where `kubectl exec` leads in an emulated one, and whoever attaches to a
container that has waited for them, emulated or not.

The first command makes a view of the Pod (`kernel.sandbox`) and a process in it that does nothing but hold it; this and
every later command runs there, so what one leaves, files or processes, the next finds, as in any container. The holder
ends with the container and takes everything inside with it. It is written down with the container's record, so a
restarted runtime, and `netemu exec`, find the same view.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from netemu.kernel.inside import Stdio, start_inside
from netemu.kernel.pidfd import Process, adopt
from netemu.kernel.sandbox import Sandbox as View
from netemu.kernel.sandbox import spawn
from netemu.model.errors import KernelError
from netemu.runtime.cri import ContainerConfig, ContainerState, RuntimeFailure
from netemu.runtime.records import Records
from netemu.runtime.views import environment_of, view_of

# The shell waits for whatever is left to the first process of a container, as pause does.
_SHELL = ("sh",)
"""What images that people attach to have for a command."""
_HOLD = ("sh", "-c", "sleep infinity & wait")


class Shells:
    """The holders of one runtime's containers."""

    def __init__(self, records: Records, waits: Callable[[ContainerConfig], bool]) -> None:
        """`waits`: whether such a container runs its command for whoever attaches, and not before."""
        self._records, self._waits = records, waits
        self._making: dict[str, asyncio.Lock] = {}
        self._attached: set[str] = set()
        self._reaping: set[asyncio.Task[int | None]] = set()

    async def exec(self, container_id: str, command: Sequence[str], stdio: Stdio) -> Process:
        """Start a command in a running container. Raises RuntimeFailure, KernelError."""
        holder = await self.holder(container_id)
        config = self._records.entry(container_id).container.config
        sandbox = self._records.sandbox(self._records.entry(container_id).container.sandbox_id)
        env = environment_of(config, sandbox.config.hostname, terminal=bool(stdio.tty))
        cwd = config.working_dir or "/"
        return await asyncio.to_thread(start_inside, holder, command, env=env, cwd=cwd, stdio=stdio)

    def interactive(self, container_id: str) -> bool:
        """Whether a container has a command for whoever attaches, and nobody has."""
        entry = self._records.entries.get(container_id)
        if entry is None or entry.container.state is not ContainerState.RUNNING:
            return False
        return self._waits(entry.container.config) and container_id not in self._attached

    def claim(self, container_id: str) -> None:
        """Somebody attaches, and nobody else may. Raises RuntimeFailure where they come too late."""
        if not self.interactive(container_id):
            raise RuntimeFailure("AttachError", f"container {container_id} has somebody attached, or has ended")
        self._attached.add(container_id)

    async def attach(self, container_id: str, stdio: Stdio) -> Process:
        """Start that command, for whoever has claimed the container. Raises RuntimeFailure, KernelError."""
        return await self.exec(container_id, command_of(self._records.entry(container_id).container.config), stdio)

    async def end(self, container_id: str) -> None:
        """Kill what holds the view of a container, if anything does, and everything in it."""
        self._making.pop(container_id, None)
        self._attached.discard(container_id)
        entry = self._records.entries.get(container_id)
        if entry is None or not entry.container.pid:
            return
        holder = Process(entry.container.pid, entry.container.process_started)
        self._records.change(container_id, pid=0, process_started=0)
        holder.kill()
        await holder.wait()

    async def holder(self, container_id: str) -> Process:
        """The process that holds the view of a running container. Raises RuntimeFailure, KernelError."""
        async with self._making.setdefault(container_id, asyncio.Lock()):
            return await self._find_or_make(container_id)

    async def _find_or_make(self, container_id: str) -> Process:
        container = self._records.entry(container_id).container
        if container.state is not ContainerState.RUNNING:
            raise RuntimeFailure("ContainerNotRunning", f"container {container.config.name} is not running")
        found = adopt(container.pid, container.process_started) if container.pid else None
        if found is not None:
            return found
        view = view_of(self._records.sandbox(container.sandbox_id), container.config)
        holder = await asyncio.to_thread(_hold, view)
        if self._records.entry(container_id).container.state is not ContainerState.RUNNING:
            holder.kill()
            await holder.wait()
            raise RuntimeFailure("ContainerNotRunning", f"container {container.config.name} has ended")
        self._records.change(container_id, pid=holder.pid, process_started=holder.started)
        reaping = asyncio.create_task(holder.wait(), name=f"holder of {container.config.name}")
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)
        return holder

    async def close(self) -> None:
        """Let go of the holders; they stay."""
        for task in list(self._reaping):
            task.cancel()
        await asyncio.gather(*self._reaping, return_exceptions=True)


def command_of(config: ContainerConfig) -> tuple[str, ...]:
    """What a container runs, a shell where it does not say."""
    return (*config.command, *config.args) or _SHELL


def _hold(view: View) -> Process:
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return spawn(_HOLD, view, env={"PATH": os.defpath}, stdout=null, stderr=null)
    except KernelError as error:
        raise RuntimeFailure("ExecError", str(error)) from error
    finally:
        os.close(null)
