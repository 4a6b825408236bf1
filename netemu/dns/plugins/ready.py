"""`ready [ADDRESS]`: `/ready` says OK once every plugin has what it needs, and names those that wait until then."""

from __future__ import annotations

from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Host, Plugin


class Ready(Plugin):
    """A page; once ready, always ready, as CoreDNS has it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._was = False

    def page(self) -> tuple[int, str]:
        """200 `OK`, or 503 and the plugins that wait."""
        waiting = [] if self._was else self.host.not_ready()
        self._was = not waiting
        return (503, ",".join(waiting)) if waiting else (200, "OK")


def setup(directive: Directive, block: Block) -> Plugin:
    """`ready [ADDRESS]`."""
    if directive.options:
        raise directive.options[0].unknown(())
    plugin = Ready(block.host)
    address = directive.one("an address like :8181") if directive.args else ":8181"
    block.host.page(address, "/ready", plugin.page)
    return plugin
