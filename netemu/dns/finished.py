"""Replies that are kept as octets and sent again.

Theory of operation. A packet that was answered before, octet for octet except for its id, gets the same octets again
behind its own id. Only replies that are the same until something announces a change are kept (`Response.stable`): each
says what it was made of (`Response.depends`), and `invalidate` voids those made of what changed. Replies that age are
kept until their TTL counts down (`Response.until`).

A reply that is sent again costs one addition; `settle` carries those over into the metrics when somebody looks, and
when a reply is dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from random import random

from netemu.dns import wire
from netemu.dns.metrics import Series
from netemu.dns.wire import Query, Response

_MOST = 20_000


class Era:
    """The time between two changes. Denials end with it (they carry the serial), all at once and at no cost."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False


_FOR_EVER = Era()


class Finished:
    """A packed reply behind its id, good while `until` has not come and its era is not over; with `_chunks`, addresses
    that go out in another order each time."""

    __slots__ = ("_again", "_chunks", "_head", "_sizes", "_tail", "body", "depends", "era", "hits", "series", "until")

    def __init__(self, reply: bytes, query: Query, response: Response, series: Series) -> None:
        self.series, self.until, self.depends = series, response.until, response.depends
        self.hits, self.era = 0, _FOR_EVER
        self.body = reply[2:]
        self._sizes, self._again = (query.size, len(reply)), response.again
        self._chunks: list[bytes] | None = None
        if response.shuffle and (span := _addresses_span(query, response, reply)):
            start, count, size = span
            self._head, self._tail = reply[2:start], reply[start + count * size :]
            self._chunks = [reply[start + i * size : start + (i + 1) * size] for i in range(count)]

    def next_body(self) -> bytes:
        """What to send this time."""
        chunks = self._chunks
        if chunks is None:
            return self.body
        chunks.sort(key=_at_random)  # uniform, and several times faster than random.shuffle
        return self._head + b"".join(chunks) + self._tail

    def settle(self) -> None:
        """Count what was sent."""
        if self.hits:
            self.series.replies += self.hits
            self.series.requests.add(self._sizes[0], self.hits)
            self.series.responses.add(self._sizes[1], self.hits)
            if self._again:
                self._again(self.hits)
            self.hits = 0


def _at_random(_: bytes) -> float:
    return random()


class FinishedReplies:
    """The replies to one kind of client: one transport, one address family. `by_packet` is keyed by everything behind
    the id of a question."""

    def __init__(self) -> None:
        self.by_packet: dict[bytes, Finished] = {}
        self._by_tag: dict[bytes, set[bytes]] = {}
        self._era = Era()
        self._asked: set[bytes] = set()

    def worth_keeping(self, packet: bytes) -> bool:
        """Whether a question was asked before: a flood of names that are asked once must not push out the others."""
        if packet in self._asked or packet in self.by_packet:
            return True
        if len(self._asked) >= _MOST:
            self._asked.clear()
        self._asked.add(packet)
        return False

    def keep(self, packet: bytes, finished: Finished) -> None:
        """Remember a reply. When there are too many, the oldest eighth goes."""
        if len(self.by_packet) >= _MOST:
            for old in list(itertools.islice(self.by_packet, _MOST // 8)):
                self._drop(old)
        if packet in self.by_packet:
            self._drop(packet)
        self.by_packet[packet] = finished
        for tag in finished.depends:
            self._by_tag.setdefault(tag, set()).add(packet)
        if not finished.depends:
            finished.era = self._era

    def invalidate(self, changed: Collection[bytes] | None) -> None:
        """Void the replies that depend on one of `changed` (None: all), and those that name nothing."""
        if not self.by_packet:
            return  # nobody asks while a cluster comes in
        if changed is None:
            self.settle()
            self.by_packet.clear()
            self._by_tag.clear()
            return
        self._era.over, self._era = True, Era()
        for tag in changed:
            for packet in list(self._by_tag.get(tag, ())):
                self._drop(packet)

    def settle(self) -> None:
        """Carry what was sent again over into the metrics."""
        for finished in self.by_packet.values():
            finished.settle()

    def _drop(self, packet: bytes) -> None:
        finished = self.by_packet.pop(packet)
        finished.settle()
        for tag in finished.depends:
            packets = self._by_tag.get(tag)
            if packets is not None:
                packets.discard(packet)
                if not packets:
                    del self._by_tag[tag]


def may_be_kept(query: Query, response: Response, reply: bytes) -> bool:
    """Whether these octets are the answer next time too."""
    if not response.stable or response.silent or response.more:
        return False
    if not response.shuffle or len(response.answers) + len(response.additional) < 2 or not _has_addresses(response):
        return True
    return _addresses_span(query, response, reply) is not None


def _has_addresses(response: Response) -> bool:
    """Whether shuffling could change anything."""
    return any(
        sum(record.type in (wire.A, wire.AAAA) for record in section) > 1
        for section in (response.answers, response.additional)
    )


def _addresses_span(query: Query, response: Response, packed: bytes) -> tuple[int, int, int] | None:
    """(offset, records, octets each) where the answer is nothing but addresses of the name asked for, else None.

    Such records name their owner by a pointer to the question, so they mean the same in any order. A truncated reply is
    left to the slow path: there the order decides which of them are seen at all.
    """
    answers = response.answers
    if len(answers) < 2 or query.type not in (wire.A, wire.AAAA) or response.additional:
        return None
    if any(record.type != query.type or record.name != query.name for record in answers):
        return None
    start = 12 + len(query.question)
    size = 12 + len(answers[0].rdata)
    whole = packed[start : start + 2] == b"\xc0\x0c" and not packed[2] & 2
    return (start, len(answers), size) if whole else None
