"""What the kernel tells of one packet: nf_tables' trace, x_tables' through the log, conntrack's events, a filter."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from netemu.kernel import conntrack_events, netns, nfnetlink, sysctl
from netemu.kernel.conntrack_events import ConntrackEvents
from netemu.kernel.netlink import Netlink
from netemu.kernel.nflog import Nflog
from netemu.kernel.nft_trace import TABLE, NftTrace
from netemu.kernel.signature import Signature
from netemu.kernel.tap import Tap, signature_filter
from netemu.model.errors import KernelError, KernelNotFound
from tests.unit.listener_contract import check_listener

NAME = f"t-trace{os.getpid()}"
BYTES = b"netemu!!"
SIGNATURE = Signature.payload("udp", BYTES, ipv6=False)


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    netns.create(NAME)
    try:
        run("ip", "link", "set", "lo", "up")
        rules = """
        table ip shop {
            chain early { type filter hook output priority filter; udp dport 5000 counter jump more; }
            chain more { meta mark set 5; numgen random mod 1 vmap { 0 : return }; accept; }
            chain nat { type nat hook output priority -100; udp dport 5001 dnat to 127.0.0.1:5000; }
        }"""
        run("nft", "-f", "-", text=rules)
        run("iptables-legacy", "-A", "INPUT", "-p", "udp", "--dport", "5000", "-j", "ACCEPT")
        yield
    finally:
        netns.delete(NAME)


def run(*argv: str, text: str = "") -> str:
    command = ["ip", "netns", "exec", NAME, *argv]
    return subprocess.run(command, check=True, capture_output=True, input=text, text=True).stdout


@pytest.fixture
def talk() -> Iterator[Callable[[int, bytes], None]]:
    """Sends a datagram to a port; what listens on port 5000 answers `other`, and the sender has taken it."""
    with ExitStack() as stack, netns.entered(NAME):
        client, server = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
        )  # fmt: skip
        server.bind(("127.0.0.1", 5000))
        for each in (client, server):
            each.settimeout(5)

        def talk(port: int, data: bytes) -> None:
            client.sendto(data, ("127.0.0.1", port))
            _, address = server.recvfrom(100)
            server.sendto(b"other", address)
            client.recvfrom(100)

        yield talk


def test_every_rule_that_acts_on_the_packet_is_told_and_nothing_else(talk: Callable[[int, bytes], None]) -> None:
    trace = NftTrace(NAME, SIGNATURE)
    try:
        talk(5000, b"somebody else's")
        talk(5000, BYTES + b"and more")
        steps, lost = trace.read()
    finally:
        trace.close()
    assert steps[0].table.startswith(TABLE)
    assert steps[0].chain == "output"
    shop = [step for step in steps if step.table == "shop"]
    sent = shop[: [step.kind for step in shop].index("policy") + 1]  # ids are used again, a policy ends a base chain
    told = [(step.chain, step.verdict, step.to, step.mark) for step in sent if step.handle]

    assert told == [("early", "jump", "more", 0), ("more", "continue", "", 5), ("more", "return", "", 5)]
    assert (sent[-1].chain, sent[-1].verdict) == ("early", "accept")
    assert BYTES in sent[0].packet
    assert lost == 0
    # The answer, which bears no signature, is known by whom it goes to.
    assert any(step.packet.endswith(b"other") for step in steps)


def test_the_table_goes_with_the_socket_even_after_a_kill(talk: Callable[[int, bytes], None]) -> None:
    child = os.fork()
    if not child:
        NftTrace(NAME, SIGNATURE)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)

    assert TABLE not in run("nft", "list", "tables")
    NftTrace(NAME, SIGNATURE).close()
    assert TABLE not in run("nft", "list", "tables")


def test_rules_of_x_tables_are_told_by_the_log(talk: Callable[[int, bytes], None]) -> None:
    logger = sysctl.read("net.netfilter.nf_log.2", NAME)
    trace, log = NftTrace(NAME, SIGNATURE), Nflog(NAME, ipv6=False)
    try:
        talk(5000, BYTES)
        found, lost = log.read()
    finally:
        log.close()
        trace.close()

    told = [(each.prefix, each.hook, each.packet[28:]) for each in found if each.hook == "input"]
    assert told == [
        ("TRACE: filter:INPUT:rule:1 ", "input", BYTES),
        ("TRACE: filter:INPUT:policy:2 ", "input", b"other"),
    ]
    assert lost == 0
    assert sysctl.read("net.netfilter.nf_log.2", NAME) == logger


def test_conntrack_tells_what_it_translates(talk: Callable[[int, bytes], None]) -> None:
    events = ConntrackEvents(NAME)
    try:
        talk(5001, BYTES)
        found, _ = events.read()
    finally:
        events.close()
    new = next(each for each in found if each.event == "new")

    assert (new.original.port, new.reply.source_port) == (5001, 5000)
    assert new.status & conntrack_events.DESTINATION_NAT
    held = conntrack_events.find(NAME, new.original)
    assert held is not None
    assert held.id == new.id
    assert conntrack_events.find(NAME, new.reply) == held
    run("conntrack", "-D", "-p", "udp", "--dport", "5001")
    assert conntrack_events.find(NAME, new.original) is None


def test_an_echo_is_found_by_its_identifier() -> None:
    events = ConntrackEvents(NAME)
    try:
        send_echo(4711)
        found, _ = events.read()
    finally:
        events.close()

    echo = next(each for each in found if each.original.protocol == "icmp")
    assert echo.original.source_port == 4711
    held = conntrack_events.find(NAME, echo.original)
    assert held is not None
    assert held.id == echo.id


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_tap_takes_what_bears_the_sequence_number_and_its_answer(address: str) -> None:
    """A closed port answers the SYN by a RST that acknowledges it."""
    ipv6 = ":" in address
    with Watching(NAME, 0x01020304, ipv6=ipv6) as tap:
        for sequence in (0x01020304, 0x0A0B0C0D):
            send_syn(address, sequence)
        frames = tap.read()

    # Each goes out and comes in.
    assert [(frame.data[12:14], frame.data[(54 if ipv6 else 34) + 13]) for frame in frames] == [
        (b"\x86\xdd" if ipv6 else b"\x08\x00", flags) for flags in (0x02, 0x02, 0x14, 0x14)
    ]
    times = [frame.nanoseconds for frame in frames]
    assert times == sorted(set(times))


class Watching(Tap):
    def __init__(self, name: str, sequence: int, *, ipv6: bool) -> None:
        super().__init__(name, signature_filter(Signature.tcp(sequence, ipv6=ipv6)), ethernet=True)

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def send_echo(identifier: int) -> None:
    from scapy.layers.inet import ICMP, IP

    packet = bytes(IP(src="127.0.0.1", dst="127.0.0.1") / ICMP(id=identifier) / BYTES)
    with netns.entered(NAME), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, ("127.0.0.1", 0))


def send_syn(address: str, sequence: int) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6

    layer = IPv6 if ":" in address else IP
    packet = bytes(layer(src=address, dst=address) / TCP(sport=61001, dport=61002, seq=sequence, flags="S"))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(NAME), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (address, 0))


def test_a_namespace_that_is_not_there() -> None:
    for make in (lambda: NftTrace("t-none", SIGNATURE), lambda: Nflog("t-none", ipv6=False)):
        with pytest.raises(KernelNotFound):
            make()
    with pytest.raises(KernelNotFound):
        ConntrackEvents("t-none")


def test_routing_is_asked_as_for_one_packet() -> None:
    for line in (
        "link add v0 type veth peer name v1", "link set v0 up", "link set v1 up", "addr add 192.0.2.1/24 dev v0",
        "addr add 2001:db8::1/64 dev v0 nodad", "route add blackhole 198.51.100.0/24", "rule add fwmark 7 table 70",
        "route add unreachable 192.0.2.0/24 table 70",
    ):  # fmt: skip
        run("ip", *line.split())
    with Netlink(NAME) as netlink:
        index = netlink.index("v0")
        there = netlink.route_to("192.0.2.9")
        assert (there.type, there.src, there.hops[0].index) == ("unicast", "192.0.2.1", index)
        assert netlink.route_to("2001:db8::9").src == "2001:db8::1"
        assert netlink.route_to("192.0.2.1").type == "local"
        assert netlink.route_to("192.0.2.1", source="192.0.2.9", in_index=index).type == "local"
        for question, code in (
            ({"destination": "203.0.113.1"}, errno.ENETUNREACH),
            ({"destination": "192.0.2.9", "mark": 7}, errno.EHOSTUNREACH),
            ({"destination": "198.51.100.1"}, errno.EINVAL),
        ):
            with pytest.raises(KernelError) as caught:
                netlink.route_to(**question)
            assert caught.value.code == code


def test_a_socket_that_cannot_listen_is_closed() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KernelError) as caught:
        nfnetlink.listen(NAME, [1, 1000])

    assert caught.value.code == errno.EINVAL
    assert os.listdir("/proc/self/fd") == before


def test_what_does_not_fit_is_counted_and_the_rest_is_read() -> None:
    with closing(nfnetlink.listen(NAME, [1])) as heard, netns.entered(NAME):
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for port in range(6000, 6050):
                sender.sendto(b"", ("127.0.0.1", port))
        told, lost = nfnetlink.drain(heard)

    assert lost
    assert 0 < len(told) < 50
    assert all(len(payload) > 4 for _, _, _, payload in told)


def test_the_kernels_messages_come_as_those_that_are_put_in_for_them(talk: Callable[[int, bytes], None]) -> None:
    other = Signature.payload("udp", b"nothing!", ipv6=False)

    def happen() -> None:
        talk(5000, BYTES)

    with closing(Tap(NAME, signature_filter(other), ethernet=True)) as tap:
        check_listener(tap, lambda: len(tap.read()), happen)
    with closing(NftTrace(NAME, SIGNATURE)) as trace:
        check_listener(trace, lambda: len(trace.read()[0]), happen)
        with closing(Nflog(NAME, ipv6=False)) as log:
            trace.read()
            check_listener(log, lambda: len(log.read()[0]), happen)


def test_the_kernels_connections_come_as_those_that_are_put_in_for_them() -> None:
    def happen() -> None:
        with netns.entered(NAME), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", ("127.0.0.1", 5002))

    with closing(ConntrackEvents(NAME)) as events:
        check_listener(events, lambda: len(events.read()[0]), happen)
