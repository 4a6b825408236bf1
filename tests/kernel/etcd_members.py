"""A real etcd cluster on loopback ports, whose members can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_PATIENCE = 20.0


class Members:
    """The members of one cluster, by number."""

    def __init__(self, folder: Path, count: int, tls: Sequence[str] = ()) -> None:
        """`tls`: etcd's flags that name certificates, of clients and of peers."""
        if not shutil.which("etcd"):
            pytest.fail(
                "etcd is not installed: `scripts/test kernel` as root does it, or `apt-get install etcd-server`"
            )
        ports = _free_ports(2 * count)
        scheme = "https" if tls else "http"
        self.endpoints = [f"{scheme}://127.0.0.1:{port}" for port in ports[:count]]
        self._peers = [f"{scheme}://127.0.0.1:{port}" for port in ports[count:]]
        self._folder, self._tls = folder, tls
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int) -> None:
        """Start a member that is not running, on its old data."""
        name, peer, client = f"m{number}", self._peers[number], self.endpoints[number]
        cluster = ",".join(f"m{other}={url}" for other, url in enumerate(self._peers))
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[number] = subprocess.Popen(
                [
                    "etcd", "--name", name, "--data-dir", str(self._folder / name), "--logger", "zap",
                    "--listen-client-urls", client, "--advertise-client-urls", client,
                    "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                    "--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "500",
                    *self._tls,
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self, number: int) -> None:
        """kill -9."""
        process = self._running.pop(number)
        process.kill()
        process.wait()

    def freeze(self, number: int) -> None:
        """Stop a member without closing its connections, as a hung machine would."""
        os.kill(self._running[number].pid, signal.SIGSTOP)

    def wait_healthy(self, number: int) -> None:
        """Until a member without TLS serves and knows a leader."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.endpoints[number]}/health", timeout=1) as answer:
                    if b'"true"' in answer.read():
                        return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"member {number} is not healthy: {(self._folder / f'm{number}.log').read_text()[-2000:]}")

    def close(self) -> None:
        """Kill all."""
        for number in tuple(self._running):
            self.kill(number)


@contextmanager
def members(folder: Path, count: int, tls: Sequence[str] = ()) -> Iterator[Members]:
    """A cluster, killed afterwards; without TLS it is healthy from the beginning."""
    cluster = Members(folder, count, tls)
    try:
        for number in range(count):
            cluster.start(number)
        for number in () if tls else range(count):
            cluster.wait_healthy(number)
        yield cluster
    finally:
        cluster.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()
