"""SPDY/3.1 frames, as far as Kubernetes uses them: streams over one connection. Pure: bytes in, events out.

Frames have a head of eight bytes. A control frame: bit 1, version 3, type, flags, length of the rest. A data frame:
bit 0, stream, flags, length. Headers are compressed with zlib, one context for all frames of a direction, primed with
a dictionary of common words. Clients open streams of odd numbers. There is no flow control: Kubernetes' own
implementation (moby/spdystream) ignores windows, and so does this.
Source: SPDY Protocol Draft 3.1, sections 2.2 to 2.6.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from netemu.model.errors import NetemuError

_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_REST: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = (
    b"".join(struct.pack(">I", len(word)) + word.replace("_", " ").encode() for word in _WORDS.split()) + _REST.encode()
)
"""What both directions' compression starts with (section 2.6.10.1)."""

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN: Final = 1
_LARGEST = 1 << 24
_LARGEST_HEADERS = 1 << 16


class SpdyError(NetemuError):
    """What came is no SPDY/3.1; the connection is of no use any more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The other side opened a stream; `ended` where it will send nothing on it."""

    stream: int
    headers: Mapping[str, str]
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """Data of a stream; `ended` with the last."""

    stream: int
    data: bytes
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The other side gave a stream up."""

    stream: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """To be sent back as it is."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Leaving:
    """The other side opens no streams any more."""


Event = Opened | Received | Reset | Pinged | Leaving


class Decoder:
    """One direction of a connection, read."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that are complete with `data`; frames that mean nothing here are skipped. Raises SpdyError."""
        self._rest += data
        while len(self._rest) >= 8:
            first, last = struct.unpack_from(">II", self._rest)
            flags, length = last >> 24, last & (_LARGEST - 1)
            if len(self._rest) < 8 + length:
                return
            head, body = bytes(self._rest[:8]), bytes(self._rest[8 : 8 + length])
            del self._rest[: 8 + length]
            if not first >> 31:
                yield Received(first, body, bool(flags & FIN))
            elif (event := self._control(first, flags, head, body)) is not None:
                yield event

    def _control(self, first: int, flags: int, head: bytes, body: bytes) -> Event | None:
        if first >> 16 & 0x7FFF != 3:
            raise SpdyError(f"SPDY: version {first >> 16 & 0x7FFF}, not 3")
        kind = first & 0xFFFF
        try:
            if kind == SYN_STREAM:
                stream = struct.unpack_from(">I", body)[0] & 0x7FFFFFFF
                return Opened(stream, self._headers(body[10:]), bool(flags & FIN))
            if kind in (SYN_REPLY, 8):
                self._headers(body[4:])  # keeps the context of the compression right
            if kind == RST_STREAM:
                return Reset(struct.unpack_from(">I", body)[0] & 0x7FFFFFFF)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"SPDY: a frame of type {kind} cannot be read: {error}") from error
        if kind == PING:
            return Pinged(head + body)
        return Leaving() if kind == GOAWAY else None

    def _headers(self, block: bytes) -> dict[str, str]:
        plain = self._inflate.decompress(block, _LARGEST_HEADERS)
        if self._inflate.unconsumed_tail:
            raise SpdyError("SPDY: more headers than anybody needs")
        (count,) = struct.unpack_from(">I", plain)
        texts, at = [], 4
        for _ in range(min(count, len(plain)) * 2):
            (length,) = struct.unpack_from(">I", plain, at)
            texts.append(plain[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}


class Encoder:
    """The other direction, written."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, ended: bool = False) -> bytes:
        """Open a stream."""
        return _control(SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._headers(headers), FIN if ended else 0)

    def syn_reply(self, stream: int) -> bytes:
        """Accept a stream, without headers."""
        return _control(SYN_REPLY, struct.pack(">I", stream) + self._headers({}))

    def _headers(self, headers: Mapping[str, str]) -> bytes:
        texts = [text.encode() for pair in headers.items() for text in pair]
        block = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(text)) + text for text in texts)
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def data_frame(stream: int, data: bytes, *, ended: bool = False) -> bytes:
    """Data of a stream, less than 16 MiB."""
    return struct.pack(">II", stream, (FIN if ended else 0) << 24 | len(data)) + data


def rst_stream(stream: int) -> bytes:
    """Give a stream up (CANCEL)."""
    return _control(RST_STREAM, struct.pack(">II", stream, 5))


def goaway(last: int) -> bytes:
    """No more streams; `last` is the highest that was taken."""
    return _control(GOAWAY, struct.pack(">II", last, 0))


def _control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body
