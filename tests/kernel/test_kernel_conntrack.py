"""The contract of `Conntrack`, on the kernel: real packets over the loopback of a namespace, translated by nft."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from netemu.kernel import netns
from netemu.kernel.conntrack import ConntrackNetlink
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
