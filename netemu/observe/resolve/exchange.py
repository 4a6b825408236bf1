"""One step of a resolver on the wire: the questions of an `Ask` sent from a network namespace, and what came back.

The sockets belong to the namespace for ever; the waiting is done in the calling process.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time

import msgspec

from netemu.dns import names, wire
from netemu.dns.wire import Message, WireError
from netemu.kernel import netns as namespaces
from netemu.observe.resolve.resolvers import Ask, Reply


async def exchange(ask: Ask, netns: str, port: int) -> list[Reply]:
    """Every reply in order of arrival; the last one of a type counts. Raises KernelNotFound for the namespace."""
    if ask.sockets == "turns":
        return [reply for one in _split(ask) for reply in await exchange(one, netns, port)]
    if ask.sockets == "each":
        found = await asyncio.gather(*(exchange(one, netns, port) for one in _split(ask)))
        return [reply for replies in found for reply in replies]
    if ask.transport == "tcp":
        return [await _tcp(ask, kind, netns, port) for kind in ask.types]
    if ask.stubborn:
        return await _stubborn(ask, netns, port)
    return await _udp(ask, netns, port)


def _split(ask: Ask) -> list[Ask]:
    return [msgspec.structs.replace(ask, types=(kind,), sockets="one") for kind in ask.types]


def _open(netns: str, server: str, kind: int) -> socket.socket:
    with namespaces.entered(netns):
        sock = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)
    sock.setblocking(False)
    return sock


async def _udp(ask: Ask, netns: str, port: int) -> list[Reply]:
    """Every type over one connected socket, together; a reply for each, `timeout` where none came."""
    loop, began, server = asyncio.get_running_loop(), time.monotonic(), ask.servers[0]
    found: dict[str, Reply] = {}
    missing = "timeout"
    sock = await asyncio.to_thread(_open, netns, server, socket.SOCK_DGRAM)
    try:
        async with asyncio.timeout(ask.timeout):
            await loop.sock_connect(sock, (server, port))
            sent = dict(zip(_ids(len(ask.types)), ask.types, strict=True))
            # At the same moment, as sendmmsg has it: what happens between two packets that are not is another story.
            for packet in [_packet(ident, ask, kind) for ident, kind in sent.items()]:
                sock.send(packet)
            while len(found) < len(ask.types):
                data = await loop.sock_recv(sock, 65535)
                arrived = sent.get(int.from_bytes(data[:2], "big"))
                if arrived and arrived not in found:
                    found[arrived] = _reply(arrived, data, began, server, ask.attempt)
    except TimeoutError:
        pass
    except OSError as error:
        missing = _outcome(error)
    finally:
        sock.close()
    return [found.get(kind) or _nothing(kind, missing, began, server, ask.attempt) for kind in ask.types]


async def _stubborn(ask: Ask, netns: str, port: int) -> list[Reply]:
    """See `Ask.stubborn`. Nothing is connected, so the kernel tells of no unreachable port."""
    loop, began = asyncio.get_running_loop(), time.monotonic()
    arrivals: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()
    sockets: dict[bool, socket.socket] = {}
    replies: list[Reply] = []
    kinds = dict(zip(_ids(len(ask.types)), ask.types, strict=True))
    waiting = dict(kinds)

    def receive(sock: socket.socket) -> None:
        data, address = sock.recvfrom(65535)
        arrivals.put_nowait((data, address[0]))

    def send(ident: int, server: str) -> None:
        try:
            sockets[":" in server].sendto(_packet(ident, ask, kinds[ident]), (server, port))
        except OSError as error:
            replies.append(_nothing(kinds[ident], _outcome(error), began, server, 1))

    try:
        for server in ask.servers:
            if (":" in server) not in sockets:
                sock = sockets[":" in server] = await asyncio.to_thread(_open, netns, server, socket.SOCK_DGRAM)
                loop.add_reader(sock, receive, sock)
        for attempt in range(1, ask.tries + 1):
            for ident in waiting:
                for server in ask.servers:
                    send(ident, server)
            again = 2 * len(kinds)
            try:
                async with asyncio.timeout_at(
                    loop.time() + began - time.monotonic() + ask.timeout * attempt / ask.tries
                ):
                    while waiting:
                        data, server = await arrivals.get()
                        ident = int.from_bytes(data[:2], "big")
                        if server not in ask.servers or ident not in waiting:
                            continue
                        reply = _reply(waiting[ident], data, began, server, attempt)
                        replies.append(reply)
                        if reply.outcome in ("NOERROR", "NXDOMAIN"):
                            del waiting[ident]
                        elif reply.outcome == "SERVFAIL" and again:
                            again -= 1
                            send(ident, server)
                break
            except TimeoutError:
                silent = ", ".join(ask.servers)
                replies += [_nothing(kind, "timeout", began, silent, attempt) for kind in waiting.values()]
    finally:
        for sock in sockets.values():
            loop.remove_reader(sock)
            sock.close()
    return replies


async def _tcp(ask: Ask, kind: str, netns: str, port: int) -> Reply:
    loop, began, server = asyncio.get_running_loop(), time.monotonic(), ask.servers[0]
    sock = await asyncio.to_thread(_open, netns, server, socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(ask.timeout):
            await loop.sock_connect(sock, (server, port))
            packet = _packet(_ids(1)[0], ask, kind)
            await loop.sock_sendall(sock, struct.pack("!H", len(packet)) + packet)
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                if not (chunk := await loop.sock_recv(sock, 65535)):
                    return _nothing(kind, "refused", began, server, ask.attempt)
                data += chunk
            return _reply(kind, data[2:], began, server, ask.attempt)
    except TimeoutError:
        return _nothing(kind, "timeout", began, server, ask.attempt)
    except OSError as error:
        return _nothing(kind, _outcome(error), began, server, ask.attempt)
    finally:
        sock.close()


def _ids(count: int) -> list[int]:
    return random.sample(range(65536), count)


def _packet(ident: int, ask: Ask, kind: str) -> bytes:
    number = wire.type_number(kind)
    assert number is not None, kind
    return wire.build_query(ident, names.parse(ask.name), number, edns_size=ask.edns)


def _outcome(error: OSError) -> str:
    return "refused" if isinstance(error, ConnectionRefusedError) else error.strerror or "error"


def _nothing(kind: str, outcome: str, began: float, server: str, attempt: int) -> Reply:
    return Reply(kind, outcome, seconds=time.monotonic() - began, server=server, attempt=attempt)


def _reply(kind: str, data: bytes, began: float, server: str, attempt: int) -> Reply:
    try:
        message = wire.parse_message(data)
    except WireError:
        return _nothing(kind, "malformed", began, server, attempt)
    lines = tuple(wire.record_text(record) for record in message.answers)
    return Reply(
        kind, wire.rcode_name(message.rcode), lines, _addresses(message), _canonical(message),
        message.truncated, time.monotonic() - began, server, attempt,
    )  # fmt: skip


def _addresses(message: Message) -> tuple[str, ...]:
    return tuple(wire.rdata_text(record) for record in message.answers if record.type in (wire.A, wire.AAAA))


def _canonical(message: Message) -> str:
    aliases = [record for record in message.answers if record.type == wire.CNAME]
    return wire.rdata_text(aliases[-1]) if aliases else ""
