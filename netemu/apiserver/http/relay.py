"""Requests passed on to another server, and its answers passed back.

An ordinary request goes over an HTTP client, so bodies may be endless both ways (`kubectl logs -f`). A request for an
upgrade becomes a pipe between the two connections once the other server agrees; what they speak is not looked at.
Upstream: apimachinery `util/proxy/upgradeaware.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from netemu.apiserver.http.reach import Location, Reach
from netemu.client.upgrade import accept, relay, wants_upgrade
from netemu.model.errors import ApiError, BadRequest, InternalError, KernelError, NotFound, ServiceUnavailable

# What concerns one connection only (RFC 9110, 7.6.1), and the credentials, which are ours to check and nobody else's.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_CREDENTIALS = ("authorization", "impersonate-")
"""Beginnings of the headers that say who asks."""
_CROSS_ORIGIN = frozenset(
    f"access-control-allow-{what}" for what in ("credentials", "headers", "methods", "origin")
)  # fmt: skip
"""What would let other sites' scripts into the API, whatever the other server thinks of them."""
_LONGEST_REFUSAL = 2048
"""Characters of another server's refusal that go into ours."""


async def pass_on(
    request: web.Request, reach: Reach, where: Location, path: str, *, prefix: str = ""
) -> web.StreamResponse:
    """Answer with what the server at `where` answers to the same request for `path` (quoted, with its query).

    `prefix` is what the client's URL has before `path`; where the server redirects to a path of its own, it is put
    back. Raises ServiceUnavailable where the server cannot be reached.
    """
    try:
        if wants_upgrade(request):
            return await _upgraded(request, reach, where, path)
        return await _plain(request, reach, where, path, prefix)
    except (aiohttp.ClientConnectionError, OSError, EOFError, KernelError) as error:
        raise ServiceUnavailable(f"error trying to reach service: {dial_error(where, error)}") from error


async def _plain(request: web.Request, reach: Reach, where: Location, path: str, prefix: str) -> web.StreamResponse:
    headers = [*_forwarded(request), ("X-Forwarded-Uri", prefix + path.partition("?")[0])]
    body = request.content if request.can_read_body else None
    url = URL(f"{where.scheme}://{where.authority}{path}", encoded=True)
    answer = await reach.session.request(
        request.method, url, headers=headers, data=body, ssl=reach.tls(where), allow_redirects=False
    )
    async with answer:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        kept = CIMultiDict(_passed(answer.headers.items(), _HOP_BY_HOP | _CROSS_ORIGIN))
        if "Location" in kept:
            kept["Location"] = rewritten(kept["Location"], prefix, where.authority, request.host)
        response.headers.extend(kept)
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        return response


async def stream_from(request: web.Request, reach: Reach, where: Location, path: str) -> web.StreamResponse:
    """The answer to a GET of `path`, as it comes; a refusal becomes our own `Status`. Raises ApiError."""
    url = URL(f"{where.scheme}://{where.authority}{path}", encoded=True)
    try:
        answer = await reach.session.get(url, ssl=reach.tls(where))
    except (aiohttp.ClientConnectionError, OSError, KernelError) as error:
        raise InternalError(f'Get "{url}": {dial_error(where, error)}') from error
    async with answer:
        if answer.status != 200:
            raise _refusal(answer.status, (await answer.text())[:_LONGEST_REFUSAL])
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        return response


async def _upgraded(request: web.Request, reach: Reach, where: Location, path: str) -> web.StreamResponse:
    headers = _forwarded(request, upgrade=True)
    answer = await reach.upgrade(where, request.method, path, headers)
    if answer.stream is None:
        refused = web.Response(status=answer.status, body=answer.body)
        refused.headers["Content-Type"] = answer.headers.get("Content-Type", "text/plain")
        return refused
    try:
        response, client = await accept(request, answer.headers)
    except BaseException:
        await answer.stream.close()
        raise
    await relay(client, answer.stream)
    return response


def _forwarded(request: web.Request, *, upgrade: bool = False) -> list[tuple[str, str]]:
    """The headers of a request as the next server gets them: without credentials, with whom it comes from."""
    without = {"content-length", "x-forwarded-for", *(() if upgrade else _HOP_BY_HOP)}
    passed = [(name, value) for name, value in _passed(request.headers.items(), frozenset(without))
              if not name.lower().startswith(_CREDENTIALS)]  # fmt: skip
    came_by = [*request.headers.getall("X-Forwarded-For", []), request.remote or ""]
    return [*passed, ("X-Forwarded-For", ", ".join(came_by))]


def rewritten(location: str, prefix: str, authority: str, host: str) -> str:
    """Where a redirect leads, as its client must write it: behind `prefix` if it stays on the server it came from.

    That server is known as `authority`, or as the `host` the client asked. Upstream: apimachinery
    `util/proxy/transport.go`.
    """
    url = urlsplit(location)
    if url.netloc not in ("", authority, host) or not url.path.startswith("/"):
        return location
    path = url.path if url.path.startswith(prefix) else prefix + url.path
    kept = ("", "") if url.netloc != host else (url.scheme, url.netloc)
    return urlunsplit((*kept, path, url.query, url.fragment))


def _passed(headers: Iterable[tuple[str, str]], without: frozenset[str]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in headers if name.lower() not in without)


def _refusal(code: int, text: str) -> ApiError:
    """As upstream's GenericHttpResponseChecker: the kubelet's words under the kubelet's code."""
    text = text.strip()
    if code == 400:
        return BadRequest(text)
    if code == 404:
        return NotFound(text or "the server could not find the requested resource")
    return InternalError(f"Internal error occurred: {text or f'HTTP {code}'}")


def dial_error(where: Location, error: BaseException) -> str:
    """`dial tcp 10.0.0.1:80: connect: connection refused`, as Go's clients tell it."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, TimeoutError | asyncio.TimeoutError) or isinstance(error, aiohttp.ServerTimeoutError):
        return f"dial tcp {where.authority}: i/o timeout"
    if isinstance(inner, ConnectionRefusedError):
        return f"dial tcp {where.authority}: connect: connection refused"
    return f"dial tcp {where.authority}: {inner or type(inner).__name__}"


def quoted(*parts: str) -> str:
    """A URL path of these parts."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)
