"""Replies that are kept and sent again."""

from __future__ import annotations

from collections import Counter

from netemu.dns import names, wire
from netemu.dns.finished import Finished, FinishedReplies, may_be_kept
from netemu.dns.metrics import Metrics, ReplyKey, Series
from netemu.dns.wire import Query, Record, Response

NAME = names.parse("web.shop.svc.cluster.local")


def series(metrics: Metrics | None = None) -> Series:
    return (metrics or Metrics()).series(ReplyKey("dns://:53", "cluster.local.", "udp", "1", "A", "NOERROR", "x"))


def kept(response: Response, counters: Series | None = None) -> Finished:
    """A response as it is kept."""
    query = Query(7, 0, NAME, wire.A, size=44)
    return Finished(wire.pack(query, response), query, response, counters or series())


def answer(*addresses: bytes, depends: tuple[bytes, ...] = (), **options: object) -> Response:
    records = [Record(NAME, wire.A, 30, address) for address in addresses]
    return Response(answers=records, stable=True, depends=depends, **options)  # type: ignore[arg-type]


def good(replies: FinishedReplies) -> set[bytes]:
    """The packets whose replies may be sent."""
    return {packet for packet, reply in replies.by_packet.items() if not reply.era.over}


def test_a_change_voids_what_was_made_of_it_and_what_names_nothing() -> None:
    replies = FinishedReplies()
    for packet, depends in ((b"a", (b"x", b"y")), (b"b", (b"y",)), (b"c", (b"z",)), (b"d", ())):
        replies.keep(packet, kept(answer(b"\1\2\3\4", depends=depends)))
    assert good(replies) == {b"a", b"b", b"c", b"d"}

    replies.invalidate((b"x", b"unknown"))
    assert good(replies) == {b"b", b"c"}
    replies.keep(b"d", kept(answer(b"\1\2\3\4")))
    assert good(replies) == {b"b", b"c", b"d"}
    replies.invalidate((b"y",))
    assert good(replies) == {b"c"}
    replies.invalidate(None)
    assert not good(replies)


def test_a_reply_that_is_kept_anew_depends_on_what_the_new_one_is_made_of() -> None:
    replies = FinishedReplies()
    replies.keep(b"a", kept(answer(b"\1\2\3\4", depends=(b"x",))))
    replies.keep(b"a", kept(answer(b"\1\2\3\5", depends=(b"y",))))

    replies.invalidate((b"x",))
    assert set(replies.by_packet) == {b"a"}
    replies.invalidate((b"y",))
    assert not replies.by_packet


def test_when_there_are_too_many_the_oldest_go() -> None:
    replies = FinishedReplies()
    reply = kept(answer(b"\1\2\3\4", depends=(b"x",)))
    for number in range(20_001):
        replies.keep(number.to_bytes(4, "big"), reply)

    assert len(replies.by_packet) == 20_001 - 2_500
    assert (0).to_bytes(4, "big") not in replies.by_packet
    replies.invalidate((b"x",))
    assert not replies.by_packet


def test_what_is_asked_only_once_is_not_worth_keeping() -> None:
    replies = FinishedReplies()

    assert [replies.worth_keeping(packet) for packet in (b"a", b"b", b"a", b"a", b"c")] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_addresses_come_in_every_order_equally_often() -> None:
    addresses = [bytes((10, 0, 0, number)) for number in range(3)]
    reply = kept(answer(*addresses, shuffle=True))
    orders = Counter(
        tuple(record.rdata for record in wire.parse_message(b"\0\7" + reply.next_body()).answers) for _ in range(3000)
    )

    assert len(orders) == 6
    assert min(orders.values()) > 350


def test_what_was_sent_again_is_counted_when_somebody_looks_or_it_goes() -> None:
    metrics, told = Metrics(), Counter[str]()
    counters = series(metrics)
    replies = FinishedReplies()
    response = answer(b"\1\2\3\4", depends=(b"x",), again=lambda times: told.update({"again": times}))
    replies.keep(b"a", kept(response, counters))
    replies.by_packet[b"a"].hits += 5
    metrics.before_reading.append(replies.settle)

    labels = 'server="dns://:53",zone="cluster.local.",view="",proto="udp"'
    assert f'coredns_dns_requests_total{{{labels},family="1",type="A"}} 5\n' in metrics.text()
    replies.by_packet[b"a"].hits += 2
    replies.invalidate((b"x",))
    assert f'coredns_dns_request_size_bytes_bucket{{{labels},le="100"}} 7\n' in metrics.text()
    assert f"coredns_dns_request_size_bytes_sum{{{labels}}} {7 * 44}\n" in metrics.text()
    assert f"coredns_dns_response_size_bytes_count{{{labels}}} 7\n" in metrics.text()
    assert told["again"] == 7


def test_only_what_is_the_same_next_time_is_kept() -> None:
    query = Query(7, 0, NAME, wire.A)
    two = answer(b"\1\2\3\4", b"\1\2\3\5", shuffle=True)
    alias = Response(
        answers=[Record(NAME, wire.CNAME, 30, NAME), *two.answers], stable=True, shuffle=True
    )  # addresses behind an alias would have to be moved one by one

    assert may_be_kept(query, two, wire.pack(query, two))
    assert not may_be_kept(query, alias, wire.pack(query, alias))
    assert not may_be_kept(query, Response(), wire.pack(query, Response()))
    assert not may_be_kept(query, Response(stable=True, silent=True), b"")
