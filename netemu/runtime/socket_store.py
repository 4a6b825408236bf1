"""Where listening sockets are kept while the process that serves them is away.

A socket lives as long as any process has it open. Whoever holds a second descriptor of an emulated container's socket
therefore keeps the port open when the runtime's process dies: connections queue in the backlog and datagrams in the
buffer until a new process takes the socket and serves on. systemd does the same for services (`FDSTORE`).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol


def socket_name(container_id: str, sock_type: str, port: int) -> str:
    """What a socket is kept under; `sock_type` is `tcp4`, `tcp6`, `udp4` or `udp6`."""
    return f"{container_id}/{sock_type}/{port}"


def container_of(name: str) -> str:
    """The id of the container whose socket has that name."""
    return name.partition("/")[0]


class SocketStore(Protocol):
    """Somebody who keeps sockets."""

    def keep(self, name: str, sock: socket.socket) -> None:
        """Hold the socket open from now on, until `forget`, whatever becomes of this process. Never fails: where it
        cannot be kept, it ends with this process."""
        ...

    def take(self, name: str) -> socket.socket | None:
        """A socket that an earlier process kept, once; the store goes on keeping it."""
        ...

    async def forget(self, names: Sequence[str]) -> None:
        """Hold these no longer; when it returns they are closed there. Unknown names are fine."""
        ...


class NoSocketStore:
    """Keeps nothing: sockets end with their process."""

    def keep(self, name: str, sock: socket.socket) -> None:
        """See SocketStore."""

    def take(self, name: str) -> socket.socket | None:
        """See SocketStore."""
        return None

    async def forget(self, names: Sequence[str]) -> None:
        """See SocketStore."""
