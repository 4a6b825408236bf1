"""`local`: `localhost` and its reverse names are answered here and never asked elsewhere.

`localhost` has the loopback addresses, and so has every name that begins with `localhost.`, which is what a search path
makes of it; `1.0.0.127.in-addr.arpa` points back. Beneath `localhost`, `0.in-addr.arpa`, `127.in-addr.arpa` and
`255.in-addr.arpa` there is nothing else. Answers are not authoritative, and last a week (`coredns/plugin/local`).
"""

from __future__ import annotations

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result, longest_zone
from netemu.dns.wire import Query, Record, Response

_TTL = 604800
_LOCALHOST = names.parse("localhost")
_PREFIX = _LOCALHOST[:-1]
_ZONES = (_LOCALHOST, *(names.parse(f"{net}.in-addr.arpa") for net in (0, 127, 255)))
_POINTER = names.reverse("127.0.0.1")
_ADDRESSES = {wire.A: bytes((127, 0, 0, 1)), wire.AAAA: bytes(15) + b"\1"}


class Local(Plugin):
    """Answers from the question alone."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        searched = query.lower.startswith(_PREFIX) and query.lower != _LOCALHOST
        zone = longest_zone(query.lower, _ZONES)
        if searched:
            self.block.host.metrics.add("coredns_local_localhost_requests_total")
        elif not zone:
            return NEXT
        found = _records(query, searched)
        response = Response(answers=found, aa=False, stable=not searched, depends=(b"local",))
        if not found:
            apex = searched or query.lower in (*_ZONES, _POINTER)
            owner = query.name if searched else query.name[-len(zone) :]
            response.rcode = wire.NOERROR if apex else wire.NXDOMAIN
            response.authority = [_soa(owner)]
        return response


def _records(query: Query, searched: bool) -> list[Record]:
    name, qtype = query.name, query.type
    if qtype in _ADDRESSES and (searched or query.lower == _LOCALHOST):
        return [Record(name, qtype, _TTL, _ADDRESSES[qtype])]
    if qtype == wire.PTR and query.lower == _POINTER:
        return [Record(name, wire.PTR, _TTL, _LOCALHOST)]
    if query.lower in _ZONES and qtype == wire.SOA:
        return [_soa(name)]
    if query.lower in _ZONES and qtype == wire.NS:
        return [Record(name, wire.NS, _TTL, _LOCALHOST)]
    return []


def _soa(owner: bytes) -> Record:
    return Record(owner, wire.SOA, _TTL, wire.soa(_LOCALHOST, names.join((b"root",), _LOCALHOST), 1, 0, 0, 0, _TTL))


def setup(directive: Directive, block: Block) -> Plugin:
    """`local`."""
    directive.none()
    return Local(block)
