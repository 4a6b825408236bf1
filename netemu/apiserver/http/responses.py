"""Answers over HTTP: JSON bodies, `Status` for failures, warnings as headers."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from netemu.model.errors import ApiError

_WARNING, _WARNINGS = 256, 4096
"""Characters of one warning and of all: clients read only so much of an answer's head (`filters/warning.go`)."""
JSON_TYPE = "application/json"


class RequestEntityTooLarge(ApiError):
    """The body is larger than this server reads."""

    code: ClassVar[int] = 413
    reason: ClassVar[str] = "RequestEntityTooLarge"


def json_response(
    body: Any, code: int = 200, *, warnings: Iterable[str] = (), content_type: str = JSON_TYPE
) -> web.Response:
    """`body` as JSON; each warning becomes a header that kubectl prints."""
    headers = {"Content-Type": content_type, "Cache-Control": "no-cache, private"}
    response = web.Response(body=msgspec.json.encode(body), status=code, headers=headers)
    room = _WARNINGS
    for text in warnings:
        header = _warning(text)
        room -= len(header)
        if room < 0:
            break
        response.headers.add("Warning", header)
    return response


def document_response(
    request: web.Request, body: bytes, etag: str, content_type: str = JSON_TYPE, cache: str = "no-cache, private"
) -> web.Response:
    """A document that the client may have already, as `If-None-Match` says."""
    headers = {"ETag": f'"{etag}"', "Cache-Control": cache, "Vary": "Accept"}
    if any(known.value in (etag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={**headers, "Content-Type": content_type})


def add_warning(response: web.StreamResponse, text: str) -> None:
    """One more warning with an answer that is not on its way yet."""
    response.headers.add("Warning", _warning(text))


def _warning(text: str) -> str:
    # A header is one line; what a client wrote need not be.
    line = "".join(char if char.isprintable() else " " for char in text[:_WARNING])
    quoted = line.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'


def error_response(error: ApiError) -> web.Response:
    """The `Status` of a failure. Clients come back by themselves only where it says when."""
    status = error.status()
    # Texts of headers and URLs may hold bytes that were no UTF-8.
    status["message"] = error.message.encode("utf-8", "replace").decode()
    response = json_response(status, error.code)
    if seconds := error.details.get("retryAfterSeconds"):
        response.headers["Retry-After"] = str(seconds)
    return response


def as_people_read_it(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """A JSON answer on several lines, if `?pretty` or the kind of client asks for it.

    Upstream: apiserver `endpoints/handlers/negotiation`, `isPrettyPrint`.
    """
    asked = request.query.get("pretty") or str(request.headers.get("User-Agent", "").startswith(_PEOPLES_CLIENTS))
    if asked in _TRUE and isinstance(response, web.Response) and response.content_type == JSON_TYPE:
        body = response.body
        response.body = msgspec.json.format(body, indent=2) if isinstance(body, bytes) else body
    return response


async def compressed(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """A large answer as gzip, for a client that takes it.

    Upstream: apiserver `endpoints/handlers/responsewriters`, with its threshold and level. An offer with a quality is
    none there, whatever the quality.
    """
    body = response.body if isinstance(response, web.Response) else None
    if isinstance(response, web.Response) and isinstance(body, bytes) and len(body) > _LARGE:
        offers = {one.strip() for one in request.headers.get("Accept-Encoding", "").split(",")}
        if "gzip" in offers and "Content-Encoding" not in response.headers:
            # Beside the loop: it takes a hundredth of a second for each megabyte, and others are waiting.
            response.body = await asyncio.to_thread(gzip.compress, body, 1)
            response.headers["Content-Encoding"] = "gzip"
            response.headers.add("Vary", "Accept-Encoding")
    return response


_LARGE = 128 * 1024
_PEOPLES_CLIENTS = ("curl", "Wget", "Mozilla/5.0")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})


def text_response(text: str, code: int = 200) -> web.Response:
    """Plain text, as health checks answer."""
    return web.Response(text=text, status=code, headers={"X-Content-Type-Options": "nosniff"})
