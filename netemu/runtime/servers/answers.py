"""What each program answers to a request. Pure.

`echo` is ours. `netexec` and `serve-hostname` follow the programs of that name in the test image agnhost
(kubernetes/test/images/agnhost), whose URLs, texts and ports the end-to-end tests of Kubernetes rely on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import msgspec

from netemu.model.hosts import endpoint_text
from netemu.runtime.servers.http1 import Request, Response
from netemu.runtime.servers.identity import Identity

Client = tuple[str, int]
_SHOWN_BODY = 64 * 1024


def http_answer(program: str, who: Identity, request: Request, client: Client, port: int) -> Response:
    """The response of that program on that port. Headers say who answered, and whom it saw, for every program."""
    if program == "netexec":
        response = _netexec(who, request, client)
    elif program == "serve-hostname":
        response = Response(body=who.hostname.encode())
    else:
        response = _echo(who, request, client, port)
    address = endpoint_text(client[0], client[1])
    about = (("X-Netemu-Pod", who.pod), ("X-Netemu-Node", who.node), ("X-Netemu-Client", address))
    return replace(response, headers=(*response.headers, *about))


def udp_answer(program: str, who: Identity, data: bytes, client: Client, port: int) -> bytes:
    """The datagram that answers `data`; empty for none."""
    if program == "netexec":
        return _netexec_udp(who, data, client)
    if program == "serve-hostname":
        return who.hostname.encode()
    return greeting(who, client, port, "UDP") + data


def greeting(who: Identity, client: Client, port: int, protocol: str) -> bytes:
    """The line by which an echo says who it is before it echoes."""
    return msgspec.json.encode(who.about(client, port, protocol)) + b"\n"


def _echo(who: Identity, request: Request, client: Client, port: int) -> Response:
    about = who.about(client, port, request.version)
    about |= {"method": request.method, "path": request.target, "headers": dict(request.headers)}
    if request.body:
        about |= {"body": request.body[:_SHOWN_BODY].decode(errors="replace"), "bodyLength": len(request.body)}
    return Response(body=msgspec.json.encode(about) + b"\n", content_type="application/json")


def _netexec(who: Identity, request: Request, client: Client) -> Response:
    url = urlsplit(request.target)
    query = parse_qs(url.query, keep_blank_values=True)
    path = url.path.lower() if url.path.lower() == "/hostname" else url.path
    if path == "/shell" or path == "/exit" or path == "/upload":
        return Response(403, f"{path} is refused: nothing runs behind an emulated image\n".encode())
    answer = _NETEXEC.get(path)
    # Go's mux sends every path that nothing else claims to the root handler.
    return answer(who, request, client, query) if answer else _now(who, request, client, query)


Query = dict[str, list[str]]


def _now(who: Identity, request: Request, client: Client, query: Query) -> Response:
    return Response(body=f"NOW: {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} +0000 UTC".encode())


def _client_ip(who: Identity, request: Request, client: Client, query: Query) -> Response:
    return Response(body=endpoint_text(client[0], client[1]).encode())


def _echo_message(who: Identity, request: Request, client: Client, query: Query) -> Response:
    return Response(_code(query, 200, 600), query.get("msg", [""])[0].encode())


def _healthz(who: Identity, request: Request, client: Client, query: Query) -> Response:
    return Response(200)


def _hostname(who: Identity, request: Request, client: Client, query: Query) -> Response:
    return Response(body=who.hostname.encode())


def _header(who: Identity, request: Request, client: Client, query: Query) -> Response:
    return Response(body=request.header(query.get("key", [""])[0]).encode())


def _redirect(who: Identity, request: Request, client: Client, query: Query) -> Response:
    location = query.get("location", ["/"])[0]
    if "\r" in location or "\n" in location:
        return Response(400)
    return Response(_code(query, 302, 400), headers=[("Location", location)])


def _code(query: Query, usual: int, end: int) -> int:
    """The status that is asked for, if it is one of the hundred, or hundreds, of the usual one up to `end`."""
    code = query.get("code", [""])[0]
    return int(code) if code.isdecimal() and usual // 100 * 100 <= int(code) < end else usual


_NETEXEC: dict[str, Callable[[Identity, Request, Client, Query], Response]] = {
    "/": _now,
    "/clientip": _client_ip,
    "/echo": _echo_message,
    "/healthz": _healthz,
    "/hostname": _hostname,
    "/header": _header,
    "/redirect": _redirect,
}


def _netexec_udp(who: Identity, data: bytes, client: Client) -> bytes:
    words = data.decode(errors="replace").strip()
    command, _, rest = words.partition(" ")
    match command.lower():
        case "hostname":
            return who.hostname.encode()
        case "echo":
            return rest.encode()
        case "clientip":
            return endpoint_text(client[0], client[1]).encode()
        case _:
            return b""
