"""`cache [TTL] [ZONES...]`: keep whole replies.

    cache [TTL] [ZONES...] {
        success CAPACITY [TTL] [MINTTL]
        denial CAPACITY [TTL] [MINTTL]
        servfail DURATION
        disable success|denial [ZONES...]
        keepttl
    }

A reply lives as long as its lowest TTL, within the bounds, and every record in it is given that lifetime, on the way
in too; from the cache it counts down, never to 0. A hit is authoritative, and keeps the spelling of whoever asked first
(`coredns/plugin/cache/cache.go`). Floors are 5 s, so `ttl 0` elsewhere does not switch caching off.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Host, Plugin, Result, longest_zone
from netemu.dns.wire import Query, Record, Response

_OPTIONS = ("success", "denial", "servfail", "disable", "keepttl")
_FLOOR = 5
_Key = tuple[bytes, int, int, bool, bool]


@dataclass(slots=True)
class _Item:
    response: Response
    until: float
    stored: float


@dataclass(slots=True)
class _Kind:
    """Settings and contents for answers, or for denials."""

    longest: int
    name: str
    capacity: int = 9984
    shortest: int = _FLOOR
    disabled: tuple[bytes, ...] = ()
    items: dict[_Key, _Item] = field(default_factory=dict)


class Cache(Plugin):
    """`success` and `denial` are apart: a denial never pushes out an answer."""

    def __init__(self, zones: tuple[bytes, ...], host: Host) -> None:
        self.zones, self.host = zones, host
        self.success, self.denial = _Kind(3600, "success"), _Kind(1800, "denial")
        self.servfail = 5.0
        self.keep_ttl = False
        for kind in (self.success, self.denial):
            labels = (("server", "dns://:53"), ("type", kind.name), ("zones", ""), ("view", ""))
            host.metrics.gauge("coredns_cache_entries", labels, lambda kind=kind: len(kind.items))  # type: ignore[misc]

    async def serve(self, query: Query) -> Result:
        """See Plugin."""
        if not longest_zone(query.lower, self.zones):
            return NEXT
        self._count("requests")
        now, key = time.monotonic(), _key(query)
        for kind in (self.denial, self.success):
            item = kind.items.get(key)
            if item and item.until > now:
                self._count("hits", kind.name)
                return _aged(item, now, self.keep_ttl)
        self._count("misses")
        return NEXT

    def after(self, query: Query, response: Response) -> None:
        """Keep what a later plugin said."""
        if not longest_zone(query.lower, self.zones) or response.tc:
            return
        kind, lifetime = self._lifetime(query, response)
        if kind is None or lifetime <= 0:
            return
        # What is cached ages, so its bytes must not be sent again as they are.
        response.stable = False
        _set_ttl(response, int(lifetime))
        if len(kind.items) >= kind.capacity:
            kind.items.pop(random.choice(list(kind.items)))
            self._count("evictions", kind.name)
        now = time.monotonic()
        kind.items[_key(query)] = _Item(_copy(response), now + lifetime, now)
        (self.success if kind is self.denial else self.denial).items.pop(_key(query), None)

    def _lifetime(self, query: Query, response: Response) -> tuple[_Kind | None, float]:
        if response.rcode in (wire.SERVFAIL, wire.NOTIMP):
            return (None if longest_zone(query.lower, self.denial.disabled) else self.denial), self.servfail
        denied = response.rcode == wire.NXDOMAIN or (response.rcode == wire.NOERROR and not response.answers)
        kind = self.denial if denied else self.success
        if response.rcode not in (wire.NOERROR, wire.NXDOMAIN) or longest_zone(query.lower, kind.disabled):
            return None, 0
        if denied and not any(record.type == wire.SOA for record in response.authority):
            return None, 0  # nothing says for how long
        records = response.answers + response.authority + response.additional
        lowest = min((record.ttl for record in records), default=kind.shortest)
        return kind, min(max(lowest, kind.shortest), kind.longest)

    def _count(self, what: str, kind: str = "") -> None:
        labels = (("server", "dns://:53"), *((("type", kind),) if kind else ()), ("zones", ""), ("view", ""))
        self.host.metrics.add(f"coredns_cache_{what}_total", labels)


def _key(query: Query) -> _Key:
    return query.lower, query.type, query.cls, query.do, bool(query.flags & wire.CD)


def _copy(response: Response) -> Response:
    return Response(
        response.rcode, list(response.answers), list(response.authority), list(response.additional),
        aa=True, ra=response.ra,
    )  # fmt: skip


def _set_ttl(response: Response, ttl: int) -> None:
    def given(records: list[Record]) -> list[Record]:
        return [record._replace(ttl=ttl) for record in records]

    response.answers, response.authority = given(response.answers), given(response.authority)
    response.additional = given(response.additional)


def _aged(item: _Item, now: float, keep: bool) -> Response:
    response = _copy(item.response)
    response.plugin = "cache"
    if not keep:
        _set_ttl(response, max(1, int(item.until - now)))
    return response


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    args = list(directive.args)
    longest = int(args.pop(0)) if args and args[0].isdecimal() else 0
    plugin = Cache(directive.zones(args) or block.zones, block.host)
    if longest:
        plugin.success.longest = plugin.denial.longest = longest
    kinds = {"success": plugin.success, "denial": plugin.denial}
    for option in directive.options:
        if option.name in kinds:
            _bounds(kinds[option.name], option)
        elif option.name == "servfail":
            plugin.servfail = min(option.duration(), 300.0)
        elif option.name == "keepttl":
            option.none()
            plugin.keep_ttl = True
        elif option.name == "disable":
            if not option.args or option.args[0] not in kinds:
                raise option.error("disable: expected success or denial, and perhaps zones")
            kind = kinds[option.args[0]]
            kind.disabled += option.zones(option.args[1:]) or plugin.zones
        else:
            raise option.unknown(_OPTIONS)
    return plugin


def _bounds(kind: _Kind, option: Directive) -> None:
    if not 1 <= len(option.args) <= 3 or not all(word.isdecimal() for word in option.args):
        raise option.error(f"{option.name}: expected CAPACITY [TTL] [MINTTL]")
    numbers = [int(word) for word in option.args]
    kind.capacity = max(1, numbers[0])
    kind.longest = numbers[1] if len(numbers) > 1 else kind.longest
    kind.shortest = numbers[2] if len(numbers) > 2 else kind.shortest
