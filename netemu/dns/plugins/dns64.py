"""`dns64 [PREFIX]`: IPv6 addresses for names that have only IPv4 ones (RFC 6147).

    dns64 [PREFIX] {
        prefix PREFIX
        translate_all
        allow_ipv4
    }

When a client asks over IPv6 for AAAA records and there are none, its A records are asked for, and each address is put
behind the prefix (64:ff9b::/96, the well-known one), where a NAT64 translates packets. `translate_all` does so even
where there are AAAA records, `allow_ipv4` also for clients that ask over IPv4. A name that does not exist stays so
(`coredns/plugin/dns64`).
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Awaitable

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result
from netemu.dns.wire import Query, Record, Response

_WELL_KNOWN = "64:ff9b::/96"
_LENGTHS = (32, 40, 48, 56, 64, 96)
_OPTIONS = ("prefix", "translate_all", "allow_ipv4")
_TTL = 600
"""Longest life of a made-up record when no SOA record says how long its absence would have lasted (RFC 6147, 5.1.7)."""


class Dns64(Plugin):
    """Asks the plugins behind twice."""

    def __init__(self, prefix: ipaddress.IPv6Network, translate_all: bool, allow_ipv4: bool) -> None:
        self.prefix, self.translate_all, self.allow_ipv4 = prefix, translate_all, allow_ipv4

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """See Plugin."""
        if query.type != wire.AAAA or query.cls != 1 or not (self.allow_ipv4 or ":" in query.client[0]):
            return NEXT
        return self._translated(query)

    async def _translated(self, query: Query) -> Result:
        response = await self.rest(query)
        there = any(record.type == wire.AAAA for record in response.answers)
        if response.rcode == wire.NXDOMAIN or response.silent or (there and not self.translate_all):
            return response
        found = await self.rest(dataclasses.replace(query, type=wire.A, question=b""))
        if found.rcode != wire.NOERROR or not any(record.type == wire.A for record in found.answers):
            return response
        longest = _negative_ttl(response)
        found.answers = [self._translate(record, longest) for record in found.answers]
        found.additional = []
        # It was made of two answers, and says of one alone how long it is true.
        found.stable = False
        return found

    def _translate(self, record: Record, longest: int) -> Record:
        if record.type != wire.A:
            return record
        address = embedded(self.prefix, record.rdata)
        return record._replace(type=wire.AAAA, rdata=address, ttl=min(record.ttl, longest))


def _negative_ttl(response: Response) -> int:
    found = [int.from_bytes(record.rdata[-4:], "big") for record in response.authority if record.type == wire.SOA]
    return min(found, default=_TTL)


def embedded(prefix: ipaddress.IPv6Network, address: bytes) -> bytes:
    """An IPv4 address behind a prefix; octet 8 stays zero (RFC 6052, 2.2)."""
    octets = bytearray(prefix.network_address.packed)
    at = prefix.prefixlen // 8
    for octet in address:
        at += at == 8
        octets[at] = octet
        at += 1
    return bytes(octets)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    prefix = _prefix(directive, directive.one("a prefix") if directive.args else _WELL_KNOWN)
    translate_all = allow_ipv4 = False
    for option in directive.options:
        match option.name:
            case "prefix":
                prefix = _prefix(option, option.one(f"a prefix like {_WELL_KNOWN}"))
            case "translate_all":
                option.none()
                translate_all = True
            case "allow_ipv4":
                option.none()
                allow_ipv4 = True
            case _:
                raise option.unknown(_OPTIONS)
    return Dns64(prefix, translate_all, allow_ipv4)


def _prefix(directive: Directive, word: str) -> ipaddress.IPv6Network:
    network = directive.network(word)
    if not isinstance(network, ipaddress.IPv6Network) or network.prefixlen not in _LENGTHS:
        lengths = ", ".join(map(str, _LENGTHS))
        raise directive.error(f"{directive.name}: {word!r} is not an IPv6 prefix of length {lengths}")
    return network
