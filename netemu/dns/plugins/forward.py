"""`forward FROM TO...`: ask other servers.

    forward . 10.0.0.1 10.0.0.2:5353 /etc/resolv.conf {
        except ZONE...
        policy random|round_robin|sequential
        max_concurrent N
        force_tcp | prefer_udp
        max_fails N
        expire DURATION
        health_check DURATION
        failover RCODE...
        next RCODE...
    }

Each try waits 2 s; on silence or error the next server is asked, as long as fewer than 5 s have passed, so a sole
server that drops everything costs 6 s. A server that failed is probed twice a second (`. NS`) and not asked while
more than `max_fails` probes in a row failed; when all are in that state, any is tried
(`coredns/plugin/forward/forward.go`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Refuse, Result, longest_zone
from netemu.dns.upstream import Upstream, UpstreamError
from netemu.dns.wire import Message, Query, Response

_MOST_UPSTREAMS = 15
_POLICIES = ("random", "round_robin", "sequential")
_OPTIONS = (
    "except", "policy", "max_concurrent", "force_tcp", "prefer_udp", "max_fails", "expire", "health_check", "failover",
    "next",
)  # fmt: skip
_WINDOW, _TRY, _PROBE, _PROBE_PATIENCE, _AFTER_ERROR = 5.0, 2.0, 0.5, 1.0, 0.1


@dataclass(slots=True)
class Settings:
    """The options of one directive."""

    zone: bytes = names.ROOT
    ignored: tuple[bytes, ...] = ()
    policy: str = "random"
    max_concurrent: int = 0
    force_tcp: bool = False
    prefer_udp: bool = False
    max_fails: int = 2
    failover: tuple[int, ...] = ()
    following: tuple[int, ...] = ()
    """Codes that pass the question to the next plugin."""


class _Target:
    """An upstream and its health: probed only after an error, until any reply."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.fails = upstream, 0
        self._probe: asyncio.Task[None] | None = None

    def suspect(self) -> None:
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._watch(), name=f"dns probe {self.upstream}")

    async def _watch(self) -> None:
        while True:
            try:
                await self.upstream.ask(names.ROOT, wire.NS, tcp=False, timeout=_PROBE_PATIENCE)
            except UpstreamError:
                self.fails += 1
                await asyncio.sleep(_PROBE)
            else:
                self.fails = 0
                return

    async def close(self) -> None:
        if self._probe:
            self._probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probe
        self.upstream.close()


class Forward(Plugin):
    """Any class reaches it, and is asked for as IN."""

    any_class = True

    def __init__(self, settings: Settings, upstreams: list[Upstream], block: Block) -> None:
        self.settings, self.block = settings, block
        self.targets = [_Target(upstream) for upstream in upstreams]
        self._turn = 0
        self._running = 0

    async def close(self) -> None:
        """See Plugin."""
        for target in self.targets:
            await target.close()

    async def serve(self, query: Query) -> Result:
        """See Plugin."""
        settings = self.settings
        if not names.within(query.lower, settings.zone) or longest_zone(query.lower, settings.ignored):
            return NEXT
        if settings.max_concurrent and self._running >= settings.max_concurrent:
            self.block.host.metrics.add("coredns_forward_max_concurrent_rejects_total")
            return Refuse(wire.REFUSED, f"concurrent queries exceeded maximum {settings.max_concurrent}")
        self._running += 1
        try:
            message = await self._ask(query)
        except UpstreamError as error:
            return Refuse(wire.SERVFAIL, str(error))
        finally:
            self._running -= 1
        if message.rcode in settings.following:
            return NEXT
        return Response(
            message.rcode, message.answers, message.authority, message.additional,
            aa=bool(message.flags & wire.AA), ra=bool(message.flags & wire.RA), tc=message.truncated,
        )  # fmt: skip

    async def _ask(self, query: Query) -> Message:
        """Tries in the order of the policy until the window closes. Raises UpstreamError with the last cause."""
        deadline = time.monotonic() + _WINDOW
        last = UpstreamError("no upstream is healthy")
        reply: Message | None = None
        skipped = 0
        for target in self._order():
            if time.monotonic() >= deadline:
                break
            if target.fails > self.settings.max_fails > 0:
                skipped += 1
                if skipped < len(self.targets):
                    continue
                if skipped > len(self.targets):
                    break
                target = random.choice(self.targets)
            began = time.monotonic()
            try:
                reply = await self._try(target.upstream, query)
            except UpstreamError as error:
                last = error
                target.suspect()
                if time.monotonic() - began < _AFTER_ERROR:
                    await asyncio.sleep(_AFTER_ERROR)
                continue
            if reply.rcode not in self.settings.failover:
                return reply
            skipped += 1
            if skipped >= len(self.targets):
                break
        if reply is None:
            raise last
        return reply

    async def _try(self, upstream: Upstream, query: Query) -> Message:
        settings, edns = self.settings, query.edns
        tcp = settings.force_tcp or (query.transport == "tcp" and not settings.prefer_udp)
        size = edns.size if edns else 0
        flags = query.flags & (wire.RD | wire.CD | wire.AD)
        began = time.monotonic()
        reply = await upstream.ask(
            query.name, query.type, tcp=tcp, timeout=_TRY, flags=flags, edns_size=size, do=query.do
        )
        labels = (("proxy_name", "forward"), ("to", str(upstream)), ("rcode", wire.rcode_name(reply.rcode)))
        metrics = self.block.host.metrics
        metrics.add("coredns_proxy_request_duration_seconds_count", labels)
        metrics.add("coredns_proxy_request_duration_seconds_sum", labels, time.monotonic() - began)
        return reply

    def _order(self) -> Iterator[_Target]:
        """Targets to try, again and again."""
        targets = list(self.targets)
        if self.settings.policy == "random":
            random.shuffle(targets)
        elif self.settings.policy == "round_robin":
            self._turn = (self._turn + 1) % len(targets)
            targets = targets[self._turn :] + targets[: self._turn]
        while True:
            yield from targets


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if len(directive.args) < 2:
        raise directive.error("forward: expected FROM TO..., for example `forward . 10.0.0.1`")
    source, *targets = directive.args
    settings = Settings(zone=directive.zones((source,))[0])
    for option in directive.options:
        _option(settings, option)
    upstreams = [upstream for word in targets for upstream in _upstreams(directive, word)]
    if not 0 < len(upstreams) <= _MOST_UPSTREAMS:
        raise directive.error(f"forward: {len(upstreams)} upstreams; expected 1 to {_MOST_UPSTREAMS}")
    return Forward(settings, upstreams, block)


def _option(settings: Settings, option: Directive) -> None:
    match option.name:
        case "except":
            settings.ignored += option.zones(option.args)
        case "policy":
            settings.policy = option.one(" or ".join(_POLICIES))
            if settings.policy not in _POLICIES:
                raise option.error(f"policy: {settings.policy!r} is none of {', '.join(_POLICIES)}")
        case "max_concurrent":
            settings.max_concurrent = option.number(0, 2**31)
        case "max_fails":
            settings.max_fails = option.number(0, 2**31)
        case "force_tcp":
            option.none()
            settings.force_tcp = True
        case "prefer_udp":
            option.none()
            settings.prefer_udp = True
        case "expire" | "health_check":
            option.duration() if len(option.args) == 1 else None
        case "failover" | "next":
            unknown = [word for word in option.args if word.upper() not in wire.RCODES]
            if unknown or not option.args:
                raise option.error(f"{option.name}: expected response codes, got {' '.join(unknown) or 'nothing'}")
            codes = tuple(wire.RCODES[word.upper()] for word in option.args)
            if option.name == "next":
                settings.following = codes
            else:
                settings.failover = codes
        case _:
            raise option.unknown(_OPTIONS)


def _upstreams(directive: Directive, word: str) -> list[Upstream]:
    """`ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT`, `dns://...`, or a resolv.conf file."""
    scheme, _, rest = word.rpartition("://")
    if scheme not in ("", "dns"):
        raise directive.error(f"forward: {scheme}:// is not supported; expected an address or a resolv.conf file")
    found = re.fullmatch(r"\[?([0-9A-Fa-f:.]+?)\]?(?:(?<=[\].0-9]):(\d+))?", rest)
    for address, port in ((rest, 53), (found[1], int(found[2] or 53)) if found else ("", 0)):
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(address)
            return [Upstream(address, port)]
    try:
        lines = [line.split() for line in Path(word).read_text().splitlines()]
    except OSError as error:
        raise directive.error(
            f"forward: {word!r} is neither an address nor a readable file: {error.strerror}"
        ) from error
    servers = [Upstream(line[1].split("%")[0]) for line in lines if len(line) > 1 and line[0] == "nameserver"]
    if not servers:
        raise directive.error(f"forward: {word} names no nameserver")
    return servers
