"""The contract of `Conntrack`, on the kernel: real packets over the loopback of a namespace, translated by nft."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from netemu.kernel import netns, sysctl
from netemu.kernel.conntrack import ConntrackNetlink
from netemu.kernel.conntrack_events import entries
from netemu.network.node import COUNTED
from netemu.observe.conntrack.text import line
from tests.kernel.proxy_bed import in_ns, sh
from tests.unit.conntrack_contract import ADDRESSES, CONTRACT, FAMILIES, Target, Wires

NAMESPACE = "t-kernel-conntrack"
_KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}


class KernelWires:
    """See Wires."""

    def __init__(self) -> None:
        self.table = ConntrackNetlink(NAMESPACE)
        self._listening = contextlib.ExitStack()
        sh(NAMESPACE, "ip", "link", "set", "lo", "up")
        for address in (each for family in ADDRESSES.values() for each in family):
            sh(NAMESPACE, "ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
        for family in ("ip", "ip6"):
            sh(NAMESPACE, "nft", f"table {family} t {{ chain out {{ type nat hook output priority -100; }}; }}")

    def translate(self, protocol: str, to: Target, end: Target) -> None:
        if protocol == "tcp":  # a connection that is refused is forgotten at once
            kind = socket.AF_INET6 if ":" in end[0] else socket.AF_INET
            self._listening.enter_context(in_ns(NAMESPACE, lambda: socket.create_server(end, family=kind)))
        family, new = ("ip6", f"[{end[0]}]:{end[1]}") if ":" in to[0] else ("ip", f"{end[0]}:{end[1]}")
        rule = f"{family} daddr {to[0]} {protocol} dport {to[1]} dnat to {new}"
        sh(NAMESPACE, "nft", f"flush chain {family} t out; add rule {family} t out {rule}")

    def send(self, protocol: str, source: Target, to: Target) -> None:
        family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
        with in_ns(NAMESPACE, lambda: socket.socket(family, _KINDS[protocol])) as sock:
            sock.bind(source)
            sock.connect_ex(to)
            if protocol == "udp":
                sock.send(b"x")

    def close(self) -> None:
        """Nobody listens any more."""
        self._listening.close()


@pytest.fixture
def wires() -> Iterator[KernelWires]:
    netns.delete(NAMESPACE)
    netns.create(NAMESPACE)
    try:
        with contextlib.closing(KernelWires()) as made:
            yield made
    finally:
        netns.delete(NAMESPACE)


@FAMILIES
@CONTRACT
def test_contract(wires: KernelWires, check: Callable[[Wires, bool], None], ipv6: bool) -> None:
    check(wires, ipv6)


def told_as_entries(ipv6: bool) -> list[str]:
    return sorted(without_times(line(each, time.time())) for each in entries(NAMESPACE, ipv6=ipv6))


def listed_by_the_tool(ipv6: bool) -> list[str]:
    """What `conntrack -L` prints."""
    family = "ipv6" if ipv6 else "ipv4"
    command = ["nsenter", f"--net={netns.path(NAMESPACE)}", "conntrack", "-L", "-f", family]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(map(without_times, printed.splitlines()))


def without_times(line: str) -> str:
    """Without the seconds that are left and those that are over."""
    words = line.split()
    return re.sub(r"delta-time=\d+", "delta-time=N", " ".join([*words[:2], *words[3:]]))


@FAMILIES
def test_all_entries_are_listed_as_the_tool_lists_them(wires: KernelWires, ipv6: bool) -> None:
    sender, one, other, service = ADDRESSES[ipv6]
    sysctl.write(COUNTED, NAMESPACE)
    for protocol in ("udp", "tcp"):
        wires.translate(protocol, (service, 53), (one, 5353))
        wires.send(protocol, (sender, 4444), (service, 53))
    wires.send("udp", (sender, 4444), (other, 9))
    echo(one)
    told, listed = told_as_entries(ipv6), listed_by_the_tool(ipv6)
    while told != (after := told_as_entries(ipv6)):  # the connection is still closing
        told, listed = after, listed_by_the_tool(ipv6)
    held = entries(NAMESPACE, ipv6=ipv6)

    assert {each.original.protocol for each in held} >= {"udp", "tcp", "icmpv6" if ipv6 else "icmp"}
    assert told == listed
    assert all(abs(time.time() - each.began / 1e9) < 60 for each in held)
    assert all(each.packets[0] > 0 for each in held)


def echo(address: str) -> None:
    """Ask for an echo; without a checksum the kernel's own loopback answers not, and tracks it all the same."""
    family, protocol, kind = (socket.AF_INET, 1, 8) if ":" not in address else (socket.AF_INET6, 58, 128)
    body = bytes((kind, 0)) + (0xFFFF - (kind << 8) - 7).to_bytes(2, "big") + bytes((0, 7, 0, 0))
    with in_ns(NAMESPACE, lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as sock:
        sock.sendto(body, (address, 0))


@FAMILIES
def test_entries_of_any_kind_can_be_forgotten(wires: KernelWires, ipv6: bool) -> None:
    sender, one, other, service = ADDRESSES[ipv6]
    wires.translate("udp", (service, 53), (one, 5353))
    wires.send("udp", (sender, 4444), (one, 9))
    wires.send("udp", (sender, 4444), (other, 9))
    echo(one)
    held = entries(NAMESPACE, ipv6=ipv6)
    gone = [each for each in held if each.original.destination == one]

    assert wires.table.delete(gone, ipv6=ipv6) == len(gone) >= 2
    assert [each.id for each in entries(NAMESPACE, ipv6=ipv6)] == [each.id for each in held if each not in gone]
    assert wires.table.delete(gone, ipv6=ipv6) == 0
