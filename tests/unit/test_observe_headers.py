"""Packets as bytes: scapy is the judge of what is made and what is read."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netemu.model.errors import UserError
from netemu.observe.trace.evidence import Packet, Protocol
from netemu.observe.trace.headers import craft, parse, parse_frame

SECRET = b"\xde\xad\xbe\xef1234"
ENDS = {4: ("10.244.1.5", "10.96.0.10"), 6: ("fd00:10:244::5", "fd00:10:96::a")}


def crafted(protocol: Protocol, version: int, *, size: int = 0, payload: bytes = b"") -> tuple[bytes, Packet]:
    source, destination = ENDS[version]
    packet = Packet(
        source=source,
        destination=destination,
        port=53,
        source_port=61001,
        protocol=protocol,
        size=size,
        payload=payload,
    )
    return craft(packet, SECRET).data, packet


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_what_is_made_is_what_scapy_would_make(protocol: Protocol, version: int) -> None:
    data, _ = crafted(protocol, version)
    read = (IP if version == 4 else IPv6)(data)
    anew = read.copy()
    for layer in (anew, anew.payload):
        for field in ("chksum", "cksum", "len", "plen"):
            if field in layer.fields:
                del layer.fields[field]

    assert bytes(anew) == data  # lengths and checksums are right


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_what_is_made_is_read_back_and_bears_its_signature(protocol: Protocol, version: int) -> None:
    source, destination = ENDS[version]
    made = craft(Packet(source=source, destination=destination, port=53, source_port=61001, protocol=protocol), SECRET)
    headers = parse(made.data)
    assert headers is not None

    begin = 20 if version == 4 else 40
    at = begin + made.signature.offset
    assert made.data[at : at + len(made.signature.value)] == made.signature.value
    assert (headers.source, headers.destination, headers.source_port) == (source, destination, 61001)
    assert headers.port == (0 if protocol == "icmp" else 53)
    assert headers.what == {"tcp": "SYN", "udp": "datagram", "icmp": "echo request"}[protocol]
    assert headers.length == len(made.data)
    assert headers.ttl == 64


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_a_packet_is_filled_up_to_its_size(protocol: Protocol) -> None:
    for version in (4, 6):
        assert len(crafted(protocol, version, size=1400)[0]) == 1400


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_size_below_the_shortest_is_refused(protocol: Protocol, version: int) -> None:
    shortest = len(crafted(protocol, version)[0])

    assert len(crafted(protocol, version, size=shortest)[0]) == shortest
    with pytest.raises(UserError, match=f"--size {shortest - 1}: this packet has at least {shortest} bytes"):
        crafted(protocol, version, size=shortest - 1)


def test_a_datagram_carries_what_it_is_given() -> None:
    data, packet = crafted("udp", 4, payload=b"a question of somebody's")
    assert data.endswith(packet.payload)


SYN = IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=61001, dport=80, flags="S")
SYN6 = IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=61001, dport=80, flags="S")
BACK = IP(src="10.0.0.9", dst="10.0.0.1")
BACK6 = IPv6(src="fd00::9", dst="fd00::1")


@pytest.mark.parametrize(
    ("packet", "protocol", "what", "quotes"),
    [
        (BACK / TCP(flags="SA"), "tcp", "SYN-ACK", False),
        (BACK / TCP(flags="RA"), "tcp", "RST", False),
        (BACK / TCP(flags="FA"), "tcp", "FIN-ACK", False),
        (BACK / TCP(flags="A"), "tcp", "ACK", False),
        (BACK / UDP() / Raw(b"x"), "udp", "datagram", False),
        (BACK / ICMP(type=0, id=7), "icmp", "echo reply", False),
        (BACK / ICMP(type=3, code=3) / SYN, "icmp", "port unreachable", True),
        (BACK / ICMP(type=3, code=13) / SYN, "icmp", "communication prohibited", True),
        (BACK / ICMP(type=3, code=4, nexthopmtu=1400) / SYN, "icmp", "fragmentation needed, mtu 1400", True),
        (BACK / ICMP(type=11) / SYN, "icmp", "time exceeded", True),
        (BACK6 / ICMPv6EchoReply(id=7), "icmpv6", "echo reply", False),
        (BACK6 / ICMPv6DestUnreach(code=4) / SYN6, "icmpv6", "port unreachable", True),
        (BACK6 / ICMPv6DestUnreach(code=0) / SYN6, "icmpv6", "no route to destination", True),
        (BACK6 / ICMPv6PacketTooBig(mtu=1280) / SYN6, "icmpv6", "packet too big, mtu 1280", True),
    ],
)
def test_answers_say_what_they_are(packet: IP, protocol: str, what: str, quotes: bool) -> None:
    headers = parse_frame(bytes(Ether() / packet))
    assert headers is not None

    assert (headers.protocol, headers.what) == (protocol, what)
    if quotes:
        assert headers.about is not None
        assert (headers.about.what, headers.about.source_port, headers.about.port) == ("SYN", 61001, 80)
    else:
        assert headers.about is None


def test_what_is_cut_short_or_none_of_ours_is_no_error() -> None:
    whole = bytes(BACK / ICMP(type=3, code=3) / SYN)
    for end in range(len(whole)):
        parse(whole[:end])
    assert parse_frame(bytes(Ether(type=0x0806)) + whole) is None
    assert parse(b"") is None
