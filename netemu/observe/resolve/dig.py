"""What a resolver inside a Pod does with a name: each question it sends, to whom, and what comes back.

`lookup` drives a model of a resolver (`resolvers.py`) with real packets (`exchange.py`), sent from sockets that were
opened inside the Pod's namespace, and notes every exchange as a `Step`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from netemu.dns import names, wire
from netemu.observe.resolve.exchange import exchange
from netemu.observe.resolve.resolvers import (
    MODELS,
    Reply,
    ResolvConf,
    Result,
    Walk,
    literal,
    parse_hosts,
    parse_resolv_conf,
)

_PORT = 53


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """One question sent and what came back."""

    name: str
    transport: str
    reply: Reply


class Lookup(msgspec.Struct, frozen=True, rename="camel"):
    """A whole lookup."""

    name: str
    types: tuple[str, ...]
    resolver: str
    resolv_conf: ResolvConf
    steps: tuple[Step, ...]
    result: Result
    seconds: float


async def lookup(
    name: str,
    *,
    types: Sequence[str] = ("A", "AAAA"),
    resolv_conf: Path | str = "/etc/resolv.conf",
    hosts: Path | str | None = "/etc/hosts",
    netns: str = "",
    resolver: str = "glibc",
    port: int = _PORT,
    transport: Literal["udp", "tcp"] | None = None,
    edns: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Lookup:
    """Resolve `name` as a process inside the network namespace `netns` (name or path; empty: this one) would.

    An address with type PTR stands for its reverse name, as `getnameinfo` has it. `transport` and `edns` (a buffer
    size in bytes, 0 for none) overrule what the resolver would use. `on_step` hears of each step as it happens.
    Raises ValueError for an impossible name, type or resolver, KernelError for a namespace that is not there, OSError
    for files that cannot be read.
    """
    if not name:
        raise ValueError("there is no name to look up; expected for example web, or . for the root")
    if "PTR" in types:
        with contextlib.suppress(ValueError):
            name = ipaddress.ip_address(name).reverse_pointer + "."
    names.parse(name)
    for kind in types:
        if wire.type_number(kind) is None:
            raise ValueError(f"{kind!r} is not a record type; expected for example A, AAAA, SRV, PTR")
    if resolver not in MODELS:
        raise ValueError(f"{resolver!r} is not a resolver; expected {', '.join(MODELS)}")
    conf = parse_resolv_conf(Path(resolv_conf).read_text())
    began, steps = time.monotonic(), list[Step]()
    result = _from_literal(name, types, resolver) or _from_hosts(name, types, hosts)
    if result is None:

        def note(step: Step) -> None:
            steps.append(step)
            if on_step:
                on_step(step)

        forced = {"transport": transport, "edns": edns}
        walk = MODELS[resolver](name, conf, types)
        result = await _walk(
            walk, {key: value for key, value in forced.items() if value is not None}, netns, port, note
        )
    return Lookup(name, tuple(types), resolver, conf, tuple(steps), result, time.monotonic() - began)


async def _walk(walk: Walk, forced: dict[str, object], netns: str, port: int, note: Callable[[Step], None]) -> Result:
    """Send what a model asks for until it has its result."""
    replies: list[Reply] = []
    try:
        ask = next(walk)
        while True:
            ask = msgspec.structs.replace(ask, **forced)
            replies = await exchange(ask, netns, port)
            for reply in replies:
                note(Step(ask.name, ask.transport, reply))
            ask = walk.send(replies)
    except StopIteration as end:
        result: Result = end.value
        return result


def _from_literal(name: str, types: Sequence[str], resolver: str) -> Result | None:
    """What getaddrinfo says of an address: that one if it is of the right family; nobody is asked."""
    if not set(types) <= {"A", "AAAA"} or not (address := literal(name, resolver)):
        return None
    if ("AAAA" if ":" in address else "A") not in types:
        return Result("not found", source="literal")
    return Result("found", name, addresses=(address,), source="literal")


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
        attempt = f", attempt {reply.attempt}" if reply.attempt > 1 else ""
        where = f"{reply.server} {step.transport}{attempt}"
        lines.append(f"{number:3}  {step.name} {reply.type}  ->  {said}  [{where}, {reply.seconds * 1000:.1f} ms]")
    result = found.result
    queries = "1 query" if len(found.steps) == 1 else f"{len(found.steps)} queries"
    if result.status == "found":
        what = ", ".join(result.addresses) or "; ".join(line.replace("\t", " ") for line in result.answers)
        origin = {"dns": f"as {result.name}", "literal": "as it stands"}.get(result.source, f"from {result.source}")
        lines.append(f"found: {what} {origin} after {queries}, {found.seconds * 1000:.1f} ms")
    else:
        lines.append(f"{result.status} after {queries}, {found.seconds * 1000:.1f} ms")
    return lines
