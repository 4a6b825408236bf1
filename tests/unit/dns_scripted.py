"""DNS servers that do as a test says: one function from a question to what is sent back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from netemu.dns import listen, names, wire
from netemu.dns.wire import Query, Record, Response

Script = Callable[[Query], bytes | tuple[bytes, ...] | None]
"""What to send for a question, one message after the other; None is silence."""

ADDRESS = bytes((192, 0, 2, 1))


def reply(query: Query, *, rcode: int = wire.NOERROR, ttl: int = 300, tc: bool = False, count: int = 1) -> bytes:
    """An answer of addresses for NOERROR, a denial with the SOA record of the root otherwise."""
    answers = [Record(query.name, wire.A, ttl, ADDRESS[:3] + bytes((n + 1,))) for n in range(count)]
    soa = Record(names.ROOT, wire.SOA, ttl, wire.soa(names.ROOT, names.ROOT, 1, 2, 3, 4, 5))
    if rcode == wire.NOERROR:
        return wire.pack(query, Response(rcode, [] if tc else answers, aa=False, ra=True, tc=tc))
    return wire.pack(query, Response(rcode, [], [soa] if rcode == wire.NXDOMAIN else [], aa=False, ra=True))


class Scripted(asyncio.DatagramProtocol):
    """Counts what it is asked: `asked` are questions but for probes, as (transport, query)."""

    def __init__(self, script: Script) -> None:
        self.script, self.port = script, 0
        self.asked: list[tuple[str, Query]] = []
        self.probes: list[Query] = []
        self.connections = 0
        self.sources: set[int] = set()
        """Ports that datagrams came from."""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See asyncio.DatagramProtocol."""
        assert self._transport
        self.sources.add(addr[1])
        for said in self._say(data, "udp"):
            self._transport.sendto(said, addr)

    def _say(self, data: bytes, transport: str) -> tuple[bytes, ...]:
        query = wire.parse_query(data, transport)
        if query.type == wire.NS:
            self.probes.append(query)
        else:
            self.asked.append((transport, query))
        said = self.script(query)
        return said if isinstance(said, tuple) else (said,) if said else ()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection."""
        self.connections += 1
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                for said in self._say(await reader.readexactly(length), "tcp"):
                    writer.write(len(said).to_bytes(2, "big") + said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(script: Script = reply) -> AsyncIterator[Scripted]:
    """A server on loopback, UDP and TCP on the same port."""
    loop, found = asyncio.get_running_loop(), Scripted(script)
    udp, tcp = listen.open_sockets(("127.0.0.1",), 0)
    found.port = udp.getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: found, sock=udp)
    server = await asyncio.start_server(found.serve, sock=tcp)
    try:
        yield found
    finally:
        transport.abort()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)
