"""What kube-proxy answers over HTTP: its own health, its metrics, and whether a node has endpoints of a Service.

    healthzBindAddress  /healthz  /livez            is what was asked for programmed? may load balancers send here?
    metricsBindAddress  /metrics  /proxyMode  /healthz
    healthCheckNodePort any path                    has this node a ready endpoint of the Service?

Theory of operation: sockets are opened inside the node's namespace and served from this loop. The server is a page of
code because requests are a line and answers are short; it costs nothing where nobody asks.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError

log = logging.getLogger(__name__)

_READ_SECONDS = 10.0
_LARGEST_HEAD = 16384


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    code: int
    body: str
    content_type: str = "application/json"
    headers: Mapping[str, str] | None = None

    def encode(self, head_only: bool) -> bytes:
        """Bytes for the wire; the connection closes after it."""
        body = self.body.encode()
        lines = [
            f"HTTP/1.1 {self.code} {HTTPStatus(self.code).phrase}",
            f"Content-Type: {self.content_type}",
            "X-Content-Type-Options: nosniff",
            *(f"{name}: {value}" for name, value in (self.headers or {}).items()),
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return "\r\n".join((*lines, "", "")).encode() + (b"" if head_only else body)


NOT_FOUND = Answer(404, "404 page not found\n", "text/plain; charset=utf-8")
Handler = Callable[[str], Answer]
"""From a path to its answer."""


async def listen(address: str, netns: str, handler: Handler) -> asyncio.Server:
    """Serve `host:port` in a namespace. Raises KernelError when the address cannot be had."""
    sock = await asyncio.to_thread(_open, address, netns)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            writer.write(handler(target.partition("?")[0]).encode(method == "HEAD"))
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, sock=sock, limit=_LARGEST_HEAD)


def _open(address: str, netns: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with namespaces.entered(netns):
        sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
        sock.listen(128)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise KernelError.of(f"listen on {address}", netns, error.errno or 0) from error
    return sock


def health_answer(*, healthy: bool, eligible: bool | None, now: str, updated: str) -> Answer:
    """/healthz (with `eligible`) or /livez (None), in upstream's spacing."""
    good = healthy and eligible is not False
    seen = now if healthy else updated
    node = "" if eligible is None else f', "nodeEligible": {"true" if eligible else "false"}'
    return Answer(200 if good else 503, f'{{"lastUpdated": "{seen}","currentTime": "{now}"{node}}}')


def service_answer(service: str, count: int, healthy: bool) -> Answer:
    """The answer of a health check node port."""
    namespace, _, name = service.partition("/")
    body = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }
    code = 200 if count and healthy else 503
    return Answer(code, json.dumps(body, indent="\t"), headers={"X-Load-Balancing-Endpoint-Weight": str(count)})


class ServiceHealth:
    """One listener per Service that asks for one. `update` after each sync; failed listens are tried again then."""

    def __init__(self, netns: str, healthy: Callable[[], bool]) -> None:
        self._netns, self._healthy = netns, healthy
        self._counts: dict[str, int] = {}
        self._servers: dict[tuple[str, str], asyncio.Server] = {}

    async def update(self, wanted: Mapping[str, tuple[int, int]], hosts: Sequence[str] = ("0.0.0.0",)) -> None:
        """`wanted`: Service to (port, number of ready endpoints here); `hosts`: the addresses to answer on."""
        self._counts = {service: count for service, (_, count) in wanted.items()}
        places = {
            (service, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            for service, (port, _) in wanted.items()
            for host in hosts
        }
        for place in self._servers.keys() - places:
            self._servers.pop(place).close()
        for service, address in sorted(places - self._servers.keys()):
            try:
                self._servers[service, address] = await listen(address, self._netns, self._handler(service))
            except KernelError as error:
                log.error("proxy: health check of service %s: %s", service, error)

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _handler(self, service: str) -> Handler:
        return lambda _: service_answer(service, self._counts.get(service, 0), self._healthy())
