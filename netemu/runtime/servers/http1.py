"""HTTP/1.x messages, read incrementally (RFC 9112): enough for probes, curl, browsers and load generators.

Not used from aiohttp: its server costs some 50 KiB and several objects per listening Pod, and cannot start from bytes
that were read to find out which protocol is spoken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])")
LONGEST_HEAD = 64 * 1024
LONGEST_BODY = 16 * 1024 * 1024


class BadMessage(ValueError):
    """The bytes are not HTTP, or more than is taken."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names keep the case in which they came."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    version: str = "HTTP/1.1"

    def header(self, name: str) -> str:
        """The first value of that header, in whatever case; empty if absent."""
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to send another request on this connection."""
        wish = self.header("Connection").lower()
        return "close" not in wish if self.version == "HTTP/1.1" else "keep-alive" in wish


@dataclass(frozen=True, slots=True)
class Response:
    """One response; Content-Length, Date and Connection are added on the wire."""

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = field(default=())
    content_type: str = "text/plain; charset=utf-8"

    def encode(self, *, head_only: bool, close: bool) -> bytes:
        """The bytes of it. `head_only` for the answer to HEAD."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Status"
        lines = [f"HTTP/1.1 {self.status} {phrase}", f"Date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        # 1xx and 204 have no body by definition, and a length on them confuses clients.
        if self.status >= 200 and self.status != 204:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        lines.append(f"Connection: {'close' if close else 'keep-alive'}")
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        return head if head_only or self.status == 204 else head + self.body


def looks_like_http(data: bytes) -> bool | None:
    """Whether a connection that begins so speaks HTTP/1; None while that cannot be told."""
    line, newline, _ = data.partition(b"\n")
    if newline:
        return _REQUEST_LINE.fullmatch(line.rstrip(b"\r")) is not None
    if len(data) > 8192 or not re.match(rb"[A-Z]{1,16}( |$)", data):
        return False
    return None


class RequestReader:
    """Feed it bytes; `next` gives complete requests. `expects_continue` asks for an interim answer."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._told_to_continue = False

    @property
    def empty(self) -> bool:
        """Whether no part of a request is waiting."""
        return not self._data

    def feed(self, data: bytes) -> None:
        """More bytes of the connection."""
        self._data += data

    def next(self) -> Request | None:
        """The next whole request, or None until more is fed. Raises BadMessage."""
        while self._data[:2] == b"\r\n":  # a client may end a body with one line too many
            del self._data[:2]
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if len(self._data) > LONGEST_HEAD:
                raise BadMessage("head too long")
            return None
        head = _head(bytes(self._data[:end]))
        body = self._body(head, end + 4)
        if body is None:
            return None
        content, consumed = body
        del self._data[:consumed]
        self._told_to_continue = False
        return Request(head.method, head.target, head.headers, content, head.version)

    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body; True once per request."""
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._told_to_continue:
            return False
        self._told_to_continue = True
        return _head(bytes(self._data[:end])).header("Expect").lower() == "100-continue"

    def _body(self, head: Request, start: int) -> tuple[bytes, int] | None:
        if "chunked" in head.header("Transfer-Encoding").lower():
            return self._chunks(start)
        text = head.header("Content-Length") or "0"
        if not text.isdecimal() or int(text) > LONGEST_BODY:
            raise BadMessage("bad or too large Content-Length")
        end = start + int(text)
        return (bytes(self._data[start:end]), end) if len(self._data) >= end else None

    def _chunks(self, at: int) -> tuple[bytes, int] | None:
        content = bytearray()
        while True:
            line_end = self._data.find(b"\r\n", at)
            if line_end < 0:
                return None
            try:
                size = int(bytes(self._data[at:line_end]).split(b";")[0], 16)
            except ValueError as error:
                raise BadMessage("bad chunk size") from error
            if len(content) + size > LONGEST_BODY:
                raise BadMessage("body too large")
            at = line_end + 2
            if size == 0:
                return self._trailers(bytes(content), at)
            if len(self._data) < at + size + 2:
                return None
            content += self._data[at : at + size]
            at += size + 2

    def _trailers(self, content: bytes, at: int) -> tuple[bytes, int] | None:
        while True:
            line_end = self._data.find(b"\r\n", at)
            if line_end < 0:
                return None
            if line_end == at:
                return content, at + 2
            at = line_end + 2


def _head(raw: bytes) -> Request:
    first, *rest = raw.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise BadMessage("bad request line")
    headers: list[tuple[str, str]] = []
    for line in rest:
        name, colon, value = line.partition(b":")
        if not colon or name != name.strip():
            raise BadMessage("bad header line")
        headers.append((name.decode("latin-1"), value.strip().decode("latin-1")))
    return Request(match[1].decode(), match[2].decode("latin-1"), headers, version=f"HTTP/1.{match[3].decode()}")
