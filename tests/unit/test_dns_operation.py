"""Plugins about running a server: where it listens, the order of answers, logs, readiness, reloading."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from netemu.dns import chain, corefile, listen, names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugins import bind, health, loop, reload
from netemu.dns.plugins.errors import Errors
from netemu.dns.plugins.loadbalance import LoadBalance, parse_weights
from netemu.dns.plugins.log import COMMON, line
from netemu.dns.server import Server
from netemu.dns.wire import Query, Record, Response
from netemu.model.errors import UserError
from netemu.testing.client import FakeClient
from tests.unit.dns_chain import Bench, bench, query
from tests.unit.test_dns_server import page, serving, when

# --- loadbalance -------------------------------------------------------------------------------------------------

MANY = """
template IN A {
    answer "{{ .Name }} 1 CNAME a.test." "a.test. 1 A 192.0.2.1" "a.test. 1 A 10.0.0.1" "a.test. 1 A 192.0.2.2"
    additional "x.test. 1 A 10.0.0.2" "x.test. 1 AAAA fd00::1" "x.test. 1 A 192.0.2.3"
}
"""


def data(records: list[Record]) -> tuple[str, ...]:
    """RDATA as text."""
    return tuple(wire.rdata_text(record) for record in records)


async def orders(policy: str, count: int = 300) -> Counter[tuple[str, ...]]:
    """How often answers came in which order."""
    async with bench(f". {{\nloadbalance {policy}\n{MANY}\n}}") as to:
        return Counter([data((await to.ask("www.test A")).answers) for _ in range(count)])


@pytest.mark.parametrize("policy", ["", "round_robin"])
async def test_addresses_come_in_every_order_behind_the_alias(policy: str) -> None:
    found = await orders(policy)

    assert len(found) == 6
    assert {order[0] for order in found} == {"a.test."}
    assert min(found.values()) > 20


async def test_preferred_ranges_come_first() -> None:
    async with bench(f". {{\nloadbalance {{\nprefer 10.0.0.0/8 192.0.2.2/32 fd00::/8\n}}\n{MANY}\n}}") as to:
        seen = [await to.ask("www.test A") for _ in range(20)]

    assert {data(each.answers) for each in seen} == {("a.test.", "10.0.0.1", "192.0.2.2", "192.0.2.1")}
    assert {data(each.additional) for each in seen} == {("10.0.0.2", "fd00::1", "192.0.2.3")}
    assert {each.stable for each in seen} == {False}


async def test_weights_draw_the_first_address(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("# one of them much more often\nwww.test\n192.0.2.2 8\n10.0.0.1 1\n")

    found = await orders(f"weighted {weights}", 400)

    assert set(found) == {
        ("a.test.", "192.0.2.1", "10.0.0.1", "192.0.2.2"),
        ("a.test.", "10.0.0.1", "192.0.2.1", "192.0.2.2"),
        ("a.test.", "192.0.2.2", "192.0.2.1", "10.0.0.1"),
    }
    assert found["a.test.", "192.0.2.2", "192.0.2.1", "10.0.0.1"] > 250


async def test_new_weights_are_read(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("www.test\n192.0.2.2 255\n")
    async with bench(f". {{\nloadbalance weighted {weights} {{\nreload 10ms\n}}\n{MANY}\n}}") as to:
        plugin = to.plugins()[0]
        assert isinstance(plugin, LoadBalance)
        new = tmp_path / "new"
        new.write_text("www.test\n10.0.0.1 255\n")
        os.replace(new, weights)
        async with asyncio.timeout(5):
            while plugin.weights != {names.parse("www.test"): {bytes((10, 0, 0, 1)): 255}}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_denials_stay_as_they_are() -> None:
    text = '. {\nloadbalance\ntemplate ANY ANY {\nrcode NXDOMAIN\nadditional "a. 1 A 10.0.0.1" "b. 1 A 10.0.0.2"\n}\n}'
    async with bench(text) as to:
        assert {data((await to.ask("x A")).additional) for _ in range(30)} == {("10.0.0.1", "10.0.0.2")}


# --- log and errors ----------------------------------------------------------------------------------------------

ASKED = query("www.test A", edns=1232)
SAID = Response(answers=[Record(ASKED.name, wire.A, 1, bytes(4))])
LINES = [
    (COMMON, '10.244.1.9:40000 - 7 "A IN www.test. udp 40 false 1232" NOERROR qr,aa,rd 58 0.002500000s'),
    ("{proto} Request: {name} {type} {>id}", "udp Request: www.test. A 7"),
    ("{remote} {port} {class} {size} {rsize} {rcode}", "10.244.1.9 40000 IN 40 58 NOERROR"),
    ("{duration} {>rflags} {>bufsize} {>do} {>opcode} {local}", "0.002500000s qr,aa,rd 1232 false 0 -"),
]


@pytest.mark.parametrize(("form", "wanted"), LINES)
async def test_a_format_is_filled_in(form: str, wanted: str) -> None:
    assert line(form, ASKED, SAID, 58, 0.0025) == wanted


async def test_ipv6_clients_stand_in_brackets() -> None:
    asked = query("x. TXT", client="fd00::1")

    assert line("{remote}:{port}", asked, SAID, 1, 1.0) == "[fd00::1]:40000"


LOGGED = [
    ("", ["good.test.", "none.test.", "bad.test.", "other."]),
    ("test", ["good.test.", "none.test.", "bad.test."]),
    ("{\nclass success\n}", ["good.test.", "other."]),
    ("{\nclass denial error\n}", ["none.test.", "bad.test."]),
    ("{\nclass denial\nclass error\n}", ["none.test.", "bad.test."]),
    ("{\nclass error\nminDuration 0s\n}", ["good.test.", "none.test.", "bad.test.", "other."]),
    ("{\nclass error\nminDuration 1h\n}", ["bad.test."]),
    ("test {name}", ["good.test.", "none.test.", "bad.test."]),
]
CLASSES = """
template IN A good.test {
    answer "good.test. 1 A 10.0.0.1"
}
template IN A none.test {
    rcode NXDOMAIN
}
template IN A bad.test {
    rcode SERVFAIL
}
template IN A other {
    answer "other. 1 A 10.0.0.1"
}
"""


@pytest.mark.parametrize(("options", "wanted"), LOGGED)
async def test_what_is_logged(options: str, wanted: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "netemu.dns.plugins.log")
    async with bench(f". {{\nlog {options}\n{CLASSES}\n}}") as to:
        for name in ("good.test", "none.test", "bad.test", "other"):
            response = await to.ask(f"{name} A")
            for plugin in to.plugins():
                plugin.done(query(f"{name} A"), response, 50, 0.001)
            assert not response.stable

    names_logged = [
        next(word for word in record.getMessage().split() if word.endswith(".")) for record in caplog.records
    ]
    assert names_logged == wanted


async def test_errors_have_a_cause(caplog: pytest.LogCaptureFixture) -> None:
    async with bench(". {\nerrors\nlocal\n}") as to:
        await to.ask("www.test AAAA")
        await to.ask("localhost A")

    assert [record.getMessage() for record in caplog.records] == [
        "plugin/errors: 2 www.test. AAAA: no next plugin found"
    ]


CONSOLIDATED = [
    ('consolidate 1h "no next"', 3, [(logging.ERROR, "plugin/errors: 3 errors like 'no next' occurred in last 1h")]),
    ('consolidate 1h "no next" warning', 1,
     [(logging.WARNING, "plugin/errors: 1 errors like 'no next' occurred in last 1h")]),
    ('consolidate 1h "no next" info show_first', 2,
     [(logging.INFO, "plugin/errors: 2 x. A: no next plugin found"),
      (logging.INFO, "plugin/errors: 2 errors like 'no next' occurred in last 1h")]),
    ('consolidate 1h "no next" show_first', 1, [(logging.ERROR, "plugin/errors: 2 x. A: no next plugin found")]),
    ('consolidate 1h ^other\nconsolidate 5m "^no"\nconsolidate 1h no', 2,
     [(logging.ERROR, "plugin/errors: 2 errors like '^no' occurred in last 5m")]),
    ("consolidate 1h ^other", 1, [(logging.ERROR, "plugin/errors: 2 x. A: no next plugin found")]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "count", "wanted"), CONSOLIDATED)
async def test_errors_of_a_kind_are_one_line(
    options: str, count: int, wanted: list[tuple[int, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "netemu.dns.plugins.errors")
    async with bench(f". {{\nerrors {{\nstacktrace\n{options}\n}}\n}}") as to:
        for _ in range(count):
            await to.ask("x A")

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == wanted


async def test_consolidated_errors_are_told_when_their_time_has_passed(caplog: pytest.LogCaptureFixture) -> None:
    async with bench(". {\nerrors {\nconsolidate 10ms .\n}\n}") as to:
        for _ in range(2):
            await to.ask("x A")
            async with asyncio.timeout(5):
                while not caplog.records:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert caplog.records[0].getMessage() == "plugin/errors: 1 errors like '.' occurred in last 10ms"
            caplog.clear()
        assert isinstance(to.plugins()[0], Errors)


# --- bind, ready, health, reload ---------------------------------------------------------------------------------


def bound(args: str, excluded: str = "") -> tuple[str, ...]:
    """What a `bind` directive means."""
    options = (Directive("except", tuple(excluded.split()), (), "Corefile", 3),) if excluded else ()
    return bind.addresses(Directive("bind", tuple(args.split()), options, "Corefile", 2))


async def test_a_block_is_bound_to_addresses_and_interfaces() -> None:
    assert bound("192.0.2.1 ::1 192.0.2.1") == ("192.0.2.1", "::1")
    assert "127.0.0.1" in bound("lo")
    assert "127.0.0.1" not in bound("lo 192.0.2.1", "127.0.0.1")
    assert bound("lo 192.0.2.1", "lo") == ("192.0.2.1",)


async def test_several_bind_lines_add_up() -> None:
    (block,) = corefile.parse(".:53 {\nbind 192.0.2.1 192.0.2.2 {\nexcept 192.0.2.1\n}\nbind 192.0.2.1\nwhoami\n}")

    assert chain.build(block, Bench(". {\nwhoami\n}"))[1] == ("192.0.2.2", "192.0.2.1")


async def test_ready_may_cease_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ".:53 {{\nbind 127.0.0.1\nready 127.0.0.1:0 {{\nmonitor {}\n}}\nwhoami\n}}"
    seen = {}
    for monitor in ("until-ready", "continuously"):
        async with serving(text.format(monitor)) as to:
            first = await page(to, "/ready")
            monkeypatch.setattr(to, "not_ready", lambda: ["kubernetes"])
            seen[monitor] = (first, await page(to, "/ready"))

    assert seen == {
        "until-ready": ((200, "OK"), (200, "OK")),
        "continuously": ((200, "OK"), (503, "kubernetes")),
    }


async def test_health_asks_itself_and_tells_how_long_that_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_EVERY", 0.01)
    (probe, *others) = listen.open_sockets(("127.0.0.1",), 0)
    address = f"127.0.0.1:{probe.getsockname()[1]}"
    for sock in (probe, *others):
        sock.close()
    async with serving(f".:53 {{\nbind 127.0.0.1\nhealth {address}\nwhoami\n}}") as to, asyncio.timeout(5):
        while "coredns_health_request_duration_seconds_count 3" not in to.metrics.text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert "coredns_health_request_failures_total" not in to.metrics.text()


async def test_a_change_of_an_imported_file_is_a_change(tmp_path: Path) -> None:
    path, part = tmp_path / "Corefile", tmp_path / "part"
    part.write_text("hosts /nonexistent {\n192.0.2.7 gate\n}\n")
    path.write_text(".:53 {\nbind 127.0.0.1\nreload 20ms 0s\nimport part\n}")
    found = Server(path, client=FakeClient())
    await found.start(corefile.load(path), {53: 0})
    try:
        new = tmp_path / "new"
        new.write_text("hosts /nonexistent {\n192.0.2.8 gate\n}\n")
        os.replace(new, part)
        async with asyncio.timeout(5):
            while (await found.resolve(query("gate A"), 53)).answers[0].rdata != bytes((192, 0, 2, 8)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await found.close()


async def test_a_corefile_that_went_away_is_told_once_and_is_read_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "_AWAY", 0.05)
    path, told = tmp_path / "Corefile", list[tuple[str, str]]()
    text = ".:53 {\nbind 127.0.0.1\nreload 10ms 0s\nhosts /nonexistent {\n192.0.2.7 gate\n}\n}\n"
    path.write_text(text)
    found = Server(path, client=FakeClient())
    monkeypatch.setattr(found, "say", lambda kind, reason, message: told.append((reason, message)))
    await found.start(corefile.load(path), {53: 0})
    try:
        path.unlink()
        await when(lambda: bool(told))
        answer = await found.resolve(query("gate A"), 53)
        await asyncio.sleep(0.1)  # several looks
        path.write_text(text)
        await when(lambda: told[-1][0] == "Reloaded")
    finally:
        await found.close()

    assert [reason for reason, _ in told] == ["ReloadFailed", "Reloaded"]
    assert told[0][1] == f"keeping the old configuration: {path}: No such file or directory"
    assert len(answer.answers) == 1


@pytest.mark.parametrize(("directive", "place"), [("bind 192.0.2.99\n", 2), ("", 1)])
async def test_an_address_that_cannot_be_listened_on_is_told_with_its_place(directive: str, place: int) -> None:
    taken = listen.open_sockets(("",), 0)
    found = Server(None, client=FakeClient())
    try:
        with pytest.raises(UserError) as refused:
            await found.start(corefile.parse(f".:53 {{\n{directive}whoami\n}}"), {53: taken[0].getsockname()[1]})
    finally:
        for sock in taken:
            sock.close()

    assert str(refused.value).startswith(f"Corefile:{place}: cannot listen on ")


REFUSALS = [
    ("bind", "2: bind: expected addresses or interfaces"),
    ("bind nosuch0", "2: bind: 'nosuch0' is neither an address nor an interface"),
    ("bind 192.0.2.1 {\nexcept 192.0.2.1\n}", "2: bind: `except` leaves no address"),
    ("bind 192.0.2.1 {\nexcpt 192.0.2.1\n}", "3: unknown option 'excpt'; did you mean \"except\"?"),
    ("loadbalance random", "2: loadbalance: random: expected round_robin or weighted FILE"),
    ("loadbalance weighted /nonexistent/w", "2: loadbalance: /nonexistent/w: No such file or directory"),
    ("loadbalance {\nprefer\n}", "3: prefer: expected at least one range like 10.0.0.0/8"),
    ("loadbalance {\nprefer ten\n}", "3: prefer: 'ten' is neither an address nor a range like 10.0.0.0/8"),
    ("loadbalance {\nreload 5s\n}", "3: unknown option 'reload'"),
    ("log . {nmae}", "2: log: unknown placeholder {nmae}; did you mean \"{name}\"?"),
    ("log {\nclass good\n}", "3: log: unknown class 'good'; expected all, success, denial, error"),
    ("log {\nclass\n}", "3: class: expected at least one of all, success, denial, error"),
    ("log {\nminduration 1s\n}", "3: unknown option 'minduration'; did you mean \"minDuration\"?"),
    ("errors {\nconsolidate 5m\n}", "3: consolidate: expected DURATION PATTERN [LEVEL] [show_first]"),
    ("errors {\nconsolidate 5 x\n}", "3: consolidate: '5' is not a duration like 30s"),
    ("errors {\nconsolidate 5m (\n}",
     "3: consolidate: '(' is not a regular expression: missing ), unterminated subpattern at position 0"),
    ("errors {\nconsolidate 5m x loud\n}",
     "3: consolidate: unknown level 'loud'; expected error, warning, info, debug"),
    ("ready {\nmonitor never\n}", "3: monitor: 'never' is none of until-ready, continuously"),
    ("health {\nlameduk 5s\n}", "3: unknown option 'lameduk'; did you mean \"lameduck\"?"),
    ("reload 30", "2: reload: expected [INTERVAL] [JITTER], for example `reload 30s 15s`"),
    ("whoami x", "2: whoami takes no arguments"),
    ("loop {\nx\n}", "2: loop takes no arguments"),
    ("root", "2: root: expected a folder, got nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), REFUSALS)
def test_a_refusal_says_where_and_what_would_be_right(text: str, wanted: str) -> None:
    with pytest.raises(UserError) as refused:
        Bench(f". {{\n{text}\n}}")

    assert str(refused.value) == f"Corefile:{wanted}"


@pytest.mark.parametrize("text", ["192.0.2.1 3", "www.test\n192.0.2.1 0", "www.test\n192.0.2.1 256", "a\nb 1", "a b c"])
def test_bad_weights_are_named_with_their_line(text: str) -> None:
    with pytest.raises(ValueError, match=rf"^line {len(text.splitlines())}: "):
        parse_weights(text)


# --- loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patience", "asked"), [(60.0, 1), (0.0, 3)], ids=["a refusal in time", "too late"])
async def test_only_silence_makes_loop_ask_again(monkeypatch: pytest.MonkeyPatch, patience: float, asked: int) -> None:
    for name, value in (("_PATIENCE", patience), ("_PAUSE", 0), ("_FOR", 60)):
        monkeypatch.setattr(loop, name, value)
    async with bench(". {\nloop\nerratic\n}") as to:
        seen = list[bytes]()

        async def resolve(query: Query, port: int) -> Response:
            seen.append(query.name)
            if len(seen) == 3:
                await asyncio.sleep(60)
            return Response(wire.SERVFAIL)

        monkeypatch.setattr(to, "resolve", resolve)
        for _ in range(20):
            await asyncio.sleep(0)

    assert len(seen) == len(set(seen)) == asked
