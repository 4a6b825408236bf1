"""What the kernel says of a virtual server and its destinations, decoded from bytes as linux/ip_vs.h lays them out."""

from __future__ import annotations

import socket
import struct

import pytest

from netemu.kernel import ipvs
from netemu.kernel.ipvs import IpvsNetlink, ServerKey
from netemu.kernel.nfnetlink import attribute, nested

GENERIC_HEADER = b"\x01\x01\x00\x00"
STATS = nested(10, b"".join([
    attribute(1, struct.pack("=I", 3)),  # connections
    attribute(2, struct.pack("=I", 17)),  # packets in
    attribute(3, struct.pack("=I", 15)),  # packets out
    attribute(4, struct.pack("=Q", 5_000_000_000)),  # bytes in
    attribute(5, struct.pack("=Q", 900)),  # bytes out
]))  # fmt: skip
SERVER = nested(1, b"".join([
    attribute(1, struct.pack("=H", socket.AF_INET)),
    attribute(2, struct.pack("=H", 6)),
    attribute(3, socket.inet_aton("10.96.0.80") + bytes(12)),
    attribute(4, struct.pack("!H", 80)),
    attribute(6, b"rr\0"),
    attribute(7, struct.pack("=II", 2, 0xFFFFFFFF)),
    attribute(8, struct.pack("=I", 0)),
    attribute(9, b"\xff\xff\xff\xff"),
    STATS,
]))  # fmt: skip
DESTINATION = nested(2, b"".join([
    attribute(1, socket.inet_aton("10.244.1.2") + bytes(12)),
    attribute(2, struct.pack("!H", 8080)),
    attribute(3, struct.pack("=I", 0)),
    attribute(4, struct.pack("=I", 1)),
    attribute(7, struct.pack("=I", 2)),
    attribute(11, struct.pack("=H", socket.AF_INET)),
    STATS,
]))  # fmt: skip


class Kernel:
    """Answers every dump with the same messages."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = [GENERIC_HEADER + answer for answer in answers]

    def ask(self, message: object, operation: str, *, dump: bool = False) -> list[bytes]:
        return self._answers


def told(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> IpvsNetlink:
    monkeypatch.setattr(ipvs, "Requests", lambda netns, family: Kernel(*answers))
    monkeypatch.setattr(IpvsNetlink, "_find_family", lambda self: 0)
    return IpvsNetlink("")


def test_a_virtual_server_comes_with_what_it_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    (server,) = told(monkeypatch, SERVER).servers()

    assert (server.key, server.counted) == (ServerKey("tcp", "10.96.0.80", 80), (17, 5_000_000_000))


def test_so_does_a_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = told(monkeypatch, DESTINATION).destinations(ServerKey("tcp", "10.96.0.80", 80))

    assert (found.target, found.active, found.counted) == ("10.244.1.2:8080", 2, (17, 5_000_000_000))
