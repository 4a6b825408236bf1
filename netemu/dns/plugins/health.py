"""`health [ADDRESS] { lameduck DURATION }`: `/health` says OK as long as the process lives.

`lameduck` keeps the server answering for that long after it was told to stop, while `/ready` is closed already, so that
nobody is sent here any more by the time it ends. The page is asked for once a second by the plugin itself, and how long
that took is a metric: a process that has too little time shows there first. The address is `:8080` by default
(`coredns/plugin/health`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Host, Plugin

_EVERY, _PATIENCE = 1.0, 5.0
_REQUEST = b"GET /health HTTP/1.0\r\n\r\n"


class Health(Plugin):
    """A page, how long to linger, and a watch on the page."""

    def __init__(self, host: Host, address: str) -> None:
        self.host = host
        name, _, port = address.rpartition(":")
        self._where = (name.strip("[]") or "127.0.0.1", int(port) if port.isdecimal() else 0)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See Plugin."""
        if self._where[1]:
            self._task = asyncio.create_task(self._watch(), name="dns health")

    async def close(self) -> None:
        """See Plugin."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        metrics = self.host.metrics
        while True:
            await asyncio.sleep(_EVERY)
            began = time.monotonic()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._ask()
            except (OSError, TimeoutError):
                metrics.add("coredns_health_request_failures_total")
            metrics.histogram("coredns_health_request_duration_seconds").add(time.monotonic() - began)

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_connection(*self._where)
        try:
            writer.write(_REQUEST)
            await reader.read()
        finally:
            writer.close()


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    address = directive.one("an address like :8080") if directive.args else ":8080"
    plugin = Health(block.host, address)
    for option in directive.options:
        if option.name != "lameduck":
            raise option.unknown(("lameduck",))
        plugin.lameduck = option.duration()
    block.host.page(address, "/health", lambda: (200, "OK"))
    return plugin
