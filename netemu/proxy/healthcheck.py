"""The HTTP server of kube-proxy, and the health check node ports of Services; `pages` says what is on its other ports.

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
from netemu.model.hosts import endpoint_text
from netemu.proxy.tracker import Table

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
    # No thread opens it, and it listens last: a call that is cancelled must leave nothing open.
    sock = _open(address, netns)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            writer.write(handler(target.partition("?")[0]).encode(method == "HEAD"))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, sock=sock, limit=_LARGEST_HEAD, start_serving=False)
    try:
        await server.start_serving()
    except asyncio.CancelledError:
        server.close()
        raise
    return server


def _open(address: str, netns: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    with namespaces.entered(netns):
        try:
            return _bound(host.strip("[]"), int(port))
        except OSError as error:
            raise KernelError.of(f"listen on {address}", netns, error.errno or 0) from error


def _bound(host: str, port: int) -> socket.socket:
    # A wildcard means both families, as in Go; where the kernel or the namespace has no IPv6, it is IPv4's.
    if host in ("0.0.0.0", "::") and socket.has_dualstack_ipv6():
        with suppress(OSError):
            return _made(("::", port), socket.AF_INET6, dualstack=True)
    return _made((host, port), socket.AF_INET6 if ":" in host else socket.AF_INET)


def _made(address: tuple[str, int], family: socket.AddressFamily, *, dualstack: bool = False) -> socket.socket:
    sock = socket.create_server(address, family=family, backlog=128, dualstack_ipv6=dualstack)
    sock.setblocking(False)
    return sock


def health_ports(table: Table) -> dict[str, tuple[int, int]]:
    """Service to (health check node port, distinct addresses of ready endpoints here)."""
    ports: dict[str, int] = {}
    ready: dict[str, set[str]] = {}
    for key, port in table.ports.items():
        if port.health_check_node_port:
            ports[key.service] = port.health_check_node_port
            here = {e.ip for e in table.endpoints.get(key, ()) if e.local and e.ready}
            ready.setdefault(key.service, set()).update(here)
    return {service: (number, len(ready[service])) for service, number in ports.items()}


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

    def __init__(self, netns: str, healthy: Callable[[], bool], failed: Callable[[str, str], None]) -> None:
        """`failed` hears of a Service whose port cannot be had, and why; each time that it is tried."""
        self._netns, self._healthy, self._failed = netns, healthy, failed
        self._counts: dict[str, int] = {}
        self._servers: dict[tuple[str, str], asyncio.Server] = {}
        self._turn = asyncio.Lock()

    async def update(self, wanted: Mapping[str, tuple[int, int]], hosts: Sequence[str] = ("0.0.0.0",)) -> None:
        """`wanted`: Service to (port, number of ready endpoints here); `hosts`: the addresses to answer on.

        Both address families come here after their syncs, at the same time even; the later one's word stands.
        """
        async with self._turn:
            await self._update(wanted, hosts)

    async def _update(self, wanted: Mapping[str, tuple[int, int]], hosts: Sequence[str]) -> None:
        self._counts = {service: count for service, (_, count) in wanted.items()}
        places = {(service, endpoint_text(host, port)) for service, (port, _) in wanted.items() for host in hosts}
        for place in self._servers.keys() - places:
            self._servers.pop(place).close()
        for service, address in sorted(places - self._servers.keys()):
            try:
                self._servers[service, address] = await listen(address, self._netns, self._handler(service))
            except KernelError as error:
                log.error("proxy: health check of service %s: %s", service, error)
                self._failed(service, str(error))

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _handler(self, service: str) -> Handler:
        return lambda _: service_answer(service, self._counts.get(service, 0), self._healthy())
