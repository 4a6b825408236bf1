"""The clients of `bench api`: as little work per request as a client can have, for they share the server's cores.

They speak HTTP/1.1 over TLS as the cluster's administrator, each on a connection of its own, one request after the
other. A process serves several of them, and what they will ask is written down before the clock starts. Times are of
the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from netemu.client.kubeconfig import load_kubeconfig

WATCHED = "/api/v1/namespaces/default/configmaps"
_SENT = re.compile(rb'"sent":"(\d+)"')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_PIECE = 1 << 20
_PATIENCE = 60.0


class Connection:
    """One connection to the API server."""

    def __init__(self, kubeconfig: Path) -> None:
        url, context = _server(kubeconfig)
        self._host = url.netloc
        plain = socket.create_connection((url.hostname, url.port), timeout=_PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=url.hostname)

    def ask(self, method: str, path: str, body: object = None) -> int:
        """One request; how many bytes the answer's body has."""
        self.send(self.request(method, path, body))
        return self.answered()

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """A request as it is sent."""
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: application/json\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    def send(self, request: bytes) -> None:
        """Send a request, and do not wait for the answer."""
        self.socket.sendall(request)

    def answered(self) -> int:
        """Read the answer to a request; how many bytes its body has. Anything but success ends the measuring."""
        data = self._received()
        while b"\r\n\r\n" not in data:
            data += self._received()
        head, _, rest = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise SystemExit(f"the API server refuses a request: {data[:500].decode(errors='replace')}")
        found = _LENGTH.search(head)
        assert found is not None
        size = int(found[1])
        missing = size - len(rest)
        while missing > 0:
            missing -= len(self._received())
        return size

    def _received(self) -> bytes:
        data = self.socket.recv(_PIECE)
        if not data:
            raise SystemExit("the API server closed a connection")
        return data


@cache
def _server(kubeconfig: Path) -> tuple[SplitResult, ssl.SSLContext]:
    credentials = load_kubeconfig(kubeconfig)
    context = credentials.ssl_context()
    assert context is not None
    return urlsplit(credentials.server), context


def create(
    kubeconfig: Path, path: str, make: Callable[[int], dict[str, Any]], numbers: range, clients: int
) -> tuple[float, float]:
    """Create objects, each client one after the other; when the first began and the last was answered."""
    connections = [Connection(kubeconfig) for _ in range(clients)]
    requests = iter([connections[0].request("POST", path, make(number)) for number in numbers])
    begin = time.monotonic()
    with selectors.DefaultSelector() as waiting:
        for connection, request in zip(connections, requests, strict=False):
            connection.send(request)
            waiting.register(connection.socket, selectors.EVENT_READ, connection)
        while waiting.get_map():
            for key, _ in waiting.select(_PATIENCE):
                key.data.answered()
                if request := next(requests, b""):
                    key.data.send(request)
                else:
                    waiting.unregister(key.fileobj)
    return begin, time.monotonic()


def fetch(kubeconfig: Path, path: str) -> float:
    """Seconds from asking until the last byte of the answer."""
    connection = Connection(kubeconfig)
    begin = time.monotonic()
    connection.ask("GET", path)
    return time.monotonic() - begin


def write(kubeconfig: Path, name: str, times: int, pause: float) -> None:
    """Write an object again and again, each time with the moment at which it is sent."""
    connection = Connection(kubeconfig)
    for _ in range(times):
        body = {"metadata": {"name": name}, "data": {"sent": str(time.monotonic_ns())}}
        connection.ask("PUT", f"{WATCHED}/{name}", body)
        time.sleep(pause)


def watch(kubeconfig: Path, name: str, watchers: int, writes: int, ready: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of every write to every watcher, by write; `ready` is told once all watch."""
    selector, heads, took = selectors.DefaultSelector(), 0, dict[int, list[float]]()
    connections = [Connection(kubeconfig) for _ in range(watchers)]
    for connection in connections:
        connection.send(connection.request("GET", f"{WATCHED}?watch=true&fieldSelector=metadata.name%3D{name}"))
        connection.socket.setblocking(False)
        selector.register(connection.socket, selectors.EVENT_READ, bytearray())
    while (missing := watchers * writes - sum(map(len, took.values()))) > 0:
        selected = selector.select(_PATIENCE)
        if not selected:
            raise SystemExit(f"{missing} events have not come within {_PATIENCE:.0f} s")
        for key, _ in selected:
            data, waiting = _read(key.fileobj), key.data
            now = time.monotonic_ns()
            waiting += data
            *lines, rest = bytes(waiting).split(b"\n")
            waiting[:] = rest
            for line in lines:
                if found := _SENT.search(line):
                    sent = int(found[1])
                    took.setdefault(sent, []).append((now - sent) / 1e6)
                elif b'"ADDED"' in line:
                    heads += 1
                    if heads == watchers:
                        ready()
    return list(took.values())


def _read(source: Any) -> bytes:
    data = b""
    try:
        while piece := source.recv(_PIECE):
            data += piece
    except (ssl.SSLWantReadError, BlockingIOError):
        return data
    raise SystemExit("the API server ended a watch")
