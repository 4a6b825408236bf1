"""The wire format, with dnslib as the judge, and packets of any kind through the entry of a port."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.dns import corefile, names, wire
from netemu.dns.port import Port
from netemu.dns.server import Server
from netemu.dns.wire import Edns, Query, Record, Response
from netemu.testing.client import FakeClient

MUTATED = 100_000

labels = st.binary(min_size=1, max_size=63)
any_names = st.lists(labels, max_size=6).filter(lambda found: sum(map(len, found)) + len(found) < 255).map(names.join)
# dnslib takes labels for UTF-8, and text for IDNA: names of letters are what both read alike.
words = st.text("abcXYZ019-_", min_size=1, max_size=20)
host_names = st.lists(words, min_size=1, max_size=5).map(lambda found: names.parse(".".join(found)))
numbers = st.integers(0, 65535)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record of a type whose data may hold names."""
    kind = draw(
        st.sampled_from((wire.A, wire.AAAA, wire.NS, wire.CNAME, wire.PTR, wire.MX, wire.SRV, wire.TXT, wire.SOA))
    )
    name, other = draw(host_names), draw(host_names)
    rdata = {
        wire.A: lambda: draw(st.binary(min_size=4, max_size=4)),
        wire.AAAA: lambda: draw(st.binary(min_size=16, max_size=16)),
        wire.MX: lambda: draw(numbers).to_bytes(2, "big") + other,
        wire.SRV: lambda: wire.srv(draw(numbers), draw(numbers), draw(numbers), other),
        wire.TXT: lambda: wire.txt(draw(st.binary(max_size=30)), draw(st.binary(max_size=30))),
        wire.SOA: lambda: wire.soa(other, name, *draw(st.tuples(*[st.integers(0, 2**32 - 1)] * 5))),
    }.get(kind, lambda: other)()
    return Record(name, kind, draw(st.integers(0, 2**31 - 1)), rdata)


sections = st.lists(records(), max_size=6)
responses = st.builds(Response, st.sampled_from((0, 2, 3, 5)), sections, sections, sections)


def query(name: bytes, transport: str = "tcp", size: int = 0) -> Query:
    """A question for addresses, with EDNS if `size` is not 0."""
    return Query(7, wire.RD, name, wire.A, edns=Edns(size, False, 0, b"") if size else None, transport=transport)


# --- names -----------------------------------------------------------------------------------------------------------


@given(any_names)
def test_a_name_is_the_same_after_text(name: bytes) -> None:
    assert names.parse(names.text(name)) == name
    assert names.join(names.labels(name)) == name


@given(any_names)
def test_a_name_is_what_dnslib_writes(name: bytes) -> None:
    buffer = dnslib.DNSBuffer()
    buffer.encode_name(dnslib.DNSLabel(tuple(names.labels(name))))

    assert bytes(buffer.data) == name
    assert wire.read_name(bytes(buffer.data), 0) == (name, len(name))


@given(any_names)
def test_lower_case_changes_ascii_letters_alone(name: bytes) -> None:
    lower = [bytes(octet + 32 if 65 <= octet <= 90 else octet for octet in label) for label in names.labels(name)]

    assert names.labels(name.lower()) == lower


@given(any_names, any_names)
def test_a_name_lies_in_its_suffixes_and_in_no_other_zone(name: bytes, zone: bytes) -> None:
    ours, theirs = names.labels(name.lower()), names.labels(zone.lower())

    assert names.within(name.lower(), zone.lower()) == (
        ours[len(ours) - len(theirs) :] == theirs and len(ours) >= len(theirs)
    )
    assert all(names.within(name, suffix) for suffix in names.suffixes(name))


# --- messages --------------------------------------------------------------------------------------------------------


@given(host_names, numbers, st.sampled_from((0, 512, 1232, 65535)), st.booleans())
def test_queries_are_what_dnslib_reads(name: bytes, ident: int, size: int, do: bool) -> None:
    packet = wire.build_query(ident, name, wire.SRV, edns_size=size, do=do)
    theirs = dnslib.DNSRecord.parse(packet)
    ours = wire.parse_query(packet)

    assert (theirs.header.id, str(theirs.q.qname), theirs.q.qtype) == (ident, names.text(name), wire.SRV)
    assert [(rr.rtype, rr.rclass, bool(rr.ttl & 0x8000)) for rr in theirs.ar] == (
        [(wire.OPT, size, do)] if size else []
    )
    assert (ours.id, ours.name, ours.type, ours.do) == (ident, name, wire.SRV, bool(size) and do)


@given(host_names, responses)
def test_replies_come_back_as_they_were_packed(name: bytes, response: Response) -> None:
    found = wire.parse_message(wire.pack(query(name), response))

    assert found.question == query(name).question
    assert (found.rcode, found.truncated) == (response.rcode, False)
    assert found.answers == response.answers
    assert found.authority == response.authority
    assert found.additional == response.additional


@given(host_names, responses)
def test_dnslib_reads_the_same_records(name: bytes, response: Response) -> None:
    theirs = dnslib.DNSRecord.parse(wire.pack(query(name), response))

    for found, said in (
        (theirs.rr, response.answers),
        (theirs.auth, response.authority),
        (theirs.ar, response.additional),
    ):
        assert [(str(rr.rname), rr.rtype, rr.ttl) for rr in found] == [
            (names.text(record.name), record.type, record.ttl) for record in said
        ]
    again = wire.parse_message(theirs.pack())
    assert (again.answers, again.authority, again.additional) == (
        response.answers,
        response.authority,
        response.additional,
    )


@given(host_names, responses, st.sampled_from((0, 100, 512, 600, 800)))
def test_what_does_not_fit_is_left_out_whole_from_the_end(name: bytes, response: Response, size: int) -> None:
    asked = query(name, "udp", size)
    packet = wire.pack(asked, response)
    found = wire.parse_message(packet)
    said = [*response.answers, *response.authority, *response.additional]
    kept = [*found.answers, *found.authority, *found.additional]

    assert len(packet) <= max(512, size)
    assert found.question == asked.question
    assert kept == said[: len(kept)]
    assert found.truncated == (len(kept) < len(said))
    assert packet.endswith(b"\0\0\x29" + struct.pack("!HIH", size, 0, 0)) == bool(size)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_octets_are_a_message_or_an_error(packet: bytes) -> None:
    try:
        found = wire.parse_message(packet)
    except wire.WireError:
        return
    for record in (*found.answers, *found.authority, *found.additional):
        assert wire.read_name(record.name, 0) == (record.name, len(record.name))


# --- packets through a port ------------------------------------------------------------------------------------------

COREFILE = """.:53 {
    bind 127.0.0.1
    hosts {
        192.0.2.1 www.example mail.example
        2001:db8::1 www.example
        fallthrough
    }
    template IN SRV example {
        answer "{{ .Name }} 60 IN SRV 0 100 80 www.example."
        additional "www.example. 60 IN A 192.0.2.1"
    }
    loadbalance
}"""
SEEDS = [
    wire.build_query(1, names.parse("www.example"), wire.A),
    wire.build_query(2, names.parse("WWW.example"), wire.AAAA, edns_size=1232, do=True),
    wire.build_query(3, names.parse("_http._tcp.www.example"), wire.SRV, edns_size=512),
    wire.build_query(4, names.parse("1.2.0.192.in-addr.arpa"), wire.PTR),
    dnslib.DNSRecord.question("absent.example", "ANY").pack(),
    # EDNS options: cookie, client subnet, padding.
    wire.build_query(5, names.parse("mail.example"), wire.A, edns_size=1232)[:-2]
    + b"\0\x1c\0\x0a\0\x08cookie01\0\x08\0\x04\0\1\0\0\0\x0c\0\x04\0\0\0\0",
    # A compression pointer in the question, and a second question.
    b"\0\6\1\0\0\1\0\0\0\0\0\0\3www\7example\xc0\x0c\0\1\0\1",
    b"\0\7\1\0\0\2\0\0\0\0\0\0\3www\7example\0\0\1\0\1\3www\xc0\x10\0\1\0\1",
]  # fmt: skip


class Entered(Server):
    """A server whose port takes packets without a socket too."""

    @property
    def entry(self) -> Port:
        """Port 53 of the Corefile."""
        (entry,) = self._ports[53].values()
        return entry


@asynccontextmanager
async def serving(text: str) -> AsyncIterator[Entered]:
    """A server at work on any free port."""
    server = Entered(None, client=FakeClient())
    await server.start(corefile.parse(text), {53: 0})
    try:
        yield server
    finally:
        await server.close()


def mutated(chance: random.Random) -> bytes:
    """A query that went wrong: octets changed, left out, doubled or added; two queries spliced."""
    packet = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(packet) + 1)
        match chance.randrange(6):
            case 0 if at < len(packet):
                packet[at] = chance.randrange(256)
            case 1 if at < len(packet):
                packet[at] ^= 1 << chance.randrange(8)
            case 2:
                del packet[at : at + chance.randrange(8)]
            case 3:
                packet[at:at] = chance.randbytes(chance.randrange(1, 8))
            case 4:
                packet[at:at] = packet[max(0, at - 12) : at]
            case _:
                packet = packet[:at] + chance.choice(SEEDS)[at:]
    return bytes(packet)


def replies_to(port: Port, packet: bytes, transport: str) -> list[bytes]:
    """What a port says at once."""
    found: list[bytes] = []
    port.handle(packet, transport, ("192.0.2.9", 4000), lambda data, *more: found.extend((data, *more)))
    return found


def check_reply(packet: bytes, transport: str, reply: bytes) -> None:
    """What holds for every reply, whatever was asked."""
    assert reply[:2] == packet[:2]
    assert reply[2] & 0x80
    if len(reply) == 12:
        assert reply[3] & 15 in (wire.FORMERR, wire.SERVFAIL, wire.NOTIMP)
        return
    asked = wire.parse_query(packet, transport)
    assert len(reply) <= asked.limit
    assert wire.parse_message(reply).question == asked.question


async def test_100_000_mutated_packets_get_a_reply_or_silence() -> None:
    chance, counts = random.Random(4), {"silent": 0, "bare": 0, "whole": 0}
    async with serving(COREFILE) as server:
        port = server.entry
        for number in range(MUTATED):
            packet = mutated(chance)
            transport = "tcp" if number % 4 == 0 else "udp"
            said = [reply for reply in replies_to(port, packet, transport) if reply]
            for reply in said:
                check_reply(packet, transport, reply)
            counts["silent" if not said else "bare" if len(said[0]) == 12 else "whole"] += 1
        panics = "coredns_panics_total 0\n" in server.metrics.text()

    assert panics
    assert min(counts.values()) > MUTATED // 100, counts


async def test_a_kept_reply_is_what_is_said_anew() -> None:
    chance = random.Random(5)
    async with serving(COREFILE.replace("loadbalance", "")) as server:
        port = server.entry
        kept = port.finished("udp", "192.0.2.9").by_packet
        packets = [mutated(chance) for _ in range(5_000)]
        for packet in packets * 2:
            replies_to(port, packet, "udp")
        assert len(kept) > 50
        said = {packet[2:]: replies_to(port, packet, "udp")[0][2:] for packet in packets if packet[2:] in kept}
        assert {packet: kept[packet].next_body() for packet in said} == said


@pytest.mark.parametrize("seed", range(4))
async def test_a_tcp_stream_of_anything_in_pieces_of_any_size(seed: int) -> None:
    chance = random.Random(seed)
    messages = [mutated(chance) for _ in range(200)] + [SEEDS[0]]
    stream = b"".join(struct.pack("!H", len(message)) + message for message in messages)
    async with serving(COREFILE) as server:
        port = server.entry
        expected = [reply for message in messages for reply in replies_to(port, message, "tcp") if reply]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[53])
        at = 0
        while at < len(stream):
            size = chance.choice((1, 2, 3, 50, 1000))
            writer.write(stream[at : at + size])
            await writer.drain()
            at += size
        found = []
        async with asyncio.timeout(10):
            for _ in expected:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                found.append(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()

    def shape(reply: bytes) -> tuple[bytes, int]:
        return reply[:4], len(reply)

    assert sorted(map(shape, found)) == sorted(map(shape, expected))
