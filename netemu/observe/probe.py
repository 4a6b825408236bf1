"""Connecting again and again from a place in a lab: who answers, from which source address, how fast, what fails.

Every attempt does what a client does: it asks its own resolver for the name, opens a new socket (so conntrack and the
rules of the proxy decide anew), and waits for an answer. Over TCP it asks `GET /`; a port that does not speak HTTP
gives its first line. The sockets belong to the namespace of the place, the waiting is done here.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from netemu.kernel import netns as namespaces
from netemu.model.errors import UserError
from netemu.observe import probe_result as results
from netemu.observe.dig import lookup
from netemu.observe.probe_result import Answer, Attempt, ProbeResult, read_answer, summarize

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where packets start: a namespace, and the files its resolver reads (paths outside; "" for none)."""

    netns: str
    resolv_conf: str = ""
    hosts: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """HOST:PORT or HOST:PORT/PATH; an IPv6 address in brackets."""

    host: str
    port: int
    path: str = "/"

    @staticmethod
    def parse(text: str) -> Destination:
        """Raises UserError. http:// in front is taken for what it says; without a port it means 80."""
        rest = text.removeprefix("http://")
        endpoint, slash, path = rest.partition("/")
        host, colon, port = endpoint.rpartition(":")
        if endpoint.endswith("]") or not colon:
            host, port = endpoint, "80" if rest != text else ""
        bracketed = host.startswith("[") and host.endswith("]")
        if ":" in host and not bracketed:
            raise UserError(f"destination {text!r}: an IPv6 address must be in brackets, for example [fd00::1]:80")
        host = host[1:-1] if bracketed else host
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UserError(f"destination {text!r}: must be NAME:PORT or ADDRESS:PORT, for example web:80")
        return Destination(host, int(port), slash + path or "/")


async def probe(
    place: Place,
    destination: str,
    *,
    udp: bool = False,
    count: int = 1,
    concurrency: int = 8,
    timeout: float = 2.0,
) -> ProbeResult:
    """Make `count` attempts, `concurrency` at a time, each given `timeout` seconds after its name is resolved.

    Raises UserError for a destination that is none, KernelNotFound for a namespace that is gone.
    """
    prober = _Prober(place, Destination.parse(destination), udp, timeout)
    left = iter(range(count))
    attempts: list[Attempt] = []

    async def work() -> None:
        for _ in left:
            attempts.append(await prober.attempt())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, count)):
            group.create_task(work())
    return summarize(destination, "UDP" if udp else "TCP", attempts)


class _Prober:
    def __init__(self, place: Place, destination: Destination, udp: bool, timeout: float) -> None:
        self._place, self._destination, self._udp, self._timeout = place, destination, udp, timeout

    async def attempt(self) -> Attempt:
        started = time.perf_counter()
        address, why = await self._address()
        connecting = time.perf_counter()
        looked_up = 0.0 if address == self._destination.host else connecting - started
        if not address:
            return Attempt(error=results.UNRESOLVABLE, detail=why, lookup_seconds=looked_up)
        shown = f"[{address}]:{self._destination.port}" if ":" in address else f"{address}:{self._destination.port}"
        try:
            async with asyncio.timeout(self._timeout):
                answer = await (self._datagram(address) if self._udp else self._connection(address))
        except TimeoutError:
            detail = f"no answer from {shown} within {self._timeout:g} s"
            return Attempt(None, address, 0.0, looked_up, results.TIMEOUT, detail)
        except OSError as err:
            kind = _KINDS.get(err.errno or 0, results.OTHER)
            return Attempt(
                None, address, 0.0, looked_up, kind, f"{shown}: {os.strerror(err.errno) if err.errno else err}"
            )
        except EOFError:
            return Attempt(None, address, 0.0, looked_up, results.CLOSED, f"{shown}: closed without an answer")
        return Attempt(answer, address, time.perf_counter() - connecting, looked_up)

    async def _address(self) -> tuple[str, str]:
        """Where the name leads, by the resolver of the place; else why nowhere."""
        host = self._destination.host
        if _is_address(host):
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

    async def _datagram(self, address: str) -> Answer:
        loop = asyncio.get_running_loop()
        with open_socket(self._place.netns, address, socket.SOCK_DGRAM) as sock:
            await loop.sock_connect(sock, (address, self._destination.port))
            await loop.sock_sendall(sock, _DATAGRAM)
            return read_answer(await loop.sock_recv(sock, 65535))

    async def _connection(self, address: str) -> Answer:
        loop = asyncio.get_running_loop()
        with open_socket(self._place.netns, address, socket.SOCK_STREAM) as sock:
            await loop.sock_connect(sock, (address, self._destination.port))
            answer, body = await self._get(sock, self._destination.path)
            # The real netexec tells the time at /; its name is at another path, to be asked on the same connection.
            if body.startswith(b"NOW: ") and answer.server.startswith("NOW: "):
                answer, _ = await self._get(sock, "/hostname")
            return answer

    async def _get(self, sock: socket.socket, path: str) -> tuple[Answer, bytes]:
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
        return read_answer(body, headers), body


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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def open_socket(netns: str, address: str, kind: int) -> socket.socket:
    """A non-blocking socket of the namespace, of the family of `address`. Raises KernelNotFound."""
    with namespaces.entered(netns):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.setblocking(False)
    return sock
