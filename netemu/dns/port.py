"""One port of the server: packets in, packets out.

Theory of operation. A packet that was answered before, byte for byte except for its id, gets the same bytes again
with its own id: `_finished` maps everything behind the id of a question to everything behind the id of the reply.
Only replies that depend on watched objects alone are kept there (`Response.stable`), and any change of those voids
all of them. Other packets are parsed, routed to the server block with the longest zone, answered by its chain in a
task, packed and sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection

from netemu.dns import names, wire
from netemu.dns.chain import Chain
from netemu.dns.listen import Reply
from netemu.dns.metrics import Metrics, Series
from netemu.dns.wire import Malformed, Query, Response

_MOST_FINISHED = 20_000


class _Finished:
    """A packed reply behind its id; with `chunks`, addresses that go out in another order each time."""

    __slots__ = ("chunks", "head", "request_size", "series", "size", "tail")

    def __init__(self, reply: bytes, series: Series, request_size: int, span: tuple[int, int, int] | None) -> None:
        self.series, self.size, self.request_size = series, len(reply), request_size
        self.head, self.tail = reply[2:], b""
        self.chunks: list[bytes] | None = None
        if span:
            start, count, size = span
            self.head, self.tail = reply[2:start], reply[start + count * size :]
            self.chunks = [reply[start + i * size : start + (i + 1) * size] for i in range(count)]


class Port:
    """Answers what comes in on one port from the chains of its zones."""

    def __init__(self, zones: dict[bytes, Chain], metrics: Metrics) -> None:
        self.zones, self._metrics = zones, metrics
        self._finished: dict[bytes, _Finished] = {}
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def invalidate(self, changed: Collection[bytes] | None = None) -> None:
        """Finished answers are void, those that are being worked out too."""
        self._generation += 1
        self._finished.clear()

    async def close(self) -> None:
        """Give up what is unanswered."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def known(self, data: bytes) -> bytes | None:
        """The reply to a packet that was answered before, under its own id."""
        found = self._finished.get(data[2:])
        if found is None:
            return None
        series = found.series
        series.replies += 1
        series.request_bytes += found.request_size
        series.response_bytes += found.size
        if found.chunks is None:
            return data[:2] + found.head
        random.shuffle(found.chunks)
        return data[:2] + found.head + b"".join(found.chunks) + found.tail

    def handle(self, data: bytes, transport: str, client: tuple[str, int], reply: Reply) -> None:
        """See `listen.Handler`."""
        try:
            query = wire.parse_query(data, transport, client)
        except Malformed as malformed:
            # Silence over TCP must still be said, so that the connection knows that nothing is to come.
            if malformed.reply or transport == "tcp":
                reply(malformed.reply)
            self._count(None, None, Response(wire.FORMERR), transport, client, (len(data), len(malformed.reply)), 0.0)
            return
        task = asyncio.get_running_loop().create_task(self._answer(data, query, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, query: Query, reply: Reply) -> None:
        began, generation = time.perf_counter(), self._generation
        where = self.route(query)
        response = await where[1].serve(query) if where else Response(wire.REFUSED, aa=False)
        if response.silent:
            packed = b""
            if query.transport == "tcp":
                reply(packed)
        else:
            packed = wire.pack(query, response)
            reply(packed, *[wire.pack(query, each) for each in response.more])
        took = time.perf_counter() - began
        series = self._count(where, query, response, query.transport, query.client, (len(data), len(packed)), took)
        if where:
            for plugin in where[1].finishing:
                plugin.done(query, response, len(packed), took)
        if response.stable and query.transport == "udp" and generation == self._generation:
            self._keep(data, query, response, packed, series)

    def _keep(self, data: bytes, query: Query, response: Response, packed: bytes, series: Series) -> None:
        span = None
        if response.shuffle and not (span := _shuffled_span(query, response, packed)) and _has_addresses(response):
            return
        if len(self._finished) >= _MOST_FINISHED:
            self._finished.clear()
        self._finished[data[2:]] = _Finished(packed, series, len(data), span)

    def _count(
        self,
        where: tuple[bytes, Chain] | None,
        query: Query | None,
        response: Response,
        transport: str,
        client: tuple[str, int],
        sizes: tuple[int, int],
        seconds: float,
    ) -> Series:
        kind = wire.TYPE_NAMES.get(query.type, "other") if query else "other"
        zone = names.text(where[0]) if where else "dropped"
        family = "2" if ":" in client[0] else "1"
        key = ("dns://:53", zone, transport, family, kind, wire.rcode_name(response.rcode), response.plugin)
        series = self._metrics.series(key)
        series.replies += 1
        series.request_bytes += sizes[0]
        series.response_bytes += sizes[1]
        series.seconds += seconds
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


def _has_addresses(response: Response) -> bool:
    """Whether shuffling could change anything."""
    return any(
        sum(record.type in (wire.A, wire.AAAA) for record in section) > 1
        for section in (response.answers, response.additional)
    )


def _shuffled_span(query: Query, response: Response, packed: bytes) -> tuple[int, int, int] | None:
    """(offset, records, octets each) where the answer is nothing but addresses of the name asked for, else None.

    Such records name their owner by a pointer to the question, so they mean the same in any order. A truncated reply is
    left to the slow path: there the order decides which of them are seen at all.
    """
    answers = response.answers
    uniform = all(record.type == query.type and record.name == query.name for record in answers)
    if len(answers) < 2 or query.type not in (wire.A, wire.AAAA) or not uniform or response.additional:
        return None
    start = 12 + len(query.question)
    size = 12 + len(answers[0].rdata)
    whole = packed[start : start + 2] == b"\xc0\x0c" and not packed[2] & 2
    return (start, len(answers), size) if whole else None
