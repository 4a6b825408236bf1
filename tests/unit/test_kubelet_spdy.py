"""SPDY/3.1: frames, and sessions over a connection."""

from __future__ import annotations

import asyncio
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.kubelet import spdy
from netemu.kubelet.spdy import Decoder, Encoder, Leaving, Opened, Pinged, Received, Reset, SpdyError
from netemu.kubelet.spdy_session import SpdySession

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
headers = st.dictionaries(names, st.text(max_size=20), max_size=5)
streams = st.integers(1, 2**31 - 1)


def test_the_dictionary_is_that_of_the_draft() -> None:
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(st.tuples(streams, headers, st.binary(max_size=50)), max_size=5), st.lists(st.integers(0, 400)))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[tuple[int, dict[str, str], bytes]], cuts: list[int]
) -> None:
    encoder, decoder, wire, expected = Encoder(), Decoder(), b"", []
    for stream, head, data in sent:
        wire += encoder.syn_stream(stream, head) + spdy.data_frame(stream, data, ended=True) + spdy.rst_stream(stream)
        expected += [Opened(stream, head), Received(stream, data, True), Reset(stream)]

    places = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    events = [event for start, end in pairwise(places) for event in decoder.feed(wire[start:end])]

    assert events == expected


def test_pings_and_leave_takings_are_told() -> None:
    ping = bytes.fromhex("80030006 00000004 00000001")

    assert list(Decoder().feed(ping + spdy.goaway(3))) == [Pinged(ping), Leaving()]


def test_frames_that_mean_nothing_here_are_skipped() -> None:
    settings, window = "80030004 00000004 00000000", "80030009 00000008 00000001 00000fff"

    assert list(Decoder().feed(bytes.fromhex(settings + window) + spdy.rst_stream(1))) == [Reset(1)]


@given(st.binary(max_size=200))
def test_nothing_that_comes_breaks_the_decoder(data: bytes) -> None:
    try:
        list(Decoder().feed(data))
    except SpdyError:
        return


@given(st.binary(max_size=40), st.integers(0, 30))
def test_damaged_headers_are_refused_or_read(noise: bytes, place: int) -> None:
    frame = bytearray(Encoder().syn_stream(1, {"streamtype": "error", "port": "80"}))
    frame[18 + place : 18 + place + len(noise)] = noise
    frame = frame[:18] + frame[18 : 18 + int.from_bytes(frame[5:8], "big") - 10]
    try:
        list(Decoder().feed(bytes(frame)))
    except SpdyError:
        return


def test_headers_that_unpack_to_very_much_are_refused() -> None:
    bomb = Encoder().syn_stream(1, {"a": "x" * 10_000_000})

    with pytest.raises(SpdyError):
        list(Decoder().feed(bomb))


class Wire:
    """A Duplex with the client's end in the hands of a test."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.sent = bytearray()
        self.closed = False

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def close(self) -> None:
        self.closed = True

    def events(self) -> list[spdy.Event]:
        return list(Decoder().feed(bytes(self.sent)))


async def test_a_stream_carries_both_ways_and_ends() -> None:
    wire, client = Wire(), Encoder()
    async with SpdySession(wire) as session:
        wire.incoming.put_nowait(
            client.syn_stream(1, {"streamtype": "data"}) + spdy.data_frame(1, b"there", ended=True)
        )
        stream = await session.accept()
        assert stream is not None
        assert (await stream.read(), await stream.read()) == (b"there", b"")
        await stream.write(b"back")
        await stream.finish()
        await stream.write(b"too late")

    assert wire.events() == [Received(1, b"back"), Received(1, b"", True)]
    assert wire.closed


@pytest.mark.parametrize("last", [b"", b"\x80\x02\0\1\0\0\0\0"])
async def test_the_end_of_a_connection_is_the_end_of_its_streams(last: bytes) -> None:
    wire = Wire()
    async with SpdySession(wire) as session:
        wire.incoming.put_nowait(Encoder().syn_stream(1, {}))
        stream = await session.accept()
        wire.incoming.put_nowait(last)
        assert stream is not None
        assert await stream.read() == b""
        assert await session.accept() is None
        await asyncio.wait_for(session.closed.wait(), 5)


async def test_pings_are_answered() -> None:
    wire, ping = Wire(), bytes.fromhex("80030006 00000004 00000007")
    async with SpdySession(wire) as session:
        wire.incoming.put_nowait(ping)
        wire.incoming.put_nowait(b"")
        await session.closed.wait()

    assert bytes(wire.sent) == ping
