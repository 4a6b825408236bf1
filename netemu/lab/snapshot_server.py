"""The control plane's side of `netemu snapshot`: copies of its store, over a Unix socket of root's, and a copy back.

Whoever connects gets a line of JSON, then the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from functools import partial
from pathlib import Path

import msgspec

from netemu.apiserver.keys import ROOT, is_object
from netemu.lab.paths import LabPaths
from netemu.model.errors import ApiError
from netemu.store import snapshot
from netemu.store.etcd import EtcdStore
from netemu.store.sqlite import SqliteStore

_CHUNK = 1 << 20


class Told(msgspec.Struct, omit_defaults=True):
    """The line before the file."""

    error: str = ""


async def serve_snapshots(lab: str, store: SqliteStore | EtcdStore, path: Path) -> None:
    """Hand a snapshot to everybody who connects, until cancelled."""
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(partial(_hand_over, lab, store), path)
    path.chmod(0o600)
    async with server:
        await server.serve_forever()


async def restore_etcd(store: EtcdStore, lab: str) -> None:
    """Take over the snapshot that is laid beside the store, before anything else is done with it."""
    incoming = LabPaths(lab).incoming_store
    await snapshot.restore(store, ROOT, incoming)
    incoming.unlink()


async def _save(store: SqliteStore | EtcdStore, path: Path, lab: str) -> None:
    if isinstance(store, SqliteStore):
        await store.save(path, lab)
    else:
        await snapshot.save(store, ROOT, is_object, path, lab)


async def _hand_over(
    lab: str, store: SqliteStore | EtcdStore, _: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with contextlib.suppress(ConnectionError), tempfile.TemporaryDirectory(dir=LabPaths(lab).state) as folder:
        copy = Path(folder, "snapshot.db")
        try:
            await _save(store, copy, lab)
        except ApiError as error:
            writer.write(msgspec.json.encode(Told(str(error))) + b"\n")
        else:
            writer.write(msgspec.json.encode(Told()) + b"\n")
            with copy.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    writer.write(chunk)
                    await writer.drain()
        writer.close()
        await writer.wait_closed()
