"""Packets in words: what scapy builds is told as tcpdump would."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit

from netemu.observe.capture.packet_text import Told, read_frame

ETHER = Ether(dst="02:42:00:00:00:02", src="02:42:00:00:00:01")  # else scapy asks the network for it
V4 = IP(src="10.244.1.5", dst="10.96.0.20")
V6 = IPv6(src="fd00::5", dst="fd00::20")
QUESTION = DNS(id=7, qd=DNSQR(qname="web.shop.svc.cluster.local"))
ANSWER = DNS(id=7, qr=1, qd=DNSQR(qname="web."), an=[DNSRR(rrname="web.", rdata="10.96.0.20")])
MISSING = DNS(id=7, qr=1, rcode=3, qd=DNSQR(qname="nix.", qtype="AAAA"))


@pytest.mark.parametrize(
    ("packet", "protocol", "ports", "info"),
    [
        (V4 / TCP(sport=4000, dport=80, flags="S", seq=9, window=100), "tcp", (4000, 80),
         "Flags [S], seq 9, win 100, length 0"),
        (V4 / TCP(sport=4000, dport=80, flags="PA", seq=9, ack=5, window=100) / b"GET / HTTP/1.1\r\nHost: web\r\n",
         "tcp", (4000, 80), "Flags [P.], seq 9:36, ack 5, win 100, length 27, GET / HTTP/1.1"),
        (V6 / TCP(sport=80, dport=4000, flags="FA", seq=1, ack=2, window=3), "tcp", (80, 4000),
         "Flags [F.], seq 1, ack 2, win 3, length 0"),
        (V4 / UDP(sport=4000, dport=5000) / b"abc", "udp", (4000, 5000), "length 3"),
        (V4 / UDP(sport=4000, dport=53) / QUESTION, "udp", (4000, 53),
         "DNS A? web.shop.svc.cluster.local., length 44"),
        (V6 / UDP(sport=53, dport=4000) / ANSWER, "udp", (53, 4000), "DNS A? web. NOERROR, 1 answer, length 40"),
        (V4 / UDP(sport=53, dport=4000) / MISSING, "udp", (53, 4000), "DNS AAAA? nix. NXDOMAIN, 0 answers, length 21"),
        (V4 / UDP(sport=4000, dport=53) / b"no", "udp", (4000, 53), "length 2"),
        (V4 / ICMP(type=8, id=3, seq=4) / b"1234", "icmp", (0, 0), "echo request, id 3, seq 4, length 12"),
        (V4 / ICMP(type=3, code=3) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2), "icmp", (0, 0),
         "port unreachable, about udp 10.0.0.1 port 1 > 10.0.0.2 port 2"),
        (V4 / ICMP(type=3, code=4, nexthopmtu=1400) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2),
         "icmp", (0, 0), "fragmentation needed, mtu 1400, about tcp 10.0.0.1 port 1 > 10.0.0.2 port 2"),
        (V4 / ICMP(type=11) / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(), "icmp", (0, 0),
         "time exceeded, about icmp 10.0.0.1 > 10.0.0.2"),
        (V6 / ICMPv6EchoRequest(id=3, seq=4), "icmpv6", (0, 0), "echo request, id 3, seq 4, length 8"),
        (V6 / ICMPv6DestUnreach(code=4) / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2), "icmpv6",
         (0, 0), "port unreachable, about udp fd00::1 port 1 > fd00::2 port 2"),
        (V6 / ICMPv6PacketTooBig(mtu=1280) / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2), "icmpv6",
         (0, 0), "packet too big, mtu 1280, about udp fd00::1 port 1 > fd00::2 port 2"),
        (V6 / ICMPv6ND_NS(tgt="fd00::9"), "icmpv6", (0, 0), "neighbour solicitation, who has fd00::9"),
        (V4 / SCTP(sport=1, dport=2) / SCTPChunkInit(), "sctp", (1, 2), "INIT"),
        (IP(src="10.244.1.5", dst="10.96.0.20", frag=185, proto=17) / b"12345678", "udp", (0, 0),
         "fragment at 1480, length 8"),
        (V6 / IPv6ExtHdrFragment(offset=185, nh=17) / b"12345678", "udp", (0, 0), "fragment at 1480, length 8"),
        (V6 / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2), "udp", (1, 2), "length 0"),
        (IP(src="10.244.1.5", dst="10.96.0.20", proto=47) / b"12345678", "47", (0, 0), "length 8"),
    ],
)  # fmt: skip
def test_packets_are_told(packet: Any, protocol: str, ports: tuple[int, int], info: str) -> None:
    whole = bytes(packet)
    source, destination = packet.src, packet.dst
    expected = Told(protocol, source, ports[0], destination, ports[1], info)

    assert read_frame(bytes(ETHER / packet)) == expected
    assert read_frame(bytes(ETHER / Dot1Q(vlan=5) / packet)) == expected
    assert read_frame(whole, ethernet=False) == expected


def test_what_a_short_frame_is_filled_up_with_is_no_payload() -> None:
    frame = bytes(ETHER / V4 / UDP(sport=1, dport=2) / b"x") + bytes(17)

    assert read_frame(frame).info == "length 1"
    assert read_frame(bytes(ETHER / V4 / TCP(sport=1, dport=2)) + bytes(6)).info.endswith("length 0")


@pytest.mark.parametrize(
    ("op", "info"), [(1, "who has 10.0.0.2, tell 10.0.0.1"), (2, "10.0.0.1 is at 02:42:00:00:00:01")]
)
def test_arp(op: int, info: str) -> None:
    frame = ETHER / ARP(op=op, psrc="10.0.0.1", pdst="10.0.0.2", hwsrc="02:42:00:00:00:01")

    assert read_frame(bytes(frame)) == Told("arp", "10.0.0.1", 0, "10.0.0.2", 0, info)


def test_another_kind_of_frame_is_named_by_its_number() -> None:
    assert read_frame(bytes(12) + b"\x88\xb5" + b"hello") == Told("0x88b5", info="length 5")


def test_a_packet_that_was_cut_off_is_told_as_far_as_it_goes() -> None:
    whole = bytes(ETHER / V4 / TCP(sport=4000, dport=80))
    for size in range(50):  # there the checksum begins, which is not told
        told = read_frame(whole[:size])
        ends = (told.source, told.source_port, told.destination, told.port)

        assert told.info == "cut off"
        assert ends == (("10.244.1.5", 4000, "10.96.0.20", 80) if size >= 38 else ends)


@given(
    st.binary(max_size=120), st.sampled_from([b"", b"\x08\x00E", b"\x08\x00E\x00\x00\x40", b"\x86\xdd`", b"\x08\x06"])
)
def test_nothing_that_comes_over_a_link_is_too_much(rest: bytes, begin: bytes) -> None:
    for data in (rest, bytes(12) + begin + rest):
        assert read_frame(data).protocol
        assert read_frame(data, ethernet=False).protocol
