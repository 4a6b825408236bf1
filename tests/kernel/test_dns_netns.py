"""The DNS process and dig in network namespaces of their own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from netemu.kernel import netns
from netemu.observe import dig

NAME = "t-dns-a"
COREFILE = ".:53 {\n health\n hosts {\n  192.0.2.7 gate.example\n }\n}\n"
RUN = """
import asyncio, pathlib, sys
from netemu.dns.server import run
asyncio.run(run(pathlib.Path(sys.argv[1])))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace with three addresses on its loopback link."""
    netns.create(NAME)
    try:
        for words in ("link set lo up", "addr add 10.53.0.1/32 dev lo", "addr add 10.53.0.2/32 dev lo",
                      "addr add fd00:53::2/128 dev lo nodad"):  # fmt: skip
            subprocess.run(["ip", "-n", NAME, *words.split()], check=True)
        yield NAME
    finally:
        netns.delete(NAME)


@asynccontextmanager
async def server(tmp_path: Path, corefile: str = COREFILE) -> AsyncIterator[asyncio.subprocess.Process]:
    """`netemu dns` in the namespace."""
    path = tmp_path / "Corefile"
    path.write_text(corefile)
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", NAME, sys.executable, "-c", RUN, str(path), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def resolved(tmp_path: Path, server_address: str, options: str = "") -> dig.Lookup:
    """A lookup from the namespace, tried until somebody listens."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {server_address}\nsearch example\noptions timeout:1 {options}\n")
    async with asyncio.timeout(20):
        while True:
            found = await dig.lookup("gate", resolv_conf=resolv, hosts=None, netns=NAME)
            if "refused" not in {step.reply.outcome for step in found.steps}:
                return found


@pytest.mark.parametrize("address", ["10.53.0.1", "10.53.0.2", "127.0.0.1", "fd00:53::2"])
async def test_replies_come_from_the_address_that_was_asked(namespace: str, tmp_path: Path, address: str) -> None:
    async with server(tmp_path):
        found = await resolved(tmp_path, address)

    assert found.result.addresses == ("192.0.2.7",)
    assert "timeout" not in {step.reply.outcome for step in found.steps}


async def test_tcp_reaches_it_too(namespace: str, tmp_path: Path) -> None:
    async with server(tmp_path):
        found = await resolved(tmp_path, "10.53.0.2", "use-vc")

    assert (found.result.status, {step.transport for step in found.steps}) == ("found", {"tcp"})


async def test_sigterm_ends_it_in_peace(namespace: str, tmp_path: Path) -> None:
    async with server(tmp_path) as process:
        await resolved(tmp_path, "10.53.0.1")
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 10)

    assert (process.returncode, errors) == (0, b"")


async def test_lameduck_goes_on_answering_after_sigterm(namespace: str, tmp_path: Path) -> None:
    async with server(tmp_path, COREFILE.replace("health", "health {\n  lameduck 60s\n }")) as process:
        await resolved(tmp_path, "10.53.0.1")
        process.send_signal(signal.SIGTERM)
        found = await resolved(tmp_path, "10.53.0.1")
        ended = process.returncode

    assert (found.result.status, ended) == ("found", None)
