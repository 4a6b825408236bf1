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
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netemu.dns import chain, corefile, listen, node_local, wire
from netemu.dns.chain import Chain
from netemu.dns.corefile import ServerBlock
from netemu.dns.faults import Faults, FaultTable
from netemu.dns.metrics import Metrics
from netemu.dns.pages import Pages, PagesByAddress, split_address
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

_Zones = dict[int, dict[str, dict[bytes, Chain]]]
"""Who answers, by port, address (empty: all) and zone."""


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
        self._wanted_pages: PagesByAddress = {}
        self._zones: _Zones = {}
        self._places: dict[tuple[int, str], str] = {}
        """Where the Corefile asks for a port and an address, as FILE:LINE."""
        self._ports: dict[int, dict[str, Port]] = {}
        """By port and address (empty: all that no other server block is bound to)."""
        self._chains: list[Chain] = []
        self._listeners: dict[int, list[Any]] = {}
        self._connections = listen.Connections()

    # --- life ---

    async def start(self, blocks: list[ServerBlock], ports: dict[int, int] | None = None) -> None:
        """Listen and answer. `ports` maps ports of the Corefile to others (0: any free one). Raises UserError."""
        zones, self._chains = self._build(blocks)
        try:
            self.ports = dict(ports or {})
            await self._listen(zones)
            self._route(zones)
            await self._pages.serve(self._wanted_pages)
            await self._begin(self._chains)
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
        for answers in self._answering():
            await answers.close()
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
    async def _begin(chains: list[Chain]) -> None:
        for plugin in (plugin for each in chains for plugin in each.plugins):
            await plugin.start()

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

    def _build(self, blocks: list[ServerBlock]) -> tuple[_Zones, list[Chain]]:
        self._wanted_pages = {}
        zones: _Zones = {}
        chains = []
        for block in blocks:
            built, bind = chain.build(block, self, (Faults(self._faults),) if self._faults else ())
            chains.append(built)
            place = next((each for each in block.directives if each.name == "bind"), block)
            for zone, port in block.keys:
                for address in bind or ("",):
                    self._places[port, address] = f"{place.file}:{place.line}"
                    zones.setdefault(port, {}).setdefault(address, {})[zone] = built
        return zones, chains

    async def _listen(self, wanted: Mapping[int, Collection[str]]) -> None:
        """Open what is not open yet. A port whose addresses change is closed for a moment. Raises UserError."""
        for port, addresses in wanted.items():
            answers = self._ports.setdefault(port, {})
            if port in self._listeners and set(addresses) == set(answers):
                continue
            self._leave(port)
            number = self.ports.get(port, port)
            try:
                with namespaces.entered(self._netns):
                    sockets = listen.open_sockets(tuple(addresses), number)
            except listen.ListenError as error:
                raise UserError(f"{self._places[port, error.address]}: {error}") from error
            self.ports[port] = sockets[0].getsockname()[1]
            self._ports[port] = {each: answers.get(each) or Port({}, self.metrics, port) for each in addresses}
            self._listeners[port] = [await self._listener(port, sock) for sock in sockets]
            for gone in set(answers) - set(addresses):
                await answers[gone].close()

    async def _listener(self, port: int, sock: socket.socket) -> Any:
        address, answers = sock.getsockname()[0], self._ports[port]
        chosen = answers[address if address in answers else ""]
        if sock.type == socket.SOCK_DGRAM:
            return listen.UdpListener(sock, chosen.handle, chosen.finished("udp", address))
        return await asyncio.get_running_loop().create_server(lambda: self._connection(chosen), sock=sock)

    def _leave(self, port: int) -> None:
        for listener in self._listeners.pop(port, ()):
            listener.close()

    def _route(self, zones: _Zones) -> None:
        for port, answers in self._ports.items():
            for address, each in answers.items():
                each.zones = zones.get(port, {}).get(address, {})
        self._zones = zones

    def _answering(self) -> list[Port]:
        return [answers for group in self._ports.values() for answers in group.values()]

    def _connection(self, answers: Port) -> listen.TcpConnection:
        return listen.TcpConnection(
            answers.handle, self._connections, lambda client: answers.finished("tcp", client[0])
        )

    # --- plugin.Host ---

    async def resolve(self, query: Query, port: int) -> Response:
        """See Host."""
        found = [where for answers in self._ports[port].values() if (where := answers.route(query))]
        if not found:
            return Response(wire.REFUSED, aa=False)
        return await max(found, key=lambda where: len(where[0]))[1].serve(query)

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
        for answers in self._answering():
            answers.invalidate(changed)

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
        split_address(address)
        self._wanted_pages.setdefault(address, {})[path] = page

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
        pages, chains = self._wanted_pages, list[Chain]()
        try:
            zones, chains = self._build(corefile.load(self.corefile))
            await self._listen(zones)
            await self._pages.serve(self._wanted_pages)
            self.metrics.forget("coredns_plugin_enabled")
            await self._begin(chains)
        except NetemuError:
            self.metrics.add("coredns_reload_failed_total")
            await self._stop(chains)
            self._wanted_pages = pages
            await self._pages.serve(pages)
            await self._listen(self._zones)
            await self._end_ports(self._zones)
            self._route(self._zones)
            raise
        await self._ready(chains)
        old, self._chains = self._chains, chains
        self._route(zones)
        self.invalidate()
        await self._end_ports(zones)
        await self._stop(old)

    async def _ready(self, chains: list[Chain]) -> None:
        plugins = [plugin for each in chains for plugin in each.plugins]
        deadline = time.monotonic() + 5
        while not all(plugin.ready for plugin in plugins) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _end_ports(self, wanted: Collection[int]) -> None:
        for port in set(self._ports) - set(wanted):
            self._leave(port)
            for answers in self._ports.pop(port).values():
                await answers.close()


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
