"""Probing over real sockets in a namespace: what becomes of an answer, a refusal, silence and an unknown name."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from netemu.kernel import netns
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink import AddAddress, AddRoute, SetLink
from netemu.model.errors import KernelNotFound
from netemu.observe.probe.prober import Destination, Pace, Place, paced_probe, probe
from netemu.observe.probe.steady import steadily

NAME = "t-observe-pod"
ADDRESS = "10.96.0.5"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A Pod whose name server, on its own loopback, knows web.shop.svc.cluster.local."""
    netns.create(NAME)
    with Netlink(NAME) as netlink:
        netlink.apply(SetLink("lo", up=True), AddAddress("lo", f"{ADDRESS}/32"), AddAddress("lo", "10.96.0.10/32"))
        netlink.apply(AddRoute("10.9.9.0/24", type="unreachable"))
    conf = "search shop.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5 timeout:1\n"
    (tmp_path / "resolv.conf").write_text(conf)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        _Names, sock=_bound(socket.SOCK_DGRAM, ("10.96.0.10", 53))
    )
    yield Place(NAME, str(tmp_path / "resolv.conf"))
    transport.close()
    netns.delete(NAME)


class _Names(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = DNSRecord.parse(data)
        answer = query.reply()
        if str(query.q.qname) != "web.shop.svc.cluster.local.":
            answer.header.rcode = 3
        elif query.q.qtype == QTYPE.A:
            answer.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(ADDRESS), ttl=5))
        self.transport.sendto(answer.pack(), addr)


def _bound(kind: int, where: tuple[str, int]) -> socket.socket:
    with netns.entered(NAME):
        sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    sock.bind(where)
    return sock


async def _server(answer: bytes | None, port: int = 80) -> asyncio.Server:
    """Answers each request with `answer`; None resets the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            if answer is None:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                break
            writer.write(answer)
        writer.close()

    return await asyncio.start_server(serve, sock=_bound(socket.SOCK_STREAM, (ADDRESS, port)))


def _http(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


async def test_http_servers_are_told_by_their_headers(place: Place) -> None:
    async with await _server(_http(b"{}", b"X-Netemu-Pod: web-1", b"X-Netemu-Client: 10.244.0.2:1")):
        result = await probe(place, Destination("web", 80), count=20, concurrency=5)

    assert (result.answered, result.servers, result.sources) == (20, {"web-1": 20}, {"10.244.0.2": 20})
    assert (result.addresses, result.lookup is None) == ({ADDRESS: 20}, False)


async def test_banner_ends_with_its_line_though_the_connection_stays_open(place: Place) -> None:
    async with await _server(b'{"pod":"web-2","client":"10.96.0.5"}\nGET'):
        result = await probe(place, Destination(ADDRESS, 80), count=3)

    assert (result.servers, result.lookup) == ({"web-2": 3}, None)


async def test_datagrams_are_answered(place: Place) -> None:
    class Echo(_Names):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(b"web-3", addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, sock=_bound(socket.SOCK_DGRAM, (ADDRESS, 5000)))

    result = await probe(place, Destination("web", 5000), udp=True, count=5)

    transport.close()
    assert (result.protocol, result.servers) == ("UDP", {"web-3": 5})


@pytest.mark.parametrize("udp", [False, True])
async def test_closed_port_refuses(place: Place, udp: bool) -> None:
    result = await probe(place, Destination("web", 81), count=2, udp=udp)

    assert (result.answered, result.errors) == (0, {"refused": 2})
    assert f"{ADDRESS}:81" in result.details["refused"]


async def test_silence_is_a_timeout(place: Place) -> None:
    with _bound(socket.SOCK_STREAM, (ADDRESS, 80)) as silent:
        silent.listen()
        result = await probe(place, Destination("web", 80), timeout=0.05)

    assert result.errors == {"timeout": 1}


async def test_reset_connection_is_told_from_a_closed_one(place: Place) -> None:
    async with await _server(None), await _server(b"", port=81):
        result = await probe(place, Destination("web", 80))

    assert result.errors == {"reset": 1}


async def test_unknown_name_is_unresolvable(place: Place) -> None:
    result = await probe(place, Destination("nobody", 80))

    assert result.errors == {"unresolvable": 1}
    assert "NXDOMAIN" in result.details["unresolvable"]


async def test_address_without_a_route_is_unreachable(place: Place) -> None:
    result = await probe(place, Destination("10.9.9.9", 80))

    assert result.errors == {"unreachable": 1}


async def test_hosts_file_comes_before_dns(place: Place, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(f"{ADDRESS} nobody\n")
    async with await _server(b"hello\n"):
        result = await probe(Place(NAME, place.resolv_conf, str(tmp_path / "hosts")), Destination("nobody", 80))

    assert result.servers == {"hello": 1}


async def test_requests_share_a_connection_that_is_kept(place: Place) -> None:
    async with await _server(_http(b"{}", b"X-Netemu-Pod: web-1")):
        kept = await paced_probe(place, Destination("web", 80), Pace(20, concurrency=1, keep_alive=True))
        fresh = await paced_probe(place, Destination("web", 80), Pace(20, concurrency=1))

    assert (kept.answered, kept.connections, kept.evenness) == (20, 1, None)
    assert (fresh.answered, fresh.connections) == (20, 20)


async def test_a_server_that_closes_gets_a_new_connection_for_each_request(place: Place) -> None:
    async with await _server(_http(b"{}", b"Connection: close")):
        result = await paced_probe(place, Destination("web", 80), Pace(5, concurrency=1, keep_alive=True))

    assert (result.answered, result.connections) == (5, 5)


async def test_attempts_begin_on_the_beat_though_none_is_answered(place: Place) -> None:
    with _bound(socket.SOCK_STREAM, (ADDRESS, 80)) as silent:
        silent.listen(100)
        result = await paced_probe(place, Destination(ADDRESS, 80), Pace(20, rate=100, concurrency=100, timeout=0.5))

    assert result.errors == {"timeout": 20}
    assert result.seconds < 5  # one after the other they would take ten


async def test_probing_ends_when_its_time_is_over(place: Place) -> None:
    async with await _server(b"hello\n"):
        result = await paced_probe(place, Destination(ADDRESS, 80), Pace(None, duration=0.3))

    assert result.answered == result.count > 1
    assert result.seconds >= 0.3


async def test_what_is_lost_during_a_change_is_on_the_time_line(place: Place) -> None:
    def close_and_open() -> tuple[int, list[tuple[int, int]]]:
        def listener() -> socket.socket:
            sock = _bound(socket.SOCK_STREAM, (ADDRESS, 80))
            sock.listen(1000)
            return sock

        # Nobody accepts, so an attempt is lost by timeout where a socket listens, and refused where none does.
        first = listener()
        with steadily(place, Destination(ADDRESS, 80), rate=200, margin=0.2, timeout=0.2) as steady:
            first.close()
            steady.mark("closed")
            while "refused" not in steady.result.errors:
                pass
            steady.mark("refused")
        line = steady.timeline
        return steady.result.errors["refused"], [(bucket.attempts, bucket.lost) for bucket in line.buckets]

    refused, buckets = await asyncio.to_thread(close_and_open)

    assert refused > 0
    assert sum(lost for _, lost in buckets) == sum(made for made, _ in buckets)


async def test_a_place_that_is_gone_is_told_once(place: Place) -> None:
    with pytest.raises(KernelNotFound):
        await probe(Place("t-observe-nowhere"), Destination(ADDRESS, 80), count=5)
