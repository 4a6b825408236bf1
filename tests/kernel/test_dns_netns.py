"""The DNS process and dig in network namespaces of their own."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from netemu.dns import names, wire
from netemu.kernel import netns
from netemu.observe.resolve import dig

NAME, OTHER = "t-dns-a", "t-dns-b"
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


def link() -> None:
    """A link between the two namespaces, with link-local addresses alone."""
    for words in (
        f"-n {NAME} link add v0 type veth peer name v1 netns {OTHER}",
        f"-n {NAME} addr add fe80::53/64 dev v0 nodad",
        f"-n {OTHER} addr add fe80::7/64 dev v1 nodad",
        f"-n {NAME} link set v0 up",
        f"-n {OTHER} link set v1 up",
    ):
        subprocess.run(["ip", *words.split()], check=True)


def asked_again(namespace: str, address: str, times: int) -> list[bytes]:
    """Replies to the same question under different ids, on a socket that takes none from another address."""
    with netns.entered(namespace):
        family, _, _, _, to = socket.getaddrinfo(address, 53, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, socket.SOCK_DGRAM)
    replies = []
    with sock:
        sock.settimeout(5)
        sock.connect(to)
        for ident in range(times):
            sock.send(wire.build_query(ident, names.parse("gate.example"), wire.A))
            replies.append(sock.recv(512))
    return replies


@pytest.mark.parametrize("address", ["10.53.0.1", "10.53.0.2", "127.0.0.1", "fd00:53::2"])
async def test_replies_come_from_the_address_that_was_asked(namespace: str, tmp_path: Path, address: str) -> None:
    async with server(tmp_path):
        found = await resolved(tmp_path, address)

    assert found.result.addresses == ("192.0.2.7",)
    assert "timeout" not in {step.reply.outcome for step in found.steps}


@pytest.mark.parametrize("address", ["10.53.0.1", "10.53.0.2", "127.0.0.1", "fd00:53::2", "::1"])
async def test_replies_that_are_kept_do_too(namespace: str, tmp_path: Path, address: str) -> None:
    async with server(tmp_path):
        await resolved(tmp_path, address)
        replies = asked_again(NAME, address, 20)

    assert [reply[:2] for reply in replies] == [ident.to_bytes(2, "big") for ident in range(20)]
    assert {reply[-4:] for reply in replies} == {b"\xc0\x00\x02\x07"}


async def test_a_link_local_address_is_answered_on_its_link(namespace: str, tmp_path: Path) -> None:
    netns.create(OTHER)
    try:
        link()
        async with server(tmp_path):
            await resolved(tmp_path, "10.53.0.1")
            replies = await asyncio.to_thread(asked_again, OTHER, "fe80::53%v1", 3)
    finally:
        netns.delete(OTHER)

    assert len(replies) == 3


@pytest.mark.parametrize("address", ["10.53.0.2", "fd00:53::2"])
async def test_tcp_reaches_it_too(namespace: str, tmp_path: Path, address: str) -> None:
    async with server(tmp_path):
        found = await resolved(tmp_path, address, "use-vc")

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
