"""`prometheus [ADDRESS]`: counters under CoreDNS's names at `/metrics`."""

from __future__ import annotations

from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin


class Prometheus(Plugin):
    """The page; the server counts every reply anyway, because that costs one addition."""


def setup(directive: Directive, block: Block) -> Plugin:
    """`prometheus [ADDRESS]`; several blocks may name the same one."""
    if directive.options:
        raise directive.options[0].unknown(())
    address = directive.one("an address like :9153") if directive.args else "localhost:9153"
    metrics = block.host.metrics
    block.host.page(address, "/metrics", lambda: (200, metrics.text()))
    return Prometheus()
