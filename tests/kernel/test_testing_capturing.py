"""Sniffing and sending for tests, over a link between two namespaces: both families, answers and silence."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether

from netemu.kernel import netns
from netemu.kernel.netlink import Netlink
from netemu.kernel.packet_socket import Counts, PacketSocket
from netemu.kernel.rtnetlink import AddAddress, AddVeth, SetLink
from netemu.model.errors import KernelError, NetemuError, UserError
from netemu.observe.capture.stream import Capture, Place
from netemu.testing.capturing import send, sniffing

HERE, THERE = Place("here", "t-capturing-here"), Place("there", "t-capturing-there")
OWN = ["192.168.0.1", "fd00::1"]


@pytest.fixture(scope="module", autouse=True)
def link() -> Iterator[None]:
    """Two machines on one link."""
    for place in (HERE, THERE):
        netns.create(place.netns)
    with Netlink(HERE.netns) as netlink:
        netlink.apply(AddVeth("eth0", "eth0", peer_netns=THERE.netns))
    for place, last in ((HERE, 1), (THERE, 2)):
        with Netlink(place.netns) as netlink:
            netlink.apply(SetLink("lo", up=True), SetLink("eth0", up=True))
            netlink.apply(AddAddress("eth0", f"192.168.0.{last}/24"), AddAddress("eth0", f"fd00::{last}/64"))
    yield
    for place in (HERE, THERE):
        netns.delete(place.netns)


def test_the_answer_of_a_packet_is_found_among_others() -> None:
    answer = send(HERE, OWN, IP(dst="192.168.0.2") / ICMP(id=7), timeout=5)

    assert answer is not None
    assert (answer[IP].src, answer[ICMP].id, answer[ICMP].type) == ("192.168.0.2", 7, 0)


def test_ipv6_is_sent_from_the_own_address_too() -> None:
    answer = send(HERE, OWN, IPv6(dst="fd00::2") / ICMPv6EchoRequest(id=8), timeout=5)

    assert answer is not None
    assert answer[IPv6].src == "fd00::2"
    assert answer[ICMPv6EchoReply].id == 8


def test_a_refusal_is_an_answer() -> None:
    answer = send(HERE, OWN, IP(dst="192.168.0.2") / UDP(dport=9), timeout=5)

    assert answer is not None
    assert (answer[ICMP].type, answer[ICMP].code) == (3, 3)


def test_frames_go_out_as_they_are() -> None:
    question = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="192.168.0.1", pdst="192.168.0.2")
    with sniffing(THERE, "arp") as seen:
        send(HERE, OWN, question, timeout=0)
        seen.wait(1)

    assert seen[0].src == "02:00:00:00:00:01"
    assert seen[0].sniffed_on == "there eth0"


def test_a_filter_chooses_and_times_are_those_of_the_packets() -> None:
    with sniffing(HERE, "icmp") as seen:
        for number in (1, 2):
            send(HERE, OWN, IP(dst="192.168.0.2") / ICMP(seq=number), timeout=5)
        send(HERE, OWN, IPv6(dst="fd00::2") / ICMPv6EchoRequest(), timeout=5)

    assert [packet[ICMP].seq for packet in seen] == [1, 1, 2, 2]
    assert seen[0].time < seen[3].time


def test_what_cannot_be_sent_or_chosen_is_told() -> None:
    with pytest.raises(NetemuError, match="must begin with Ether, IP or IPv6"):
        send(HERE, OWN, UDP(dport=1), timeout=0)
    with pytest.raises(NetemuError, match="no IPv6 address to send"):
        send(HERE, OWN[:1], IPv6(dst="fd00::2"), timeout=0)
    with pytest.raises(UserError, match="filter 'tcp prot 80'"), sniffing(HERE, "tcp prot 80"):
        pass


def broken(_: PacketSocket) -> list[object]:
    raise KernelError("read frames", HERE.netns, errno.EIO)


def test_what_ends_the_taking_is_told_to_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PacketSocket, "read", broken)
    with pytest.raises(KernelError, match="read frames"), sniffing(HERE) as seen:
        seen.wait(1, timeout=60)


def test_a_block_that_saw_nothing_because_nothing_was_taken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PacketSocket, "read", broken)
    with pytest.raises(KernelError, match="read frames"), sniffing(HERE):
        pass


def test_packets_that_were_lost_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "count", lambda _: Counts(7, 3))
    with pytest.raises(NetemuError, match="3 packets at here came faster"), sniffing(HERE):
        pass


def test_what_routes_and_links_refuse_is_an_error_of_the_kernel() -> None:
    with pytest.raises(KernelError, match=r"send to 203\.0\.113\.1") as unreachable:
        send(HERE, OWN, IP(dst="203.0.113.1") / ICMP(), timeout=0)
    assert unreachable.value.code == errno.ENETUNREACH
    with pytest.raises(KernelError) as unknown:
        send(Place("here", HERE.netns, "nowhere0"), OWN, Ether() / ARP(), timeout=0)
    assert unknown.value.code == errno.ENODEV
    with pytest.raises(KernelError) as too_long:
        send(HERE, OWN, Ether() / IP(dst="192.168.0.2") / UDP() / bytes(2000), timeout=0)
    assert too_long.value.code == errno.EMSGSIZE
