"""`loop`: find out at start whether forwarded questions come back, and stop the server if they do.

A question with a random name goes to this server itself. Seen once it came from us; seen more than twice it was sent
back by an upstream, and every client's question would circle until all sockets are taken (`coredns/plugin/loop`).

Any reply ends the search, a failure too: with an upstream that refuses, each further question would be a line in the
log.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Refuse, Result
from netemu.dns.upstream import UpstreamError
from netemu.dns.wire import Query

_FOR = 30.0
"""Seconds after the start during which a loop is looked for."""
_PATIENCE = 2.0
"""Seconds after which a reply counts as none, as for CoreDNS's client."""
_PAUSE = 2.0
"""Seconds before the next question."""


class Loop(Plugin):
    """Asks and counts."""

    def __init__(self, block: Block) -> None:
        self.block, self.seen = block, 0
        self.question = b""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See Plugin."""
        self._task = asyncio.create_task(self._look(), name="dns loop")

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + _FOR
        while not await self._replied() and clock() < end:  # noqa: ASYNC110 - a pause between questions
            await asyncio.sleep(_PAUSE)
        await asyncio.sleep(_FOR)
        self.question = b""

    async def _replied(self) -> bool:
        """Ask once."""
        # Another name each time: what an upstream that was away repeats is no loop.
        labels = [str(random.getrandbits(63)).encode() for _ in range(2)]
        self.question, self.seen = names.join(labels, self.block.zones[0]), 0
        query = Query(random.getrandbits(16), wire.RD, self.question, wire.HINFO, client=("127.0.0.1", 0))
        clock = asyncio.get_running_loop().time
        began = clock()
        with contextlib.suppress(UpstreamError):
            await self.block.host.resolve(query, self.block.ports[0])
            return clock() - began < _PATIENCE
        return False

    async def close(self) -> None:
        """See Plugin."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        if query.type != wire.HINFO or query.lower != self.question:
            return NEXT
        self.seen += 1
        if self.seen > 2:
            zone = names.text(self.block.zones[0])
            self.block.host.fail(f'plugin/loop: Loop detected for zone "{zone}", see the upstreams of `forward`')
            return Refuse(wire.SERVFAIL, "loop")
        return NEXT


def setup(directive: Directive, block: Block) -> Plugin:
    """`loop`."""
    directive.none()
    return Loop(block)
