"""`minimal`: answers without what nobody asked for.

The authority and additional sections of a proper answer are left out, which makes it smaller and saves a retry over
TCP. Denials, errors and delegations keep them, because there they are the message (`coredns/plugin/minimal`).
"""

from __future__ import annotations

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin
from netemu.dns.wire import Query, Response


class Minimal(Plugin):
    """Cuts what a later plugin said."""

    def after(self, query: Query, response: Response) -> None:
        """See Plugin."""
        if response.rcode == wire.NOERROR and response.answers:
            response.authority, response.additional = [], []


def setup(directive: Directive, block: Block) -> Plugin:
    """`minimal`."""
    directive.none()
    return Minimal()
