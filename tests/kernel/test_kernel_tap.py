"""Taps on the links of a namespace: what the filter lets through."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from netemu.kernel import netns
from netemu.kernel.tap import Frame, Tap, port_filter, wait_for_stamps
from netemu.model.errors import KernelNotFound

NAME = "t-tap-a"


@pytest.fixture
def tap() -> Iterator[Tap]:
    netns.create(NAME)
    try:
        subprocess.run(["ip", "-n", NAME, "link", "set", "lo", "up"], check=True)
        tap = Tap(NAME, port_filter(53))
        yield tap
        tap.close()
    finally:
        netns.delete(NAME)


def send(payload: bytes, address: str, port: int, *, source_port: int = 0) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(NAME):
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with sender:
        sender.bind((address, source_port))
        sender.sendto(payload, (address, port))


def connect(address: str, port: int) -> None:
    with netns.entered(NAME):
        client = socket.socket()
    with client, pytest.raises(ConnectionRefusedError):
        client.connect((address, port))


def payloads(frames: list[Frame], *, outgoing: bool) -> list[bytes]:
    return [frame.data[-4:] for frame in frames if frame.outgoing == outgoing and frame.data.endswith(b"ask!")]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("source_port", "port", "taken"), [(0, 53, True), (53, 5300, True), (0, 54, False), (5353, 5300, False)]
)
def test_a_port_is_seen_in_both_directions(tap: Tap, address: str, source_port: int, port: int, taken: bool) -> None:
    send(b"ask!", address, port, source_port=source_port)
    frames = tap.read()

    assert payloads(frames, outgoing=True) == payloads(frames, outgoing=False) == ([b"ask!"] if taken else [])
    assert {frame.link for frame in frames} <= {"lo"}


def test_segments_of_a_connection_are_seen_too(tap: Tap) -> None:
    connect("127.0.0.1", 53)
    connect("127.0.0.1", 54)

    # SYN and RST, each going out and coming in.
    assert [(frame.data[9], frame.outgoing) for frame in tap.read()] == [(6, True), (6, False)] * 2


def test_later_fragments_have_no_ports_and_are_left_out(tap: Tap) -> None:
    with netns.entered(NAME):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        header = bytes.fromhex("4500001c00010001401100007f0000017f000001")
        raw.sendto(header + bytes([0, 53, 0, 53]) * 2, ("127.0.0.1", 0))

    assert tap.read() == []


def test_the_kernel_tells_the_time(tap: Tap) -> None:
    send(b"one.", "127.0.0.1", 53)
    send(b"two.", "127.0.0.1", 53)
    times = [frame.seconds for frame in tap.read()]

    assert times == sorted(times)
    assert times[0] > 1_600_000_000


def test_packets_bear_the_time_at_which_they_came_not_that_at_which_they_were_read(tap: Tap) -> None:
    wait_for_stamps()
    send(b"one.", "127.0.0.1", 53)
    sent = time.time_ns()
    assert [frame.nanoseconds <= sent for frame in tap.read()] == [True] * 2  # out and in


def test_what_is_lost_is_counted(tap: Tap) -> None:
    for _ in range(3000):
        send(bytes(8000), "127.0.0.1", 53)
    read = 0
    while frames := tap.read():
        read += len(frames)
    # Half of what was sent and the errors about it, at least, did not fit.
    assert tap.lost() > 0
    assert tap.lost() == 0
    assert read > 0


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(KernelNotFound):
        Tap("t-tap-none", port_filter(53))
