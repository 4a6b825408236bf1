"""`rrl [ZONES...]`: limit the replies that a network gets over UDP, where a forged source address may hit a victim.

    rrl [ZONES...] {
        window SECONDS
        ipv4-prefix-length LENGTH
        ipv6-prefix-length LENGTH
        responses-per-second ALLOWANCE
        nodata-per-second ALLOWANCE
        nxdomains-per-second ALLOWANCE
        referrals-per-second ALLOWANCE
        errors-per-second ALLOWANCE
        requests-per-second ALLOWANCE
        slip-ratio N
        max-table-size SIZE
        report-only
    }

The options are those of CoreDNS's external plugin of that name. Each network (a /24 or /56) has an account per kind of
reply: equal answers share one, denials share one per zone, errors share one. An account earns its allowance every
second, holds at most a second's worth, and can be in debt for `window` seconds; while it is, replies are dropped, or
every Nth of them is sent empty and truncated (`slip-ratio`), so that an honest client comes back over TCP. An allowance
of 0 limits nothing; kinds without one of their own have that of responses.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result, longest_zone
from netemu.dns.wire import Query, Response

_KINDS = ("responses", "nodata", "nxdomains", "referrals", "errors", "requests")
_OPTIONS = (
    *(f"{kind}-per-second" for kind in _KINDS), "window", "ipv4-prefix-length", "ipv6-prefix-length", "slip-ratio",
    "max-table-size", "report-only",
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The options; `allowances` per second by kind."""

    window: int = 15
    prefixes: tuple[int, int] = (24, 56)
    """Of IPv4 and IPv6 networks."""
    allowances: dict[str, float] = field(default_factory=dict)
    slip: int = 0
    most_accounts: int = 100_000
    report_only: bool = False

    def allowance(self, kind: str) -> float:
        """How many per second; 0 for any number."""
        return self.allowances.get(kind, 0 if kind == "requests" else self.allowances.get("responses", 0))


class Accounts:
    """What each network has left. `clock` tells seconds."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._balances: dict[Hashable, tuple[float, float]] = {}

    def debit(self, kind: str, account: Hashable) -> bool:
        """Take one. Returns whether the account can afford it."""
        allowance = self._limits.allowance(kind)
        if not allowance:
            return True
        now, key = self._clock(), (kind, account)
        balance, since = self._balances.pop(key, (allowance, now))
        balance = min(balance + (now - since) * allowance, max(allowance, 1)) - 1
        balance = max(balance, -self._limits.window * allowance)
        if len(self._balances) >= self._limits.most_accounts:
            del self._balances[next(iter(self._balances))]  # the one that was longest without a reply
        self._balances[key] = balance, now
        return balance >= 0


class ResponseRateLimit(Plugin):
    """Stands before everything that answers."""

    def __init__(self, zones: tuple[bytes, ...], limits: Limits, block: Block) -> None:
        self.zones, self.limits, self.block = zones, limits, block
        self.accounts = Accounts(limits)
        self._dropped = 0

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        if not self._concerned(query) or self.accounts.debit("requests", self._network(query)):
            return NEXT
        self._count("requests", query)
        return NEXT if self.limits.report_only else Response(silent=True)

    def after(self, query: Query, response: Response) -> None:
        """See Plugin."""
        if not self._concerned(query):
            return
        response.stable = False
        kind, account = _account(query, response)
        if self.accounts.debit(kind, (self._network(query), account)):
            return
        self._count("responses", query)
        if self.limits.report_only:
            return
        self._dropped += 1
        if self.limits.slip and self._dropped % self.limits.slip == 0:
            response.tc = True
            response.answers, response.authority, response.additional = [], [], []
        else:
            response.silent = True

    def _concerned(self, query: Query) -> bool:
        return query.transport == "udp" and bool(longest_zone(query.lower, self.zones))

    def _network(self, query: Query) -> str:
        address = query.client[0].partition("%")[0]
        length = self.limits.prefixes[":" in address]
        return str(ipaddress.ip_network(f"{address}/{length}", strict=False))

    def _count(self, what: str, query: Query) -> None:
        labels = (("client_ip", query.client[0]), ("server", f"dns://:{self.block.ports[0]}"))
        self.block.host.metrics.add(f"coredns_rrl_{what}_exceeded_total", labels)


def _account(query: Query, response: Response) -> tuple[str, Hashable]:
    """The kind of a reply, and which replies of that kind are counted together."""
    above = next((record.name.lower() for record in response.authority), b"")
    if response.rcode == wire.NXDOMAIN:
        return "nxdomains", above
    if response.rcode != wire.NOERROR:
        return "errors", b""
    if response.answers:
        return "responses", (query.lower, query.type)
    if any(record.type == wire.NS for record in response.authority):
        return "referrals", above
    return "nodata", query.lower


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    limits = Limits()
    for option in directive.options:
        limits = _option(limits, option)
    return ResponseRateLimit(directive.zones(directive.args) or block.zones, limits, block)


def _option(limits: Limits, option: Directive) -> Limits:
    if option.name not in _OPTIONS:
        raise option.unknown(_OPTIONS)
    kind, per_second, _ = option.name.partition("-per-second")
    if per_second:
        return replace(limits, allowances=limits.allowances | {kind: _allowance(option)})
    match option.name:
        case "window":
            return replace(limits, window=option.number(1, 3600))
        case "ipv4-prefix-length":
            return replace(limits, prefixes=(option.number(1, 32), limits.prefixes[1]))
        case "ipv6-prefix-length":
            return replace(limits, prefixes=(limits.prefixes[0], option.number(1, 128)))
        case "slip-ratio":
            return replace(limits, slip=option.number(0, 10))
        case "max-table-size":
            return replace(limits, most_accounts=option.number(1, 10_000_000))
        case _:
            option.none()
            return replace(limits, report_only=True)


def _allowance(option: Directive) -> float:
    word = option.one("a number per second")
    try:
        number = float(word)
    except ValueError:
        number = -1
    if not 0 <= number < 1e9:
        raise option.error(f"{option.name}: {word!r} is not a number per second")
    return number
