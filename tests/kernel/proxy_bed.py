"""A node, a client outside and endpoints behind it, as namespaces of their own; and an API of a few objects.

client 203.0.113.9 --- 203.0.113.1 node 10.180.0.254 --- 10.180.0.N endpoint-N
(the node also has 192.168.0.2 on its loopback, and a default route to nowhere)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from netemu.client.base import ObjectList, WatchEvent
from netemu.kernel import netns
from netemu.model.meta import KubeObject
from netemu.model.objects import EndpointSlice, Service, ServiceCIDR
from netemu.model.resources import EVENTS, Resource
from netemu.proxy.config import KubeProxyConfiguration, parse
from netemu.proxy.server import ProxyServer
from netemu.proxy.services import Family

PREFIX = f"t-proxy{os.getpid()}-"
NODE, CLIENT = PREFIX + "node", PREFIX + "client"
CLIENT_IP, NODE_IP, NODE_OUTSIDE = "203.0.113.9", "192.168.0.2", "203.0.113.1"


def endpoint_ns(index: int) -> str:
    """Namespace of endpoint 10.180.0.INDEX."""
    return f"{PREFIX}ep{index}"


def sh(namespace: str, *argv: str, check: bool = True, text: str = "") -> str:
    """Run a tool in a namespace."""
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *argv], capture_output=True, text=True, input=text, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def build(endpoints: int = 3) -> None:
    """Namespaces, links, routes."""
    script = f"""
        link add out type veth peer name eth0 netns {CLIENT}
        addr add {NODE_OUTSIDE}/24 dev out
        addr add {NODE_IP}/32 dev lo
        link set lo up
        link set out up
        link add up0 type veth peer name up1
        addr add 198.51.100.1/24 dev up0
        link set up0 up
        link set up1 up
        route add default via 198.51.100.2
    """
    for name in (NODE, CLIENT, *map(endpoint_ns, range(1, endpoints + 1))):
        netns.create(name)
    for index in range(1, endpoints + 1):
        script += f"""
        link add ep{index} type veth peer name eth0 netns {endpoint_ns(index)}
        addr add 10.180.0.254/32 dev ep{index}
        link set ep{index} up
        route add 10.180.0.{index}/32 dev ep{index}
        """
    _ip(NODE, script)
    sh(NODE, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    _ip(
        CLIENT,
        f"addr add {CLIENT_IP}/24 dev eth0\nlink set lo up\nlink set eth0 up\nroute add default via {NODE_OUTSIDE}",
    )
    for index in range(1, endpoints + 1):
        _ip(
            endpoint_ns(index),
            f"""addr add 10.180.0.{index}/32 dev eth0
            link set lo up
            link set eth0 up
            route add 10.180.0.254/32 dev eth0
            route add default via 10.180.0.254 dev eth0""",
        )


def _ip(namespace: str, script: str) -> None:
    done = subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def destroy() -> None:
    """Everything of `build`."""
    for name in netns.names():
        if name.startswith(PREFIX):
            netns.delete(name)


def in_ns(namespace: str, make: Callable[[], socket.socket]) -> socket.socket:
    """A socket that belongs to a namespace."""
    with netns.entered(namespace):
        return make()


class Echo:
    """TCP and UDP servers in an endpoint: they answer `ADDRESS of the endpoint|address of the client`."""

    def __init__(self, index: int, port: int = 8080) -> None:
        self.name = f"10.180.0.{index}"
        self._tcp = in_ns(endpoint_ns(index), lambda: socket.create_server((self.name, port)))
        self._udp = in_ns(endpoint_ns(index), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind((self.name, port))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._accept, self._datagrams)]
        for thread in self._threads:
            thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = self._tcp.accept()
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection, peer[0]), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(100):
                connection.sendall(f"{self.name}|{peer}".encode())

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, peer = self._udp.recvfrom(100)
                if not peer:  # shut down
                    return
                self._udp.sendto(f"{self.name}|{peer[0]}".encode(), peer)

    def close(self) -> None:
        """Stop and wait."""
        for sock in (self._tcp, self._udp, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(2)


def talk(namespace: str, to: str, port: int, *, protocol: str = "tcp", source_port: int = 0) -> tuple[str, str]:
    """(who answered, whom it saw). Raises ConnectionRefusedError, TimeoutError."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with in_ns(namespace, lambda: socket.socket(socket.AF_INET, kind)) as sock:
        sock.settimeout(1.5)
        if source_port:
            sock.bind(("", source_port))
        sock.connect((to, port))
        return ask(sock)


def ask(sock: socket.socket) -> tuple[str, str]:
    """One question over a connected socket."""
    sock.send(b"who")
    who, _, seen = sock.recv(100).decode().partition("|")
    return who, seen


def who_answers(namespace: str, to: str, port: int, count: int = 40, *, protocol: str = "tcp") -> Counter[str]:
    """How often each endpoint answered."""
    return Counter(talk(namespace, to, port, protocol=protocol)[0] for _ in range(count))


class Api:
    """A `Client` that lists and watches objects put into it, and keeps Events. Only what a proxy uses."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._objects: dict[str, dict[str, dict[str, Any]]] = {}
        self._watches: dict[str, list[asyncio.Queue[WatchEvent | None]]] = {}
        self.revision = 1

    def put(self, obj: KubeObject) -> str:
        """Add or replace; returns the revision."""
        self.revision += 1
        body = msgspec.to_builtins(obj)
        body["metadata"]["resourceVersion"] = str(self.revision)
        held = self._objects.setdefault(_plural(obj), {})
        self._tell(_plural(obj), WatchEvent("MODIFIED" if obj.key in held else "ADDED", body))
        held[obj.key] = body
        return str(self.revision)

    def drop(self, obj: KubeObject) -> str:
        """Delete; returns the revision."""
        self.revision += 1
        body = self._objects[_plural(obj)].pop(obj.key)
        gone = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.revision)}}
        self._tell(_plural(obj), WatchEvent("DELETED", gone))
        return str(self.revision)

    def _tell(self, plural: str, event: WatchEvent) -> None:
        for queue in self._watches.get(plural, ()):
            queue.put_nowait(event)

    async def create(self, resource: Resource, obj: Mapping[str, Any], namespace: str = "") -> Mapping[str, Any]:
        assert resource == EVENTS
        self.events.append(dict(obj))
        return obj

    async def list(self, resource: Resource, namespace: str = "", **_: str) -> ObjectList:
        return ObjectList(list(self._objects.get(resource.plural, {}).values()), str(self.revision))

    async def watch(self, resource: Resource, namespace: str = "", **_: str) -> AsyncGenerator[WatchEvent, None]:
        queue: asyncio.Queue[WatchEvent | None] = asyncio.Queue()
        self._watches.setdefault(resource.plural, []).append(queue)
        while (event := await queue.get()) is not None:
            yield event


def _plural(obj: KubeObject) -> str:
    kinds: dict[type, str] = {Service: "services", EndpointSlice: "endpointslices", ServiceCIDR: "servicecidrs"}
    return kinds.get(type(obj), "nodes")


def configuration(**fields: Any) -> KubeProxyConfiguration:
    """Fast and for the Pods of the bed."""
    return parse(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clusterCIDR": "10.180.0.0/16",
            "iptables": {"minSyncPeriod": "1ms"},
            "nftables": {"minSyncPeriod": "1ms"},
            **fields,
        }
    )


@contextlib.asynccontextmanager
async def proxy(
    api: Api,
    state_dir: Path,
    *,
    mode_annotation: str = "",
    families: Sequence[Family] = (Family.IPV4,),
    patience: float = 10,
    **fields: Any,
) -> AsyncIterator[ProxyServer]:
    """A running kube-proxy of the node, past its first sync, which may take `patience` seconds."""
    server = ProxyServer(
        api,  # type: ignore[arg-type]
        configuration(**fields),
        node_name="test-node",
        netns=NODE,
        state_dir=state_dir,
        families=families,
        mode_annotation=mode_annotation,
    )
    task = asyncio.create_task(server.run())
    waiting = asyncio.create_task(server.until())
    await asyncio.wait({task, waiting}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    try:
        assert waiting.done(), f"no first sync: {server.programmed}"
        yield server
    finally:
        waiting.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def echoes(count: int = 3) -> Iterator[list[Echo]]:
    """Servers in the first endpoints."""
    servers = [Echo(index) for index in range(1, count + 1)]
    try:
        yield servers
    finally:
        for server in servers:
            server.close()
