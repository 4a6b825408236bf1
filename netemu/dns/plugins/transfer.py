"""`transfer [ZONES...]`: whole zones for secondaries (AXFR, IXFR), over TCP.

    transfer [ZONES...] {
        to ADDRESS|CIDR|*...
    }

The records come from the plugin of the same server block that has the zone: `file` or `kubernetes`. IXFR is answered
with the SOA record alone when the client's serial is not behind, else with the whole zone. Every single ADDRESS
(`ADDRESS:PORT` for another port than 53) is notified when `file` has read a new version (RFC 1996). Over UDP, and for
other clients, the answer is REFUSED (`coredns/plugin/transfer`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Refuse, Result, longest_zone
from netemu.dns.upstream import Upstream, UpstreamError
from netemu.dns.wire import Query, Record, Response

log = logging.getLogger(__name__)
_MOST_RECORDS, _MOST_OCTETS = 500, 60_000
"""Of one message."""
_NOTIFY = 4 << 11
_TRIES, _PATIENCE = 3, 2.0

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Peers:
    """Who gets which zones, and who is told of changes."""

    zones: tuple[bytes, ...]
    networks: tuple[_Network, ...]
    told: tuple[tuple[str, int], ...]

    def allow(self, client: str) -> bool:
        """Whether this address may have the zones."""
        address = ipaddress.ip_address(client.split("%")[0])
        return any(address in network for network in self.networks)


class Transfer(Plugin):
    """All directives of a server block; the one with the longest zone speaks."""

    def __init__(self, peers: list[Peers]) -> None:
        self.peers = peers
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        if query.type not in (wire.AXFR, wire.IXFR):
            return NEXT
        if query.transport != "tcp":
            return Refuse(wire.REFUSED)
        peers = self._for(query.lower)
        if peers is None:
            return NEXT
        if not peers.allow(query.client[0]):
            return Refuse(wire.REFUSED)
        if query.type == wire.IXFR and query.serial is None:
            return Refuse(wire.SERVFAIL, "an IXFR question without the SOA record of the client's zone")
        found = (plugin.transfer(query.lower) for plugin in self.siblings)
        records = next((each for each in found if each), None)
        if records is None:
            return NEXT
        soa = records[0]
        if query.serial is not None and not _newer(int.from_bytes(soa.rdata[-20:-16], "big"), query.serial):
            return Response(answers=[soa], aa=False)
        log.info("plugin/transfer: %d records of %s for %s", len(records) + 1, names.text(query.name), query.client[0])
        first, *more = [Response(answers=each) for each in messages([*records, soa])]
        first.more = more
        return first

    def _for(self, name: bytes) -> Peers | None:
        found = [(longest_zone(name, peers.zones), peers) for peers in self.peers]
        zone, best = max(found, key=lambda each: len(each[0]))
        return best if zone else None

    def zone_changed(self, zone: bytes) -> None:
        """See Plugin: tell the peers."""
        peers = self._for(zone)
        for address, port in peers.told if peers else ():
            task = asyncio.create_task(_notify(zone, address, port), name=f"dns notify {address}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """See Plugin."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _newer(ours: int, theirs: int) -> bool:
    """Serial number arithmetic (RFC 1982)."""
    return 0 < (ours - theirs) % 2**32 < 2**31


def messages(records: list[Record]) -> Iterator[list[Record]]:
    """Records cut into what goes into one message each."""
    current: list[Record] = []
    size = 0
    for record in records:
        octets = len(record.name) + 10 + len(record.rdata)
        if current and (len(current) >= _MOST_RECORDS or size + octets > _MOST_OCTETS):
            yield current
            current, size = [], 0
        current.append(record)
        size += octets
    yield current


async def _notify(zone: bytes, address: str, port: int) -> None:
    upstream = Upstream(address, port)
    try:
        for _ in range(_TRIES):
            try:
                await upstream.ask(zone, wire.SOA, tcp=False, timeout=_PATIENCE, flags=_NOTIFY | wire.AA)
            except UpstreamError:
                continue
            return
        log.warning("plugin/transfer: %s did not answer the notification about %s", upstream, names.text(zone))
    finally:
        upstream.close()


def setup_all(directives: list[Directive], block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    return Transfer([_peers(directive, block) for directive in directives])


def _peers(directive: Directive, block: Block) -> Peers:
    networks: list[_Network] = []
    told: list[tuple[str, int]] = []
    for option in directive.options:
        if option.name != "to":
            raise option.unknown(("to",))
        if not option.args:
            raise option.error("to: expected addresses, ranges or *")
        for word in option.args:
            if word == "*":
                networks += [option.network("0.0.0.0/0"), option.network("::/0")]
                continue
            address, port = _host_port(word)
            networks.append(option.network(address))
            if "/" not in address:
                told.append((address, port))
    if not networks:
        raise directive.error("transfer: expected `to` with who may have the zones, or *")
    return Peers(directive.zones(directive.args) or block.zones, tuple(networks), tuple(told))


def _host_port(word: str) -> tuple[str, int]:
    """`ADDRESS`, `ADDRESS:PORT` or `[V6]:PORT`; anything else comes back as it is."""
    match = re.fullmatch(r"([^:]+):(\d+)", word) or re.fullmatch(r"\[(.+)\]:(\d+)", word)
    return (match[1], int(match[2])) if match else (word, 53)
