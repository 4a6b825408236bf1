"""Snapshots of a lab's store: saved from a running control plane or from the file it left, restored into a lab.

Only the control plane may open its store, so it also makes the copy, in the turn of the store's other work, and hands
it to root through a Unix socket: a line of JSON, then the file. To restore, the file is laid beside the store, and the
control plane takes it when it starts; one that runs is ended, and the supervisor starts it again. Of several members
all are ended, and the first takes it before any of them serves. The file is of the same form for SQLite and etcd.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from netemu.lab import remains
from netemu.lab.api import LabApi
from netemu.lab.config import load_config
from netemu.lab.paths import LabPaths
from netemu.lab.processes import control_planes
from netemu.lab.snapshot_server import Told
from netemu.model.errors import NetemuError, UserError
from netemu.store.sqlite_snapshot import SnapshotFile, copy_store_file, read_snapshot

_CHUNK = 1 << 20
_PATIENCE = 60.0


def save(lab: str, file: Path) -> SnapshotFile:
    """Write a snapshot of a lab to `file`, which appears when it is whole. Raises UserError, NetemuError."""
    paths = LabPaths(lab)
    if file.is_dir():
        raise UserError(f"snapshot {file}: is a directory; name a file")
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            copy = Path(folder, file.name)
            if alive := _control_planes(lab):
                _fetch([paths.snapshot_socket(process) for process in alive], copy)
            elif load_config(lab).etcd_members:
                raise UserError(
                    f"lab {lab}: none of its API servers runs, and only they read etcd; see `netemu status`"
                )
            else:
                copy_store_file(paths.store, copy, lab)
            saved = read_snapshot(copy)
            copy.chmod(0o600)  # it holds the lab's Secrets
            os.replace(copy, file)
    except OSError as error:
        raise UserError(f"snapshot {file}: {error.strerror or error}") from error
    return saved


def _control_planes(lab: str) -> dict[str, int]:
    """Those that live, with their pids."""
    alive = remains.lab_processes(lab)
    return {name: alive[name] for name in control_planes(load_config(lab).etcd_members) if name in alive}


def _fetch(paths: Sequence[Path], copy: Path) -> None:
    with _connected(paths) as connection, copy.open("wb") as file:
        connection.settimeout(_PATIENCE)
        with connection.makefile("rb") as stream:
            told = msgspec.json.decode(stream.readline() or b'{"error": "the control plane ended"}', type=Told)
            if told.error:
                raise NetemuError(told.error)
            shutil.copyfileobj(stream, file, _CHUNK)


def _connected(paths: Sequence[Path]) -> socket.socket:
    """A connection to the first that answers."""
    problem = ""
    for path in paths:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            problem = f"{path}: {error.strerror or error}"
        else:
            return connection
    raise NetemuError(f"the control plane does not answer at {problem}")


def restore(lab: str, file: Path) -> SnapshotFile:
    """Put a snapshot into the place of a lab's store; a running control plane has it when this returns.

    Raises UserError for a file that is no snapshot, or of another lab; NetemuError if the control plane stays away.
    """
    found, paths = read_snapshot(file), LabPaths(lab)
    if found.origin != lab:
        raise UserError(f"snapshot {file}: is of lab {found.origin}, not of {lab}; its nodes are others")
    incoming = paths.incoming_store.with_suffix(".part")
    shutil.copyfile(file, incoming)
    incoming.chmod(0o600)
    os.replace(incoming, paths.incoming_store)
    if alive := _control_planes(lab):
        for pid in alive.values():
            os.kill(pid, signal.SIGTERM)
        _wait_served(lab, paths)
    return found


def _wait_served(lab: str, paths: LabPaths) -> None:
    """Until the snapshot is taken and the API server answers."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if not paths.incoming_store.exists():
            with contextlib.suppress(NetemuError, OSError):
                LabApi(lab).request("GET", "/readyz")
                return
        time.sleep(0.05)
    raise NetemuError(f"the control plane of lab {lab} did not come back; `netemu logs control-plane` may say why")
