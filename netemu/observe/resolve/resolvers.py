"""What the resolvers of this world do with a name: glibc's, musl's and Go's, as pure models.

Theory of operation. A model is a generator: it yields what it would send next (`Ask`), is given what came of it
(`Reply`s), and returns the `Result` that its caller would see. It sees no socket and no clock, so a table of replies
tests it; `dig.py` drives it with real packets. Resolvers are modelled one by one because they differ where it hurts:

=================================  =======================  ==========================  ===========================
what happens                       glibc 2.36               musl                        Go (net, pure Go)
=================================  =======================  ==========================  ===========================
A and AAAA                         one socket, together     one socket, together        a socket each, together
several servers                    in turn                  all at once, first one wins in turn
dots >= ndots                      absolute, then search    absolute alone              absolute, then search
NODATA at a search name            goes on                  stops: no data              goes on
one family NXDOMAIN, other has it  found                    goes on, as if nothing      found
SERVFAIL                           next server, then name   asked again at once; stops  next server, then name
silence                            only absolute is left    stops: try again            next name
TC                                 again by TCP             by TCP since 1.2.4          again by TCP
EDNS                               if resolv.conf says so   never                       always, 1232 bytes
single-request, use-vc             honoured                 ignored                     honoured
=================================  =======================  ==========================  ===========================

Sources: glibc and musl as measured on the wire (2.36, 1.2.3) and musl's `res_msend.c`, `lookup_name.c`; Go's
`net/dnsclient_unix.go`, `net/dnsconfig_unix.go`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Literal

import msgspec

_MOST_SERVERS = 3
_GLIBC_EDNS = 1200
_GO_EDNS = 1232
_FAILED = frozenset({"SERVFAIL", "REFUSED", "malformed"})


class ResolvConf(msgspec.Struct, frozen=True, rename="camel"):
    """What a resolv.conf file says; defaults are those of resolv.conf(5)."""

    nameservers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: int = 5
    attempts: int = 2
    rotate: bool = False
    single_request: bool = False
    single_request_reopen: bool = False
    use_vc: bool = False
    no_aaaa: bool = False
    edns0: bool = False


class Reply(msgspec.Struct, frozen=True, rename="camel"):
    """What came of one question. `outcome` is an rcode, or `timeout`, `refused` (nobody listens), `malformed`,
    or the kernel's own word, as `Network is unreachable`."""

    type: str
    outcome: str
    answers: tuple[str, ...] = ()
    """Records as dig prints them."""
    addresses: tuple[str, ...] = ()
    canonical: str = ""
    truncated: bool = False
    seconds: float = 0.0
    server: str = ""
    attempt: int = 1


class Ask(msgspec.Struct, frozen=True):
    """What a model wants sent: every type to every server.

    `sockets`: `one` for all, `each` question its own at the same time, or `turns`, one question after the other.
    `tries` splits `timeout`: what is not answered when a share of it has passed is sent again over the same socket.
    `stubborn` takes nothing but NOERROR and NXDOMAIN for an answer, asks again at once after SERVFAIL (twice for each
    question and try) and waits through everything else, an unreachable port included.
    """

    name: str
    types: tuple[str, ...]
    servers: tuple[str, ...]
    transport: Literal["udp", "tcp"]
    timeout: float
    attempt: int = 1
    sockets: Literal["one", "each", "turns"] = "one"
    edns: int = 0
    tries: int = 1
    stubborn: bool = False


class Result(msgspec.Struct, frozen=True, rename="camel"):
    """What the caller of getaddrinfo is told: `found`, `not found`, `no data` or `try again`."""

    status: str
    name: str = ""
    """The name that had the answer."""
    answers: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    source: str = "dns"


Walk = Generator[Ask, Sequence[Reply], Result]
Model = Callable[[str, ResolvConf, Sequence[str]], Walk]


# --- files -----------------------------------------------------------------------------------------------------------


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
        # To ask from a socket of its own each, glibc asks one after the other.
        implied = {"single_request": True} if option == "single-request-reopen" else {}
        return {**implied, option.replace("-", "_"): True}
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


def literal(name: str, resolver: str) -> str:
    """The address that a name is, in canonical text; empty for a name that has to be asked for.

    The C libraries take what `inet_aton` takes (`127.1` is 127.0.0.1; getaddrinfo.c, lookup_ipliteral.c), Go takes four
    numbers (net/netip).
    """
    try:
        if resolver != "go" and name.replace(".", "").isalnum():
            return socket.inet_ntoa(socket.inet_aton(name))
        return str(ipaddress.ip_address(name))
    except (OSError, ValueError):
        return ""


# --- what models share -----------------------------------------------------------------------------------------------


def candidates(name: str, conf: ResolvConf) -> list[str]:
    """The names to try, in order, each with its last dot; glibc's and Go's order."""
    if name.endswith("."):
        return [name]
    absolute = name + "."
    order = [absolute, *_searched(name, conf)] if name.count(".") >= conf.ndots else [*_searched(name, conf), absolute]
    return list(dict.fromkeys(order))


def _searched(name: str, conf: ResolvConf) -> list[str]:
    return [f"{name}." if domain == "." else f"{name}.{domain}." for domain in conf.search]


def _has_answer(reply: Reply) -> bool:
    """What was asked for, at the end of aliases or without any."""
    wanted = reply.addresses if reply.type in ("A", "AAAA") else reply.answers
    return reply.outcome == "NOERROR" and bool(wanted)


def _found(name: str, replies: Sequence[Reply]) -> Result:
    return Result(
        "found", name,
        tuple(line for reply in replies for line in reply.answers),
        tuple(address for reply in replies for address in reply.addresses),
    )  # fmt: skip


# --- glibc -----------------------------------------------------------------------------------------------------------


class _Care(msgspec.Struct):
    """How glibc asks: from the first time that of two questions one alone is answered, one after the other; from the
    second time, each from a socket of its own. It stays so for the rest of the lookup (res_send.c, send_dg)."""

    single: bool
    reopen: bool

    def grows(self, outcomes: Sequence[str]) -> bool:
        """Whether to ask the same server once more, with more care than before."""
        if not _half(outcomes) or self.reopen:
            return False
        self.single, self.reopen = True, self.single
        return True


def _is_silence(outcome: str) -> bool:
    """No server has said anything: the time was over, nobody listened, or the kernel knew no way (in its words)."""
    return not outcome.isupper() and outcome not in _FAILED  # rcodes are in capitals


def _half(outcomes: Sequence[str]) -> bool:
    return "timeout" in outcomes and not {"NOERROR", "NXDOMAIN"}.isdisjoint(outcomes)


def glibc(name: str, conf: ResolvConf, types: Sequence[str]) -> Walk:
    """NODATA, NXDOMAIN and failures go on to the next name; silence leaves only the absolute one."""
    care = _Care(conf.single_request, conf.single_request_reopen)
    if conf.no_aaaa:
        types = [kind for kind in types if kind != "AAAA"]
    tries, again, empty = candidates(name, conf), False, False
    absolute = name.rstrip(".") + "."
    while tries:
        current = tries.pop(0)
        replies = yield from _glibc_name(current, conf, tuple(types), care)
        if good := [reply for reply in replies if _has_answer(reply)]:
            return _found(current, good)
        if any(reply.outcome == "NOERROR" and reply.answers for reply in replies):
            return Result("not found")  # an alias that leads nowhere is an answer: no other name is tried
        outcomes = {reply.outcome for reply in replies}
        empty = empty or "NOERROR" in outcomes
        if any(map(_is_silence, outcomes)):
            again = True
            tries = [absolute] if absolute in tries else []
        elif outcomes & _FAILED:
            again = True
    return Result("try again" if again else "no data" if empty else "not found")


def _glibc_name(
    name: str, conf: ResolvConf, types: tuple[str, ...], care: _Care
) -> Generator[Ask, Sequence[Reply], list[Reply]]:
    """All attempts for one name: the last reply of each type."""
    last: dict[str, Reply] = {}
    edns = _GLIBC_EDNS if conf.edns0 else 0
    for attempt in range(1, conf.attempts + 1):
        for index, server in enumerate(conf.nameservers):
            # glibc's res_send.c: later servers wait a growing share of the timeout.
            patience = max(1, (conf.timeout << index) // (len(conf.nameservers) if index else 1))
            ask = Ask(
                name, types, (server,), "tcp" if conf.use_vc else "udp", patience, attempt,
                "turns" if care.single else "one", edns,
            )  # fmt: skip
            replies = yield ask
            while care.grows([reply.outcome for reply in replies]):
                ask = msgspec.structs.replace(ask, sockets="turns")
                replies = yield ask
            last |= {reply.type: reply for reply in replies}
            if short := _truncated(ask, replies):
                replies = yield msgspec.structs.replace(ask, types=short, transport="tcp", timeout=float(conf.timeout))
                last |= {reply.type: reply for reply in replies}
            outcomes = [last[kind].outcome for kind in types]
            answered = any(_has_answer(last[kind]) for kind in types)
            if set(outcomes) <= {"NOERROR", "NXDOMAIN"} or answered or _half(outcomes):
                return list(last.values())
    return list(last.values())


def _truncated(ask: Ask, replies: Sequence[Reply]) -> tuple[str, ...]:
    return tuple(reply.type for reply in replies if reply.truncated) if ask.transport == "udp" else ()


# --- musl ------------------------------------------------------------------------------------------------------------


def musl(name: str, conf: ResolvConf, types: Sequence[str]) -> Walk:
    """musl since 1.2.4: truncated answers are fetched by TCP."""
    return _musl(name, conf, types, by_tcp=True)


def old_musl(name: str, conf: ResolvConf, types: Sequence[str]) -> Walk:
    """musl up to 1.2.3: what fits into the packet is all there is."""
    return _musl(name, conf, types, by_tcp=False)


def _musl(name: str, conf: ResolvConf, types: Sequence[str], by_tcp: bool) -> Walk:
    """The first name with an answer that is not NXDOMAIN ends the search, an empty or failed one too.

    Only address lookups search at all: musl's `res_search` is its `res_query`.
    """
    addresses = set(types) <= {"A", "AAAA"}
    searching = addresses and not name.endswith(".") and name.count(".") < conf.ndots
    absolute = name.rstrip(".") + "."
    for current in dict.fromkeys([*(_searched(name, conf) if searching else ()), absolute]):
        ask = Ask(
            current, tuple(types), conf.nameservers, "udp", float(conf.timeout), tries=conf.attempts, stubborn=True
        )
        replies = {reply.type: reply for reply in (yield ask)}
        if by_tcp:
            for short in [reply for reply in replies.values() if reply.truncated]:
                fetched = yield msgspec.structs.replace(
                    ask, types=(short.type,), servers=(short.server or conf.nameservers[0],),
                    transport="tcp", tries=1,
                )  # fmt: skip
                replies |= {reply.type: reply for reply in fetched}
        if result := _musl_verdict(current, [replies[kind] for kind in types]):
            return result
    return Result("not found")


def _musl_verdict(name: str, replies: Sequence[Reply]) -> Result | None:
    """What one name's answers mean, looked at in the order of the questions; None: go on to the next name."""
    for reply in replies:
        if reply.outcome == "NXDOMAIN":
            return None
        if reply.outcome != "NOERROR":
            return Result("try again")
    return _found(name, replies) if any(map(_has_answer, replies)) else Result("no data")


# --- Go --------------------------------------------------------------------------------------------------------------


def go(name: str, conf: ResolvConf, types: Sequence[str]) -> Walk:
    """Each question of a name goes its own way; the first name with an address of either family ends the search."""
    last = ""
    absolute = name.rstrip(".") + "."
    for current in candidates(name, conf):
        replies = yield from _go_name(current, conf, tuple(types))
        if good := [reply for reply in replies if _has_answer(reply)]:
            return _found(current, good)
        for reply in replies:
            # What the name itself said counts only where no search name has said anything before.
            if not last or current != absolute:
                last = reply.outcome
    return Result("not found" if last in ("NXDOMAIN", "NOERROR") else "try again")


def _go_name(name: str, conf: ResolvConf, types: tuple[str, ...]) -> Generator[Ask, Sequence[Reply], list[Reply]]:
    """All attempts for one name: the last reply of each type; types that have an answer are not asked again."""
    last: dict[str, Reply] = {}
    for attempt in range(1, conf.attempts + 1):
        for server in conf.nameservers:
            open_types = tuple(kind for kind in types if not _settled(last.get(kind)))
            if not open_types:
                break
            ask = Ask(
                name, open_types, (server,), "tcp" if conf.use_vc else "udp", float(conf.timeout), attempt,
                "turns" if conf.single_request else "each", _GO_EDNS,
            )  # fmt: skip
            replies = yield ask
            last |= {reply.type: reply for reply in replies}
            if short := _truncated(ask, replies):
                replies = yield msgspec.structs.replace(ask, types=short, transport="tcp")
                last |= {reply.type: reply for reply in replies}
    return [last[kind] for kind in types]


def _settled(reply: Reply | None) -> bool:
    return reply is not None and reply.outcome in ("NOERROR", "NXDOMAIN")


MODELS: dict[str, Model] = {"glibc": glibc, "musl": musl, "musl-1.2.3": old_musl, "go": go}
