"""Every question of the table, without sockets and over them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from netemu.dns import corefile, server, wire
from netemu.dns.plugin import Plugin
from netemu.dns.plugins.kubernetes import Kubernetes
from netemu.dns.server import Server
from netemu.dns.upstream import Upstream
from tests.unit.dns_host import LOCAL, Offline, Silent, world
from tests.unit.dns_table import SERIAL, Part, Row, rows, said

ROWS = rows()
PARTS = {part.title: part for part in (row.part for row in ROWS)}


def at_the_serial(plugins: Iterable[Plugin]) -> None:
    """The serial is the time of the last change; the table has one of its own."""
    for plugin in plugins:
        if isinstance(plugin, Kubernetes):
            plugin.store.serial = SERIAL


_KNOWN: dict[Part, dict[tuple[bytes, int], tuple[str, ...]]] = {}


async def replies(part: Part) -> dict[tuple[bytes, int], tuple[str, ...]]:
    """What one server without sockets says to every question of a part; asked once."""
    if part not in _KNOWN:
        async with Offline(part.corefile, Silent() if part.silent else await world()) as host:
            if not part.silent:
                await host.ready()
            at_the_serial(host.plugins)
            questions = [row.question for row in ROWS if row.part == part]
            _KNOWN[part] = {each: said(await host.ask(wire.build_query(1, *each))) for each in questions}
    return _KNOWN[part]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_question_is_answered_as_coredns_answers_it(row: Row) -> None:
    assert (await replies(row.part))[row.question] == row.reply


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.title)
async def test_the_wire_brings_the_same(part: Part, tcp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_local_addresses", lambda: LOCAL)
    found = Server(None, client=Silent() if part.silent else await world())
    await found.start(corefile.parse(_on_loopback(part.corefile)), {53: 0})
    upstream = Upstream("127.0.0.1", found.ports[53])
    try:
        while not part.silent and found.not_ready():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        at_the_serial(found.plugins())
        differing = await _differing(upstream, [row for row in ROWS if row.part == part], tcp)
    finally:
        upstream.close()
        await found.close()

    assert not differing


def _on_loopback(text: str) -> str:
    return text.replace(":53 {\n", ":53 {\n bind 127.0.0.1\n")


async def _differing(upstream: Upstream, wanted: list[Row], tcp: bool) -> dict[str, tuple[object, object]]:
    found: dict[str, tuple[object, object]] = {}
    for row in wanted:
        name, kind = row.question
        # Wide enough for the longest reply; the unit rows ask without EDNS.
        reply = said(await upstream.ask(name, kind, tcp=tcp, timeout=5, edns_size=1232))
        if reply != row.reply:
            found[str(row)] = (reply, row.reply)
    return found


def test_the_table_is_large_and_asks_nothing_twice() -> None:
    asked = [(row.part.title, row.name, row.type) for row in ROWS]

    assert len(asked) == len(set(asked)) > 350
