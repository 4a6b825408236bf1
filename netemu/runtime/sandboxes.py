"""What is on disk about a Pod: `/run/netemu/LAB/pods/UID/`.

    sandbox.json        the Sandbox: namespace, addresses, hostname, the files every container sees at /etc
    containers/ID.json  a Container: its configuration, and what became of it
    resolv.conf hosts hostname
    volumes/NAME/       what volumes hold
    logs/NAME/N.log     one file per attempt, in CRI's log format (`TIME stdout F TEXT`)

The runtime that made a sandbox writes these files; a restarted one, `netemu exec` and `netemu logs` read them. Each
file is replaced whole, so a reader never sees half of one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from netemu.model.meta import Struct
from netemu.runtime.cri import ContainerConfig, ContainerState, ContainerStatus, SandboxConfig, SandboxStatus

log = logging.getLogger(__name__)

T = TypeVar("T")


class Sandbox(Struct, frozen=True):
    """sandbox.json."""

    runtime: str
    config: SandboxConfig
    created_at: str
    ready: bool = True

    @property
    def directory(self) -> Path:
        """Where this is kept."""
        return Path(self.config.directory)

    @property
    def mounts(self) -> dict[str, str]:
        """Path inside to file outside, of the three files every container of the Pod sees."""
        names = ("resolv.conf", "hosts", "hostname")
        return {f"/etc/{name}": str(path) for name in names if (path := self.directory / name).exists()}

    def status(self) -> SandboxStatus:
        """As CRI tells it."""
        return SandboxStatus(id=self.config.pod_uid, ready=self.ready, created_at=self.created_at, config=self.config)

    def save(self) -> None:
        """Write it, making directories as needed."""
        _write(self.directory / "sandbox.json", self)


class Container(Struct, frozen=True):
    """containers/ID.json. `pid` and `process_started` (clock ticks since boot) tell a living process from a
    namesake."""

    id: str
    sandbox_id: str
    config: ContainerConfig
    image_id: str
    state: ContainerState
    created_at: str
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    process_started: int = 0

    def status(self) -> ContainerStatus:
        """As CRI tells it."""
        return ContainerStatus(
            id=self.id,
            sandbox_id=self.sandbox_id,
            name=self.config.name,
            image=self.config.image,
            image_id=self.image_id,
            attempt=self.config.attempt,
            state=self.state,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            exit_code=self.exit_code,
            reason=self.reason,
            message=self.message,
        )

    def save(self, directory: Path) -> None:
        """Write it into the sandbox of that directory."""
        _write(directory / "containers" / f"{self.id}.json", self)

    def forget(self, directory: Path) -> None:
        """Remove its file."""
        (directory / "containers" / f"{self.id}.json").unlink(missing_ok=True)

    def log_path(self, directory: Path) -> Path:
        """Its log file, in the sandbox of that directory."""
        return directory / "logs" / self.config.name / f"{self.config.attempt}.log"


def load_sandbox(directory: Path) -> Sandbox | None:
    """The sandbox kept in `directory`; None if there is none or it cannot be read."""
    return _read(directory / "sandbox.json", Sandbox)


def load_containers(directory: Path) -> list[Container]:
    """Its containers, oldest first."""
    found = [_read(path, Container) for path in sorted((directory / "containers").glob("*.json"))]
    return sorted((c for c in found if c is not None), key=lambda c: (c.created_at, c.config.attempt))


def load_all(pods: Path) -> Iterator[Sandbox]:
    """Every sandbox below a `pods` directory, of all nodes and runtimes."""
    for directory in sorted(pods.iterdir()) if pods.is_dir() else ():
        if (sandbox := load_sandbox(directory)) is not None:
            yield sandbox


def find(pods: Path, namespace: str, name: str) -> Sandbox | None:
    """The newest sandbox of the Pod of that name."""
    same = [s for s in load_all(pods) if (s.config.pod_namespace, s.config.pod_name) == (namespace, name)]
    return max(same, key=lambda s: s.created_at, default=None)


def _write(path: Path, value: Sandbox | Container) -> None:
    fresh = path.with_suffix(".new")
    data = msgspec.json.encode(value)
    try:
        fresh.write_bytes(data)
    except FileNotFoundError:  # rarely: asking first would cost as much every time
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(data)
    os.replace(fresh, path)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s: %s", path, error)
        return None
