"""`cache [TTL] [ZONES...]`: keep whole replies.

    cache [TTL] [ZONES...] {
        success CAPACITY [TTL] [MINTTL]
        denial CAPACITY [TTL] [MINTTL]
        prefetch AMOUNT [DURATION] [PERCENTAGE%]
        serve_stale [DURATION] [immediate|verify]
        servfail DURATION
        disable success|denial [ZONES...]
        keepttl
    }

A reply lives as long as its lowest TTL, within the bounds, and every record in it is given that lifetime, on the way in
too (even where `disable` keeps it out of the cache); from the cache it counts down, never to 0. A hit is authoritative,
and keeps the spelling of whoever asked first (`coredns/plugin/cache/cache.go`). Floors are 5 s, so `ttl 0` elsewhere
does not switch caching off. What could not be asked at all (no upstream answered) is not kept, an upstream's SERVFAIL
is.

With `prefetch`, a reply that was asked for AMOUNT times without a pause of DURATION is asked for anew in the background
once PERCENTAGE of its life is left. With `serve_stale`, a reply that has expired is given with TTL 0 for DURATION
longer: at once, while it is asked for anew (immediate), or only if asking anew failed (verify).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace

from netemu.dns import names, wire
from netemu.dns.cached import Item, Kind
from netemu.dns.corefile import Directive, parse_duration
from netemu.dns.plugin import NEXT, Block, Plugin, Result, longest_zone
from netemu.dns.wire import Query, Record, Response

log = logging.getLogger(__name__)

_OPTIONS = ("success", "denial", "prefetch", "serve_stale", "servfail", "disable", "keepttl")
_UNKNOWN_TTL = 5
"""For replies that say nothing of how long they are good for."""
_LONGEST_SERVFAIL = 300.0  # RFC 2308, 7.1
_PERCENTAGES = range(10, 91)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one directive that concern answers and denials alike."""

    servfail: float = 5.0
    keep_ttl: bool = False
    prefetch: int = 0
    """Hits that make a reply worth asking for anew; 0: never."""
    pause: float = 60.0
    percentage: int = 10
    stale: float = 0.0
    """Seconds for which a reply may be given after it has expired."""
    verify: bool = False


class Cache(Plugin):
    """`success` and `denial` are apart: a denial never pushes out an answer."""

    def __init__(self, zones: tuple[bytes, ...], block: Block) -> None:
        self.zones, self.metrics = zones, block.host.metrics
        self.settings = Settings()
        self.clock = time.monotonic
        self.success, self.denial = Kind("success", 3600), Kind("denial", 1800)
        self._refreshing: dict[object, asyncio.Task[None]] = {}
        self._server = ("server", f"dns://:{block.ports[0]}")
        self._where = (("zones", ",".join(names.text(zone) for zone in zones)), ("view", ""))
        for kind in (self.success, self.denial):
            labels = (self._server, ("type", kind.name), *self._where)
            self.metrics.gauge("coredns_cache_entries", labels, kind.__len__)

    async def close(self) -> None:
        """See Plugin."""
        for task in list(self._refreshing.values()):
            task.cancel()
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """See Plugin."""
        if not longest_zone(query.lower, self.zones):
            return NEXT
        self._count("requests")
        now, found = self.clock(), None
        for kind in (self.denial, self.success):
            found = kind.get(_key(query))
            if found and found.ttl(now) > (-self.settings.stale if self.settings.stale else 0):
                self._count("hits", kind.name)
                return self._hit(query, kind, found, now)
        self._count("misses")
        return NEXT

    def _hit(self, query: Query, kind: Kind, item: Item, now: float) -> Result | Awaitable[Result]:
        if not self.settings.prefetch and item.ttl(now) > 0:
            return self._until_it_ages(kind, item, now)
        if item.ttl(now) <= 0:
            if self.settings.verify:
                return self._verified(query, item)
            self._count("served_stale")
            self._refresh(query, item)
        elif self.settings.prefetch and self._worth_it(item, now):
            self._refresh(query, item)
        return self._aged(item, now)

    def _until_it_ages(self, kind: Kind, item: Item, now: float) -> Response:
        """A reply that may be sent again as it is until its TTL counts down."""
        response = self._aged(item, now)
        response.stable, response.depends = True, (b"cache",)
        response.until = item.stored + (item.lifetime if self.settings.keep_ttl else int(now - item.stored) + 1)
        response.again = functools.partial(self._sent_again, kind.name)
        return response

    def _sent_again(self, kind: str, times: int) -> None:
        self._count("requests", times=times)
        self._count("hits", kind, times)

    async def _verified(self, query: Query, item: Item) -> Result:
        """What is true now; what was true once if that cannot be told."""
        response = await self.rest(query)
        if _told(response):
            self.after(query, response)
            return response
        self._count("served_stale")
        return self._aged(item, self.clock())

    def _aged(self, item: Item, now: float) -> Response:
        response = _copy(item.response)
        response.plugin = "cache"
        _set_ttl(response, item.lifetime if self.settings.keep_ttl else max(0, item.ttl(now)))
        return response

    def _worth_it(self, item: Item, now: float) -> bool:
        settings = self.settings
        hits = item.hit(now, settings.pause)
        return hits >= settings.prefetch and item.ttl(now) <= math.ceil(settings.percentage / 100 * item.lifetime)

    def _refresh(self, query: Query, item: Item) -> None:
        """Ask anew in the background, once for all who wait for it."""
        key = _key(query)
        if key in self._refreshing:
            return
        self._count("prefetch")
        task = asyncio.create_task(self._ask_anew(query, item), name=f"dns cache {names.text(query.lower)}")
        self._refreshing[key] = task
        task.add_done_callback(lambda _: self._refreshing.pop(key, None))

    async def _ask_anew(self, query: Query, item: Item) -> None:
        try:
            response = await self.rest(query)
        except Exception:
            log.exception("cache: refreshing %s", names.text(query.lower))
            return
        # A failure must not push out what is still there to be served stale.
        if _told(response):
            self.after(query, response)
            for kind in (self.denial, self.success):
                if kept := kind.get(_key(query)):
                    kept.hits, kept.last_hit = item.hits, item.last_hit

    def after(self, query: Query, response: Response) -> None:
        """Keep what a later plugin said."""
        if not longest_zone(query.lower, self.zones) or response.cause or response.silent:
            return
        kind, lifetime = self._lifetime(response)
        if kind is None or response.tc or query.type in (wire.AXFR, wire.IXFR):
            return
        _set_ttl(response, int(lifetime))
        if lifetime <= 0 or longest_zone(query.lower, kind.disabled):
            return
        # What is cached ages, so its bytes must not be sent again as they are.
        response.stable = False
        if kind.put(_key(query), Item(_copy(response), int(lifetime), self.clock())):
            self._count("evictions", kind.name)
        (self.success if kind is self.denial else self.denial).drop(_key(query))

    def _lifetime(self, response: Response) -> tuple[Kind | None, float]:
        """Which kind of reply it is, and how long it lives; None for what is not to be kept."""
        if response.rcode in (wire.SERVFAIL, wire.NOTIMP):
            return self.denial, self.settings.servfail
        types = [record.type for record in response.authority]
        if response.rcode == wire.NXDOMAIN or (response.rcode == wire.NOERROR and not response.answers):
            if wire.SOA in types:
                return self.denial, self.denial.bounded(_lowest(response))
            if response.rcode == wire.NXDOMAIN:
                return None, 0  # nothing says for how long
        if response.rcode != wire.NOERROR:
            return None, 0
        referral = not response.answers and wire.NS in types
        return self.success, self.success.bounded(_UNKNOWN_TTL if referral else _lowest(response))

    def _count(self, what: str, kind: str = "", times: int = 1) -> None:
        labels = (self._server, *((("type", kind),) if kind else ()), *self._where)
        self.metrics.add(f"coredns_cache_{what}_total", labels, times)


def _key(query: Query) -> tuple[bytes, int, int, bool, bool]:
    return query.lower, query.type, query.cls, query.do, bool(query.flags & wire.CD)


def _told(response: Response) -> bool:
    """Whether a reply says what is true, and not that it cannot be told."""
    return response.rcode in (wire.NOERROR, wire.NXDOMAIN) and not response.silent


def _lowest(response: Response) -> int:
    records = response.answers + response.authority + response.additional
    return min((record.ttl for record in records), default=_UNKNOWN_TTL)


def _copy(response: Response) -> Response:
    return Response(
        response.rcode, list(response.answers), list(response.authority), list(response.additional),
        aa=True, ra=response.ra,
    )  # fmt: skip


def _set_ttl(response: Response, ttl: int) -> None:
    def given(records: list[Record]) -> list[Record]:
        return [record if record.ttl == ttl else record._replace(ttl=ttl) for record in records]

    response.answers, response.authority = given(response.answers), given(response.authority)
    response.additional = given(response.additional)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    args = list(directive.args)
    longest = 0
    if args and args[0].lstrip("-").isdecimal():
        longest = int(args.pop(0))
        if longest <= 0:
            raise directive.error(f"cache: {longest} is not a TTL; expected 1 second or more")
    plugin = Cache(directive.zones(args) or block.zones, block)
    if longest:
        plugin.success.longest = plugin.denial.longest = longest
    for option in directive.options:
        _option(plugin, option)
    return plugin


def _option(plugin: Cache, option: Directive) -> None:
    kinds, settings = {"success": plugin.success, "denial": plugin.denial}, plugin.settings
    match option.name:
        case "success" | "denial":
            _bounds(kinds[option.name], option)
        case "prefetch":
            plugin.settings = _prefetch(settings, option)
        case "serve_stale":
            plugin.settings = _stale(settings, option)
        case "servfail":
            if (seconds := option.duration()) > _LONGEST_SERVFAIL:
                raise option.error("servfail: at most 5m")
            plugin.settings = replace(settings, servfail=seconds)
        case "keepttl":
            option.none()
            plugin.settings = replace(settings, keep_ttl=True)
        case "disable":
            if not option.args or option.args[0] not in kinds:
                raise option.error("disable: expected success or denial, and perhaps zones")
            kinds[option.args[0]].disabled += option.zones(option.args[1:]) or plugin.zones
        case _:
            raise option.unknown(_OPTIONS)


def _bounds(kind: Kind, option: Directive) -> None:
    if not 1 <= len(option.args) <= 3 or not all(word.isdecimal() for word in option.args):
        raise option.error(f"{option.name}: expected CAPACITY [TTL] [MINTTL]")
    numbers = [int(word) for word in option.args]
    if len(numbers) > 1 and not numbers[1]:
        raise option.error(f"{option.name}: TTL 0 would keep nothing; expected 1 second or more")
    kind.capacity = numbers[0]
    kind.longest = numbers[1] if len(numbers) > 1 else kind.longest
    kind.shortest = numbers[2] if len(numbers) > 2 else kind.shortest


def _prefetch(settings: Settings, option: Directive) -> Settings:
    amount, pause, percentage = (*option.args, "", "", "")[:3]
    seconds = parse_duration(pause) if pause else settings.pause
    share = int(percentage[:-1]) if percentage.endswith("%") and percentage[:-1].isdecimal() else 0
    share = share if percentage else settings.percentage
    if not amount.isdecimal() or seconds is None or len(option.args) > 3 or share not in _PERCENTAGES:
        raise option.error("prefetch: expected AMOUNT [DURATION] [PERCENTAGE%], for example `prefetch 10 1m 10%`")
    return replace(settings, prefetch=int(amount), pause=seconds, percentage=share)


def _stale(settings: Settings, option: Directive) -> Settings:
    duration, mode = (*option.args, "", "")[:2]
    seconds = parse_duration(duration) if duration else 3600.0
    if seconds is None or len(option.args) > 2 or mode.lower() not in ("", "immediate", "verify"):
        raise option.error("serve_stale: expected [DURATION] [immediate|verify], for example `serve_stale 1h verify`")
    return replace(settings, stale=seconds, verify=mode.lower() == "verify")
