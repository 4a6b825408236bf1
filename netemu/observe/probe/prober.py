"""Connecting again and again from a place in a lab: who answers, from which source address, how fast, what fails.

Every attempt does what a client does: it asks its own resolver for the name, opens a new socket (so conntrack and the
rules of the proxy decide anew), and waits for an answer. Over TCP it asks `GET /`; a port that does not speak HTTP
gives its first line. The sockets belong to the namespace of the place, the waiting is done here. With `keep_alive` it
is a client that keeps its connections instead: a request goes out on one that is idle, if there is one.

Without a rate, each of `concurrency` workers begins an attempt when its last one has ended. With one, attempts begin
on the beat whatever became of those before, so that one which hangs hides nothing of what happens meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from netemu.kernel import netns as namespaces
from netemu.model.hosts import endpoint_text
from netemu.observe.addresses import is_address
from netemu.observe.probe import result as results
from netemu.observe.probe.result import Answer, Attempt, ProbeResult, read_answer, summarize
from netemu.observe.resolve.dig import lookup

_LARGEST_ANSWER: Final = 1 << 20
# What agnhost's netexec answers over UDP with its name; to an echo it is as good as anything.
_DATAGRAM: Final = b"hostname"
_KINDS: Final = {
    errno.ECONNREFUSED: results.REFUSED,
    errno.ETIMEDOUT: results.TIMEOUT,
    errno.ECONNRESET: results.RESET,
    errno.EPIPE: results.RESET,
    errno.EHOSTUNREACH: results.UNREACHABLE,
    errno.ENETUNREACH: results.UNREACHABLE,
    errno.EADDRNOTAVAIL: results.UNREACHABLE,
}


class Place(Struct, frozen=True):
    """Where packets start: a namespace, and the files its resolver reads (paths outside; "" for none)."""

    netns: str
    resolv_conf: str = ""
    hosts: str = ""


class Destination(Struct, frozen=True):
    """What is connected to: an address, or a name that the resolver of the place is asked for at each attempt."""

    host: str
    port: int
    path: str = "/"
    text: str = ""
    """As it was said."""

    def __str__(self) -> str:
        return self.text or endpoint_text(self.host, self.port)


class Pace(Struct, frozen=True):
    """How many attempts are made, when, and on which connections. Times in seconds."""

    count: int | None = 1
    """None for as many as there is time for."""
    duration: float | None = None
    rate: float | None = None
    """Attempts that begin per second; None for as soon as one has ended."""
    concurrency: int = 8
    """Attempts that are under way at a time, at most."""
    timeout: float = 2.0
    """For the answer, once the name is resolved."""
    keep_alive: bool = False


async def probe(
    place: Place,
    destination: Destination,
    *,
    udp: bool = False,
    count: int = 1,
    concurrency: int = 8,
    timeout: float = 2.0,
) -> ProbeResult:
    """Make `count` attempts, `concurrency` at a time, each given `timeout` seconds after its name is resolved.

    Raises KernelNotFound for a namespace that is gone.
    """
    return await paced_probe(place, destination, Pace(count, concurrency=concurrency, timeout=timeout), udp=udp)


async def paced_probe(
    place: Place, destination: Destination, pace: Pace, *, udp: bool = False, over: int = 0
) -> ProbeResult:
    """Make attempts at a pace. `over`: how many servers should answer, if that is known. Raises as `probe`."""
    prober = Prober(place, destination, pace, udp=udp)
    await prober.run()
    return prober.result(over)


class Prober:
    """Makes attempts until the pace has had enough or somebody calls `stop`; `attempts` are those that ended."""

    def __init__(self, place: Place, destination: Destination, pace: Pace, *, udp: bool = False) -> None:
        self._place, self._destination, self._pace, self._udp = place, destination, pace, udp
        self._idle: list[tuple[socket.socket, str]] = []
        self._connections = 0
        self._stopped = False
        self._begin = 0.0
        self._end = 0.0
        self.attempts: list[Attempt] = []

    @property
    def clock(self) -> float:
        """Seconds since the probing began."""
        return time.perf_counter() - self._begin

    def stop(self) -> None:
        """Begin no more attempts; those under way end as they do. May be called from any thread."""
        self._stopped = True

    async def run(self) -> None:
        """Make all attempts. Raises KernelNotFound for a namespace that is gone."""
        self._begin = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                if self._pace.rate:
                    await self._on_the_beat(group, self._pace.rate)
                else:
                    left = self._left()
                    for _ in range(min(self._pace.concurrency, self._pace.count or self._pace.concurrency)):
                        group.create_task(self._one_after_the_other(left))
        except ExceptionGroup as group:  # of attempts that all found the same namespace gone
            raise group.exceptions[0] from None
        finally:
            self._end = self.clock
            for sock, _ in self._idle:
                sock.close()

    def result(self, over: int = 0) -> ProbeResult:
        """What all attempts come to."""
        connections = self._connections if self._pace.keep_alive else None
        protocol = "UDP" if self._udp else "TCP"
        return summarize(
            str(self._destination),
            protocol,
            self.attempts,
            over=over,
            connections=connections,
            seconds=self._end or self.clock,
        )

    def _left(self) -> Iterator[int]:
        """The numbers of the attempts that are still to be made."""
        for number in itertools.count() if self._pace.count is None else range(self._pace.count):
            if self._stopped or (self._pace.duration is not None and self.clock >= self._pace.duration):
                return
            yield number

    async def _one_after_the_other(self, left: Iterator[int]) -> None:
        for _ in left:
            await self._attempt()

    async def _on_the_beat(self, group: asyncio.TaskGroup, rate: float) -> None:
        slots = asyncio.Semaphore(self._pace.concurrency)
        for number in self._left():
            await asyncio.sleep(max(number / rate - self.clock, 0))
            await slots.acquire()
            group.create_task(self._attempt()).add_done_callback(lambda _: slots.release())

    async def _attempt(self) -> None:
        begun = self.clock
        self.attempts.append(replace(await self._outcome(), begun=begun))

    async def _outcome(self) -> Attempt:
        if self._idle:
            sock, address = self._idle.pop()
            return await self._exchange(sock, address, 0.0, connected=True)
        started = time.perf_counter()
        address, why = await self._address()
        looked_up = 0.0 if address == self._destination.host else time.perf_counter() - started
        if not address:
            return Attempt(error=results.UNRESOLVABLE, detail=why, lookup_seconds=looked_up)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_DGRAM if self._udp else socket.SOCK_STREAM
        sock = namespaces.open_socket(self._place.netns, family, kind)
        self._connections += 1
        return await self._exchange(sock, address, looked_up, connected=False)

    async def _exchange(self, sock: socket.socket, address: str, looked_up: float, *, connected: bool) -> Attempt:
        """One request and its answer; afterwards the socket is idle or closed."""
        started, keep = time.perf_counter(), False
        shown = endpoint_text(address, self._destination.port)
        failed = Attempt(None, address, 0.0, looked_up)
        try:
            async with asyncio.timeout(self._pace.timeout):
                if not connected:
                    await asyncio.get_running_loop().sock_connect(sock, (address, self._destination.port))
                answer, reusable = await (self._datagram(sock) if self._udp else self._request(sock))
                keep = reusable and self._pace.keep_alive
        except TimeoutError:
            return replace(
                failed, error=results.TIMEOUT, detail=f"no answer from {shown} within {self._pace.timeout:g} s"
            )
        except OSError as err:
            detail = f"{shown}: {os.strerror(err.errno) if err.errno else err}"
            return replace(failed, error=_KINDS.get(err.errno or 0, results.OTHER), detail=detail)
        except EOFError:
            return replace(failed, error=results.CLOSED, detail=f"{shown}: closed without an answer")
        finally:
            if keep:
                self._idle.append((sock, address))
            else:
                sock.close()
        return Attempt(answer, address, time.perf_counter() - started, looked_up)

    async def _address(self) -> tuple[str, str]:
        """Where the name leads, by the resolver of the place; else why nowhere."""
        host = self._destination.host
        if is_address(host):
            return host, ""
        if not self._place.resolv_conf:
            return "", f"{host}: no resolver here"
        try:
            found = await lookup(
                host, resolv_conf=self._place.resolv_conf, hosts=self._place.hosts or None, netns=self._place.netns
            )
        except ValueError as err:
            return "", str(err)
        if found.result.addresses:
            return found.result.addresses[0], ""
        outcomes = dict.fromkeys(step.reply.outcome for step in found.steps)
        return "", f"{host}: {found.result.status} ({', '.join(outcomes)})"

    async def _datagram(self, sock: socket.socket) -> tuple[Answer, bool]:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, _DATAGRAM)
        return read_answer(await loop.sock_recv(sock, 65535)), True

    async def _request(self, sock: socket.socket) -> tuple[Answer, bool]:
        """The answer, and whether the server keeps the connection."""
        answer, body, kept = await self._get(sock, self._destination.path)
        # The real netexec tells the time at /; its name is at another path, to be asked on the same connection.
        if body.startswith(b"NOW: ") and answer.server.startswith("NOW: "):
            answer, _, kept = await self._get(sock, "/hostname")
        return answer, kept

    async def _get(self, sock: socket.socket, path: str) -> tuple[Answer, bytes, bool]:
        loop = asyncio.get_running_loop()
        request = f"GET {path} HTTP/1.1\r\nHost: {self._destination.host}\r\nUser-Agent: netemu-probe\r\n\r\n"
        await loop.sock_sendall(sock, request.encode())
        received = b""
        while len(received) < _LARGEST_ANSWER:
            got = await loop.sock_recv(sock, 65536)
            received += got
            if not got or complete(received):
                break
        if not received:
            raise EOFError
        headers, body = split(received)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            # The first chunk says who answered; the line before it is its length.
            body = body.partition(b"\r\n")[2]
        kept = received.startswith(b"HTTP/1.1") and headers.get("connection", "").lower() != "close"
        return read_answer(body, headers), body, kept


def complete(received: bytes) -> bool:
    """Whether the answer is whole: an HTTP response by its length, anything else with its first line."""
    if not b"HTTP/".startswith(received[:5]) and not received.startswith(b"HTTP/"):
        return b"\n" in received
    headers, body = split(received)
    if b"\r\n\r\n" not in received:
        return False
    if received.split(b" ", 2)[1][:3] in (b"204", b"304"):
        return True
    if "content-length" in headers:
        return len(body) >= int(headers["content-length"])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return body.endswith(b"0\r\n\r\n")
    return False


def split(received: bytes) -> tuple[Mapping[str, str], bytes]:
    """Headers (names in lower case) and body of an HTTP response; of anything else no headers, and all of it."""
    if not received.startswith(b"HTTP/"):
        return {}, received
    head, _, body = received.partition(b"\r\n\r\n")
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}, body
