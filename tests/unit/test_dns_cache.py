"""The cache: what is kept, for how long, and what is said of it later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from netemu.dns import corefile, names, wire
from netemu.dns.plugins.cache import Cache
from netemu.dns.wire import Message, Query
from netemu.model.errors import UserError
from netemu.testing.client import FakeClient
from tests.unit.dns_host import Offline
from tests.unit.dns_scripted import Scripted, reply, scripted


class Scene:
    """A cache in front of an upstream, and a clock."""

    def __init__(self, host: Offline, upstream: Scripted) -> None:
        self.host, self.upstream = host, upstream
        self.now = 1000.0
        self.cache = next(plugin for plugin in host.plugins if isinstance(plugin, Cache))
        self.cache.clock = lambda: self.now

    async def ask(self, name: str = "www.example.com") -> Message:
        """The reply to a question for addresses."""
        return await self.host.ask(wire.build_query(7, names.parse(name), wire.A, flags=wire.RD))

    async def ttl(self, name: str = "www.example.com") -> int:
        """The TTL that the first record of a reply tells."""
        message = await self.ask(name)
        return (message.answers or message.authority)[0].ttl

    async def refreshed(self) -> None:
        """Return when nothing is being asked for anew."""
        for task in list(self.cache._refreshing.values()):
            await task

    @property
    def asked(self) -> int:
        """Questions that reached the upstream."""
        return len(self.upstream.asked)

    def metric(self, name: str) -> float:
        """A counter of the cache, summed over its labels."""
        lines = self.host.metrics.text().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"coredns_cache_{name}{{"))


@asynccontextmanager
async def scene(
    options: str = "", ttl: str = "30", *, kept: int = 300, rcode: int = wire.NOERROR, tc: bool = False
) -> AsyncIterator[Scene]:
    """`cache TTL { options }`; the upstream answers with the TTL `kept`."""
    async with scripted(lambda query: reply(query, rcode=rcode, ttl=kept, tc=tc)) as upstream:
        text = f".:53 {{\n cache {ttl} {{\n{options}\n }}\n forward . 127.0.0.1:{upstream.port}\n}}"
        async with Offline(text, FakeClient()) as host:
            yield Scene(host, upstream)


async def test_a_reply_is_kept_and_counts_down_but_never_to_nothing() -> None:
    async with scene() as at:
        seen = [await at.ttl()]
        for seconds in (1, 9, 19.5):
            at.now += seconds
            seen.append(await at.ttl())
        asked = at.asked
        at.now += 1
        seen.append(await at.ttl())

    assert (seen, asked, at.asked) == ([30, 29, 20, 1, 30], 1, 2)


async def test_the_lowest_ttl_is_that_of_every_record() -> None:
    def script(query: Query) -> bytes:
        alias = wire.Record(query.name, wire.CNAME, 20, names.parse("a.example"))
        address = wire.Record(names.parse("a.example"), wire.A, 8, b"\x01\x02\x03\x04")
        return wire.pack(query, wire.Response(0, [alias, address], aa=False))

    async with scene() as at:
        at.upstream.script = script
        first, second = await at.ask(), await at.ask()

    assert [record.ttl for record in (*first.answers, *second.answers)] == [8, 8, 8, 8]


@pytest.mark.parametrize(
    ("ttl", "options", "said", "kept"),
    [
        pytest.param("30", "", 30, 300, id="the argument is the longest"),
        pytest.param("", "", 3600, 9000, id="an answer lives an hour at most"),
        pytest.param("", "success 1000 60", 60, 300, id="an option has its own longest"),
        pytest.param("", "success 1000 60 40", 40, 3, id="and its own shortest"),
        pytest.param("30", "", 5, 0, id="a TTL of 0 becomes five seconds"),
    ],
)
async def test_a_lifetime_keeps_within_bounds(ttl: str, options: str, said: int, kept: int) -> None:
    async with scene(options, ttl, kept=kept) as at:
        assert (await at.ttl(), await at.ttl(), at.asked) == (said, said, 1)


async def test_a_denial_lives_half_an_hour_at_most_by_the_ttl_of_its_soa_record() -> None:
    seen = []
    for told in (300, 9000):
        async with scene("", "", rcode=wire.NXDOMAIN, kept=told) as at:
            seen.append((await at.ttl(), await at.ttl(), at.asked))

    assert seen == [(300, 300, 1), (1800, 1800, 1)]


async def test_an_upstreams_failure_is_kept_for_five_seconds() -> None:
    async with scene(rcode=wire.SERVFAIL) as at:
        codes = [(await at.ask()).rcode, (await at.ask()).rcode]
        asked = at.asked
        at.now += 6
        await at.ask()

    assert (codes, asked, at.asked) == ([2, 2], 1, 2)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        pytest.param("servfail 0", {"rcode": wire.SERVFAIL}, id="failures, when told so"),
        pytest.param("", {"rcode": wire.REFUSED}, id="refusals"),
        pytest.param("", {"tc": True}, id="truncated replies"),
        pytest.param("disable success", {}, id="answers, when told so"),
        pytest.param("disable denial example.com", {"rcode": wire.NXDOMAIN}, id="denials in a zone, when told so"),
    ],
)
async def test_what_is_not_kept(options: str, answer: dict[str, Any]) -> None:
    async with scene(options, **answer) as at:
        await at.ask()
        await at.ask()

    assert at.asked == 2


async def test_silence_is_not_kept() -> None:
    async with Offline(".:53 {\n cache 30\n erratic {\n drop 2\n }\n}", FakeClient()) as host:
        packets = [wire.build_query(7, names.parse("www.example.com"), wire.A, edns_size=size) for size in (0, 1232)]
        replies = [await host.exchange(packet, "tcp") for packet in packets]

    assert list(map(bool, replies)) == [False, True]


async def test_a_reply_that_is_not_kept_has_its_ttl_capped_all_the_same() -> None:
    async with scene("disable success") as at:
        assert await at.ttl() == 30


async def test_a_hit_is_authoritative_and_spelled_as_whoever_asked_first() -> None:
    async with scene() as at:
        first, second = await at.ask("WWW.example.com"), await at.ask("www.EXAMPLE.com")

    assert [bool(reply.flags & wire.AA) for reply in (first, second)] == [False, True]
    assert [reply.flags & wire.RA for reply in (first, second)] == [wire.RA, wire.RA]
    assert names.text(second.question[:-4]) == "www.EXAMPLE.com."
    assert names.text(second.answers[0].name) == "WWW.example.com."


async def test_questions_with_and_without_do_are_kept_apart() -> None:
    async with scene() as at:
        await at.ask()
        await at.host.ask(wire.build_query(7, names.parse("www.example.com"), wire.A, edns_size=1232, do=True))

    assert at.asked == 2


async def test_keepttl_tells_the_first_ttl_for_ever() -> None:
    async with scene("keepttl") as at:
        await at.ttl()
        at.now += 20
        assert await at.ttl() == 30


async def test_a_full_table_gives_something_up() -> None:
    async with scene("success 1") as at:
        for number in range(1030):  # 256 tables of four hold 1024
            await at.ask(f"{number}.example.com")

        assert at.metric("evictions_total") >= 6
        assert at.metric("entries") == 1030 - at.metric("evictions_total")


async def test_what_is_asked_often_is_asked_for_anew_before_it_expires() -> None:
    async with scene("prefetch 2 1m 20%") as at:
        await at.ask()
        for seconds in (10, 10, 5):
            at.now += seconds
            await at.ask()
        await at.refreshed()
        at.now += 1
        renewed = await at.ttl()

    assert (at.asked, renewed, at.metric("prefetch_total")) == (2, 29, 1)


async def test_what_is_asked_seldom_is_left_to_expire() -> None:
    async with scene("prefetch 2 5s 20%") as at:
        await at.ask()
        for seconds in (10, 10, 6):
            at.now += seconds
            await at.ask()
        await at.refreshed()

    assert (at.asked, at.metric("prefetch_total")) == (1, 0)


async def test_an_expired_reply_is_given_at_once_and_asked_for_anew() -> None:
    async with scene("serve_stale 1h immediate") as at:
        await at.ask()
        at.now += 100
        stale = await at.ttl()
        await at.refreshed()
        fresh = await at.ttl()

    assert (stale, fresh, at.asked, at.metric("served_stale_total")) == (0, 30, 2, 1)


async def test_an_expired_reply_stays_as_long_as_the_upstream_fails() -> None:
    async with scene("serve_stale") as at:
        await at.ask()
        at.upstream.script = lambda query: reply(query, rcode=wire.SERVFAIL)
        seen = []
        for _ in range(3):
            at.now += 100
            message = await at.ask()
            seen.append((message.rcode, len(message.answers)))
            await at.refreshed()
        at.now += 3600
        gone = (await at.ask()).rcode

    assert (seen, gone) == ([(0, 1)] * 3, wire.SERVFAIL)


async def test_verify_asks_first_and_falls_back_on_what_was() -> None:
    async with scene("serve_stale 1h verify") as at:
        await at.ask()
        at.now += 100
        verified = await at.ttl()
        at.now += 100
        at.upstream.script = lambda query: reply(query, rcode=wire.SERVFAIL)
        stale = await at.ttl()
        at.upstream.script = lambda query: reply(query, rcode=wire.NXDOMAIN)
        denied = (await at.ask()).rcode

    assert (verified, stale, denied) == (30, 0, wire.NXDOMAIN)


async def test_metrics_tell_hits_and_misses() -> None:
    async with scene() as at:
        for _ in range(3):
            await at.ask()
        counted = {name: at.metric(name) for name in ("requests_total", "hits_total", "misses_total", "entries")}
        text = at.host.metrics.text()

    assert counted == {"requests_total": 3, "hits_total": 2, "misses_total": 1, "entries": 1}
    assert 'coredns_cache_hits_total{server="dns://:53",type="success",zones=".",view=""} 2' in text


BAD = [
    ("cache 0", "0 is not a TTL"),
    ("cache {\n success\n }", r"success: expected CAPACITY \[TTL\] \[MINTTL\]"),
    ("cache {\n success 10 0\n }", "TTL 0 would keep nothing"),
    ("cache {\n servfail 6m\n }", "servfail: at most 5m"),
    ("cache {\n disable everything\n }", "disable: expected success or denial"),
    ("cache {\n prefetch 10 1m 95%\n }", "prefetch: expected AMOUNT"),
    ("cache {\n prefetch 10 1m 10\n }", "prefetch: expected AMOUNT"),
    ("cache {\n serve_stale 1h sometimes\n }", r"serve_stale: expected \[DURATION\]"),
    ("cache {\n keepttls\n }", 'did you mean "keepttl"'),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_a_bad_option_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"Corefile:\d+: .*{why}"):
        Offline(f".:53 {{\n {text}\n}}", FakeClient())
    assert corefile.parse(f".:53 {{\n {text}\n}}")
