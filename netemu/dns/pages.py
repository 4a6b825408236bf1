"""Status pages over HTTP: `/health`, `/ready`, `/metrics`.

A few lines of HTTP/1.0 instead of a web framework, whose import would take longer than everything else at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Collection

from netemu.dns.plugin import Page
from netemu.model.errors import UserError

log = logging.getLogger(__name__)
_PATIENCE = 5.0


PagesByAddress = dict[str, dict[str, Page]]
"""Pages by address and path; several plugins may share an address."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `:8080`, `127.0.0.1:8080` or `[::1]:8080`. Raises ValueError.

    >>> split_address("[::1]:8080")
    ('::1', 8080)
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not an address like :8080")
    return host.strip("[]"), int(port)


class Pages:
    """The pages that are served now."""

    def __init__(self) -> None:
        self._pages: PagesByAddress = {}
        self._servers: dict[str, asyncio.Server] = {}

    async def serve(self, pages: PagesByAddress) -> None:
        """Serve these and no others. An address that stays is not closed in between, and nothing changes if a new one
        cannot be had: raises UserError."""
        opened: dict[str, asyncio.Server] = {}
        for address in set(pages) - set(self._servers):
            host, port = split_address(address)
            handler = functools.partial(self._answer, address)
            try:
                opened[address] = await asyncio.start_server(handler, host or None, port)
            except OSError as error:
                for server in opened.values():
                    server.close()
                raise UserError(f"cannot listen on {address} for {', '.join(pages[address])}: {error}") from error
        self._servers |= opened
        self._pages = pages
        await self._close(set(self._servers) - set(pages))

    async def close(self, path: str = "") -> None:
        """Close the addresses (only the one that has `path`)."""
        await self._close({address for address in self._servers if not path or path in self._pages[address]})

    async def _close(self, addresses: Collection[str]) -> None:
        for address in addresses:
            server = self._servers.pop(address)
            server.close()
            await server.wait_closed()

    async def _answer(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _serve(self._pages.get(address, {}), reader, writer)

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
