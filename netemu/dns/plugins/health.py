"""`health [ADDRESS] { lameduck DURATION }`: `/health` says OK as long as the process lives.

`lameduck` keeps the server answering for that long after it was told to stop, while `/ready` is closed already, so that
nobody is sent here any more by the time it ends.
"""

from __future__ import annotations

from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin


class Health(Plugin):
    """A page, and how long to linger."""


def setup(directive: Directive, block: Block) -> Plugin:
    """`health [ADDRESS]`."""
    plugin = Health()
    for option in directive.options:
        if option.name != "lameduck":
            raise option.unknown(("lameduck",))
        plugin.lameduck = option.duration()
    address = directive.one("an address like :8080") if directive.args else ":8080"
    block.host.page(address, "/health", lambda: (200, "OK"))
    return plugin
