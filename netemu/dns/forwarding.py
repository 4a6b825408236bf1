"""What a `forward` directive says, and the health of the servers it names."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from netemu.dns import names, wire
from netemu.dns.corefile import Directive, parse_duration
from netemu.dns.metrics import Labels, Metrics
from netemu.dns.upstream import Upstream, UpstreamError, nameservers
from netemu.model.errors import reason

_MOST_UPSTREAMS = 15
_POLICIES = ("random", "round_robin", "sequential")
_PROBE_PATIENCE = 1.0


@dataclass(slots=True)
class Settings:
    """The options of one directive."""

    zone: bytes = names.ROOT
    ignored: tuple[bytes, ...] = ()
    policy: str = "random"
    max_concurrent: int = 0
    """0: as many as come."""
    max_connect_attempts: int = 0
    force_tcp: bool = False
    prefer_udp: bool = False
    max_fails: int = 2
    """0: servers are never given up, nor probed."""
    expire: float = 10.0
    failfast: bool = False
    probe_every: float = 0.5
    probe_recursive: bool = True
    probe_name: bytes = names.ROOT
    failover: tuple[int, ...] = ()
    following: tuple[int, ...] = ()
    """Codes that pass the question to the next `forward`."""


class Target:
    """An upstream and its health: probed only after an error, until any reply."""

    def __init__(self, upstream: Upstream, settings: Settings, metrics: Metrics) -> None:
        self.upstream, self.fails = upstream, 0
        self.labels: Labels = (("proxy_name", "forward"), ("to", str(upstream)))
        self._settings, self._metrics = settings, metrics
        self._probe: asyncio.Task[None] | None = None
        upstream.on_socket = self._count_socket

    def _count_socket(self, protocol: str, at_hand: bool) -> None:
        name = f"coredns_proxy_conn_cache_{'hits' if at_hand else 'misses'}_total"
        self._metrics.add(name, (*self.labels, ("proto", protocol)))

    @property
    def down(self) -> bool:
        """Whether so many probes in a row failed that it should not be asked."""
        return self.fails > self._settings.max_fails > 0

    def suspect(self) -> None:
        """A question to it failed: probe it."""
        if self._settings.max_fails and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._watch(), name=f"dns probe {self.upstream}")

    async def _watch(self) -> None:
        settings = self._settings
        while True:
            try:
                await self.upstream.ask(
                    settings.probe_name, wire.NS, tcp=settings.force_tcp, timeout=_PROBE_PATIENCE,
                    flags=wire.RD if settings.probe_recursive else 0,
                )  # fmt: skip
            except UpstreamError:
                self.fails += 1
                self._metrics.add("coredns_proxy_healthcheck_failures_total", self.labels)
                await asyncio.sleep(settings.probe_every)
            else:
                self.fails = 0
                return

    async def close(self) -> None:
        """End the probe and close the sockets."""
        if self._probe:
            self._probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probe
        self.upstream.close()


def settings_of(directive: Directive) -> Settings:
    """FROM and the options. Raises UserError."""
    if len(directive.args) < 2:
        raise directive.error("forward: expected FROM TO..., for example `forward . 10.0.0.1`")
    settings = Settings(zone=directive.zones(directive.args[:1])[0])
    for option in directive.options:
        read = _READERS.get(option.name)
        if option.name in ("tls", "tls_servername"):
            raise option.error(f"{option.name}: upstreams are asked in the clear, over UDP and TCP only")
        if read is None:
            raise option.unknown(_READERS)
        read(settings, option)
    return settings


def _except(settings: Settings, option: Directive) -> None:
    if not option.args:
        raise option.error("except: expected at least one zone")
    settings.ignored += option.zones(option.args)


def _policy(settings: Settings, option: Directive) -> None:
    settings.policy = option.one(" or ".join(_POLICIES))
    if settings.policy not in _POLICIES:
        raise option.error(f"policy: {settings.policy!r} is none of {', '.join(_POLICIES)}")


def _number(name: str) -> Callable[[Settings, Directive], None]:
    return lambda settings, option: setattr(settings, name, option.number(0, 2**31))


def _flag(name: str) -> Callable[[Settings, Directive], None]:
    def read(settings: Settings, option: Directive) -> None:
        option.none()
        setattr(settings, name, True)

    return read


def _expire(settings: Settings, option: Directive) -> None:
    settings.expire = option.duration()


def _health_check(settings: Settings, option: Directive) -> None:
    words = list(option.args)
    seconds = parse_duration(words.pop(0)) if words else None
    if seconds is None:
        raise option.error("health_check: expected DURATION [no_rec] [domain NAME], for example `health_check 1s`")
    settings.probe_every = seconds
    while words:
        word = words.pop(0)
        if word == "no_rec":
            settings.probe_recursive = False
        elif word == "domain" and words:
            settings.probe_name = option.zones((words.pop(0),))[0]
        else:
            raise option.error(f"health_check: unexpected {word!r}; expected no_rec or domain NAME")


def _codes(name: str) -> Callable[[Settings, Directive], None]:
    def read(settings: Settings, option: Directive) -> None:
        unknown = [word for word in option.args if word.upper() not in wire.RCODES]
        if unknown or not option.args:
            raise option.error(f"{option.name}: expected response codes, got {' '.join(unknown) or 'nothing'}")
        if option.name == "failover" and "NOERROR" in map(str.upper, option.args):
            raise option.error("failover: NOERROR is an answer; expected codes of failures, for example SERVFAIL")
        setattr(settings, name, tuple(wire.RCODES[word.upper()] for word in option.args))

    return read


_READERS: dict[str, Callable[[Settings, Directive], None]] = {
    "except": _except,
    "policy": _policy,
    "max_concurrent": _number("max_concurrent"),
    "max_connect_attempts": _number("max_connect_attempts"),
    "max_fails": _number("max_fails"),
    "force_tcp": _flag("force_tcp"),
    "prefer_udp": _flag("prefer_udp"),
    "failfast_all_unhealthy_upstreams": _flag("failfast"),
    "expire": _expire,
    "health_check": _health_check,
    "failover": _codes("failover"),
    "next": _codes("following"),
}


def upstreams_of(directive: Directive, settings: Settings) -> list[Upstream]:
    """The servers that a directive names. Raises UserError."""
    found = [server for word in directive.args[1:] for server in _servers(directive, word)]
    if not 0 < len(found) <= _MOST_UPSTREAMS:
        raise directive.error(f"forward: {len(found)} upstreams; expected 1 to {_MOST_UPSTREAMS}")
    return [Upstream(address, port, expire=settings.expire) for address, port in found]


def _servers(directive: Directive, word: str) -> list[tuple[str, int]]:
    """`ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT`, `dns://...`, or a resolv.conf file."""
    scheme, _, rest = word.rpartition("://")
    if scheme not in ("", "dns"):
        raise directive.error(
            f"forward: {scheme}:// is not supported, upstreams are asked in the clear; expected an address or a "
            "resolv.conf file"
        )
    found = re.fullmatch(r"\[?([0-9A-Fa-f:.]+?)\]?(?:(?<=[\].0-9]):(\d+))?", rest)
    for address, port in ((rest, 53), (found[1], int(found[2] or 53)) if found else ("", 0)):
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(address)
            if not 0 < port < 65536:
                raise directive.error(f"forward: {word}: port {port} is not between 1 and 65535")
            return [(address, port)]
    try:
        servers = nameservers(Path(word).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise directive.error(
            f"forward: {word!r} is neither an address nor a readable file: {reason(error)}"
        ) from error
    if not servers:
        raise directive.error(f"forward: {word} names no nameserver")
    return [(address, 53) for address in servers]
