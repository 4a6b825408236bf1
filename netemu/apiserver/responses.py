"""Answers over HTTP: JSON bodies, `Status` for failures, warnings as headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from netemu.model.errors import ApiError

JSON_TYPE = "application/json"


class RequestEntityTooLarge(ApiError):
    """The body is larger than this server reads."""

    code: ClassVar[int] = 413
    reason: ClassVar[str] = "RequestEntityTooLarge"


def json_response(
    body: Any, code: int = 200, *, warnings: Iterable[str] = (), content_type: str = JSON_TYPE
) -> web.Response:
    """`body` as JSON; each warning becomes a header that kubectl prints."""
    response = web.Response(body=msgspec.json.encode(body), status=code, headers={"Content-Type": content_type})
    response.headers["Cache-Control"] = "no-cache, private"
    for text in warnings:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def error_response(error: ApiError) -> web.Response:
    """The `Status` of a failure. Clients retry a 429 only if it says when."""
    response = json_response(error.status(), error.code)
    if error.code == 429:
        response.headers["Retry-After"] = "1"
    return response


def text_response(text: str, code: int = 200) -> web.Response:
    """Plain text, as health checks answer."""
    return web.Response(text=text, status=code, headers={"X-Content-Type-Options": "nosniff"})
