"""`any`: questions of type ANY get as little as possible.

The answer is one HINFO record that says why (RFC 8482), for every name, whether it exists or not: an ANY question is
small and its answer large, which makes it a tool for attacks (`coredns/plugin/any`).
"""

from __future__ import annotations

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result
from netemu.dns.wire import Query, Record, Response

_TTL = 8482
_RDATA = wire.txt(b"ANY obsoleted", b"See RFC 8482")


class Any(Plugin):
    """Answers from the question alone."""

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        if query.type != wire.ANY:
            return NEXT
        record = Record(query.name, wire.HINFO, _TTL, _RDATA)
        return Response(answers=[record], aa=False, stable=True, depends=(b"any",))


def setup(directive: Directive, block: Block) -> Plugin:
    """`any`."""
    directive.none()
    return Any()
