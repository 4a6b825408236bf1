"""An API server over TLS with its own CA, and a kubectl that talks to it, for tests with real clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import server_tls
from netemu.apiserver.bootstrap import bootstrap
from netemu.apiserver.http.server import ApiServer
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.lab.authority import Authority
from netemu.lab.pki import kubeconfig
from netemu.store.sqlite import SqliteStore


def find_kubectl(minor: int = 32) -> str:
    """`$NETEMU_KUBECTL`, else the versioned binary beside the `kubectl` on PATH, else that one."""
    if chosen := os.environ.get("NETEMU_KUBECTL"):
        return chosen
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("no kubectl: install kubectl 1.32 (https://kubernetes.io/docs/tasks/tools/) or set NETEMU_KUBECTL")
    # With a cloud SDK, `kubectl` is a dispatcher and the real programs lie beside it.
    beside = Path(found).resolve().with_name(f"kubectl.1.{minor}")
    return str(beside) if beside.exists() else found


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed, and its exit code."""

    out: str
    err: str
    code: int

    @property
    def rows(self) -> list[list[str]]:
        """The words of each line of the output."""
        return [line.split() for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Runs one kubectl as one user, with a cache of its own."""

    program: str
    kubeconfig: Path
    client: LocalClient
    """A way around kubectl, to act as a controller or kubelet."""

    async def run(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
        """Run to the end."""
        process = await self.start(*arguments, env=env)
        out, err = await process.communicate(stdin.encode())
        return Answer(out.decode(), err.decode(), process.returncode or 0)

    async def __call__(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
        """Run to the end; it must succeed."""
        answer = await self.run(*arguments, stdin=stdin, env=env)
        assert answer.code == 0, f"kubectl {' '.join(arguments)}: {answer.err}{answer.out}"
        return answer

    async def start(self, *arguments: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        """Begin, for commands that do not end by themselves."""
        options = ("--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.kubeconfig.with_name("cache")))
        # What comes last is what `__complete` completes.
        end = 2 if arguments[0] == "__complete" else len(arguments)
        return await asyncio.create_subprocess_exec(
            self.program,
            *arguments[:end],
            *options,
            *arguments[end:],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": str(self.kubeconfig.parent), **(env or {})},
        )

    def as_program(self, program: str) -> Kubectl:
        """The same user with another kubectl."""
        return Kubectl(program, self.kubeconfig, self.client)


@asynccontextmanager
async def cluster(folder: Path, program: str) -> AsyncIterator[Kubectl]:
    """An API server as a lab has it (no controllers, no nodes) and a kubectl as its administrator."""
    ca = Authority.create("test-ca")
    ca_pem = ca.certificate.public_bytes(Encoding.PEM)
    (folder / "ca.crt").write_bytes(ca_pem)
    for file, pem in zip(("server.crt", "server.key"), ca.issue("server", hosts=("127.0.0.1",)), strict=True):
        (folder / file).write_bytes(pem)
    user = ca.issue("kubernetes-admin", ("system:masters", "netemu:testers"))
    store = await SqliteStore.open(folder / "store.db")
    schema = Schema.load()
    registry = Registry(store, schema, ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    server = ApiServer(registry, schema)
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        await server.start([listener], server_tls(folder / "server.crt", folder / "server.key", folder / "ca.crt"))
        client = LocalClient(registry)
        await bootstrap(client, api_address="172.18.0.2", api_port=6443)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        path = folder / "kubeconfig"
        path.write_bytes(kubeconfig("test", url, ca_pem, "kubernetes-admin", *user))
        yield Kubectl(program, path, client)
    finally:
        await server.close()
        await registry.close()
        await store.close()
