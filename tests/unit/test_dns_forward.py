"""Forwarding: whom it asks, in which order, how long, and what it makes of what comes back."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from netemu.dns import forwarding, names, wire
from netemu.dns.plugins import forward
from netemu.dns.plugins.forward import Forward
from netemu.dns.wire import Message, Query
from netemu.model.errors import UserError
from netemu.testing.client import FakeClient
from tests.unit.dns_host import Offline, world
from tests.unit.dns_scripted import Script, Scripted, reply, scripted

NAME = "www.example.com"


class Scene:
    """A server that forwards to scripted upstreams."""

    def __init__(self, host: Offline, upstreams: list[Scripted]) -> None:
        self.host, self.upstreams = host, upstreams

    async def ask(self, name: str = NAME, transport: str = "udp", kind: int = wire.A, **options: Any) -> Message:
        """The reply to a question."""
        return await self.host.ask(wire.build_query(7, names.parse(name), kind, **options), transport)

    async def code(self, name: str = NAME) -> str:
        """The rcode of a reply."""
        return wire.rcode_name((await self.ask(name)).rcode)

    @property
    def asked(self) -> list[int]:
        """How many questions reached each upstream."""
        return [len(upstream.asked) for upstream in self.upstreams]

    @property
    def forward(self) -> Forward:
        """The plugin."""
        return next(plugin for plugin in self.host.plugins if isinstance(plugin, Forward))

    async def first_is(self, *, down: bool) -> None:
        """Return when the first upstream counts as down, or no longer."""
        async with asyncio.timeout(5):
            while self.forward.targets[0].down != down:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)

    def metric(self, name: str) -> float:
        """A counter, summed over its labels."""
        lines = self.host.metrics.text().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"coredns_{name}[ {{]", line))


@asynccontextmanager
async def scene(*scripts: Script, options: str = "", zone: str = ".", more: str = "") -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(scripted(script)) for script in scripts or (reply,)]
        to = " ".join(f"127.0.0.1:{upstream.port}" for upstream in upstreams)
        text = f".:53 {{\n forward {zone} {to} {{\n{options}\n }}\n{more}\n}}"
        yield Scene(await stack.enter_async_context(Offline(text, FakeClient())), upstreams)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything waits a twentieth of what it should: a try 0.1 s, a window 0.25 s."""
    for module, name in ((forward, "_WINDOW"), (forward, "_TRY"), (forward, "_PAUSE"), (forwarding, "_PROBE_PATIENCE")):
        monkeypatch.setattr(module, name, getattr(module, name) / 20)
    monkeypatch.setattr(forwarding.Settings, "__init__", _hurried(forwarding.Settings.__init__))


def _hurried(init: Any) -> Any:
    def hurried(self: forwarding.Settings, **values: Any) -> None:
        init(self, **{"probe_every": 0.5 / 20, **values})

    return hurried


def silent(_: Query) -> None:
    return None


def failing(query: Query) -> bytes:
    return reply(query, rcode=wire.SERVFAIL)


# --- what goes out and what comes back ---


async def test_a_reply_is_passed_on_with_the_flags_of_the_upstream() -> None:
    async with scene() as at:
        message = await at.ask()

    assert [record.rdata for record in message.answers] == [bytes((192, 0, 2, 1))]
    assert (message.flags & wire.AA, message.flags & wire.RA, message.id) == (0, wire.RA, 7)


async def test_the_question_travels_with_its_case_its_flags_and_its_edns() -> None:
    async with scene() as at:
        await at.ask("wWw.Example.com", flags=wire.RD | wire.CD, edns_size=1400, do=True)
        _, query = at.upstreams[0].asked[0]

    assert names.text(query.name) == "wWw.Example.com."
    assert (query.flags & (wire.RD | wire.CD), query.edns and query.edns.size, query.do) == (
        wire.RD | wire.CD, 1400, True,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [wire.HTTPS, wire.TXT, 0x4142], ids=["HTTPS", "TXT", "letters as a type"])
async def test_any_type_is_asked_for(kind: int) -> None:
    async with scene() as at:
        assert (await at.ask(kind=kind)).rcode == wire.NOERROR


@pytest.mark.parametrize("code", [wire.NXDOMAIN, wire.SERVFAIL, wire.REFUSED, wire.NOTIMP])
async def test_whatever_the_upstream_says_is_passed_on(code: int) -> None:
    async with scene(lambda query: reply(query, rcode=code)) as at:
        assert (await at.ask()).rcode == code


async def test_a_truncated_reply_stays_truncated() -> None:
    async with scene(lambda query: reply(query, tc=True)) as at:
        assert (await at.ask()).truncated


async def test_a_reply_about_something_else_is_a_format_error() -> None:
    def other(query: Query) -> bytes:
        return reply(Query(query.id, query.flags, names.parse("other.example"), query.type))

    async with scene(other) as at:
        assert await at.code() == "FORMERR"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_reply_under_another_id_is_waited_past(transport: str) -> None:
    def both(query: Query) -> tuple[bytes, bytes]:
        stray = Query(query.id ^ 1, query.flags, query.name, query.type)
        return reply(stray, rcode=wire.NXDOMAIN), reply(query)

    async with scene(both) as at:
        assert (await at.ask(transport=transport)).rcode == wire.NOERROR


async def test_garbage_sends_the_question_to_the_next_upstream(hurry: None) -> None:
    async with scene(
        lambda query: query.id.to_bytes(2, "big") + b"\xff" * 20, reply, options="policy sequential"
    ) as at:
        assert (await at.code(), at.asked) == ("NOERROR", [1, 1])


# --- transports ---


@pytest.mark.parametrize(
    ("options", "transport", "used"),
    [("", "udp", "udp"), ("", "tcp", "tcp"), ("force_tcp", "udp", "tcp"), ("prefer_udp", "tcp", "udp"),
     ("force_tcp\n prefer_udp", "udp", "tcp")],
)  # fmt: skip
async def test_the_transport_is_the_clients_unless_told_otherwise(options: str, transport: str, used: str) -> None:
    async with scene(options=options) as at:
        await at.ask(transport=transport)

        assert [transport for transport, _ in at.upstreams[0].asked] == [used]


async def test_prefer_udp_asks_again_over_tcp_when_the_reply_is_truncated() -> None:
    async with scene(lambda query: reply(query, tc=query.transport == "udp"), options="prefer_udp") as at:
        message = await at.ask(transport="tcp")

        assert (len(message.answers), [transport for transport, _ in at.upstreams[0].asked]) == (1, ["udp", "tcp"])


async def test_a_connection_serves_question_after_question() -> None:
    async with scene(options="force_tcp") as at:
        for _ in range(3):
            await at.ask()

        assert (at.upstreams[0].connections, at.asked) == (1, [3])
        assert (at.metric("proxy_conn_cache_hits_total"), at.metric("proxy_conn_cache_misses_total")) == (2, 1)


@pytest.mark.parametrize(("expire", "sockets"), [("10s", 1), ("0s", 3)])
async def test_a_socket_nobody_used_for_long_is_not_used_again(expire: str, sockets: int) -> None:
    seen = []
    for options in ("", "force_tcp\n"):
        async with scene(options=f"{options} expire {expire}") as at:
            for _ in range(3):
                await at.ask()
            seen.append(at.upstreams[0].connections or len(at.upstreams[0].sources))

    assert seen == [sockets, sockets]


# --- whom to ask ---


async def test_sequential_asks_the_first_as_long_as_it_answers() -> None:
    async with scene(reply, reply, options="policy sequential") as at:
        for _ in range(4):
            await at.ask()

        assert at.asked == [4, 0]


async def test_round_robin_asks_in_turn() -> None:
    async with scene(reply, reply, options="policy round_robin") as at:
        for _ in range(6):
            await at.ask()

        assert at.asked == [3, 3]


async def test_random_asks_all_of_them_about_as_often() -> None:
    async with scene(reply, reply) as at:
        for _ in range(200):
            await at.ask()

        assert all(60 < asked < 140 for asked in at.asked)


async def test_names_outside_of_from_and_within_except_are_not_asked_for() -> None:
    async with scene(options="except private.example.com", zone="example.com") as at:
        codes = [await at.code(name) for name in (NAME, "example.net", "a.private.example.com", "Example.COM")]

        assert (codes, at.asked) == (["NOERROR", "SERVFAIL", "SERVFAIL", "NOERROR"], [2])


async def test_a_resolv_conf_names_upstreams(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# comment\nsearch example\nnameserver 192.0.2.7\nnameserver fe80::1%eth0\noptions ndots:5\n")
    host = Offline(f".:53 {{\n forward . {path} 192.0.2.8:5353 [2001:db8::1]:5353 dns://192.0.2.9\n}}", FakeClient())
    plugin = next(plugin for plugin in host.plugins if isinstance(plugin, Forward))

    told = [str(target.upstream) for target in plugin.targets]
    assert told == ["192.0.2.7:53", "[fe80::1]:53", "192.0.2.8:5353", "[2001:db8::1]:5353", "192.0.2.9:53"]


# --- failure and health ---


async def test_a_sole_upstream_that_is_silent_is_tried_three_times_and_costs_six_seconds(hurry: None) -> None:
    async with scene(silent) as at:
        began = time.monotonic()
        code = await at.code()
        took = (time.monotonic() - began) * 20

        assert (code, at.asked) == ("SERVFAIL", [3])
        assert 6.0 <= took < 9.0


async def test_an_alias_to_a_name_that_nobody_answers_is_sent_alone_after_six_seconds(hurry: None) -> None:
    async with scripted(silent) as upstream:
        text = f".:53 {{\n kubernetes cluster.local\n forward . 127.0.0.1:{upstream.port}\n}}"
        async with Offline(text, await world()) as host:
            await host.ready()
            began = time.monotonic()
            alias = names.parse("out.shop.svc.cluster.local")
            message = await host.ask(wire.build_query(7, alias, wire.A, edns_size=1400, do=True))
            took = (time.monotonic() - began) * 20
            _, asked = upstream.asked[0]

    assert (message.rcode, [record.type for record in message.answers]) == (wire.NOERROR, [wire.CNAME])
    assert (bool(message.flags & wire.AA), 6.0 <= took < 9.0) == (True, True)
    assert (names.text(asked.name), asked.type, asked.do) == ("Www.Example.COM.", wire.A, True)


async def test_a_sole_upstream_that_refuses_costs_about_a_second() -> None:
    async with scripted() as gone:
        pass
    async with Offline(f".:53 {{\n forward . 127.0.0.1:{gone.port}\n}}", FakeClient()) as host:
        began = time.monotonic()
        message = await host.ask(wire.build_query(7, names.parse(NAME), wire.A))

    assert message.rcode == wire.SERVFAIL
    assert 0.9 < time.monotonic() - began < 3


async def test_the_next_upstream_is_asked_when_one_is_silent_and_then_that_one_is_left_alone(hurry: None) -> None:
    async with scene(silent, reply, options="policy sequential\n max_fails 1") as at:
        first = await at.code()
        await at.first_is(down=True)
        asked = at.asked[0]
        codes = {await at.code() for _ in range(5)}

        assert (first, codes, at.asked[0]) == ("NOERROR", {"NOERROR"}, asked)
        assert at.metric("proxy_healthcheck_failures_total") >= 2


async def test_an_upstream_that_comes_back_is_asked_again(hurry: None) -> None:
    async with scene(silent, reply, options="policy sequential\n max_fails 1") as at:
        await at.ask()
        await at.first_is(down=True)
        at.upstreams[0].script = failing  # a probe is content with any reply
        await at.first_is(down=False)

        assert await at.code() == "SERVFAIL"


async def test_health_is_not_asked_about_before_an_error_and_never_without_max_fails(hurry: None) -> None:
    async with scene(silent, options="max_fails 0") as at:
        await at.ask()

        assert (at.upstreams[0].probes, at.forward.targets[0].down) == ([], False)


async def test_probes_ask_what_they_are_told_to(hurry: None) -> None:
    script: Script = lambda query: reply(query) if query.type == wire.NS else None  # noqa: E731
    async with scene(script, options="health_check 10ms no_rec domain probe.example") as at:
        await at.ask()
        probe = at.upstreams[0].probes[0]

    assert (names.text(probe.name), probe.flags & wire.RD) == ("probe.example.", 0)


async def test_when_all_are_down_any_is_tried_unless_that_is_to_fail_fast(hurry: None) -> None:
    seen = []
    for options in ("max_fails 1", "max_fails 1\n failfast_all_unhealthy_upstreams"):
        async with scene(silent, options=options) as at:
            await at.ask()
            await at.first_is(down=True)
            before = at.asked[0]
            code = await at.code()
            seen.append((code, at.asked[0] - before, at.metric("forward_healthcheck_broken_total") >= 1))

    assert seen == [("SERVFAIL", 1, True), ("SERVFAIL", 0, True)]


async def test_failover_asks_the_next_upstream_for_certain_codes() -> None:
    async with scene(failing, reply, options="policy sequential\n failover SERVFAIL REFUSED") as at:
        assert (await at.code(), at.asked) == ("NOERROR", [1, 1])


async def test_a_failure_of_all_upstreams_is_passed_on() -> None:
    async with scene(failing, failing, options="policy sequential\n failover SERVFAIL") as at:
        assert (await at.code(), at.asked) == ("SERVFAIL", [1, 1])


async def test_next_hands_certain_codes_to_the_next_forward_only() -> None:
    async with scripted() as second:
        nx: Script = lambda query: reply(query, rcode=wire.NXDOMAIN)  # noqa: E731
        async with scene(nx, options="next NXDOMAIN", more=f"forward . 127.0.0.1:{second.port}") as at:
            behind = await at.code()
        async with scene(nx, options="next NXDOMAIN", more="whoami") as at:
            alone = await at.code()

    assert (behind, alone) == ("NOERROR", "NXDOMAIN")


async def test_more_questions_than_allowed_at_once_are_refused() -> None:
    async with scene(silent, options="max_concurrent 2") as at:
        waiting = [asyncio.create_task(at.ask()) for _ in range(2)]
        while at.asked != [2]:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        code = await at.code()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

        assert (code, at.metric("forward_max_concurrent_rejects_total")) == ("REFUSED", 1)


async def test_metrics_tell_how_long_each_upstream_took() -> None:
    async with scene() as at:
        await at.ask()
        text, to = at.host.metrics.text(), f"127.0.0.1:{at.upstreams[0].port}"

    assert f'proxy_request_duration_seconds_count{{proxy_name="forward",to="{to}",rcode="NOERROR"}} 1' in text


BAD = [
    ("forward .", "expected FROM TO"),
    ("forward . tls://192.0.2.1", "tls:// is not supported, upstreams are asked in the clear"),
    ("forward . 192.0.2.1 {\n tls\n }", "tls: upstreams are asked in the clear"),
    ("forward . 192.0.2.1:99999", "port 99999 is not between 1 and 65535"),
    ("forward . nowhere", "'nowhere' is neither an address nor a readable file"),
    ("forward . " + " ".join(f"192.0.2.{n}" for n in range(16)), "16 upstreams; expected 1 to 15"),
    ("forward . 192.0.2.1 {\n policy fastest\n }", "'fastest' is none of random, round_robin, sequential"),
    ("forward . 192.0.2.1 {\n health_check\n }", r"health_check: expected DURATION \[no_rec\]"),
    ("forward . 192.0.2.1 {\n health_check 1s recursive\n }", "unexpected 'recursive'"),
    ("forward . 192.0.2.1 {\n failover NOERROR\n }", "NOERROR is an answer"),
    ("forward . 192.0.2.1 {\n next NOSUCH\n }", "expected response codes, got NOSUCH"),
    ("forward . 192.0.2.1 {\n max_concurrent many\n }", "'many' is not a number"),
    ("forward . 192.0.2.1 {\n except\n }", "except: expected at least one zone"),
    ("forward . 192.0.2.1 {\n max_fail 3\n }", 'did you mean "max_fails"'),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_a_bad_option_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"Corefile:\d+: .*{why}"):
        Offline(f".:53 {{\n {text}\n}}", FakeClient())
