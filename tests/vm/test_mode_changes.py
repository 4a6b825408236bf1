"""Changes of mode to and from ipvs with connections that talk all the time: none of them may notice."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from netemu.kernel.ipvs import IpvsNetlink
from tests.kernel.proxy_bed import (
    CLIENT,
    NODE,
    NODE_OUTSIDE,
    ask,
    build,
    destroy,
    echoes,
    endpoint_ns,
    in_ns,
    sh,
    who_answers,
)
from tests.vm.ipvs_bed import EVERY, HERE, NODE_PORT, VIP, api_with, node, off, proxy, until

BALANCER = "1.2.3.4"
WAYS = {
    "outside to ClusterIP": (CLIENT, VIP, 80),
    "outside to node port": (CLIENT, NODE_OUTSIDE, NODE_PORT),
    "outside to load balancer": (CLIENT, BALANCER, 80),
    "Pod to ClusterIP": (endpoint_ns(1), VIP, 80),
    "node to ClusterIP": (NODE, VIP, 80),
    "node to node port": (NODE, NODE_OUTSIDE, NODE_PORT),
}


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build()
    try:
        yield
    finally:
        destroy()


class Talk:
    """Connections of all ways, three of each, on which questions are asked in turn until it ends."""

    def __init__(self) -> None:
        self.answers: dict[str, set[tuple[str, str]]] = {}
        """By connection: who answered, and whom it saw; more than one would be a miracle."""
        self.failed: dict[str, str] = {}
        self.rounds = 0
        self._connections: dict[str, socket.socket] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Talk:
        for way, (namespace, address, port) in WAYS.items():
            for number in range(3):
                made = in_ns(namespace, partial(socket.create_connection, (address, port), 10))
                # A reset ends the connection at once, where a farewell would be remembered for two minutes.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._connections[f"{way}, {number}"] = made
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for connection in self._connections.values():
            connection.close()

    def _work(self) -> None:
        while not self._over.is_set():
            for name, connection in self._connections.items():
                if name not in self.failed:
                    try:
                        self.answers.setdefault(name, set()).add(ask(connection))
                    except OSError as error:
                        self.failed[name] = repr(error)
            self.rounds += 1

    def more(self) -> None:
        """Wait until every connection has been asked again."""
        wanted = self.rounds + 2
        while self.rounds < wanted and self._thread.is_alive():
            time.sleep(0.01)


def servers() -> int:
    kernel = IpvsNetlink(NODE)
    try:
        return len(kernel.servers())
    finally:
        kernel.close()


@pytest.mark.parametrize(
    "modes",
    [
        ("ipvs", "iptables"),
        ("ipvs", "nftables"),
        ("iptables", "ipvs"),
        ("nftables", "ipvs"),
        ("ipvs", "iptables", "ipvs", "nftables"),
    ],
    ids="-".join,
)
async def test_no_connection_notices(tmp_path: Path, modes: Sequence[str]) -> None:
    api = api_with(HERE)
    with echoes():
        async with proxy(api, tmp_path, annotated=True, mode=modes[0]) as server:
            with Talk() as talk:
                await off(talk.more)
                for mode in modes[1:]:
                    api.put(node(mode))
                    await until(lambda: server.mode, mode.__eq__)
                    await off(talk.more)
                    for namespace, address, port in WAYS.values():
                        assert (await off(who_answers, namespace, address, port, 12)).keys() <= EVERY
                await off(talk.more)
            if modes[-1] != "ipvs":
                await until(servers, lambda count: count == 0)
                assert "kube-ipvs0" not in sh(NODE, "ip", "link")

    assert talk.failed == {}
    assert {len(answers) for answers in talk.answers.values()} == {1}
