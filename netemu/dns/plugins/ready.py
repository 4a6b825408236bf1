"""`ready [ADDRESS] { monitor until-ready|continuously }`: `/ready` says OK once every plugin has what it needs.

Until then it names those that wait, with status 503. A plugin that was ready once is not asked again, unless `monitor
continuously`. The address is `:8181` by default (`coredns/plugin/ready`).
"""

from __future__ import annotations

from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Host, Plugin

_MONITORS = ("until-ready", "continuously")


class Ready(Plugin):
    """A page; with `continuously`, what was ready may cease to be."""

    def __init__(self, host: Host, continuously: bool = False) -> None:
        self.host, self.continuously = host, continuously
        self._was = False

    def page(self) -> tuple[int, str]:
        """200 `OK`, or 503 and the plugins that wait."""
        waiting = [] if self._was and not self.continuously else self.host.not_ready()
        self._was = not waiting
        return (503, ",".join(waiting)) if waiting else (200, "OK")


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    plugin = Ready(block.host)
    for option in directive.options:
        if option.name != "monitor":
            raise option.unknown(("monitor",))
        if option.one(" or ".join(_MONITORS)) not in _MONITORS:
            raise option.error(f"monitor: {option.args[0]!r} is none of {', '.join(_MONITORS)}")
        plugin.continuously = option.args[0] == "continuously"
    address = directive.one("an address like :8181") if directive.args else ":8181"
    block.host.page(address, "/ready", plugin.page)
    return plugin
