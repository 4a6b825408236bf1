"""Packets become queries and queries lookups, without a socket."""

from __future__ import annotations

import socket
import struct

import msgspec
import pytest

from netemu.dns import names, wire
from netemu.kernel import netns
from netemu.kernel.tap import Frame
from netemu.observe.resolve import dns_log
from netemu.observe.resolve.dns_log import Client, Log, Lookups, Matcher, PodLookups, Query, asked_for, read_packets

SEARCH = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
MS = 1_000_000
POD = Client("shop/client", SEARCH)
SERVER = "10.96.0.10"
ADDRESS = "10.244.1.5"


def packet(message: bytes, *, reply: bool = False, tcp: bool = False, six: bool = False, port: int = 40000) -> bytes:
    """An IP packet from the Pod to the server, or back."""
    ports = struct.pack("!HH", *((53, port) if reply else (port, 53)))
    if tcp:
        body = ports + bytes(8) + b"\x50\x18" + bytes(6) + struct.pack("!H", len(message)) + message
    else:
        body = ports + bytes(4) + message
    if six:
        return struct.pack("!IHBB", 6 << 28, len(body), 6 if tcp else 17, 64) + b"\xfd".ljust(16, b"\0") * 2 + body
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 6 if tcp else 17, 0) + bytes(8) + body


def question(name: str, kind: int = wire.A, ident: int = 7) -> bytes:
    return wire.build_query(ident, names.parse(name), kind)


def answer(query: bytes, rcode: int = 0, *, truncated: bool = False) -> bytes:
    flags = 0x8400 | rcode | (0x200 if truncated else 0)
    return query[:2] + flags.to_bytes(2, "big") + query[4:]


def exchange(matcher: Matcher, sent: bytes, back: bytes, **shape: bool) -> Query:
    assert matcher.take(Frame(100000 * MS, "veth1", False, packet(sent, **shape)), POD) == []
    (query,) = matcher.take(Frame(100002 * MS, "veth1", True, packet(back, reply=True, **shape)), POD)
    return query


@pytest.mark.parametrize("shape", [{}, {"tcp": True}, {"six": True}, {"six": True, "tcp": True}], ids=str)
def test_a_reply_ends_the_query(shape: dict[str, bool]) -> None:
    sent = question("nope.shop.svc.cluster.local.")

    query = exchange(Matcher(), sent, answer(sent, 3), **shape)

    assert (query.pod, query.name, query.type, query.outcome) == (
        "shop/client", "nope.shop.svc.cluster.local.", "A", "NXDOMAIN",
    )  # fmt: skip
    assert (query.transport, round(query.seconds, 6)) == ("tcp" if "tcp" in shape else "udp", 0.002)


def test_questions_of_one_segment_are_told_each() -> None:
    matcher, names_ = Matcher(), ["a.", "b.", "c."]
    sent = [question(name, ident=number) for number, name in enumerate(names_)]
    joined = b"".join(len(each).to_bytes(2, "big") + each for each in sent)[2:]
    back = b"".join(len(each).to_bytes(2, "big") + answer(each, 3) for each in reversed(sent))[2:]
    first, last = len(sent[0]), len(sent[-1])
    matcher.take(Frame(1000 * MS, "veth1", False, segment(joined, first)), POD)

    told = matcher.take(Frame(1100 * MS, "veth1", True, segment(back, last, reply=True)), POD)

    assert [query.name for query in told] == ["c.", "b.", "a."]


def segment(stream: bytes, length: int, *, reply: bool = False) -> bytes:
    """A TCP packet of several messages; `stream` begins behind the first length."""
    whole = packet(stream, tcp=True, reply=reply)
    return whole[: -len(stream) - 2] + length.to_bytes(2, "big") + stream


def test_answers_are_told_as_they_read() -> None:
    sent = question("web.")
    record = wire.Record(names.parse("web."), wire.A, 30, bytes([10, 96, 0, 5]))
    response = wire.pack(wire.parse_query(sent), wire.Response(wire.NOERROR, answers=[record]))

    query = exchange(Matcher(), sent, response)

    assert (query.outcome, query.answers) == ("NOERROR", ("10.96.0.5",))


@pytest.mark.parametrize(("truncated", "outcome"), [(False, "NODATA"), (True, "TRUNCATED")])
def test_an_answer_without_records(truncated: bool, outcome: str) -> None:
    sent = question("web.")
    query = exchange(Matcher(), sent, answer(sent, truncated=truncated))

    assert query.outcome == outcome


def test_silence_is_told_when_patience_ends() -> None:
    matcher = Matcher()
    matcher.take(Frame(100000 * MS, "veth1", False, packet(question("web."))), POD)

    assert matcher.expire(104.0) == []
    assert [(query.outcome, query.seconds) for query in matcher.expire(105.0)] == [("no answer", 5.0)]
    assert matcher.expire(200.0) == []


def test_the_same_question_again_tells_of_the_first() -> None:
    matcher, sent = Matcher(), question("web.")
    matcher.take(Frame(100000 * MS, "veth1", False, packet(sent)), POD)

    (first,) = matcher.take(Frame(101000 * MS, "veth1", False, packet(sent)), POD)
    (second,) = matcher.take(Frame(101500 * MS, "veth1", True, packet(answer(sent, 3), reply=True)), POD)

    assert (first.outcome, second.outcome, second.time) == ("no answer", "NXDOMAIN", 101.0)


@pytest.mark.parametrize(
    ("outgoing", "data"),
    [
        (True, packet(question("web."))),
        (False, packet(answer(question("web.")), reply=True)),
        (False, packet(answer(question("web.")))),
        (False, packet(b"short")),
        (False, packet(bytes(12))),
        (False, packet(b"\0\7\1\0\0\1\0\0\0\0\0\0\x3fcut")),
        (False, packet(b"", tcp=True)),
    ],
    ids=["towards a server here", "from a server here", "no question", "short", "empty", "cut name", "handshake"],
)  # fmt: skip
def test_what_is_no_query_of_the_pod_is_left_out(outgoing: bool, data: bytes) -> None:
    matcher = Matcher()

    assert matcher.take(Frame(1000 * MS, "veth1", outgoing, data), POD) == []
    assert matcher.expire(100.0) == []


@pytest.mark.parametrize("cut", range(1, 60))
def test_cut_packets_are_no_error(cut: int) -> None:
    data = packet(question("web."))[:cut]
    if len(data) >= 20:
        assert read_packets(data) == [] or len(data) > 39


def test_names_that_may_have_been_asked_for() -> None:
    assert asked_for("Web.shop.svc.cluster.local.", SEARCH) == {
        "web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local",
    }  # fmt: skip


def queries(*said: tuple[str, str], pod: str = "shop/client") -> list[Query]:
    """One for each name and outcome, A and AAAA, ten milliseconds apart; an address is an answer."""
    found = []
    for number, (name, outcome) in enumerate(said):
        for kind in ("A", "AAAA"):
            answers = (outcome,) if outcome[0].isdigit() and kind == "A" else ()
            rcode = "NOERROR" if answers else "NODATA" if outcome[0].isdigit() else outcome
            found.append(Query(number / 100, pod, SERVER, "udp", name, kind, rcode, answers, 0.001))
    return found


def summed(found: list[Query]) -> PodLookups:
    lookups = Lookups()
    for query in found:
        lookups.add(query, SEARCH)
    (row,) = lookups.summary()
    return row


WALK = [
    ("www.example.com.shop.svc.cluster.local.", "NXDOMAIN"), ("www.example.com.svc.cluster.local.", "NXDOMAIN"),
    ("www.example.com.cluster.local.", "NXDOMAIN"), ("www.example.com.", "192.0.2.1"),
]  # fmt: skip


def test_the_search_path_is_one_lookup() -> None:
    row = summed(queries(*WALK))

    assert (row.lookups, row.queries, row.amplification, row.not_found) == (1, 8, 8.0, 6)
    assert (row.worst, row.worst_queries) == ("www.example.com", 8)


def test_the_same_name_again_is_another_lookup() -> None:
    assert summed(queries(*WALK, *WALK)).lookups == 2


def test_coming_back_to_a_name_is_another_lookup_even_if_all_failed() -> None:
    failing = queries(*((name, "SERVFAIL") for name, _ in WALK))

    assert summed(failing + [msgspec.structs.replace(query, time=1.0) for query in failing]).lookups == 2


def test_names_that_share_an_ending_are_lookups_of_their_own() -> None:
    row = summed(
        queries(
            ("web.shop.svc.cluster.local.", "10.96.0.5"),
            ("web.shop.shop.svc.cluster.local.", "NXDOMAIN"), ("web.shop.svc.cluster.local.", "10.96.0.5"),
        )
    )  # fmt: skip

    assert (row.lookups, row.queries, row.amplification) == (2, 6, 3.0)


def test_a_question_asked_again_in_silence_is_the_same_lookup() -> None:
    silent = [msgspec.structs.replace(query, outcome="no answer") for query in queries(("web.", "NXDOMAIN"))]
    later = [msgspec.structs.replace(query, time=5.0) for query in queries(("web.", "10.96.0.5"))]

    row = summed(silent + later)

    assert (row.lookups, row.queries, row.unanswered) == (1, 4, 2)


def test_pods_are_told_apart_and_the_busiest_comes_first() -> None:
    lookups = Lookups()
    for query in queries(("web.", "NXDOMAIN"), pod="a/quiet") + queries(*WALK, pod="z/busy"):
        lookups.add(query, SEARCH)

    assert [row.pod for row in lookups.summary()] == ["z/busy", "a/quiet"]


class SilentTap:
    """A tap of a namespace where nothing happens."""

    def __init__(self, netns: str, program: bytes) -> None:
        self._ends = socket.socketpair()

    def fileno(self) -> int:
        return self._ends[0].fileno()

    def close(self) -> None:
        for end in self._ends:
            end.close()


def test_a_log_that_follows_ends_when_the_last_node_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def exists(name: str) -> bool:
        asked.append(name)
        return name == "two" and len(asked) < 5

    monkeypatch.setattr(dns_log, "Tap", SilentTap)
    monkeypatch.setattr(dns_log, "_PAUSE", 0)
    monkeypatch.setattr(netns, "exists", exists)
    with Log(["one", "two"], dict) as log:
        assert list(log.queries()) == []
        assert log.gone

    assert asked[-2:] == ["one", "two"]
