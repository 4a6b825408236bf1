"""One port of the server: packets in, packets out.

Theory of operation. The sockets answer by themselves what stands among the finished replies (`finished.py`). Other
packets come here: they are parsed, routed to the server block with the longest zone, answered by its chain, packed and
sent. That happens at once where no plugin has to wait for anything, and in a task where one does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine
from typing import Any, NamedTuple

from netemu.dns import names, wire
from netemu.dns.chain import Chain
from netemu.dns.finished import Finished, FinishedReplies, may_be_kept
from netemu.dns.listen import Reply
from netemu.dns.metrics import Metrics, ReplyKey, Series
from netemu.dns.wire import Malformed, Query, Response

_TYPES = frozenset((
    "A", "AAAA", "MX", "SOA", "CNAME", "PTR", "TXT", "NS", "SRV", "DS", "DNSKEY", "RRSIG", "NSEC", "NSEC3", "HTTPS",
    "SVCB", "IXFR", "AXFR", "ANY",
))  # fmt: skip
"""Types that have counters of their own; all others share `other`."""


class _Asked(NamedTuple):
    """A question on its way, and what was so when it came."""

    packet: bytes
    query: Query
    reply: Reply
    zone: bytes | None
    chain: Chain | None
    began: float
    generation: int


class Port:
    """Answers what comes in on one port from the chains of its zones."""

    def __init__(self, zones: dict[bytes, Chain], metrics: Metrics, number: int = 53) -> None:
        self.zones, self._metrics = zones, metrics
        self._label = f"dns://:{number}"
        self._finished = {(proto, inet6): FinishedReplies() for proto in ("udp", "tcp") for inet6 in (False, True)}
        self._series: dict[tuple[Any, ...], Series] = {}
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.before_reading.append(self.settle)

    def finished(self, transport: str, address: str) -> FinishedReplies:
        """The finished replies for clients of one transport, and of the family of an address."""
        return self._finished[transport, ":" in address]

    def invalidate(self, changed: Collection[bytes] | None = None) -> None:
        """See `plugin.Host`. Answers that are being worked out may be made of what changed; they are not kept."""
        self._generation += 1
        for replies in self._finished.values():
            replies.invalidate(changed)

    def settle(self) -> None:
        """Carry what was counted apart over into the metrics."""
        for replies in self._finished.values():
            replies.settle()

    async def close(self) -> None:
        """Give up what is unanswered."""
        await asyncio.sleep(0)  # what has not begun yet begins: a coroutine that never ran complains
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.invalidate()
        if self.settle in self._metrics.before_reading:
            self._metrics.before_reading.remove(self.settle)

    def handle(self, data: bytes, transport: str, client: tuple[str, int], reply: Reply) -> None:
        """See `listen.Handler`."""
        began = time.perf_counter()
        try:
            query = wire.parse_query(data, transport, client)
        except Malformed as malformed:
            # Silence over TCP must still be said, so that the connection knows that nothing is to come.
            if malformed.reply or transport == "tcp":
                reply(malformed.reply)
            if malformed.reply:
                sizes, code = (len(data), len(malformed.reply)), malformed.reply[3] & 15
                self._count(None, transport, client, (0, False), (code, ""), sizes, time.perf_counter() - began)
            return
        zone, chain = self.route(query) or (None, None)
        asked = _Asked(data, query, reply, zone, chain, began, self._generation)
        response = chain.begin(query) if chain else Response(wire.REFUSED, aa=False)
        if isinstance(response, Response):
            self._finish(asked, response)
            return
        task = asyncio.get_running_loop().create_task(self._wait(asked, response))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, asked: _Asked, response: Coroutine[Any, Any, Response]) -> None:
        self._finish(asked, await response)

    def _finish(self, asked: _Asked, response: Response) -> None:
        packet, query, reply, zone, chain, began, generation = asked
        if response.silent:
            packed = b""
            if query.transport == "tcp":
                reply(packed)
        else:
            packed = wire.pack(query, response)
            reply(packed, *[wire.pack(query, each) for each in response.more])
        took = time.perf_counter() - began
        series = self._count(
            zone, query.transport, query.client, (query.type, query.do), (response.rcode, response.plugin),
            (len(packet), len(packed)), took,
        )  # fmt: skip
        if chain:
            for plugin in chain.finishing:
                plugin.done(query, response, len(packed), took)
        if generation == self._generation and may_be_kept(query, response, packed):
            replies, key = self._finished[query.transport, ":" in query.client[0]], packet[2:]
            if replies.worth_keeping(key):
                replies.keep(key, Finished(packed, query, response, series))

    def _count(
        self,
        zone: bytes | None,
        transport: str,
        client: tuple[str, int],
        asked: tuple[int, bool],
        said: tuple[int, str],
        sizes: tuple[int, int],
        seconds: float,
    ) -> Series:
        """Count a reply to a (type, DO) question with (rcode, plugin)."""
        inet6 = ":" in client[0]
        key = (zone, transport, inet6, asked, said)
        series = self._series.get(key)
        if series is None:
            name = names.text(zone) if zone is not None else "dropped"
            kind = wire.type_name(asked[0])
            series = self._series[key] = self._metrics.series(
                ReplyKey(self._label, name, transport, "2" if inet6 else "1", kind if kind in _TYPES else "other",
                         wire.rcode_name(said[0]), said[1], asked[1])
            )  # fmt: skip
        series.replies += 1
        series.requests.add(sizes[0])
        series.responses.add(sizes[1])
        series.durations.add(seconds)
        return series

    def route(self, query: Query) -> tuple[bytes, Chain] | None:
        """The longest zone that a question lies in, and who answers for it."""
        zones = self.zones
        found = None
        for suffix in names.suffixes(query.lower):
            if (each := zones.get(suffix)) is not None:
                found = (suffix, each)
                # The parent of a zone speaks for its delegation (RFC 4035, 3.1.4.1).
                if query.type != wire.DS or suffix != query.lower:
                    break
        return found
