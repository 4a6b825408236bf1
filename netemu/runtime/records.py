"""What both runtimes have in common: sandboxes and containers in memory and on disk, and who hears of exits."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from netemu.model import times
from netemu.runtime.cri import (
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
)
from netemu.runtime.images import full_name, image_id
from netemu.runtime.sandboxes import Container, Sandbox, load_all, load_containers

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """A container and an event that is set once it has exited."""

    container: Container
    exited: asyncio.Event = field(default_factory=asyncio.Event)


class Records:
    """The bookkeeping half of a runtime."""

    def __init__(self, runtime: str, node_name: str, pods: Path) -> None:
        """`pods` is the directory that holds one directory per Pod UID."""
        self.runtime, self.node_name, self.pods = runtime, node_name, pods
        self.sandboxes: dict[str, Sandbox] = {}
        self.entries: dict[str, Entry] = {}
        self._by_sandbox: dict[str, dict[str, Entry]] = {}
        self._handlers: list[Callable[[ContainerEvent], None]] = []

    def load(self) -> None:
        """Read what an earlier run left on this node."""
        for sandbox in load_all(self.pods):
            if (sandbox.runtime, sandbox.config.node_name) == (self.runtime, self.node_name):
                self.sandboxes[sandbox.config.pod_uid] = sandbox
                for container in load_containers(sandbox.directory):
                    entry = self._remember(container)
                    if container.state is ContainerState.EXITED:
                        entry.exited.set()

    def subscribe(self, handler: Callable[[ContainerEvent], None]) -> None:
        """See cri.Runtime."""
        self._handlers.append(handler)

    def sandbox(self, sandbox_id: str) -> Sandbox:
        """Raises RuntimeFailure if there is none."""
        if (sandbox := self.sandboxes.get(sandbox_id)) is None:
            raise RuntimeFailure("SandboxNotFound", f"no sandbox {sandbox_id}")
        return sandbox

    def entry(self, container_id: str) -> Entry:
        """Raises RuntimeFailure if there is none."""
        if (entry := self.entries.get(container_id)) is None:
            raise RuntimeFailure("ContainerNotFound", f"no container {container_id}")
        return entry

    def of_sandbox(self, sandbox_id: str) -> list[Entry]:
        """Its containers, in order of creation."""
        return list((self._by_sandbox.get(sandbox_id, {}) if sandbox_id else self.entries).values())

    def add_sandbox(self, config: SandboxConfig) -> str:
        """A ready sandbox of that configuration, replacing an older one of the Pod."""
        sandbox = Sandbox(runtime=self.runtime, config=config, created_at=times.micro_now())
        sandbox.save()
        self.sandboxes[config.pod_uid] = sandbox
        return config.pod_uid

    def mark_stopped(self, sandbox_id: str) -> None:
        """The sandbox is not ready any more."""
        if (sandbox := self.sandboxes.get(sandbox_id)) is not None and sandbox.ready:
            self.sandboxes[sandbox_id] = sandbox = msgspec.structs.replace(sandbox, ready=False)
            sandbox.save()

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Forget it and remove its directory."""
        for entry in self.of_sandbox(sandbox_id):
            self.entries.pop(entry.container.id, None)
        self._by_sandbox.pop(sandbox_id, None)
        if (sandbox := self.sandboxes.pop(sandbox_id, None)) is not None:
            await asyncio.to_thread(shutil.rmtree, sandbox.directory, ignore_errors=True)

    def add_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """A created container; its id is as long and as random-looking as containerd's.

        It goes to disk when it starts: one that never did is nothing a later run would miss.
        """
        sandbox = self.sandbox(sandbox_id)
        unique = f"{sandbox_id}/{sandbox.config.attempt}/{config.name}/{config.attempt}/{config.init}"
        container = Container(
            id=hashlib.sha256(unique.encode()).hexdigest(),
            sandbox_id=sandbox_id,
            config=msgspec.structs.replace(config, image=full_name(config.image)),
            image_id=image_id(full_name(config.image)),
            state=ContainerState.CREATED,
            created_at=times.micro_now(),
        )
        self._remember(container)
        return container.id

    def _remember(self, container: Container) -> Entry:
        entry = self.entries[container.id] = Entry(container)
        self._by_sandbox.setdefault(container.sandbox_id, {})[container.id] = entry
        return entry

    def change(self, container_id: str, **fields: object) -> Container:
        """Replace some fields of a container, in memory and on disk."""
        entry = self.entry(container_id)
        entry.container = msgspec.structs.replace(entry.container, **fields)
        if (sandbox := self.sandboxes.get(entry.container.sandbox_id)) is not None and sandbox.directory.exists():
            entry.container.save(sandbox.directory)
        return entry.container

    def exited(self, container_id: str, code: int, *, reason: str = "", message: str = "") -> None:
        """It ended with that code; everybody who listens hears of it."""
        entry = self.entries.get(container_id)
        if entry is None or entry.container.state is ContainerState.EXITED:
            return
        self.change(
            container_id,
            state=ContainerState.EXITED,
            finished_at=times.micro_now(),
            exit_code=code,
            reason=reason or ("Completed" if code == 0 else "Error"),
            message=message,
        )
        entry.exited.set()
        for handler in self._handlers:
            handler(ContainerEvent(entry.container.sandbox_id, container_id))

    def remove_container(self, container_id: str) -> None:
        """Forget it, on disk too."""
        entry = self.entries.pop(container_id, None)
        if entry is not None:
            self._by_sandbox.get(entry.container.sandbox_id, {}).pop(container_id, None)
        if entry is not None and (sandbox := self.sandboxes.get(entry.container.sandbox_id)) is not None:
            entry.container.forget(sandbox.directory)

    def sandbox_status(self, sandbox_id: str) -> SandboxStatus | None:
        """See cri.Runtime."""
        sandbox = self.sandboxes.get(sandbox_id)
        return sandbox.status() if sandbox else None

    def container_status(self, container_id: str) -> ContainerStatus | None:
        """See cri.Runtime."""
        entry = self.entries.get(container_id)
        return entry.container.status() if entry else None

    def log_path(self, container_id: str) -> Path | None:
        """See cri.Runtime."""
        entry = self.entries.get(container_id)
        sandbox = self.sandboxes.get(entry.container.sandbox_id) if entry else None
        return entry.container.log_path(sandbox.directory) if entry and sandbox else None
