"""Where the API server's own connections begin: to kubelets, and to the Pods and Services that it is a proxy to.

An API server is on a node and reaches what that node reaches. A lab's runs outside of the node's network namespace, so
each of its sockets is opened inside. Kubelets are asked over TLS with the API server's own client certificate; whom it
proxies to shows no certificate that could be checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp

from netemu.client.upgrade import Answer, ask
from netemu.kernel import netns
from netemu.model.hosts import endpoint_text

_PATIENCE = 10.0
"""Seconds in which a connection must come about."""


@dataclass(frozen=True, slots=True)
class Location:
    """A server. `verified`: it must show a certificate of the cluster's authority, as kubelets do."""

    scheme: str
    host: str
    port: int
    verified: bool = False

    @property
    def authority(self) -> str:
        """HOST:PORT, as URLs have it."""
        return endpoint_text(self.host, self.port)


class Reach:
    """Opens connections in a network namespace (by name; "" for the process's own)."""

    def __init__(self, namespace: str = "", kubelet_tls: ssl.SSLContext | None = None) -> None:
        self._namespace, self._kubelet_tls = namespace, kubelet_tls
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """For plain requests. Use `tls` with it."""
        if self._session is None:
            # One connection per request: Pods come and go, and addresses with them.
            connector = aiohttp.TCPConnector(socket_factory=self._socket, limit=0, force_close=True)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    def may_proxy_to(self, address: str) -> bool:
        """Whether it is somebody's own address: nobody is led to what listens on this machine's loopback."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return not (found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified)

    def tls(self, where: Location) -> ssl.SSLContext | bool:
        """What aiohttp takes as `ssl` for that server: the kubelets' context, or no checks."""
        return self._kubelet_tls if where.verified and self._kubelet_tls is not None else False

    async def upgrade(self, where: Location, method: str, path: str, headers: Iterable[tuple[str, str]]) -> Answer:
        """Ask for an upgrade over a connection of its own. Raises OSError, TimeoutError, EOFError."""
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        sock = netns.open_socket(self._namespace, family, socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.get_running_loop().sock_connect(sock, (where.host, where.port))
                options: dict[str, Any] = {}
                if where.scheme == "https":
                    options = {"ssl": self.tls(where) or _unchecked(), "server_hostname": where.host}
                reader, writer = await asyncio.open_connection(sock=sock, **options)
        except BaseException:
            sock.close()
            raise
        try:
            return await ask(reader, writer, method, path, headers)
        except BaseException:
            writer.close()
            raise

    def _socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        return netns.open_socket(self._namespace, family, kind, protocol)


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
