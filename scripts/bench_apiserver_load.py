"""The clients of `bench api`, each in a process of its own: as little work per request as a client can have.

They speak HTTP/1.1 over TLS as the cluster's administrator, one request after the other on one connection. Times are
of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from netemu.client.kubeconfig import load_kubeconfig

WATCHED = "/api/v1/namespaces/default/configmaps"
_SENT = re.compile(rb'"sent":"(\d+)"')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_PIECE = 1 << 20
_PATIENCE = 30.0


class Connection:
    """One connection to the API server."""

    def __init__(self, kubeconfig: Path) -> None:
        credentials = load_kubeconfig(kubeconfig)
        url = urlsplit(credentials.server)
        self._head = f"Host: {url.netloc}\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        plain = socket.create_connection((url.hostname, url.port), timeout=_PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = credentials.ssl_context()
        assert context is not None
        self.socket = context.wrap_socket(plain, server_hostname=url.hostname)

    def ask(self, method: str, path: str, body: object = None) -> int:
        """One request; how many bytes the answer's body has. Anything but success ends the measuring."""
        self.send(method, path, body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._received()
        head, _, rest = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise SystemExit(f"{method} {path}: {data[:500].decode(errors='replace')}")
        found = _LENGTH.search(head)
        assert found is not None
        size = int(found[1])
        missing = size - len(rest)
        while missing > 0:
            missing -= len(self._received())
        return size

    def send(self, method: str, path: str, body: object = None) -> None:
        """A request whose answer somebody else reads."""
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        self.socket.sendall(
            f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        )

    def _received(self) -> bytes:
        data = self.socket.recv(_PIECE)
        if not data:
            raise SystemExit("the API server closed a connection")
        return data


def create(kubeconfig: Path, path: str, make: Callable[[int], dict[str, Any]], numbers: range) -> tuple[float, float]:
    """Create objects one after the other; when the first began and the last was answered."""
    connection = Connection(kubeconfig)
    begin = time.monotonic()
    for number in numbers:
        connection.ask("POST", path, make(number))
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


def watch(kubeconfig: Path, name: str, watchers: int, writes: int, ready: Callable[[], object]) -> list[float]:
    """Milliseconds of every write to every watcher; `ready` is told once all watch."""
    selector, heads, took = selectors.DefaultSelector(), 0, list[float]()
    connections = [Connection(kubeconfig) for _ in range(watchers)]
    for connection in connections:
        connection.send("GET", f"{WATCHED}?watch=true&fieldSelector=metadata.name%3D{name}")
        connection.socket.setblocking(False)
        selector.register(connection.socket, selectors.EVENT_READ, bytearray())
    while len(took) < watchers * writes:
        selected = selector.select(_PATIENCE)
        if not selected:
            raise SystemExit(f"{watchers * writes - len(took)} events have not come within {_PATIENCE:.0f} s")
        for key, _ in selected:
            data, waiting = _read(key.fileobj), key.data
            now = time.monotonic_ns()
            waiting += data
            *lines, rest = bytes(waiting).split(b"\n")
            waiting[:] = rest
            for line in lines:
                if found := _SENT.search(line):
                    took.append((now - int(found[1])) / 1e6)
                elif b'"ADDED"' in line:
                    heads += 1
                    if heads == watchers:
                        ready()
    return took


def _read(source: Any) -> bytes:
    data = b""
    try:
        while piece := source.recv(_PIECE):
            data += piece
    except (ssl.SSLWantReadError, BlockingIOError):
        return data
    raise SystemExit("the API server ended a watch")
