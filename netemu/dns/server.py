"""The DNS server: a Corefile becomes listening sockets, plugin chains, and answers.

Theory of operation. A packet that was answered before, byte for byte except for its id, gets the same bytes again
with its own id: `_finished` maps everything behind the id of a question to everything behind the id of the reply.
Only replies that depend on watched objects alone are kept there (`Response.stable`), and any change of those voids
all of them. Other packets are parsed, routed to the server block with the longest zone, answered by its chain in a
task, packed and sent.

Sockets open first, then plugins start: a query that comes before the cluster is known gets SERVFAIL instead of a lie.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import itertools
import logging
import random
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netemu.dns import chain, corefile, listen, names, wire
from netemu.dns.chain import Chain
from netemu.dns.corefile import ServerBlock
from netemu.dns.metrics import Metrics, Series
from netemu.dns.pages import Pages
from netemu.dns.plugin import Page, Plugin
from netemu.dns.wire import Malformed, Query, Response
from netemu.model.errors import NetemuError, UserError

if TYPE_CHECKING:
    from netemu.client.base import Client

log = logging.getLogger(__name__)

_MOST_FINISHED = 20_000


class _Finished:
    """A packed reply behind its id; with `chunks`, addresses that go out in another order each time."""

    __slots__ = ("chunks", "head", "request_size", "series", "size", "tail")

    def __init__(self, reply: bytes, series: Series, request_size: int, span: tuple[int, int, int] | None) -> None:
        self.series, self.size, self.request_size = series, len(reply), request_size
        self.head, self.tail = reply[2:], b""
        self.chunks: list[bytes] | None = None
        if span:
            start, count, size = span
            self.head, self.tail = reply[2:start], reply[start + count * size :]
            self.chunks = [reply[start + i * size : start + (i + 1) * size] for i in range(count)]


class Server:
    """Implements `plugin.Host`. `async with Server(path)` runs it; `failed` is set when it must stop."""

    def __init__(
        self, corefile_path: Path | None, kubeconfig: Path | None = None, client: Client | None = None
    ) -> None:
        self.corefile, self.kubeconfig = corefile_path, kubeconfig
        self.metrics = Metrics()
        self.failed = asyncio.Event()
        self.cause = ""
        self.ports: dict[int, int] = {}
        """Port of the Corefile to port listened on; they differ where the file says 0."""
        self._given = client
        self._client: Any = None
        self._pages = Pages()
        self._zones: dict[int, dict[bytes, Chain]] = {}
        self._chains: list[Chain] = []
        self._listeners: dict[int, list[Any]] = {}
        self._connections: set[listen.TcpConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: dict[int, dict[bytes, _Finished]] = {}
        self._generation = 0

    # --- life ---

    async def start(self, blocks: list[ServerBlock], ports: dict[int, int] | None = None) -> None:
        """Listen and answer. `ports` maps ports of the Corefile to others (0: any free one). Raises UserError."""
        self._zones, self._chains, binds = self._build(blocks)
        try:
            for port, addresses in binds.items():
                await self._listen(port, addresses, (ports or {}).get(port, port))
            await self._pages.start()
            for plugin in self.plugins():
                await plugin.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop answering and let go of everything."""
        for listener in (each for group in self._listeners.values() for each in group):
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pages.close()
        await self._stop(self._chains)
        if self._client is not None and self._client is not self._given:
            await self._client.close()
        self._client = None

    @staticmethod
    async def _stop(chains: list[Chain]) -> None:
        for plugin in (plugin for each in chains for plugin in each.plugins):
            await plugin.close()

    def plugins(self) -> list[Plugin]:
        """Every plugin of every server block."""
        return [plugin for each in self._chains for plugin in each.plugins]

    async def linger(self) -> None:
        """What is left to do between the signal to stop and the end: lameduck."""
        pause = max((plugin.lameduck for plugin in self.plugins()), default=0.0)
        await self._pages.close("/ready")
        if pause:
            await asyncio.sleep(pause)

    def _build(
        self, blocks: list[ServerBlock]
    ) -> tuple[dict[int, dict[bytes, Chain]], list[Chain], dict[int, tuple[str, ...]]]:
        zones: dict[int, dict[bytes, Chain]] = {}
        binds: dict[int, tuple[str, ...]] = {}
        chains = []
        for block in blocks:
            built, bind = chain.build(block, self)
            chains.append(built)
            for zone, port in block.keys:
                zones.setdefault(port, {})[zone] = built
                binds[port] = (*binds.get(port, ()), *(each for each in bind if each not in binds.get(port, ())))
        return zones, chains, binds

    async def _listen(self, port: int, addresses: tuple[str, ...], number: int) -> None:
        loop = asyncio.get_running_loop()
        self._finished[port] = {}

        def handle(data: bytes, transport: str, client: tuple[str, int], reply: listen.Reply) -> None:
            self._handle(port, data, transport, client, reply)

        def finished(data: bytes) -> bytes | None:
            return self._known(port, data)

        sockets = listen.open_sockets(addresses, number)
        self.ports[port] = sockets[0].getsockname()[1]
        group = self._listeners.setdefault(port, [])
        for sock in sockets:
            if sock.type == socket.SOCK_DGRAM:
                group.append(listen.UdpListener(sock, handle, finished))
            else:
                group.append(
                    await loop.create_server(lambda: listen.TcpConnection(handle, self._connections), sock=sock)
                )

    # --- packets ---

    def _known(self, port: int, data: bytes) -> bytes | None:
        """The reply to a packet that was answered before, under its own id."""
        found = self._finished[port].get(data[2:])
        if found is None:
            return None
        series = found.series
        series.replies += 1
        series.request_bytes += found.request_size
        series.response_bytes += found.size
        if found.chunks is None:
            return data[:2] + found.head
        random.shuffle(found.chunks)
        return data[:2] + found.head + b"".join(found.chunks) + found.tail

    def _handle(self, port: int, data: bytes, transport: str, client: tuple[str, int], reply: listen.Reply) -> None:
        try:
            query = wire.parse_query(data, transport, client)
        except Malformed as malformed:
            # Silence over TCP must still be said, so that the connection knows that nothing is to come.
            if malformed.reply or transport == "tcp":
                reply(malformed.reply)
            self._count(None, None, Response(wire.FORMERR), transport, client, (len(data), len(malformed.reply)), 0.0)
            return
        task = asyncio.get_running_loop().create_task(self._answer(port, data, query, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, port: int, data: bytes, query: Query, reply: listen.Reply) -> None:
        began, generation = time.perf_counter(), self._generation
        where = self._route(query, port)
        response = await where[1].serve(query) if where else Response(wire.REFUSED, aa=False)
        packed = wire.pack(query, response)
        reply(packed)
        took = time.perf_counter() - began
        series = self._count(where, query, response, query.transport, query.client, (len(data), len(packed)), took)
        if where:
            for plugin in where[1].finishing:
                plugin.done(query, response, len(packed))
        if response.stable and query.transport == "udp" and generation == self._generation:
            self._keep(port, data, query, response, packed, series)

    def _keep(self, port: int, data: bytes, query: Query, response: Response, packed: bytes, series: Series) -> None:
        span = None
        if response.shuffle and not (span := _shuffled_span(query, response, packed)) and _has_addresses(response):
            return
        finished = self._finished[port]
        if len(finished) >= _MOST_FINISHED:
            finished.clear()
        finished[data[2:]] = _Finished(packed, series, len(data), span)

    def _count(
        self,
        where: tuple[bytes, Chain] | None,
        query: Query | None,
        response: Response,
        transport: str,
        client: tuple[str, int],
        sizes: tuple[int, int],
        seconds: float,
    ) -> Series:
        kind = wire.TYPE_NAMES.get(query.type, "other") if query else "other"
        zone = names.text(where[0]) if where else "dropped"
        family = "2" if ":" in client[0] else "1"
        key = ("dns://:53", zone, transport, family, kind, wire.rcode_name(response.rcode), response.plugin)
        series = self.metrics.series(key)
        series.replies += 1
        series.request_bytes += sizes[0]
        series.response_bytes += sizes[1]
        series.seconds += seconds
        return series

    def _route(self, query: Query, port: int) -> tuple[bytes, Chain] | None:
        zones = self._zones.get(port, {})
        found = None
        for suffix in names.suffixes(query.lower):
            if (each := zones.get(suffix)) is not None:
                found = (suffix, each)
                # The parent of a zone speaks for its delegation (RFC 4035, 3.1.4.1).
                if query.type != wire.DS or suffix != query.lower:
                    break
        return found

    # --- plugin.Host ---

    async def resolve(self, query: Query, port: int) -> Response:
        """See Host."""
        where = self._route(query, port)
        return await where[1].serve(query) if where else Response(wire.REFUSED, aa=False)

    async def client(self, credentials: object) -> Client:
        """See Host. The import takes a third of a second, so a thread does it while questions are answered."""
        if self._given is not None:
            return self._given
        if self._client is None:
            http = await asyncio.to_thread(importlib.import_module, "netemu.client.http")
            kubeconfig = importlib.import_module("netemu.client.kubeconfig")
            if credentials is None:
                credentials = (
                    kubeconfig.load_kubeconfig(self.kubeconfig) if self.kubeconfig else kubeconfig.in_cluster()
                )
            self._client = http.HttpClient(credentials, user_agent="netemu-dns")
        client: Client = self._client
        return client

    def local_addresses(self) -> tuple[str, ...]:
        """See Host."""
        return _local_addresses()

    def invalidate(self) -> None:
        """See Host."""
        self._generation += 1
        for finished in self._finished.values():
            finished.clear()

    def fail(self, cause: str) -> None:
        """See Host."""
        self.cause = self.cause or cause
        self.failed.set()

    def page(self, address: str, path: str, page: Page) -> None:
        """See Host."""
        self._pages.add(address, path, page)

    def page_port(self, path: str) -> int:
        """The port of a status page."""
        return self._pages.port_of(path)

    def not_ready(self) -> list[str]:
        """See Host."""
        return [plugin.name for plugin in self.plugins() if not plugin.ready]

    async def reload(self) -> None:
        """See Host. The new plugins are ready (or 5 s have passed) before the first question reaches them."""
        if self.corefile is None:
            return
        old_pages, self._pages = self._pages, Pages()
        try:
            zones, chains, binds = self._build(corefile.load(self.corefile))
        except NetemuError:
            self._pages = old_pages
            self.metrics.add("coredns_reload_failed_total")
            raise
        await old_pages.close()
        await self._pages.start()
        for port in set(binds) - set(self._listeners):
            await self._listen(port, binds[port], port)
        plugins = [plugin for each in chains for plugin in each.plugins]
        for plugin in plugins:
            await plugin.start()
        deadline = time.monotonic() + 5
        while not all(plugin.ready for plugin in plugins) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        old, self._zones, self._chains = self._chains, zones, chains
        self.invalidate()
        for port in set(self._listeners) - set(binds):
            for listener in self._listeners.pop(port):
                listener.close()
        await self._stop(old)


def _has_addresses(response: Response) -> bool:
    """Whether shuffling could change anything."""
    return any(
        sum(record.type in (wire.A, wire.AAAA) for record in section) > 1
        for section in (response.answers, response.additional)
    )


def _shuffled_span(query: Query, response: Response, packed: bytes) -> tuple[int, int, int] | None:
    """(offset, records, octets each) where the answer is nothing but addresses of the name asked for, else None.

    Such records name their owner by a pointer to the question, so they mean the same in any order. A truncated reply is
    left to the slow path: there the order decides which of them are seen at all.
    """
    answers = response.answers
    uniform = all(record.type == query.type and record.name == query.name for record in answers)
    if len(answers) < 2 or query.type not in (wire.A, wire.AAAA) or not uniform or response.additional:
        return None
    start = 12 + len(query.question)
    size = 12 + len(answers[0].rdata)
    whole = packed[start : start + 2] == b"\xc0\x0c" and not packed[2] & 2
    return (start, len(answers), size) if whole else None


def _local_addresses() -> tuple[str, ...]:
    """Addresses of this network namespace, loopback and link-local left out."""
    found: dict[str, None] = {}
    lines = _lines("/proc/self/net/fib_trie")
    for before, line in itertools.pairwise(lines):
        if line.strip().startswith("/32 host LOCAL"):
            found[before.split()[-1]] = None
    for line in _lines("/proc/self/net/if_inet6"):
        found[str(ipaddress.IPv6Address(int(line.split()[0], 16)))] = None
    keep = []
    for text in found:
        address = ipaddress.ip_address(text)
        if not address.is_loopback and not address.is_link_local:
            keep.append(text)
    return tuple(keep)


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(path).read_text().splitlines()
    return []


async def run(corefile_path: Path, kubeconfig: Path | None = None) -> None:
    """`netemu dns`: serve a Corefile until SIGTERM or SIGINT. Raises UserError for what cannot be served."""
    blocks = corefile.load(corefile_path)
    server = Server(corefile_path, kubeconfig)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start(blocks)
        log.info("dns: serving %s on %s", corefile_path, ", ".join(f":{port}" for port in server.ports.values()))
        waiters = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(server.failed.wait())]
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()
        if server.cause:
            raise UserError(server.cause)
        await server.linger()
    finally:
        await server.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
