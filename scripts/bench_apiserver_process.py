"""The API server that `bench api` measures: a process of its own, put together as a lab's control plane does it.

`bench_apiserver_process.py FOLDER [ENDPOINT...]` serves HTTPS on a free port of 127.0.0.1, on SQLite in that folder or
on the etcd whose members' addresses follow, until SIGTERM. The administrator's kubeconfig in the folder appears last.
No controller runs, so nothing but the load is at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.audit import AuditLog
from netemu.apiserver.auth.authentication import server_tls
from netemu.apiserver.auth.authorization import ClusterAuthorizer
from netemu.apiserver.bootstrap import bootstrap
from netemu.apiserver.http.server import ApiServer
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.lab.authority import Authority
from netemu.lab.config import write_file
from netemu.lab.pki import kubeconfig
from netemu.model.collector import look_at_old_objects_seldom
from netemu.store.base import Store
from netemu.store.etcd import EtcdStore
from netemu.store.sqlite import SqliteStore


async def serve(folder: Path, endpoints: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    store: Store = await EtcdStore.open(endpoints) if endpoints else await SqliteStore.open(folder / "store.db")
    schema = Schema.load()
    registry = Registry(store, schema, ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    server = ApiServer(registry, schema, authorizer=ClusterAuthorizer(registry), audit=AuditLog(folder / "audit.log"))
    try:
        await bootstrap(LocalClient(registry), api_address="172.18.0.2", api_port=6443)
        await server.start(*_listening(folder))
        await asyncio.Event().wait()
    finally:
        await server.close()
        await registry.close()
        await store.close()


def _listening(folder: Path):
    """A socket, its TLS, and a kubeconfig that leads to it."""
    authority = Authority.create("bench")
    ca = authority.certificate.public_bytes(Encoding.PEM)
    certificate, key = authority.issue("kube-apiserver", hosts=("127.0.0.1",))
    for name, pem in (("ca.crt", ca), ("server.crt", certificate), ("server.key", key)):
        write_file(folder / name, pem, mode=0o600)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    user = "kubernetes-admin"
    admin = kubeconfig("bench", url, ca, user, *authority.issue(user, ("system:masters",)))
    write_file(folder / "kubeconfig", admin, mode=0o600)
    return [listener], server_tls(folder / "server.crt", folder / "server.key", folder / "ca.crt")


if __name__ == "__main__":
    look_at_old_objects_seldom()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(serve(Path(sys.argv[1]), sys.argv[2:]))
