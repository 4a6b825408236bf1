"""A Corefile and questions to it, without sockets: what the plugins of a server block say.

`Bench` builds the server of a Corefile and asks it; an answer is shown as text, one line per fact:

    NOERROR aa
    www.example.org. 60 IN A 192.0.2.1
    authority example.org. 60 IN NS ns.example.org.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from netemu.client.base import Client
from netemu.dns import corefile, names, wire
from netemu.dns.port import Port
from netemu.dns.server import Server
from netemu.dns.wire import Edns, Query, Response
from netemu.testing.client import FakeClient


class Bench(Server):
    """A server that listens nowhere; started plugins do their background work."""

    def __init__(self, text: str, client: Client | None = None) -> None:
        super().__init__(None, client=client or FakeClient())
        zones, self._chains = self._build(corefile.parse(text))
        self._ports = {
            port: {address: Port(found, self.metrics) for address, found in group.items()}
            for port, group in zones.items()
        }

    async def ask(self, question: str, client: str = "10.244.1.9", port: int = 53, **options: Any) -> Response:
        """The response to `NAME TYPE`, as a client at that address gets it."""
        return await self.resolve(query(question, client, **options), port)

    async def text(self, question: str, client: str = "10.244.1.9", **options: Any) -> str:
        """The response as text."""
        return shown(await self.ask(question, client, **options))


@asynccontextmanager
async def bench(text: str, client: Client | None = None) -> AsyncIterator[Bench]:
    """The plugins of a Corefile at work: `:53` blocks, started, closed at the end."""
    found = Bench(text, client)
    try:
        for plugin in found.plugins():
            await plugin.start()
        yield found
    finally:
        await found.close()


def query(question: str, client: str = "10.244.1.9", **options: Any) -> Query:
    """The query `NAME TYPE`; `edns` is a size, other options are fields of Query."""
    name, kind = question.split()
    number = wire.type_number(kind)
    assert number is not None
    if "edns" in options:
        options["edns"] = Edns(options["edns"], False, 0, b"")
    return Query(7, wire.RD, names.parse(name), number, client=(client, 40000), size=40, **options)


def shown(response: Response) -> str:
    """A response as text; see the module's docstring."""
    if response.silent:
        return "silence"
    flags = [flag for flag in ("aa", "ra", "tc") if getattr(response, flag)]
    lines = [" ".join((wire.rcode_name(response.rcode), *flags))]
    for prefix, section in (
        ("", response.answers),
        ("authority ", response.authority),
        ("additional ", response.additional),
    ):
        lines += [prefix + wire.record_text(record).replace("\t", " ") for record in section]
    return "\n".join(lines)


def sorted_text(text: str) -> str:
    """Text with its records in alphabetical order, for answers whose order is open."""
    head, *lines = text.splitlines()
    return "\n".join((head, *sorted(lines)))


def lines(text: str) -> str:
    """A table's cell: indentation and empty lines left out."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def copied(response: Response) -> Response:
    """A response with lists of its own."""
    return dataclasses.replace(response, answers=list(response.answers))
