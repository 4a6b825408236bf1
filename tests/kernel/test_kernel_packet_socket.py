"""Frames from the ring of a packet socket: which ones, when, whole, in order, and what is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from netemu.kernel import netns
from netemu.kernel.libpcap import compile_filter
from netemu.kernel.packet_socket import ETHERNET, LEAST_RING, LOOPBACK, Frame, PacketSocket, send_frame
from netemu.model.errors import KernelError, KernelNotFound
from tests.kernel.proxy_bed import in_ns, sh
from tests.unit.listener_contract import check_listener

NAME = "t-packet-socket"
TYPE = 0x88B5  # for experiments: the kernel does nothing with it
HEADER = bytes.fromhex("0242000000020242000000010000")[:12] + TYPE.to_bytes(2, "big")


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    """A namespace with `lo` and both ends of a link, `left` and `right`."""
    netns.delete(NAME)
    netns.create(NAME)
    try:
        for command in ("link set lo up", "link add left type veth peer name right"):
            subprocess.run(["ip", "-n", NAME, *command.split()], check=True)
        for link in ("left", "right"):
            sh(NAME, "sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1")
            subprocess.run(["ip", "-n", NAME, "link", "set", link, "up"], check=True)
        yield
    finally:
        netns.delete(NAME)


@contextlib.contextmanager
def capture(link: str = "", program: bytes = b"", ring: int = LEAST_RING) -> Iterator[PacketSocket]:
    with contextlib.closing(PacketSocket(NAME, link, program, ring)) as taken:
        yield taken


def send(*payloads: bytes) -> None:
    """Frames from `left` to `right`."""
    with in_ns(NAME, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as sender:
        sender.bind(("left", 0))
        for payload in payloads:
            sender.send(HEADER + payload)


def read(taken: PacketSocket, number: int) -> list[Frame]:
    """So many frames; fails after ten seconds without any."""
    frames: list[Frame] = []
    while len(frames) < number:
        assert select.select([taken], [], [], 10)[0], f"{len(frames)} of {number} frames"
        frames += taken.read()
    return frames


def index(link: str) -> int:
    with netns.entered(NAME):
        return socket.if_nametoindex(link)


def test_a_frame_is_seen_where_it_goes_out_and_where_it_comes_in() -> None:
    with capture() as taken:
        send(b"hello")
        out, into = read(taken, 2)

    assert (out.link, out.outgoing, out.kind) == (index("left"), True, ETHERNET)
    assert (into.link, into.outgoing, into.kind) == (index("right"), False, ETHERNET)
    assert out.data == into.data == HEADER + b"hello"
    assert out.length == len(out.data)
    assert out.nanoseconds <= into.nanoseconds
    assert abs(time.time_ns() - out.nanoseconds) < 60 * 10**9


def test_one_link_alone() -> None:
    with capture("right") as taken:
        send(b"one", b"two")

        assert [(frame.link, frame.outgoing) for frame in read(taken, 2)] == [(index("right"), False)] * 2


def test_what_goes_through_the_loopback_is_told_once() -> None:
    with capture("lo") as taken:
        with in_ns(NAME, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            sender.bind(("127.0.0.1", 4444))
            sender.sendto(b"once", ("127.0.0.1", 4444))
        (frame,) = read(taken, 1)

    assert (frame.kind, frame.outgoing, frame.data[-4:]) == (LOOPBACK, False, b"once")


def test_a_filter_is_in_force_from_the_first_frame() -> None:
    with capture("right", compile_filter(f"ether proto {TYPE} and ether[14] = 0x62")) as taken:
        send(b"a", b"b", b"c", b"b")

        assert [frame.data[14:] for frame in read(taken, 2)] == [b"b", b"b"]
        assert taken.counts() == (2, 0)
        assert taken.counts() == (0, 0)


def test_many_times_what_the_ring_holds_comes_whole_and_in_order() -> None:
    payloads = [number.to_bytes(4, "big") + bytes(7 * number) for number in range(200)]
    rounds, frames = 25, list[Frame]()
    with capture("right") as taken:
        for _ in range(rounds):
            send(*payloads)
            frames += read(taken, len(payloads))

        assert sum(frame.length for frame in frames) > 3 * LEAST_RING
        assert [frame.data[14:] for frame in frames] == payloads * rounds
        assert [frame.nanoseconds for frame in frames] == sorted(frame.nanoseconds for frame in frames)
        assert taken.counts() == (len(frames), 0)


def test_what_finds_the_ring_full_is_counted() -> None:
    payload = bytes(1400)
    with capture("right") as taken:
        send(*[payload] * 2000)
        held = read(taken, 200)
        counts = taken.counts()

    assert counts.taken >= len(held)
    assert counts.dropped > 0
    assert counts.taken + counts.dropped == 2000


@pytest.mark.parametrize(("namespace", "link"), [("t-packet-none", ""), (NAME, "nowhere0")])
def test_what_is_not_there(namespace: str, link: str) -> None:
    with pytest.raises(KernelNotFound):
        PacketSocket(namespace, link)


def ip(*words: str) -> None:
    subprocess.run(["ip", "-n", NAME, *words], check=True)


def wakes(taken: PacketSocket) -> bool:
    """Whether poll returns at once, as a capture's loop asks it."""
    poll = select.poll()
    poll.register(taken, select.POLLIN)
    return bool(poll.poll(0))


def test_a_link_that_goes_down_wakes_the_reader_once_and_goes_on_when_it_is_up() -> None:
    with capture("right") as taken:
        ip("link", "set", "right", "down")
        assert wakes(taken)
        assert taken.read() == []
        assert not wakes(taken)
        assert not taken.gone

        ip("link", "set", "right", "up")
        deadline, frames = time.monotonic() + 30, list[Frame]()
        while not frames and time.monotonic() < deadline:  # the link takes frames only once the kernel has noticed
            send_frame(NAME, "left", HEADER + b"again")
            select.select([taken], [], [], 0.1)
            frames = taken.read()
        assert {frame.data for frame in frames} == {HEADER + b"again"}


def test_a_link_that_goes_away_is_gone_for_good() -> None:
    ip("link", "add", "passing", "type", "veth", "peer", "name", "other")
    with capture("passing") as taken:
        before = taken.gone
        ip("link", "delete", "passing")
        assert taken.read() == []
        assert not wakes(taken)
        ip("link", "add", "passing", "type", "veth", "peer", "name", "other")

        assert (before, taken.gone) == (False, True)
    ip("link", "delete", "passing")


def test_a_socket_that_cannot_be_made_whole_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> int:
        raise OSError(errno.ENODEV, "no such device")

    monkeypatch.setattr(socket, "if_nametoindex", refused)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KernelNotFound) as caught:
        PacketSocket(NAME)

    assert os.listdir("/proc/self/fd") == before, caught  # what is caught keeps the frames, and what is open in them


@pytest.mark.parametrize(
    ("namespace", "link", "size", "code"),
    [
        (NAME, "nowhere0", 60, errno.ENODEV), ("t-packet-none", "left", 60, errno.ENOENT),
        (NAME, "left", 9000, errno.EMSGSIZE),
    ],
)  # fmt: skip
def test_a_frame_that_cannot_be_sent(namespace: str, link: str, size: int, code: int) -> None:
    with pytest.raises(KernelError) as caught:
        send_frame(namespace, link, HEADER + bytes(size))

    assert caught.value.code == code


def test_frames_of_the_ring_come_as_those_that_are_put_in_for_them() -> None:
    with capture("right") as taken:
        check_listener(taken, lambda: len(taken.read()), lambda: send(b"one", b"two"))
