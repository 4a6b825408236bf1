"""The DNS server: a Corefile becomes listening sockets, plugin chains, and answers.

Each port answers by itself (`port.py`), from the chain of the server block with the longest zone (`chain.py`); what is
here opens and closes things, and is what plugins see of the server (`plugin.Host`).

Sockets open first, then plugins start: a query that comes before the cluster is known gets SERVFAIL instead of a lie.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import itertools
import logging
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netemu.dns import chain, corefile, listen, node_local, wire
from netemu.dns.chain import Chain
from netemu.dns.corefile import ServerBlock
from netemu.dns.faults import Faults, FaultTable
from netemu.dns.metrics import Metrics
from netemu.dns.pages import Pages
from netemu.dns.plugin import Page, Plugin
from netemu.dns.port import Port
from netemu.dns.wire import Query, Response
from netemu.kernel import netns as namespaces
from netemu.model.collector import look_at_old_objects_seldom
from netemu.model.errors import NetemuError, UserError

if TYPE_CHECKING:
    from netemu.client.base import Client
    from netemu.client.events import EventRecorder

log = logging.getLogger(__name__)


class Server:
    """Implements `plugin.Host`. `async with Server(path)` runs it; `failed` is set when it must stop."""

    def __init__(
        self,
        corefile_path: Path | None,
        kubeconfig: Path | None = None,
        client: Client | None = None,
        faults: tuple[str, str] | None = None,
        netns: str = "",
        pod: tuple[str, str] | None = None,
    ) -> None:
        """`faults`: namespace and name of the ConfigMap that holds faults on purpose. `netns`: the network namespace to
        listen in, if not this one. `pod`: namespace and name of the Pod that this runs in."""
        self._netns, self._pod = netns, pod
        self.corefile, self.kubeconfig = corefile_path, kubeconfig
        self._faults = FaultTable(self, *faults) if faults else None
        self._following: asyncio.Task[None] | None = None
        self.metrics = Metrics()
        self.failed = asyncio.Event()
        self.cause = ""
        self.ports: dict[int, int] = {}
        """Port of the Corefile to port listened on; they differ where the file says 0."""
        self._given = client
        self._client: Any = None
        self._events: EventRecorder | None = None
        self._pages = Pages()
        self._ports: dict[int, Port] = {}
        self._chains: list[Chain] = []
        self._listeners: dict[int, list[Any]] = {}
        self._connections = listen.Connections()

    # --- life ---

    async def start(self, blocks: list[ServerBlock], ports: dict[int, int] | None = None) -> None:
        """Listen and answer. `ports` maps ports of the Corefile to others (0: any free one). Raises UserError."""
        zones, self._chains, binds = self._build(blocks)
        try:
            for port, addresses in binds.items():
                self._ports[port] = Port(zones[port], self.metrics, port)
                await self._listen(port, addresses, (ports or {}).get(port, port))
            await self._pages.start()
            for plugin in self.plugins():
                await plugin.start()
            if self._faults:
                self._following = asyncio.create_task(self._faults.run(), name="dns faults")
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
        for port in self._ports.values():
            await port.close()
        await self._pages.close()
        if self._following:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._stop(self._chains)
        if self._events:
            await self._events.close()
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
            built, bind = chain.build(block, self, (Faults(self._faults),) if self._faults else ())
            chains.append(built)
            for zone, port in block.keys:
                zones.setdefault(port, {})[zone] = built
                binds[port] = (*binds.get(port, ()), *(each for each in bind if each not in binds.get(port, ())))
        return zones, chains, binds

    async def _listen(self, port: int, addresses: tuple[str, ...], number: int) -> None:
        loop, answers = asyncio.get_running_loop(), self._ports[port]
        with namespaces.entered(self._netns):
            sockets = listen.open_sockets(addresses, number)
        self.ports[port] = sockets[0].getsockname()[1]
        group = self._listeners.setdefault(port, [])
        for sock in sockets:
            if sock.type == socket.SOCK_DGRAM:
                finished = answers.finished("udp", sock.getsockname()[0])
                group.append(listen.UdpListener(sock, answers.handle, finished))
            else:
                group.append(await loop.create_server(lambda: self._connection(answers), sock=sock))

    def _connection(self, answers: Port) -> listen.TcpConnection:
        return listen.TcpConnection(
            answers.handle, self._connections, lambda client: answers.finished("tcp", client[0])
        )

    # --- plugin.Host ---

    async def resolve(self, query: Query, port: int) -> Response:
        """See Host."""
        where = self._ports[port].route(query)
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

    def invalidate(self, changed: Collection[bytes] | None = None) -> None:
        """See Host."""
        for port in self._ports.values():
            port.invalidate(changed)

    def fail(self, cause: str) -> None:
        """See Host."""
        self.cause = self.cause or cause
        self.failed.set()

    def say(self, kind: str, reason: str, message: str) -> None:
        """See Host."""
        if self._client is None or self._pod is None:
            return
        if self._events is None:
            events = importlib.import_module("netemu.client.events")
            self._events = events.EventRecorder(self._client, "coredns")
        namespace, name = self._pod
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}}
        self._events.event(pod, kind, reason, message)

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
            self._ports[port] = Port({}, self.metrics, port)
            await self._listen(port, binds[port], port)
        plugins = [plugin for each in chains for plugin in each.plugins]
        self.metrics.forget("coredns_plugin_enabled")
        for plugin in plugins:
            await plugin.start()
        deadline = time.monotonic() + 5
        while not all(plugin.ready for plugin in plugins) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        old, self._chains = self._chains, chains
        for number, port_zones in zones.items():
            self._ports[number].zones = port_zones
        self.invalidate()
        for port in set(self._listeners) - set(binds):
            for listener in self._listeners.pop(port):
                listener.close()
            await self._ports.pop(port).close()
        await self._stop(old)


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


def check_corefile(text: str, file: str = "Corefile") -> None:
    """Raises UserError for what a server would refuse in a Corefile."""
    host = Server(None)
    for block in corefile.parse(text, file):
        chain.build(block, host)


async def run(
    corefile_path: Path,
    kubeconfig: Path | None = None,
    faults: tuple[str, str] | None = None,
    pod: tuple[str, str] | None = None,
    own_addresses: Sequence[str] = (),
) -> None:
    """`netemu dns`: serve a Corefile until SIGTERM or SIGINT. Raises UserError for what cannot be served.

    `faults` and `pod`: see Server. `own_addresses` are a NodeLocal DNSCache's, see `node_local.py`.
    """
    blocks = corefile.load(corefile_path)
    server = Server(corefile_path, kubeconfig, faults=faults, pod=pod)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    look_at_old_objects_seldom()
    try:
        async with _own(own_addresses, node_local.addresses_here):
            await server.start(blocks)
            log.info("dns: serving %s on %s", corefile_path, ", ".join(f":{port}" for port in server.ports.values()))
            async with _own(own_addresses, node_local.untracked):
                await _until_told(stop, server)
            await server.linger()
    finally:
        await server.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _own(
    addresses: Sequence[str], take: Callable[[Sequence[str]], AbstractAsyncContextManager[None]]
) -> AbstractAsyncContextManager[None]:
    return take(addresses) if addresses else contextlib.nullcontext()


async def _until_told(stop: asyncio.Event, server: Server) -> None:
    """Return when a signal came. Raises UserError where the server cannot go on."""
    waiters = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(server.failed.wait())]
    await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()
    if server.cause:
        raise UserError(server.cause)
