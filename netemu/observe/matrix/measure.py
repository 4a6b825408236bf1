"""Many single connections at the same time, each from a namespace of its own: what each of them sees.

Theory of operation. The sockets belong to the namespaces, one event loop waits for all of them. A connection counts as
answered once it is established, a datagram once something comes back; who answered is then asked for (`GET /`, or
the datagram itself), and stays unknown where the server does not say. How long to wait follows from what is expected:
silence costs `timeout` seconds where nobody is expected to be reached, and three times that where somebody is, so
that a busy machine is not taken for a broken network. A datagram is repeated every second, as resolvers do.

A node's kernel tells one receiver of about one refusal a second, after the first few (icmp_ratelimit; a packet that
leaves by the link it came by counts, too). So connections from one namespace that one node's rules are expected to
refuse are made one after the other, and repeated until they are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from netemu.dns import names, wire
from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError, KernelNotFound
from netemu.observe.matrix.table import Measured
from netemu.observe.predict import Outcome
from netemu.observe.probe.prober import complete, split
from netemu.observe.probe.result import Answer, read_answer

_AT_ONCE, _WAITING = 64, 400
"""Connections that are expected to be answered, and all others; together they fit into 1,024 descriptors."""
_AGAIN = 1.0
_IDENTITY_WITHIN = 1.0
_LARGEST_HEAD = 1 << 16
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h: the latter is not in Python's socket module
_OUTCOMES: Final = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.REFUSED,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EADDRNOTAVAIL: Outcome.UNREACHABLE,
}
"""What else may be told is a packet that was dropped before it left (EPERM), or silence for very long."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One connection. `expected`: what it should see; `refused_by`: the node whose rules should refuse it."""

    netns: str
    address: str
    port: int
    protocol: str
    expected: tuple[Outcome, ...]
    refused_by: str = ""
    dns: bool = False
    """What is asked speaks DNS."""


async def measure(asks: Sequence[Ask], *, timeout: float = 2.0) -> list[Measured]:
    """What each of them sees, in order; from a namespace that is gone meanwhile, nothing can be reached.

    Raises KernelError where no socket can be had: that says nothing of the network.
    """
    gates = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_WAITING)
    turns: dict[tuple[str, str, bool], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def one(ask: Ask) -> Measured:
        turn = turns[ask.netns, ask.refused_by, ":" in ask.address] if ask.refused_by else contextlib.nullcontext()
        # Whoever waits for a turn has no descriptor yet, so the gate comes second.
        async with turn, gates[ask.expected != (Outcome.ANSWERED,)]:
            silent = {Outcome.DROPPED, Outcome.UNREACHABLE} & {*ask.expected}
            try:
                return await _one(ask, timeout if silent else 3 * timeout)
            except KernelNotFound as error:
                return Measured(Outcome.UNREACHABLE, detail=str(error))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(ask)) for ask in asks]
    except ExceptionGroup as failed:  # the first one ended the others
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


async def _one(ask: Ask, patience: float) -> Measured:
    kind = socket.SOCK_DGRAM if ask.protocol == "UDP" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in ask.address else socket.AF_INET
    began = time.perf_counter()
    answer, outcome, detail = Answer(""), Outcome.ANSWERED, ""
    with _socket(ask.netns, family, kind) as sock:
        try:
            async with asyncio.timeout(patience):
                if kind == socket.SOCK_DGRAM:
                    answer = await _datagram(sock, ask)
                else:
                    await asyncio.get_running_loop().sock_connect(sock, (ask.address, ask.port))
        except TimeoutError:
            outcome, detail = Outcome.DROPPED, f"no answer within {patience:g} s"
        except OSError as error:
            outcome = _OUTCOMES.get(error.errno or 0, Outcome.DROPPED)
            detail = os.strerror(error.errno) if error.errno else str(error)
        seconds = time.perf_counter() - began
        if outcome is Outcome.ANSWERED and kind == socket.SOCK_STREAM:
            answer = await _identity(sock, ask)
    if not answer.node:  # a server that is not netemu's own says nothing of itself that could be relied on
        answer = Answer("")
    return Measured(outcome, answer.server, answer.node, answer.source, detail, seconds)


def _socket(netns: str, family: int, kind: int) -> socket.socket:
    try:
        return namespaces.open_socket(netns, family, kind)
    except OSError as error:
        raise KernelError.of("open a socket", netns, error.errno or 0) from error


async def _datagram(sock: socket.socket, ask: Ask) -> Answer:
    loop = asyncio.get_running_loop()
    level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if ":" in ask.address else (socket.IPPROTO_IP, _IP_RECVERR)
    sock.setsockopt(level, option, 1)  # else only a refusal would be told of all that routers and nodes say
    await loop.sock_connect(sock, (ask.address, ask.port))
    payload = _dns_query() if ask.dns else b"hostname"
    while True:
        # Where the node's own rules stop what it sends, it is told so at once, and of a refusal a moment later.
        with contextlib.suppress(PermissionError):
            await loop.sock_sendall(sock, payload)
        try:
            async with asyncio.timeout(_AGAIN):
                return read_answer(await loop.sock_recv(sock, 65535))
        except TimeoutError:
            continue


async def _identity(sock: socket.socket, ask: Ask) -> Answer:
    """Who is at the other end, as far as it answers HTTP, or begins by saying so."""
    if ask.dns:
        return Answer("")
    loop, received = asyncio.get_running_loop(), b""
    try:
        async with asyncio.timeout(_IDENTITY_WITHIN):
            await loop.sock_sendall(sock, f"GET / HTTP/1.1\r\nHost: {ask.address}\r\n\r\n".encode())
            while len(received) < _LARGEST_HEAD and not complete(received):
                if not (got := await loop.sock_recv(sock, 65536)):
                    break
                received += got
    except (TimeoutError, OSError):
        return Answer("")
    headers, body = split(received)
    return read_answer(body, headers) if received else Answer("")


def _dns_query() -> bytes:
    return wire.build_query(os.getpid() & 0xFFFF, names.parse("kubernetes.default.svc.cluster.local."), wire.A)
