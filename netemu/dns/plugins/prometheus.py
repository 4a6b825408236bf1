"""`prometheus [ADDRESS]`: counters under CoreDNS's names at `/metrics`."""

from __future__ import annotations

import platform

from netemu import __version__
from netemu.dns import names
from netemu.dns.corefile import Directive
from netemu.dns.metrics import Labels
from netemu.dns.plugin import Block, Plugin


class Prometheus(Plugin):
    """The page, and which plugins there are; the server counts every reply anyway, because that costs little."""

    def __init__(self, block: Block) -> None:
        self.block = block

    async def start(self) -> None:
        """See Plugin."""
        for zone in self.block.zones:
            for port in self.block.ports:
                for plugin in self.siblings:
                    self._show(names.text(zone), f"dns://:{port}", plugin.name)

    def _show(self, zone: str, server: str, plugin: str) -> None:
        labels = (("server", server), ("zone", zone), ("view", ""), ("name", plugin))
        self.block.host.metrics.gauge("coredns_plugin_enabled", labels, lambda: 1)


def setup(directive: Directive, block: Block) -> Plugin:
    """`prometheus [ADDRESS]`; several blocks may name the same one."""
    if directive.options:
        raise directive.options[0].unknown(())
    address = directive.one("an address like :9153") if directive.args else "localhost:9153"
    metrics = block.host.metrics
    # CoreDNS tells the version of Go here; what runs this is Python.
    build: Labels = (("version", __version__), ("revision", ""), ("goversion", f"python{platform.python_version()}"))
    metrics.gauge("coredns_build_info", build, lambda: 1)
    block.host.page(address, "/metrics", lambda: (200, metrics.text()))
    return Prometheus(block)
