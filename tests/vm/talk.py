"""Connections that talk all the time, to find out whether anybody cuts one, or answers on it in another's stead."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from tests.kernel.proxy_bed import in_ns

Way = tuple[str, str, int]
"""Namespace of the client, address, port."""


class Talk:
    """Connections of all `ways`, on which `ask` puts questions in turn until it ends."""

    def __init__(self, ways: Mapping[str, Way], ask: Callable[[socket.socket], object], timeout: float = 10) -> None:
        self.answers: dict[str, set[object]] = {}
        """By connection. It cannot have two: who answers, and whom he sees, is part of the answer."""
        self.failed: dict[str, str] = {}
        self._ways, self._ask, self._timeout = ways, ask, timeout
        self._connections: dict[str, socket.socket] = {}
        self._rounds, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Talk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for connection in self._connections.values():
            connection.close()

    def open(self, when: str) -> None:
        """Connect on all ways, and wait until all connections, former ones too, have answered again."""
        for way, (namespace, address, port) in self._ways.items():
            made = in_ns(namespace, partial(socket.create_connection, (address, port), self._timeout))
            # A reset ends the connection at once, where a farewell would be remembered for two minutes.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connections[f"{way}, {when}, {len(self._connections)}"] = made
        self.more()

    def more(self) -> None:
        """Wait until every connection has been asked again."""
        wanted = self._rounds + 2
        while self._rounds < wanted and self._thread.is_alive():
            time.sleep(0.01)

    def complaints(self) -> dict[str, str]:
        """What went wrong, by connection."""
        changed = {name: f"several answers: {said}" for name, said in self.answers.items() if len(said) != 1}
        return changed | self.failed

    def _work(self) -> None:
        while not self._over.is_set():
            for name, connection in tuple(self._connections.items()):
                if name not in self.failed:
                    try:
                        self.answers.setdefault(name, set()).add(self._ask(connection))
                    except OSError as error:
                        self.failed[name] = repr(error)
            self._rounds += 1
            time.sleep(0.05)  # whoever changes things meanwhile needs the processor too
