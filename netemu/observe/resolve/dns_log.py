"""The DNS queries of Pods as they cross the wire: who asks what, what comes back, how long it takes.

Theory of operation. A tap in each node's namespace sees every packet from and to port 53 on the links of its Pods. A
query is a packet that comes in on a Pod's link, its reply one that goes out on the same link; so what the Pod saw is
what is told, whoever answers (cluster DNS, a cache on the node, a server outside), and a query without a reply is told
too. Queries of the host network cross no such link and are left out.

`Matcher` joins packets to `Query` records and `Lookups` joins queries to what a resolver was asked for: it takes the
search path of the Pod off the names, so that `web.shop.svc.cluster.local.` and `web.svc.cluster.local.` are two
questions about `web`. Both are pure: frames and times in, records out.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from netemu.dns import names, wire
from netemu.dns.wire import WireError
from netemu.kernel import netns as namespaces
from netemu.kernel.tap import Frame, Tap, port_filter
from netemu.model.protocols import TCP, UDP

PORT = 53
PATIENCE = 5.0
"""Seconds after which a query counts as not answered; what glibc waits before it asks again."""
_PAUSE = 0.2
_HEADER = 12


class Client(msgspec.Struct, frozen=True):
    """A Pod: its name as `namespace/name`, and its search path."""

    name: str
    search: tuple[str, ...] = ()


class Query(msgspec.Struct, frozen=True, rename="camel"):
    """One question of a Pod and what came of it."""

    time: float
    """Seconds since the epoch."""
    pod: str
    server: str
    transport: str
    name: str
    type: str
    outcome: str
    """An rcode, `NODATA`, or `no answer`."""
    answers: tuple[str, ...] = ()
    """What the records of the answer say, aliases included."""
    seconds: float = 0.0


class PodLookups(msgspec.Struct, frozen=True, rename="camel"):
    """What one Pod cost: `amplification` is queries per lookup."""

    pod: str
    lookups: int
    queries: int
    amplification: float
    not_found: int
    """Queries answered NXDOMAIN."""
    unanswered: int
    median_seconds: float
    worst: str = ""
    """The name that cost the most queries in one lookup."""
    worst_queries: int = 0


@dataclass(frozen=True, slots=True)
class _Packet:
    source: str
    source_port: int
    destination: str
    port: int
    transport: str
    message: bytes


def read_packets(data: bytes) -> list[_Packet]:
    """The DNS messages in an IP packet: one in a datagram, and those that a segment of a connection begins.

    A message that begins in one segment and ends in another counts where it begins; what a segment begins in the middle
    of is passed over.
    """
    if data[0] >> 4 == 4:
        header = (data[0] & 15) * 4
        protocol, family, addresses = data[9], socket.AF_INET, (data[12:16], data[16:20])
    else:
        header, protocol, family, addresses = 40, data[6], socket.AF_INET6, (data[8:24], data[24:40])
    body = data[header:]
    if protocol == UDP:
        messages, transport = [body[8:]], "udp"
    elif protocol == TCP and len(body) >= 20:
        messages, transport = _of_stream(body[(body[12] >> 4) * 4 :]), "tcp"
    else:
        return []
    source, destination = (socket.inet_ntop(family, address) for address in addresses)
    ports = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
    return [
        _Packet(source, ports[0], destination, ports[1], transport, each) for each in messages if len(each) >= _HEADER
    ]


def _of_stream(payload: bytes) -> list[bytes]:
    """Messages behind their lengths."""
    found = []
    while len(payload) > 2:
        end = 2 + int.from_bytes(payload[:2], "big")
        found.append(payload[2:end])
        payload = payload[end:]
    return found


class Matcher:
    """Queries of one node, from the packets on its links."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, int, bytes], Query] = {}

    def take(self, frame: Frame, client: Client) -> list[Query]:
        """A packet on the link of `client`; the queries that it answers, or that it shows were not answered."""
        found = (self._take(packet, frame, client) for packet in read_packets(frame.data))
        return [query for query in found if query is not None]

    def _take(self, packet: _Packet, frame: Frame, client: Client) -> Query | None:
        if not frame.outgoing and packet.port == PORT:
            key = (frame.link, packet.source, packet.source_port, packet.message[:2])
            before = self._open.pop(key, None)
            if (query := _question(packet, frame, client)) is not None:
                self._open[key] = query
            return before
        if frame.outgoing and packet.source_port == PORT:
            key = (frame.link, packet.destination, packet.port, packet.message[:2])
            query = self._open.pop(key, None)
            return _answered(query, packet, frame.seconds) if query else None
        return None

    def expire(self, now: float, patience: float = PATIENCE) -> list[Query]:
        """Queries older than `patience` seconds, as not answered."""
        late = [key for key, query in self._open.items() if now - query.time >= patience]
        return [msgspec.structs.replace(query, seconds=now - query.time) for query in map(self._open.pop, late)]


def _question(packet: _Packet, frame: Frame, client: Client) -> Query | None:
    message = packet.message
    if message[2] & 0x80 or message[4:6] != b"\0\1":
        return None
    try:
        name, at = wire.read_name(message, 12)
    except WireError:
        return None
    kind = wire.type_name(int.from_bytes(message[at : at + 2], "big"))
    return Query(frame.seconds, client.name, packet.destination, packet.transport, names.text(name), kind, "no answer")


def _answered(query: Query, packet: _Packet, now: float) -> Query:
    outcome, answers = wire.rcode_name(packet.message[3] & 15), tuple[str, ...]()
    # Cut off in the first segment, or malformed: the header has said enough.
    with contextlib.suppress(WireError):
        answers = tuple(wire.rdata_text(record) for record in wire.parse_message(packet.message).answers)
    if outcome == "NOERROR" and packet.message[6:8] == b"\0\0":
        outcome = "TRUNCATED" if packet.message[2] & 2 else "NODATA"
    return msgspec.structs.replace(query, outcome=outcome, answers=answers, seconds=now - query.time)


@dataclass(slots=True)
class _Lookup:
    names: set[str]
    """What may have been asked for; each query leaves fewer."""
    last: str
    at: float
    queries: int = 0
    found: bool = False
    tried: set[str] = field(default_factory=set)
    settled: set[tuple[str, str, str]] = field(default_factory=set)
    """Name, type and transport of what has been answered; asked again it is another lookup."""

    def includes(self, query: Query, possible: set[str]) -> bool:
        """After an answer only the same name in the other family, or again by TCP, belongs to it; and no resolver
        comes back to a name that it has left."""
        if not self.names & possible or (query.name, query.type, query.transport) in self.settled:
            return False
        return self.last == query.name or not (self.found or query.name in self.tried)

    def add(self, query: Query, possible: set[str]) -> None:
        """Count a query that belongs to it."""
        self.names &= possible
        self.last, self.at = query.name, query.time
        self.tried.add(query.name)
        self.queries += 1
        self.found = self.found or bool(query.answers)
        if query.outcome not in ("no answer", "SERVFAIL"):
            self.settled.add((query.name, query.type, query.transport))


@dataclass(slots=True)
class _Pod:
    search: tuple[str, ...]
    open: list[_Lookup] = field(default_factory=list)
    lookups: int = 0
    queries: int = 0
    not_found: int = 0
    unanswered: int = 0
    seconds: list[float] = field(default_factory=list)
    worst: str = ""
    worst_queries: int = 0


class Lookups:
    """Counts the lookups that queries belong to, per Pod."""

    def __init__(self, patience: float = 2 * PATIENCE) -> None:
        self._patience = patience
        self._pods: dict[str, _Pod] = {}

    def add(self, query: Query, search: Sequence[str]) -> None:
        """A finished query. They may come a little out of order, as their replies do."""
        pod = self._pods.setdefault(query.pod, _Pod(tuple(search)))
        pod.queries += 1
        pod.not_found += query.outcome == "NXDOMAIN"
        if query.outcome == "no answer":
            pod.unanswered += 1
        else:
            pod.seconds.append(query.seconds)
        lookup = self._lookup(pod, query)
        if lookup.queries > pod.worst_queries:
            pod.worst, pod.worst_queries = min(lookup.names, key=len), lookup.queries

    def _lookup(self, pod: _Pod, query: Query) -> _Lookup:
        possible = asked_for(query.name, pod.search)
        pod.open = [one for one in pod.open if query.time - one.at < self._patience]
        lookup = next((one for one in pod.open if one.includes(query, possible)), None)
        if lookup is None:
            lookup = _Lookup(possible, query.name, query.time)
            pod.open.append(lookup)
            pod.lookups += 1
        lookup.add(query, possible)
        return lookup

    def summary(self) -> list[PodLookups]:
        """The Pods, those with the most queries first."""
        rows = [
            PodLookups(
                name, pod.lookups, pod.queries, round(pod.queries / pod.lookups, 2), pod.not_found, pod.unanswered,
                sorted(pod.seconds)[len(pod.seconds) // 2] if pod.seconds else 0.0, pod.worst, pod.worst_queries,
            )
            for name, pod in self._pods.items()
        ]  # fmt: skip
        return sorted(rows, key=lambda row: (-row.queries, row.pod))


def asked_for(name: str, search: Sequence[str]) -> set[str]:
    """The names a program may have asked its resolver for when this one was sent.

    >>> sorted(asked_for("web.shop.svc.cluster.local.", ["shop.svc.cluster.local", "svc.cluster.local"]))
    ['web', 'web.shop', 'web.shop.svc.cluster.local']
    """
    absolute = name.rstrip(".").lower()
    found = {absolute}
    for domain in search:
        suffix = "." + domain.rstrip(".").lower()
        if absolute.endswith(suffix):
            found.add(absolute.removesuffix(suffix))
    return found


class Log:
    """Taps in the namespaces of nodes. `clients` tells which Pod is at the other end of a node's link."""

    def __init__(self, nodes: Sequence[str], clients: Callable[[], Mapping[str, Client]]) -> None:
        self._clients = clients
        self._nodes = tuple(nodes)
        self._known = dict(clients())
        self._selector = selectors.DefaultSelector()
        self._taps: list[Tap] = []
        try:
            for netns in nodes:
                tap = Tap(netns, port_filter(PORT))
                self._taps.append(tap)
                self._selector.register(tap, selectors.EVENT_READ, (tap, Matcher()))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the taps."""
        self._selector.close()
        for tap in self._taps:
            tap.close()

    @property
    def gone(self) -> bool:
        """Whether the nodes went away; their taps, which nothing reaches any more, tell nobody."""
        return not any(map(namespaces.exists, self._nodes))

    def search(self, query: Query) -> tuple[str, ...]:
        """The search path of the Pod that asked."""
        return next((client.search for client in self._known.values() if client.name == query.pod), ())

    def lost(self) -> int:
        """Packets that came too fast to be read, since the last call."""
        return sum(tap.lost() for tap in self._taps)

    def queries(self, seconds: float | None = None) -> Iterator[Query]:
        """Queries as they are finished, for so many seconds, or until the nodes are gone; then those that are still
        open."""
        end = None if seconds is None else time.monotonic() + seconds
        ignored: set[str] = set()
        while (end is None or time.monotonic() < end) and not self.gone:
            for key, _ in self._selector.select(_PAUSE):
                tap, matcher = key.data
                for frame in tap.read():
                    if client := self._client(frame.link, ignored):
                        yield from matcher.take(frame, client)
            ignored.clear()
            yield from self._expire(PATIENCE)
        yield from self._expire(0)

    def _expire(self, patience: float) -> Iterator[Query]:
        for key in self._selector.get_map().values():
            yield from key.data[1].expire(time.time(), patience)

    def _client(self, link: str, ignored: set[str]) -> Client | None:
        """The Pod at a link; links that are new are looked up once in a round."""
        if link not in self._known and link not in ignored:
            self._known |= self._clients()
            ignored.add(link)
        return self._known.get(link)
