"""`bufsize [SIZE]`: no UDP reply is larger than SIZE (512 to 4096, 1232 by default), whatever the client offers.

A reply that does not fit into one packet of the network is fragmented, and fragments get lost; a client that is told so
by TC comes back over TCP. The size that other servers are offered is limited too (`coredns/plugin/bufsize`).
"""

from __future__ import annotations

from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result
from netemu.dns.wire import Query

_SIZE, _SMALLEST, _LARGEST = 1232, 512, 4096


class Bufsize(Plugin):
    """Changes what the client offered."""

    def __init__(self, size: int) -> None:
        self.size = size

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        if query.edns and query.edns.size > self.size:
            query.edns = query.edns._replace(size=self.size)
        return NEXT


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if directive.options:
        raise directive.options[0].unknown(())
    return Bufsize(directive.number(_SMALLEST, _LARGEST) if directive.args else _SIZE)
