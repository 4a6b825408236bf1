"""The server over loopback: packets in, packets out, read back by dnslib."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dnslib
import pytest

from netemu.client.base import ObjectList
from netemu.dns import corefile, listen, names, server, wire
from netemu.dns.plugins.kubernetes import Kubernetes
from netemu.dns.server import Server
from netemu.dns.upstream import Upstream
from netemu.model.errors import UserError
from netemu.model.resources import ENDPOINTSLICES, NAMESPACES, SERVICES
from netemu.testing.client import FakeClient
from tests.unit.dns_cluster import NAMESPACES as NAMES
from tests.unit.dns_cluster import SERVICES as SERVICE_OBJECTS
from tests.unit.dns_cluster import SLICES, endpoint, port, service, slice_of

CLUSTER = """
.:53 {
    bind 127.0.0.1 ::1
    errors
    ready 127.0.0.1:0
    health 127.0.0.1:0
    prometheus 127.0.0.1:0
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    EXTRA
}
"""


@asynccontextmanager
async def serving(text: str, client: FakeClient | None = None) -> AsyncIterator[Server]:
    """A running server; port 53 of the Corefile is `ports[53]`."""
    found = Server(None, client=client or FakeClient())
    await found.start(corefile.parse(text), {53: 0})
    try:
        yield found
    finally:
        await found.close()


async def when(true: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    while not true():  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0)


@asynccontextmanager
async def cluster_server(extra: str = "loadbalance") -> AsyncIterator[tuple[Server, FakeClient]]:
    """A server in front of the cluster of `dns_cluster`, synced."""
    client = FakeClient()
    for name in NAMES:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
    for item in SERVICE_OBJECTS:
        await client.create(SERVICES, item, item["metadata"]["namespace"])
    for item in SLICES:
        await client.create(ENDPOINTSLICES, item, item["metadata"]["namespace"])
    async with serving(CLUSTER.replace("EXTRA", extra), client) as found:
        await when(lambda: not found.not_ready())
        yield found, client


class Silent(FakeClient):
    """An API server that never answers."""

    async def list(self, *args: Any, **options: Any) -> ObjectList:
        await asyncio.Event().wait()
        return await super().list(*args, **options)


class Socket(asyncio.DatagramProtocol):
    """A UDP client that keeps replies in a queue."""

    def __init__(self) -> None:
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.replies.put_nowait(data)


@asynccontextmanager
async def udp(to: Server, address: str = "127.0.0.1") -> AsyncIterator[tuple[asyncio.DatagramTransport, Socket]]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Socket, remote_addr=(address, to.ports[53])
    )
    try:
        yield transport, protocol
    finally:
        transport.abort()
        await asyncio.sleep(0)


async def exchange(to: Server, packet: bytes, address: str = "127.0.0.1") -> bytes:
    """The reply to one datagram."""
    async with udp(to, address) as (transport, protocol), asyncio.timeout(5):
        transport.sendto(packet)
        return await protocol.replies.get()


async def over_tcp(to: Server, *packets: bytes) -> list[bytes]:
    """The replies to packets written at once on one connection, in the order they come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to.ports[53])
    try:
        writer.write(b"".join(struct.pack("!H", len(packet)) + packet for packet in packets))
        return [await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")) for _ in packets]
    finally:
        writer.close()
        await writer.wait_closed()


def question(name: str, kind: str = "A", ident: int = 7, **options: Any) -> bytes:
    """A query packet."""
    return wire.build_query(ident, names.parse(name), wire.TYPES[kind], **options)


def parsed(packet: bytes) -> dnslib.DNSRecord:
    return dnslib.DNSRecord.parse(packet)


async def rcode(to: Server, name: str, kind: str = "A", address: str = "127.0.0.1") -> str:
    return wire.rcode_name(parsed(await exchange(to, question(name, kind), address)).header.rcode)


async def addresses(to: Server, name: str, kind: str = "A") -> list[str]:
    return [str(rr.rdata) for rr in parsed(await exchange(to, question(name, kind))).rr]


# --- the header ------------------------------------------------------------------------------------------------------


async def test_an_answer_from_the_zone_is_authoritative_and_offers_no_recursion() -> None:
    async with cluster_server() as (to, _):
        header = parsed(await exchange(to, question("web.shop.svc.cluster.local", ident=4711))).header

    assert (header.id, header.qr, header.aa, header.ra, header.rd, header.tc) == (4711, 1, 1, 0, 1, 0)


async def test_a_denial_carries_the_soa_with_the_negative_ttl() -> None:
    async with cluster_server() as (to, _):
        reply = parsed(await exchange(to, question("absent.shop.svc.cluster.local")))

    assert (reply.header.rcode, reply.header.aa, reply.auth[0].rtype, reply.auth[0].ttl) == (3, 1, wire.SOA, 30)


async def test_the_question_comes_back_in_its_own_case() -> None:
    packet = question("wEb.ShOp.sVc.cLuStEr.LoCaL")
    async with cluster_server() as (to, _):
        first, second = await exchange(to, packet), await exchange(to, packet)

    assert first[12 : len(packet)] == packet[12:] == second[12 : len(packet)]


async def test_the_same_question_again_is_answered_under_the_new_id() -> None:
    async with cluster_server() as (to, _):
        first = await exchange(to, question("web.shop.svc.cluster.local", ident=1))
        second = await exchange(to, question("web.shop.svc.cluster.local", ident=2))

    assert (second[:2], second[2:]) == (b"\0\2", first[2:])


async def test_ipv6_clients_are_answered_too() -> None:
    async with cluster_server() as (to, _):
        reply = parsed(await exchange(to, question("web.shop.svc.cluster.local"), "::1"))

    assert str(reply.a.rdata) == "10.96.0.5"


async def test_a_name_outside_every_server_block_is_refused() -> None:
    text = CLUSTER.replace(".:53", "cluster.local:53").replace("EXTRA", "")
    async with serving(text) as to:
        assert await rcode(to, "example.com") == "REFUSED"


async def test_a_name_that_no_plugin_wants_is_a_server_failure() -> None:
    async with cluster_server("") as (to, _):
        assert await rcode(to, "example.com") == "SERVFAIL"


async def test_a_class_other_than_in_is_refused() -> None:
    async with cluster_server() as (to, _):
        reply = parsed(await exchange(to, question("web.shop.svc.cluster.local", cls=3)))

    assert (reply.header.rcode, reply.header.aa) == (wire.REFUSED, 0)


async def test_transfers_are_refused() -> None:
    async with cluster_server() as (to, _):
        reply = parsed(await exchange(to, question("cluster.local", "AXFR")))

    assert (reply.header.rcode, reply.header.aa) == (wire.REFUSED, 0)


# --- malformed packets -----------------------------------------------------------------------------------------------

GOOD = question("web.shop.svc.cluster.local")
MALFORMED = [
    pytest.param(GOOD[:4] + b"\0\2" + GOOD[6:], 1, id="two questions"),
    pytest.param(GOOD[:4] + b"\0\0" + GOOD[6:], 1, id="no question"),
    pytest.param(GOOD[:12] + b"\x50web\0\0\1\0\1", 1, id="bad label type"),
    pytest.param(GOOD[:12] + b"\xc0\x0c\0\1\0\1", 1, id="compression loop"),
    pytest.param(GOOD[:20], 1, id="question cut off"),
    pytest.param(GOOD[:-1], 1, id="one octet short"),
    pytest.param(GOOD[:11] + b"\1" + GOOD[12:] + b"\0\0\x29", 1, id="OPT cut off"),
    pytest.param(GOOD[:12], 2, id="header alone"),
    pytest.param(GOOD[:2] + b"\x09\0" + GOOD[4:], 4, id="IQUERY"),
    pytest.param(GOOD[:2] + b"\x11\0" + GOOD[4:], 4, id="STATUS"),
    pytest.param(GOOD[:2] + b"\x29\0" + GOOD[4:], 4, id="UPDATE"),
    pytest.param(GOOD[:2] + b"\x31\0" + GOOD[4:], 4, id="opcode 6"),
]


@pytest.mark.parametrize(("packet", "code"), MALFORMED)
async def test_a_malformed_packet_gets_a_bare_header(packet: bytes, code: int) -> None:
    async with cluster_server() as (to, _):
        reply = await exchange(to, packet)

    assert (len(reply), reply[:2], reply[3] & 15) == (12, packet[:2], code)


@pytest.mark.parametrize("packet", [GOOD[:11], b"", b"\0", GOOD[:2] + b"\x81\0" + GOOD[4:]], ids=len)
async def test_silence_is_the_answer_to_scraps_and_replies(packet: bytes) -> None:
    async with cluster_server() as (to, _), udp(to) as (transport, protocol):
        transport.sendto(packet)
        transport.sendto(GOOD)
        async with asyncio.timeout(5):
            first = await protocol.replies.get()

    assert first[:2] == GOOD[:2]
    assert parsed(first).header.rcode == 0


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(GOOD + b"garbage", id="trailing octets"),
        pytest.param(GOOD[:2] + b"\x25\x70" + GOOD[4:], id="NOTIFY with AA, AD, CD and Z"),
    ],
)
async def test_what_does_not_matter_is_ignored(packet: bytes) -> None:
    async with cluster_server() as (to, _):
        reply = parsed(await exchange(to, packet))

    assert [str(rr.rdata) for rr in reply.rr] == ["10.96.0.5"]


async def test_labels_may_hold_any_octets() -> None:
    name = names.join((b"\xff\xfe", b"a.b", b"svc"), names.parse("cluster.local"))
    async with cluster_server() as (to, _):
        reply = await exchange(to, wire.build_query(1, name, wire.A))

    assert reply[3] & 15 == wire.NXDOMAIN


async def test_random_packets_leave_the_server_working() -> None:
    import random

    chance = random.Random(7)
    async with cluster_server() as (to, _), udp(to) as (transport, protocol):
        for _ in range(300):
            at = chance.randrange(2, len(GOOD))
            transport.sendto(GOOD[:at] + chance.randbytes(chance.randrange(6)) + GOOD[at:])
            await asyncio.sleep(0)
        transport.sendto(question("web.shop.svc.cluster.local", ident=65535))
        async with asyncio.timeout(5):
            while (reply := await protocol.replies.get())[:2] != b"\xff\xff":
                pass

    assert parsed(reply).header.rcode == 0


# --- EDNS and truncation ---------------------------------------------------------------------------------------------


async def test_opt_comes_back_with_size_and_do() -> None:
    async with cluster_server() as (to, _):
        reply = parsed(await exchange(to, question("web.shop.svc.cluster.local", edns_size=1400, do=True)))

    assert [(rr.rtype, rr.rclass, rr.ttl) for rr in reply.ar] == [(wire.OPT, 1400, 0x8000)]


async def test_no_opt_in_means_none_out() -> None:
    async with cluster_server() as (to, _):
        assert not parsed(await exchange(to, GOOD)).ar


async def test_cookies_come_back_and_client_subnets_do_not() -> None:
    options = b"\0\x0a\0\x08" + b"12345678" + b"\0\x08\0\x04\0\1\0\0"
    packet = GOOD[:11] + b"\1" + GOOD[12:] + b"\0\0\x29\x04\xd0\0\0\0\0" + struct.pack("!H", len(options)) + options
    async with cluster_server() as (to, _):
        reply = await exchange(to, packet)

    assert reply.endswith(b"\0\x0c" + options[:12])


async def test_an_unknown_edns_version_is_refused_as_badvers() -> None:
    packet = GOOD[:11] + b"\1" + GOOD[12:] + b"\0\0\x29\x04\xd0\0\1\0\0\0\0"
    async with cluster_server() as (to, _):
        reply = parsed(await exchange(to, packet))

    assert (reply.header.rcode, reply.header.a, reply.ar[0].rclass, reply.ar[0].ttl >> 24) == (0, 0, 0, 1)


async def many(client: FakeClient, count: int) -> str:
    """A headless Service of so many endpoints, with a name of 27 octets on the wire; returns it."""
    await client.create(SERVICES, service("x", "None", port("p", 80)), "shop")
    ready = [endpoint(f"10.0.8.{n}") for n in range(1, count + 1)]
    await client.create(ENDPOINTSLICES, slice_of("x", "1", ready, port("p", 80)), "shop")
    return "x.shop.svc.cluster.local"


async def until(to: Server, name: str) -> None:
    while await rcode(to, name) != "NOERROR":
        pass


async def test_a_reply_beyond_512_octets_keeps_whole_records_and_says_so() -> None:
    async with cluster_server() as (to, client):
        name = await many(client, 40)
        await until(to, name)
        packed = await exchange(to, question(name))
        reply = parsed(packed)

    assert (len(reply.rr), reply.header.tc, reply.header.q, len(packed) <= 512) == (29, 1, 1, True)


async def test_edns_and_tcp_bring_all_records() -> None:
    async with cluster_server() as (to, client):
        name = await many(client, 40)
        await until(to, name)
        wide = parsed(await exchange(to, question(name, edns_size=1232)))
        stream = parsed((await over_tcp(to, question(name)))[0])

    assert (len(wide.rr), wide.header.tc, len(stream.rr), stream.header.tc) == (40, 0, 40, 0)


async def test_additional_records_that_do_not_fit_are_counted_as_truncation() -> None:
    async with cluster_server() as (to, client):
        name = await many(client, 9)
        await until(to, name)
        reply = parsed(await exchange(to, question(f"_p._tcp.{name}", "SRV", edns_size=760)))

    assert (len(reply.rr), 0 < len(reply.ar) - 1 < 9 or len(reply.ar) == 10) == (9, True)
    assert reply.header.tc == (len(reply.ar) < 10)


async def test_truncated_replies_keep_opt() -> None:
    async with cluster_server() as (to, client):
        name = await many(client, 60)
        await until(to, name)
        reply = parsed(await exchange(to, question(name, edns_size=600)))

    assert (reply.header.tc, [rr.rtype for rr in reply.ar]) == (1, [wire.OPT])


async def test_an_answer_of_many_addresses_comes_in_every_order() -> None:
    async with cluster_server() as (to, _):
        seen = {tuple(await addresses(to, "peers.shop.svc.cluster.local")) for _ in range(200)}

    assert len(seen) == 6


# --- TCP -------------------------------------------------------------------------------------------------------------


async def test_questions_on_one_connection_are_all_answered() -> None:
    packets = [question("web.shop.svc.cluster.local", ident=ident) for ident in range(1, 301)]
    async with cluster_server() as (to, _):
        replies = await over_tcp(to, *packets)

    assert sorted(int.from_bytes(reply[:2], "big") for reply in replies) == list(range(1, 301))


async def test_a_message_may_arrive_octet_by_octet() -> None:
    async with cluster_server() as (to, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", to.ports[53])
        for octet in struct.pack("!H", len(GOOD)) + GOOD:
            writer.write(bytes((octet,)))
            await writer.drain()
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        await writer.wait_closed()

    assert parsed(reply).header.rcode == 0


async def test_scraps_over_tcp_do_not_end_the_connection() -> None:
    async with cluster_server() as (to, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", to.ports[53])
        writer.write(b"\0\3abc" + struct.pack("!H", len(GOOD)) + GOOD)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        await writer.wait_closed()

    assert reply[:2] == GOOD[:2]


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "IDLE", 0.05)
    async with cluster_server() as (to, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", to.ports[53])
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def connected(to: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection that was accepted: it has answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to.ports[53])
    writer.write(struct.pack("!H", len(GOOD)) + GOOD)
    await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    return reader, writer


async def test_of_too_many_connections_the_one_silent_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "MOST_CONNECTIONS", 2)
    async with cluster_server() as (to, _):
        first, second = await connected(to), await connected(to)
        first[1].write(struct.pack("!H", len(GOOD)) + GOOD)
        await first[0].readexactly(2)
        third = await connected(to)
        async with asyncio.timeout(5):
            assert await second[0].read() == b""
        for _, writer in (first, second, third):
            writer.close()
            await writer.wait_closed()


async def test_a_client_that_does_not_read_is_not_answered_into_memory() -> None:
    count = 200_000
    packet = question("web.shop.svc.cluster.local", ident=9)
    async with cluster_server() as (to, _):
        sock = socket.create_connection(("127.0.0.1", to.ports[53]))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write((struct.pack("!H", len(packet)) + packet) * count)
        with pytest.raises(TimeoutError):  # nobody takes the questions, because nobody takes the answers
            async with asyncio.timeout(1):
                await writer.drain()
        found = 0
        async with asyncio.timeout(20):
            while found < count:
                await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                found += 1
        writer.close()
        await writer.wait_closed()


# --- freshness -------------------------------------------------------------------------------------------------------


async def test_a_change_shows_within_50_ms_of_the_event() -> None:
    worst = 0.0
    async with cluster_server() as (to, client):
        for n in range(10):
            name = f"new{n}.shop.svc.cluster.local"
            assert await rcode(to, name) == "NXDOMAIN"
            await client.create(SERVICES, service(f"new{n}", f"10.96.1.{n}", port("http", 80)), "shop")
            began = time.monotonic()
            await until(to, name)
            worst = max(worst, time.monotonic() - began)

    assert worst < 0.05


async def test_a_finished_answer_is_dropped_when_its_object_changes() -> None:
    async with cluster_server() as (to, client):
        before = await addresses(to, "web.shop.svc.cluster.local")
        await client.delete(SERVICES, "web", "shop")
        async with asyncio.timeout(5):
            while await rcode(to, "web.shop.svc.cluster.local") != "NXDOMAIN":
                pass

    assert before == ["10.96.0.5"]


async def test_before_the_first_lists_nothing_is_denied() -> None:
    async with serving(CLUSTER.replace("EXTRA", ""), Silent()) as to:
        codes = [await rcode(to, "web.shop.svc.cluster.local"), await rcode(to, "svc.cluster.local"),
                 await rcode(to, "dns-version.cluster.local", "TXT"), *to.not_ready()]  # fmt: skip

    assert codes == ["SERVFAIL", "NOERROR", "NOERROR", "kubernetes"]


# --- plugins ---------------------------------------------------------------------------------------------------------

UPSTREAM = """
.:53 {
    bind 127.0.0.1
    template IN A {
        match (?i)^www[.]example[.]com[.]$
        answer "{{ .Name }} 300 IN A 192.0.2.1"
    }
    template IN A {
        match ^empty[.]
        fallthrough
    }
    template IN ANY {
        rcode NXDOMAIN
        authority ". 60 IN SOA a. b. 1 2 3 4 5"
    }
}
"""


@asynccontextmanager
async def with_upstream(extra: str = "") -> AsyncIterator[tuple[Server, FakeClient]]:
    async with (
        serving(UPSTREAM) as up,
        cluster_server(f"forward . 127.0.0.1:{up.ports[53]}\n{extra}") as found,
    ):
        yield found


async def test_other_names_are_asked_upstream() -> None:
    async with with_upstream() as (to, _):
        found = [await addresses(to, "www.example.com"), await rcode(to, "nowhere.example.com")]
        stream = parsed((await over_tcp(to, question("www.example.com")))[0])

    assert found == [["192.0.2.1"], "NXDOMAIN"]
    assert len(stream.rr) == 1


async def test_an_alias_leaving_the_zone_is_followed_upstream() -> None:
    async with with_upstream() as (to, _):
        reply = parsed(await exchange(to, question("out.shop.svc.cluster.local")))

    assert [str(rr.rdata) for rr in reply.rr] == ["Www.Example.COM.", "192.0.2.1"]


async def test_an_alias_to_a_dead_name_is_sent_alone() -> None:
    async with with_upstream() as (to, _):
        reply = parsed(await exchange(to, question("out.shop.svc.cluster.local", "AAAA")))

    assert (reply.header.rcode, reply.header.aa, len(reply.rr), len(reply.auth)) == (0, 1, 1, 0)


async def test_unknown_addresses_fall_through_with_the_soa_of_the_upstream() -> None:
    async with with_upstream() as (to, _):
        reply = parsed(await exchange(to, question("1.2.0.192.in-addr.arpa", "PTR")))

    assert (reply.header.rcode, str(reply.auth[0].rname)) == (3, ".")


async def test_a_refusing_upstream_costs_a_second_or_so_and_is_a_server_failure() -> None:
    async with cluster_server("forward . 127.0.0.1:9") as (to, _):
        began = time.monotonic()
        code = await rcode(to, "www.example.com")

    assert (code, time.monotonic() - began < 5) == ("SERVFAIL", True)


async def test_the_second_upstream_stands_in_for_the_first() -> None:
    async with serving(UPSTREAM) as up:
        extra = f"forward . 127.0.0.1:9 127.0.0.1:{up.ports[53]} {{\n policy sequential\n }}"
        async with cluster_server(extra) as (to, _):
            assert await addresses(to, "www.example.com") == ["192.0.2.1"]


async def test_the_cache_counts_ttls_down_and_hides_changes_for_its_time() -> None:
    async with cluster_server("cache 30") as (to, client):
        first = parsed(await exchange(to, question("absent.shop.svc.cluster.local")))
        await client.create(SERVICES, service("absent", "10.96.1.1", port("http", 80)), "shop")
        store = next(each.store for each in to.plugins() if isinstance(each, Kubernetes))
        await when(lambda: store.cluster.service((b"shop", b"absent")) is not None)
        second = await rcode(to, "absent.shop.svc.cluster.local")

    assert (first.header.rcode, second) == (3, "NXDOMAIN")


async def test_a_cache_that_is_disabled_for_the_zone_hides_nothing() -> None:
    extra = "cache 30 {\n disable success cluster.local\n disable denial cluster.local\n }"
    async with cluster_server(extra) as (to, client):
        assert await rcode(to, "absent.shop.svc.cluster.local") == "NXDOMAIN"
        await client.create(SERVICES, service("absent", "10.96.1.1", port("http", 80)), "shop")
        async with asyncio.timeout(2):
            await until(to, "absent.shop.svc.cluster.local")


async def test_forwarded_answers_are_cached() -> None:
    async with serving(UPSTREAM) as up, cluster_server(f"forward . 127.0.0.1:{up.ports[53]}\n cache 30") as (to, _):
        first = parsed(await exchange(to, question("www.example.com")))
        await up.close()
        second = parsed(await exchange(to, question("www.example.com")))

    assert [str(rr.rdata) for rr in second.rr] == ["192.0.2.1"]
    assert (first.rr[0].ttl, 1 <= second.rr[0].ttl <= 30) == (30, True)


async def test_a_forwarding_loop_stops_the_server() -> None:
    found = Server(None, client=FakeClient())
    probe = listen.open_sockets(("127.0.0.1",), 0)
    free = probe[0].getsockname()[1]
    for sock in probe:
        sock.close()
    text = f".:53 {{\n bind 127.0.0.1\n loop\n forward . 127.0.0.1:{free}\n }}"
    await found.start(corefile.parse(text), {53: free})
    try:
        async with asyncio.timeout(5):
            await found.failed.wait()
    finally:
        await found.close()

    assert 'Loop detected for zone "."' in found.cause


async def test_hosts_answers_names_and_addresses() -> None:
    text = ".:53 {\n bind 127.0.0.1\n hosts {\n 192.0.2.7 gate gate.example\n fallthrough\n }\n whoami\n }"
    async with serving(text) as to:
        found = [await addresses(to, "gate.example"), await addresses(to, "7.2.0.192.in-addr.arpa", "PTR")]

    assert found == [["192.0.2.7"], ["gate.", "gate.example."]]


async def page(to: Server, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", to.page_port(path))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def test_ready_says_ok_once_the_cluster_is_known() -> None:
    async with serving(CLUSTER.replace("EXTRA", ""), Silent()) as early:
        before = await page(early, "/ready")
    async with cluster_server() as (to, _):
        after = await page(to, "/ready")

    assert (before, after) == ((503, "kubernetes"), (200, "OK"))


async def test_health_says_ok_and_metrics_count_replies() -> None:
    async with cluster_server() as (to, _):
        for _ in range(3):
            await exchange(to, GOOD)
        health, (_, metrics) = await page(to, "/health"), await page(to, "/metrics")

    assert health == (200, "OK")
    assert 'zone=".",view="",proto="udp",family="1",type="A"} 3' in metrics


async def test_metrics_are_coredns_s() -> None:
    do = question("web.shop.svc.cluster.local", "AAAA", edns_size=1232, do=True)
    async with cluster_server() as (to, _):
        for packet in (GOOD, GOOD, GOOD, GOOD, do, GOOD[:20]):
            await exchange(to, packet)
        await exchange(to, GOOD, "::1")
        await over_tcp(to, GOOD, GOOD, GOOD)
        _, metrics = await page(to, "/metrics")
    where = 'server="dns://:53",zone=".",view=""'
    dropped = where.replace('"."', '"dropped"')
    size = len(GOOD)

    for line in (
        f'coredns_dns_requests_total{{{where},proto="udp",family="1",type="A"}} 4',
        f'coredns_dns_requests_total{{{where},proto="udp",family="1",type="AAAA"}} 1',
        f'coredns_dns_requests_total{{{where},proto="udp",family="2",type="A"}} 1',
        f'coredns_dns_requests_total{{{where},proto="tcp",family="1",type="A"}} 3',
        f'coredns_dns_responses_total{{{where},rcode="NOERROR",plugin="kubernetes"}} 9',
        f'coredns_dns_responses_total{{{dropped},rcode="FORMERR",plugin=""}} 1',
        f"coredns_dns_do_requests_total{{{where}}} 1",
        f'coredns_dns_request_size_bytes_bucket{{{where},proto="tcp",le="0"}} 0',
        f'coredns_dns_request_size_bytes_bucket{{{where},proto="tcp",le="100"}} 3',
        f'coredns_dns_request_size_bytes_sum{{{where},proto="tcp"}} {3 * size}',
        f'coredns_dns_response_size_bytes_count{{{where},proto="udp"}} 6',
        f'coredns_dns_request_duration_seconds_bucket{{{where},le="+Inf"}} 9',
        f"coredns_dns_request_duration_seconds_count{{{where}}} 9",
        f'coredns_plugin_enabled{{{where},name="kubernetes"}} 1',
        f'coredns_plugin_enabled{{{where},name="loadbalance"}} 1',
        "coredns_panics_total 0",
        "# TYPE coredns_dns_request_duration_seconds histogram",
        "# TYPE coredns_dns_requests_total counter",
        "# TYPE coredns_plugin_enabled gauge",
    ):
        assert line in metrics.splitlines(), line
    assert 'coredns_build_info{version="' in metrics


async def test_a_bug_is_a_server_failure_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    async with cluster_server() as (to, _):
        monkeypatch.setattr(Kubernetes, "serve", broken)
        assert await rcode(to, "web.shop.svc.cluster.local") == "SERVFAIL"
        monkeypatch.undo()
        assert await rcode(to, "web.shop.svc.cluster.local") == "NOERROR"
        assert "coredns_panics_total 1" in to.metrics.text().splitlines()


async def test_reload_serves_the_new_file_and_keeps_the_old_one_when_it_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "Corefile"
    text = ".:53 {\n bind 127.0.0.1\n hosts {\n 192.0.2.7 gate\n }\n }"
    path.write_text(text)
    found = Server(path, client=FakeClient())
    await found.start(corefile.load(path), {53: 0})
    try:
        path.write_text(text.replace("192.0.2.7", "192.0.2.8"))
        await found.reload()
        path.write_text("nonsense {")
        with pytest.raises(UserError):
            await found.reload()
        seen = await addresses(found, "gate")
    finally:
        await found.close()

    assert seen == ["192.0.2.8"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("EXTRA", "health 192.0.2.1:0", id="an address of another machine"),
        pytest.param("EXTRA", "health 127.0.0.1:99999", id="no port"),
        pytest.param("EXTRA", "}\n.:1 {\n bind 192.0.2.1", id="a port that cannot be had"),
        pytest.param("EXTRA", "bind 192.0.2.1", id="another address of the port"),
        pytest.param("bind 127.0.0.1", "bind 127.0.0.2\nhealth 192.0.2.1:0", id="after the port has moved"),
    ],
)
async def test_a_reload_that_fails_late_changes_nothing(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "Corefile"
    text = ".:53 {\n bind 127.0.0.1\n ready 127.0.0.1:0\n hosts {\n 192.0.2.7 gate\n }\n EXTRA\n }"
    path.write_text(text.replace("EXTRA", ""))
    found = Server(path, client=FakeClient())
    await found.start(corefile.load(path), {53: 0})
    try:
        path.write_text(text.replace("192.0.2.7", "192.0.2.8").replace(old, new).replace("EXTRA", ""))
        with pytest.raises(UserError):
            await found.reload()
        seen = (await addresses(found, "gate"), await page(found, "/ready"))
        path.write_text(text.replace("192.0.2.7", "192.0.2.9").replace("EXTRA", ""))
        await found.reload()
        later = await addresses(found, "gate")
    finally:
        await found.close()

    assert seen == (["192.0.2.7"], (200, "OK"))
    assert later == ["192.0.2.9"]


async def test_a_block_answers_where_it_is_bound_alone_and_a_reload_moves_it(tmp_path: Path) -> None:
    path = tmp_path / "Corefile"
    text = "a:53 {\n hosts {\n 192.0.2.7 x.a\n }\n }\nb:53 {\n bind 127.0.0.2\n hosts {\n 192.0.2.8 x.b\n }\n }"
    path.write_text(text)
    found = Server(path, client=FakeClient())
    await found.start(corefile.load(path), {53: 0})
    try:
        before = [
            await rcode(found, name, address=host) for host in ("127.0.0.1", "127.0.0.2") for name in ("x.a", "x.b")
        ]
        path.write_text(text.replace(" bind 127.0.0.2\n", ""))
        await found.reload()
        after = [await rcode(found, name) for name in ("x.a", "x.b")]
    finally:
        await found.close()

    assert before == ["NOERROR", "REFUSED", "REFUSED", "NOERROR"]
    assert after == ["NOERROR", "NOERROR"]


async def test_a_zone_may_say_something_else_on_another_address() -> None:
    block = ".:53 {{\n bind {}\n template IN A {{\n rcode {}\n }}\n }}\n"
    async with serving(block.format("127.0.0.1", "NXDOMAIN") + block.format("127.0.0.2", "NOTIMP")) as to:
        seen = [await rcode(to, "x", address=each) for each in ("127.0.0.1", "127.0.0.2")]

    assert seen == ["NXDOMAIN", "NOTIMP"]


async def test_a_port_in_use_is_named() -> None:
    sockets = listen.open_sockets(("127.0.0.1",), 0)
    taken = sockets[0].getsockname()[1]
    try:
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1 udp port {taken}"):
            listen.open_sockets(("127.0.0.1",), taken)
    finally:
        for sock in sockets:
            sock.close()


async def test_the_upstream_ignores_replies_that_nobody_asked_for() -> None:
    async with serving(UPSTREAM) as up:
        upstream = Upstream("127.0.0.1", up.ports[53])
        reply = await upstream.ask(names.parse("www.example.com"), wire.A, tcp=False, timeout=5)
        upstream.close()
        await asyncio.sleep(0)

    assert reply.question[:-4] == names.parse("www.example.com")


@pytest.fixture(autouse=True)
def _own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_local_addresses", lambda: ("10.0.9.53",))
