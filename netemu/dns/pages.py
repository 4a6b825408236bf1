"""Status pages over HTTP: `/health`, `/ready`, `/metrics`.

A few lines of HTTP/1.0 instead of a web framework, whose import would take longer than everything else at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging

from netemu.dns.plugin import Page
from netemu.model.errors import UserError

log = logging.getLogger(__name__)
_PATIENCE = 5.0


class Pages:
    """Pages by address and path; several plugins may share an address."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[str, Page]] = {}
        self._servers: dict[str, asyncio.Server] = {}

    def add(self, address: str, path: str, page: Page) -> None:
        """Remember a page; it is served from `start` on."""
        self._pages.setdefault(address, {})[path] = page

    async def start(self) -> None:
        """Open the addresses. Raises UserError for one that cannot be had."""
        for address, pages in self._pages.items():
            host, _, port = address.rpartition(":")
            try:
                handler = functools.partial(_serve, pages)
                server = await asyncio.start_server(handler, host.strip("[]") or None, int(port))
            except (OSError, ValueError) as error:
                await self.close()
                raise UserError(f"cannot listen on {address} for {', '.join(pages)}: {error}") from error
            self._servers[address] = server

    async def close(self, path: str = "") -> None:
        """Close the addresses (only the one that has `path`)."""
        for address in list(self._servers):
            if not path or path in self._pages[address]:
                server = self._servers.pop(address)
                server.close()
                await server.wait_closed()

    def port_of(self, path: str) -> int:
        """The port that a page is served on."""
        for address, server in self._servers.items():
            if path in self._pages[address]:
                port: int = server.sockets[0].getsockname()[1]
                return port
        raise KeyError(path)


async def _serve(pages: dict[str, Page], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            words = head.split(b"\r\n", 1)[0].split()
            path = words[1].decode("latin-1").split("?")[0] if len(words) == 3 else ""
            status, body = pages[path]() if path in pages else (404, "404 page not found\n")
            reason = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[status]
            data = body.encode()
            writer.write(
                f"HTTP/1.0 {status} {reason}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
