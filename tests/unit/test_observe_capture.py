"""Frames of several places in one stream: the order, the numbers of interfaces, and the ends of a capture."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.kernel.packet_socket import ETHERNET, LOOPBACK, Counts, Frame
from netemu.observe.capture.pcapng import RAW_IP, Packet
from netemu.observe.capture.stream import Capture, Merged, Place
from netemu.testing.sources import ScriptedRing

TUNNEL = 768
PLACES = (Place("shop/a", "t-none-a"), Place("shop/b", "t-none-b", "eth0"))


class Scene:
    def __init__(self) -> None:
        self.sources = {place: ScriptedRing() for place in PLACES}
        self.a, self.b = self.sources.values()
        self.capture = Capture(
            PLACES,
            describe=lambda place, link: f"{link} of {place.name}",
            open_source=lambda place, program, ring: self.sources[place],
        )
        self.running = True

    def packets(self) -> list[Packet]:
        """What comes until the capture ends, which it does when everything was read once."""
        asked = iter([False, True])
        return [packet for packets in self.capture.packets(lambda: next(asked)) for packet in packets]


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        made = Scene()
        stack.enter_context(made.capture)
        yield made


def frame(nanoseconds: int, data: bytes = b"", *, link: int = 2, kind: int = ETHERNET) -> Frame:
    return Frame(nanoseconds, link, kind, False, len(data), data)


def test_frames_of_all_places_come_in_the_order_of_their_times(scene: Scene) -> None:
    scene.a.put(frame(1, b"1"), frame(4, b"4"), frame(5, b"5"))
    scene.b.put(frame(2, b"2"), frame(3, b"3"), frame(6, b"6"))

    assert [packet.data for packet in scene.packets()] == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_what_is_new_is_held_until_nothing_older_can_come(scene: Scene) -> None:
    now = time.time_ns()
    stream = scene.capture.packets(lambda: False)
    scene.a.put(frame(now + 10**12, b"new"), frame(now - 10**9, b"old"))

    assert [packet.data for packet in next(stream)] == [b"old"]


def test_interfaces_are_numbered_as_they_come_and_described(scene: Scene) -> None:
    scene.a.put(frame(1, link=7), frame(2, link=1, kind=LOOPBACK), frame(3, link=7))
    scene.b.put(frame(4, link=7, kind=TUNNEL))

    assert [packet.interface for packet in scene.packets()] == [0, 1, 0, 2]
    assert [(i.name, i.description) for i in scene.capture.interfaces] == [
        ("shop/a link 7", "link 7 of shop/a"), ("shop/a link 1", "link 1 of shop/a"),
        ("shop/b link 7", "link 7 of shop/b"),
    ]  # fmt: skip
    assert [i.link_type == RAW_IP for i in scene.capture.interfaces] == [False, False, True]


def test_what_was_lost_is_told_by_place(scene: Scene) -> None:
    scene.a.put(frame(1), frame(2))
    scene.packets()
    scene.a.lost = 3

    assert scene.capture.count() == Counts(2, 3)
    scene.b.lost = 1
    assert scene.capture.count() == Counts(2, 4)
    assert scene.capture.counts == {"shop/a": Counts(2, 3), "shop/b:eth0": Counts(0, 1)}


def test_it_ends_when_nobody_reads_the_pipe_any_more(scene: Scene) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb"):
        assert list(scene.capture.packets(lambda: False, writing)) == []


def test_a_file_is_no_pipe_that_somebody_leaves(scene: Scene, tmp_path: Path) -> None:
    scene.a.put(frame(1, b"1"))
    asked = iter([False, True])
    with (tmp_path / "file").open("wb") as file:
        batches = scene.capture.packets(lambda: next(asked), file.fileno())

        assert [packet.data for packets in batches for packet in packets] == [b"1"]


@given(st.lists(st.lists(st.integers(0, 50), max_size=8)), st.lists(st.integers(0, 50)))
def test_nothing_is_lost_or_told_twice(rounds: list[list[int]], moments: list[int]) -> None:
    merged, told = Merged(), list[Packet]()
    for times, moment in zip(rounds, moments, strict=False):
        merged.add(Packet(0, nanoseconds, b"", False) for nanoseconds in times)
        ready = merged.before(moment)
        assert ready == sorted(packet for packet in ready if packet.nanoseconds < moment)
        told += ready
    told += merged.rest()
    used = rounds[: len(moments)]

    assert sorted(packet.nanoseconds for packet in told) == sorted(each for times in used for each in times)


def test_a_capture_is_over_when_every_link_or_namespace_went_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {place.netns for place in PLACES}
    monkeypatch.setattr("netemu.kernel.netns.exists", lambda name: name in there)
    told = [scene.capture.gone]
    scene.b.gone = True
    told.append(scene.capture.gone)
    there.remove(PLACES[0].netns)

    assert [*told, scene.capture.gone] == [False, False, True]
