"""Snapshots of a lab's store: saved from a running control plane or from the file it left, restored into a lab.

Only the control plane may open its store, so it also makes the copy, in the turn of the store's other work, and hands
it to root through a Unix socket: a line of JSON, then the file. To restore, the file is laid beside the store, and the
control plane takes it when it starts; one that runs is ended, and the supervisor starts it again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import msgspec

from netemu.lab import remains
from netemu.lab.api import LabApi
from netemu.lab.paths import LabPaths
from netemu.lab.snapshot_server import Told
from netemu.model.errors import NetemuError, UserError
from netemu.store.sqlite_snapshot import SnapshotFile, copy_store_file, read_snapshot

_CHUNK = 1 << 20
_PATIENCE = 30.0
_PROCESS = "control-plane"


def save(lab: str, file: Path) -> SnapshotFile:
    """Write a snapshot of a lab to `file`, which appears when it is whole. Raises UserError, NetemuError."""
    paths = LabPaths(lab)
    if file.is_dir():
        raise UserError(f"snapshot {file}: is a directory; name a file")
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            copy = Path(folder, file.name)
            if _PROCESS in remains.lab_processes(lab):
                _fetch(paths.snapshot_socket, copy)
            else:
                copy_store_file(paths.store, copy, lab)
            saved = read_snapshot(copy)
            copy.chmod(0o600)  # it holds the lab's Secrets
            os.replace(copy, file)
    except OSError as error:
        raise UserError(f"snapshot {file}: {error.strerror or error}") from error
    return saved


def _fetch(path: Path, copy: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection, copy.open("wb") as file:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise NetemuError(f"the control plane does not answer at {path}: {error.strerror or error}") from error
        with connection.makefile("rb") as stream:
            told = msgspec.json.decode(stream.readline() or b'{"error": "the control plane ended"}', type=Told)
            if told.error:
                raise NetemuError(told.error)
            shutil.copyfileobj(stream, file, _CHUNK)


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
    if process := remains.lab_processes(lab).get(_PROCESS):
        os.kill(process, signal.SIGTERM)
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
