"""`forward FROM TO...`: ask other servers.

    forward . 10.0.0.1 10.0.0.2:5353 /etc/resolv.conf {
        except ZONE...
        policy random|round_robin|sequential
        max_concurrent N
        force_tcp | prefer_udp
        max_fails N
        max_connect_attempts N
        expire DURATION
        health_check DURATION [no_rec] [domain NAME]
        failfast_all_unhealthy_upstreams
        failover RCODE...
        next RCODE...
    }

Each try waits 2 s; on silence or error the next server is asked, as long as fewer than 5 s have passed, so a sole
server that drops everything costs 6 s. A server that failed is probed twice a second (`. NS`) until it says anything,
and not asked while more than `max_fails` probes in a row failed; when all are in that state, any is tried once, or none
with `failfast_all_unhealthy_upstreams`. So a sole server that refuses costs about 1 s
(`coredns/plugin/forward/forward.go`). A reply about something else is a FORMERR to the client. Upstreams are asked in
the clear: there is no `tls`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.forwarding import Settings, Target, settings_of, upstreams_of
from netemu.dns.plugin import NEXT, Block, Plugin, Refuse, Result, longest_zone
from netemu.dns.upstream import Upstream, UpstreamError, about
from netemu.dns.wire import Message, Query, Response

_WINDOW, _TRY = 5.0, 2.0
_PAUSE = 0.05
"""Before the next try after an error that came at once."""


class Forward(Plugin):
    """Any class reaches it."""

    any_class = True

    def __init__(self, settings: Settings, upstreams: list[Upstream], block: Block) -> None:
        self.settings, self.metrics = settings, block.host.metrics
        self.targets = [Target(upstream, settings, self.metrics) for upstream in upstreams]
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
            self.metrics.add("coredns_forward_max_concurrent_rejects_total")
            return Refuse(wire.REFUSED, f"concurrent queries exceeded maximum {settings.max_concurrent}")
        self._running += 1
        try:
            message = await self._ask(query)
        except UpstreamError as error:
            return Refuse(wire.SERVFAIL, str(error))
        finally:
            self._running -= 1
        if not about(message, query.lower, query.type):
            return Response(wire.FORMERR, aa=False)
        if message.rcode in settings.following and self._forward_behind():
            return NEXT
        return Response(
            message.rcode, message.answers, message.authority, message.additional,
            aa=bool(message.flags & wire.AA), ra=bool(message.flags & wire.RA), tc=message.truncated,
        )  # fmt: skip

    def _forward_behind(self) -> bool:
        """Whether another `forward` stands behind this one: `next` hands questions to nobody else."""
        at = self.siblings.index(self)
        return at + 1 < len(self.siblings) and isinstance(self.siblings[at + 1], Forward)

    async def _ask(self, query: Query) -> Message:
        """Tries in the order of the policy until the window closes. Raises UpstreamError with the last cause."""
        settings, deadline = self.settings, time.monotonic() + _WINDOW
        cause, reply, unfit, tried, attempts = UpstreamError("no healthy proxies"), None, 0, 0, 0
        order = self._order()
        while time.monotonic() < deadline:
            if settings.max_connect_attempts and attempts >= settings.max_connect_attempts:
                break
            if tried == len(self.targets):
                tried = unfit = 0
            target, tried = next(order), tried + 1
            if target.down:
                unfit += 1
                if unfit < len(self.targets):
                    continue
                self.metrics.add("coredns_forward_healthcheck_broken_total")
                if settings.failfast:
                    break
                target = random.choice(self.targets)
            attempts += 1
            try:
                reply = await self._try(target, query)
            except UpstreamError as error:
                cause = error
                target.suspect()
                if unfit >= len(self.targets):
                    break
                await asyncio.sleep(_PAUSE)
                continue
            unfit += reply.rcode in settings.failover
            if reply.rcode not in settings.failover or unfit >= len(self.targets):
                return reply
        if reply is None:
            raise cause
        return reply

    async def _try(self, target: Target, query: Query) -> Message:
        settings, began = self.settings, time.monotonic()
        tcp = settings.force_tcp or (query.transport == "tcp" and not settings.prefer_udp)
        reply = await _exchange(target, query, tcp)
        if reply.truncated and settings.prefer_udp and not tcp:
            reply = await _exchange(target, query, tcp=True)
        labels = (*target.labels, ("rcode", wire.rcode_name(reply.rcode)))
        self.metrics.histogram("coredns_proxy_request_duration_seconds", labels).add(time.monotonic() - began)
        return reply

    def _order(self) -> Iterator[Target]:
        """Targets to try, again and again."""
        targets = list(self.targets)
        if self.settings.policy == "random":
            random.shuffle(targets)
        elif self.settings.policy == "round_robin":
            self._turn = (self._turn + 1) % len(targets)
            targets = targets[self._turn :] + targets[: self._turn]
        while True:
            yield from targets


async def _exchange(target: Target, query: Query, tcp: bool) -> Message:
    return await target.upstream.ask(
        query.name, query.type, tcp=tcp, timeout=_TRY, cls=query.cls,
        flags=query.flags & (wire.RD | wire.CD | wire.AD),
        edns_size=query.edns.size if query.edns else 0, do=query.do, options=query.edns.sent if query.edns else b"",
    )  # fmt: skip


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    settings = settings_of(directive)
    return Forward(settings, upstreams_of(directive, settings), block)
