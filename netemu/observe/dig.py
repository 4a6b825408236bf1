"""What a resolver inside a Pod does with a name: each question it sends, to whom, and what comes back.

Theory of operation. A *model* of a resolver (`glibc`) is a generator: it yields the questions that it would send next
and is given what came of them, until it returns the result. It sees no socket and no clock, so a table of replies
tests it. `lookup` drives a model with real packets, sent from sockets that were opened inside the Pod's namespace,
and notes every exchange as a `Step`. Models are a parameter, because libcs differ where it hurts.

glibc's behaviour (2.36, measured): /etc/hosts first; dots >= ndots tries the name as it is first, else last; A and
AAAA leave the same socket together; NXDOMAIN and NODATA go on to the next search name; SERVFAIL and REFUSED go to the
next server, and after all attempts to the next name; a timeout uses up attempts and then skips to the absolute name;
TC is asked again by TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import struct
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import msgspec

from netemu.dns import names, wire
from netemu.dns.wire import Message, WireError

_PORT = 53
_MOST_SERVERS = 3


class ResolvConf(msgspec.Struct, frozen=True, rename="camel"):
    """What a resolv.conf file says; defaults are those of resolv.conf(5)."""

    nameservers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: int = 5
    attempts: int = 2
    rotate: bool = False
    single_request: bool = False
    use_vc: bool = False
    no_aaaa: bool = False
    edns0: bool = False


class Reply(msgspec.Struct, frozen=True, rename="camel"):
    """What came of one question. `outcome` is an rcode, or `timeout`, `refused` (nobody listens), `malformed`."""

    type: str
    outcome: str
    answers: tuple[str, ...] = ()
    """Records as dig prints them."""
    addresses: tuple[str, ...] = ()
    canonical: str = ""
    truncated: bool = False
    seconds: float = 0.0


class Ask(msgspec.Struct, frozen=True):
    """What a model wants sent: all `types` at once over one socket, unless `together` is False."""

    name: str
    types: tuple[str, ...]
    server: str
    transport: str
    timeout: float
    attempt: int
    together: bool = True
    edns0: bool = False


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """One question sent and what came back."""

    name: str
    server: str
    transport: str
    attempt: int
    reply: Reply


class Result(msgspec.Struct, frozen=True, rename="camel"):
    """What the caller of getaddrinfo is told: `found`, `not found`, `no data` or `try again`."""

    status: str
    name: str = ""
    """The name that had the answer."""
    answers: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    source: str = "dns"


class Lookup(msgspec.Struct, frozen=True, rename="camel"):
    """A whole lookup."""

    name: str
    types: tuple[str, ...]
    resolver: str
    resolv_conf: ResolvConf
    steps: tuple[Step, ...]
    result: Result
    seconds: float


Walk = Generator[Ask, Sequence[Reply], Result]
Model = Callable[[str, ResolvConf, Sequence[str]], Walk]


def parse_resolv_conf(text: str) -> ResolvConf:
    """A resolv.conf as glibc reads it: servers add up (three count), the last `search` wins, options add up."""
    servers: list[str] = []
    found: dict[str, object] = {}
    for line in text.splitlines():
        if line[:1] in ("#", ";"):
            continue
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest and len(servers) < _MOST_SERVERS:
            servers.append(rest[0])
        elif word in ("search", "domain") and rest:
            found["search"] = tuple(item.rstrip(".") or "." for item in (rest if word == "search" else rest[:1]))
        elif word == "options":
            for option in rest:
                found |= _option(option)
    if servers:
        found["nameservers"] = tuple(servers)
    return msgspec.structs.replace(ResolvConf(), **found)


def _option(option: str) -> dict[str, object]:
    name, _, value = option.partition(":")
    bounds = {"ndots": 15, "timeout": 30, "attempts": 5}
    if name in bounds and value.isdecimal():
        return {name: max(min(int(value), bounds[name]), 0 if name == "ndots" else 1)}
    flags = {"rotate", "single-request", "single-request-reopen", "use-vc", "no-aaaa", "edns0"}
    if option in flags:
        return {option.removesuffix("-reopen").replace("-", "_"): True}
    return {}


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Lower-case name -> addresses, in the order of the file."""
    table: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *words = line.split("#")[0].split() or [""]
        try:
            ipaddress.ip_address(address)
        except ValueError:
            continue
        for word in words:
            table[word.lower()] = (*table.get(word.lower(), ()), address)
    return table


# --- models ----------------------------------------------------------------------------------------------------------


def candidates(name: str, conf: ResolvConf) -> list[str]:
    """The names to try, in order, each with its last dot."""
    if name.endswith("."):
        return [name]
    absolute = name + "."
    searched = [absolute if domain == "." else f"{name}.{domain}." for domain in conf.search]
    order = [absolute, *searched] if name.count(".") >= conf.ndots else [*searched, absolute]
    return list(dict.fromkeys(order))


def glibc(name: str, conf: ResolvConf, types: Sequence[str]) -> Walk:
    """glibc's stub resolver; see the module's docstring."""
    if conf.no_aaaa:
        types = [kind for kind in types if kind != "AAAA"]
    tries, again, empty = candidates(name, conf), False, False
    absolute = name.rstrip(".") + "."
    while tries:
        current = tries.pop(0)
        replies = yield from _glibc_name(current, conf, tuple(types))
        good = [reply for reply in replies if reply.outcome == "NOERROR" and reply.answers]
        if good:
            return Result(
                "found", current,
                tuple(line for reply in good for line in reply.answers),
                tuple(address for reply in good for address in reply.addresses),
            )  # fmt: skip
        outcomes = {reply.outcome for reply in replies}
        empty = empty or "NOERROR" in outcomes
        if outcomes & {"timeout", "refused"}:
            again = True
            tries = [absolute] if absolute in tries else []
        elif outcomes & {"SERVFAIL", "REFUSED", "malformed"}:
            again = True
    return Result("try again" if again else "no data" if empty else "not found")


def _glibc_name(name: str, conf: ResolvConf, types: tuple[str, ...]) -> Generator[Ask, Sequence[Reply], list[Reply]]:
    """All attempts for one name: the last reply of each type."""
    last: dict[str, Reply] = {}
    single = conf.single_request
    for attempt in range(1, conf.attempts + 1):
        for index, server in enumerate(conf.nameservers):
            transport = "tcp" if conf.use_vc else "udp"
            # glibc's res_send.c: later servers wait a growing share of the timeout.
            patience = max(1, (conf.timeout << index) // (len(conf.nameservers) if index else 1))
            replies = yield Ask(name, types, server, transport, patience, attempt, not single, conf.edns0)
            short = tuple(reply.type for reply in replies if reply.truncated and transport == "udp")
            last |= {reply.type: reply for reply in replies}
            if short:
                replies = yield Ask(name, short, server, "tcp", float(conf.timeout), attempt, not single, conf.edns0)
                last |= {reply.type: reply for reply in replies}
            outcomes = {last[kind].outcome for kind in types}
            answered = any(last[kind].outcome == "NOERROR" and last[kind].answers for kind in types)
            if outcomes <= {"NOERROR", "NXDOMAIN"} or (answered and "timeout" not in outcomes):
                return list(last.values())
            single = single or "timeout" in outcomes
    return list(last.values())


MODELS: dict[str, Model] = {"glibc": glibc}


# --- packets ---------------------------------------------------------------------------------------------------------


async def lookup(
    name: str,
    *,
    types: Sequence[str] = ("A", "AAAA"),
    resolv_conf: Path | str = "/etc/resolv.conf",
    hosts: Path | str | None = "/etc/hosts",
    netns: str = "",
    resolver: str = "glibc",
    port: int = _PORT,
    on_step: Callable[[Step], None] | None = None,
) -> Lookup:
    """Resolve `name` as a process inside the network namespace `netns` (name or path; empty: this one) would.

    An address with type PTR stands for its reverse name, as `getnameinfo` has it.
    `on_step` hears of each step as it happens. Raises ValueError for an impossible name, KernelError for a namespace
    that is not there, OSError for files that cannot be read.
    """
    if "PTR" in types:
        with contextlib.suppress(ValueError):
            name = ipaddress.ip_address(name).reverse_pointer + "."
    names.parse(name)
    for kind in types:
        if kind not in wire.TYPES:
            raise ValueError(f"{kind!r} is not a record type; expected for example A, AAAA, SRV, PTR")
    conf = parse_resolv_conf(Path(resolv_conf).read_text())
    began, steps = time.monotonic(), []
    result = _from_hosts(name, types, hosts)
    if result is None:
        walk = MODELS[resolver](name, conf, types)
        try:
            ask = next(walk)
            while True:
                replies = await _send(ask, netns, port)
                for reply in replies:
                    step = Step(ask.name, ask.server, ask.transport, ask.attempt, reply)
                    steps.append(step)
                    if on_step:
                        on_step(step)
                ask = walk.send(replies)
        except StopIteration as end:
            result = end.value
    assert result is not None
    return Lookup(name, tuple(types), resolver, conf, tuple(steps), result, time.monotonic() - began)


def _from_hosts(name: str, types: Sequence[str], hosts: Path | str | None) -> Result | None:
    """What `files` of nsswitch.conf says, for addresses alone."""
    if hosts is None or not set(types) & {"A", "AAAA"}:
        return None
    try:
        found = parse_hosts(Path(hosts).read_text()).get(name.rstrip(".").lower(), ())
    except FileNotFoundError:
        return None
    wanted = tuple(item for item in found if ("AAAA" if ":" in item else "A") in types)
    return Result("found", name, addresses=wanted, source=str(hosts)) if wanted else None


async def _send(ask: Ask, netns: str, port: int) -> list[Reply]:
    if not ask.together:
        return [
            (await _send(msgspec.structs.replace(ask, types=(kind,), together=True), netns, port))[0]
            for kind in ask.types
        ]
    if ask.transport == "tcp":
        return [await _tcp(ask, kind, netns, port) for kind in ask.types]
    return await _udp(ask, netns, port)


def _open(netns: str, server: str, kind: int) -> socket.socket:
    """A socket that belongs to the namespace for ever; entering it is the calling thread's affair."""
    from netemu.kernel import netns as kernel_netns

    with kernel_netns.entered(netns):
        sock = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)
    sock.setblocking(False)
    return sock


async def _udp(ask: Ask, netns: str, port: int) -> list[Reply]:
    """Every type over one socket, together; a reply for each, `timeout` where none came."""
    loop, began = asyncio.get_running_loop(), time.monotonic()
    found: dict[str, Reply] = {}
    sock = await asyncio.to_thread(_open, netns, ask.server, socket.SOCK_DGRAM)
    try:
        async with asyncio.timeout(ask.timeout):
            await loop.sock_connect(sock, (ask.server, port))
            sent = dict(zip(_ids(len(ask.types)), ask.types, strict=True))
            for ident, kind in sent.items():
                await loop.sock_sendall(sock, _packet(ident, ask, kind))
            while len(found) < len(ask.types):
                data = await loop.sock_recv(sock, 65535)
                arrived = sent.get(int.from_bytes(data[:2], "big"))
                if arrived and arrived not in found:
                    found[arrived] = _reply(arrived, data, time.monotonic() - began)
    except TimeoutError:
        pass
    except OSError as error:
        outcome = "refused" if isinstance(error, ConnectionRefusedError) else error.strerror or "error"
        return [found.get(kind) or Reply(kind, outcome, seconds=time.monotonic() - began) for kind in ask.types]
    finally:
        sock.close()
    return [found.get(kind) or Reply(kind, "timeout", seconds=time.monotonic() - began) for kind in ask.types]


async def _tcp(ask: Ask, kind: str, netns: str, port: int) -> Reply:
    loop, began = asyncio.get_running_loop(), time.monotonic()
    sock = await asyncio.to_thread(_open, netns, ask.server, socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(ask.timeout):
            await loop.sock_connect(sock, (ask.server, port))
            packet = _packet(_ids(1)[0], ask, kind)
            await loop.sock_sendall(sock, struct.pack("!H", len(packet)) + packet)
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                if not (chunk := await loop.sock_recv(sock, 65535)):
                    return Reply(kind, "refused", seconds=time.monotonic() - began)
                data += chunk
            return _reply(kind, data[2:], time.monotonic() - began)
    except TimeoutError:
        return Reply(kind, "timeout", seconds=time.monotonic() - began)
    except OSError as error:
        outcome = "refused" if isinstance(error, ConnectionRefusedError) else error.strerror or "error"
        return Reply(kind, outcome, seconds=time.monotonic() - began)
    finally:
        sock.close()


def _ids(count: int) -> list[int]:
    return random.sample(range(65536), count)


def _packet(ident: int, ask: Ask, kind: str) -> bytes:
    return wire.build_query(ident, names.parse(ask.name), wire.TYPES[kind], edns_size=1232 if ask.edns0 else 0)


def _reply(kind: str, data: bytes, seconds: float) -> Reply:
    try:
        message = wire.parse_message(data)
    except WireError:
        return Reply(kind, "malformed", seconds=seconds)
    outcome = wire.rcode_name(message.rcode)
    lines = tuple(wire.record_text(record) for record in message.answers)
    return Reply(kind, outcome, lines, _addresses(message), _canonical(message), message.truncated, seconds)


def _addresses(message: Message) -> tuple[str, ...]:
    return tuple(wire.rdata_text(record) for record in message.answers if record.type in (wire.A, wire.AAAA))


def _canonical(message: Message) -> str:
    aliases = [record for record in message.answers if record.type == wire.CNAME]
    return wire.rdata_text(aliases[-1]) if aliases else ""


# --- text ------------------------------------------------------------------------------------------------------------


def render(found: Lookup) -> list[str]:
    """The lookup as lines for a terminal."""
    conf = found.resolv_conf
    lines = [
        f"{found.name} as {found.resolver} resolves it: nameserver {' '.join(conf.nameservers)},"
        f" search {' '.join(conf.search) or '(none)'}, ndots:{conf.ndots}"
    ]
    for number, step in enumerate(found.steps, 1):
        reply = step.reply
        answers = [line.split("\t", 3)[3].replace("\t", " ") for line in reply.answers]
        outcome = "NODATA" if reply.outcome == "NOERROR" and not answers else reply.outcome
        said = outcome + (" " + ", ".join(answers) if answers else "") + (" (truncated)" if reply.truncated else "")
        attempt = f", attempt {step.attempt}" if step.attempt > 1 else ""
        where = f"{step.server} {step.transport}{attempt}"
        lines.append(f"{number:3}  {step.name} {reply.type}  ->  {said}  [{where}, {reply.seconds * 1000:.1f} ms]")
    result = found.result
    if result.status == "found":
        what = ", ".join(result.addresses) or "; ".join(line.replace("\t", " ") for line in result.answers)
        origin = f"as {result.name}" if result.source == "dns" else f"from {result.source}"
        lines.append(f"found: {what} {origin} after {len(found.steps)} queries, {found.seconds * 1000:.1f} ms")
    else:
        lines.append(f"{result.status} after {len(found.steps)} queries, {found.seconds * 1000:.1f} ms")
    return lines
