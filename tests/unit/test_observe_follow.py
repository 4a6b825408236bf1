"""Which of the packets that a place sends begin a connection to a destination, and which were answered."""

from __future__ import annotations

import pytest

from netemu.kernel.nft_trace import TABLE, Step
from netemu.kernel.tap import Frame
from netemu.observe.trace.evidence import Packet, Protocol
from netemu.observe.trace.follow import Beginnings, Begun
from netemu.observe.trace.headers import craft
from netemu.observe.trace.passages import Seen

CLIENT, WEB = "10.0.0.1", "10.0.0.2"
ETHERNET = bytes(12) + b"\x08\x00"


def packet(
    protocol: Protocol = "tcp", to: str = WEB, port: int = 80, secret: bytes = b"12345678", **more: int
) -> bytes:
    source_port = more.get("source_port", 40000)
    sent = Packet(destination=to, port=port, protocol=protocol, source=CLIENT, source_port=source_port)
    return craft(sent, secret).data


def step(data: bytes, chain: str = "output", table: str = TABLE) -> Step:
    return Step(1, "rule", "ip", table, chain, 1, "continue", "", 0, 0, 0, data)


def seen(*steps: Step, frames: tuple[Frame, ...] = ()) -> Seen:
    return Seen("shop/client", steps=list(steps), frames=list(frames))


def beginnings(seen: Seen, destination: str, port: int, protocol: Protocol) -> list[Begun]:
    begun = Beginnings(destination, port, protocol)
    begun.read(seen)
    return begun.waiting


def test_what_is_for_another_place_or_port_is_left_out() -> None:
    others = (packet(to="10.0.0.3"), packet(port=81))
    found = beginnings(seen(*map(step, (*others, packet()))), WEB, 80, "tcp")

    assert [(one.headers.destination, one.headers.port, one.signature.value) for one in found] == [(WEB, 80, b"1234")]


def test_a_connection_begins_once_however_many_rules_it_meets() -> None:
    elsewhere = step(packet(secret=b"abcdefgh"), table="nat")
    later = step(packet(secret=b"abcdefgh"), chain="prerouting")
    found = beginnings(seen(step(packet()), step(packet()), elsewhere, later), WEB, 80, "tcp")

    assert [one.signature.value for one in found] == [b"1234"]


def test_datagrams_are_told_apart_by_what_they_carry() -> None:
    found = beginnings(seen(step(packet("udp")), step(packet("udp", secret=b"abcdefgh"))), WEB, 80, "udp")

    assert [one.signature.value for one in found] == [b"12345678", b"abcdefgh"]


def test_it_began_when_its_first_frame_was_seen_and_is_answered_when_one_comes_back() -> None:
    syn = Frame(5_000_000_000, "eth0", True, ETHERNET + packet())
    # What comes back to the port that it was sent from.
    back = Packet(destination=CLIENT, port=40000, protocol="tcp", source=WEB, source_port=80)
    answer = Frame(5_000_400_000, "eth0", False, ETHERNET + craft(back, b"zzzzzzzz").data)
    begun, place = Beginnings(WEB, 80, "tcp"), seen(step(packet()), frames=(syn,))
    begun.read(place)
    (one,) = begun.waiting

    assert (one.at, one.answered) == (5.0, False)
    place.frames.append(answer)
    begun.read(place)
    assert one.answered


def test_what_is_told_does_not_begin_again_when_its_packet_meets_more_rules() -> None:
    begun, place = Beginnings(WEB, 80, "tcp"), seen(step(packet()))
    begun.read(place)
    begun.tell(*begun.waiting)
    place.steps.append(step(packet()))
    begun.read(place)

    assert begun.waiting == []


def test_frames_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Frame] = []
    monkeypatch.setattr(Begun, "see", lambda _, frame: looked.append(frame))
    frames = tuple(Frame(number, "eth0", True, ETHERNET + packet()) for number in range(3))
    begun, place = Beginnings(WEB, 80, "tcp"), seen(step(packet()), frames=frames)
    for _ in range(5):
        begun.read(place)
    place.frames.append(frames[0])
    begun.read(place)

    assert looked == [*frames, frames[0]]
