"""`whoami`: the client's own address and port, in the additional section. For finding out what the path does to
them."""

from __future__ import annotations

import ipaddress

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin, Result
from netemu.dns.wire import Query, Record, Response


class Whoami(Plugin):
    """Answers every question (`coredns/plugin/whoami`)."""

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        address = ipaddress.ip_address(query.client[0])
        kind = wire.A if address.version == 4 else wire.AAAA
        port = names.join((b"_" + query.transport.encode(),), query.name)
        return Response(
            additional=[
                Record(query.name, kind, 0, address.packed),
                Record(port, wire.SRV, 0, wire.srv(0, 0, query.client[1], names.ROOT)),
            ]
        )


def setup(directive: Directive, block: Block) -> Plugin:
    """`whoami`."""
    directive.none()
    return Whoami()
