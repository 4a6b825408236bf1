"""`log [NAME...] [{ class CLASSES }]`: a line per query in CoreDNS's common format.

Classes: success (NOERROR with answers), denial (NXDOMAIN, NODATA), error (SERVFAIL, NOTIMP, REFUSED), all.
"""

from __future__ import annotations

import logging

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin, longest_zone
from netemu.dns.wire import Query, Response

log = logging.getLogger(__name__)
_CLASSES = ("all", "success", "denial", "error")


class Log(Plugin):
    """Writes `remote:port - id "TYPE CLASS name proto size do bufsize" RCODE flags rsize`."""

    def __init__(self, zones: tuple[bytes, ...], classes: frozenset[str]) -> None:
        self.zones, self.classes = zones, classes

    def after(self, query: Query, response: Response) -> None:
        """Finished answers would pass unlogged."""
        response.stable = False

    def done(self, query: Query, response: Response, size: int, seconds: float) -> None:
        """See Plugin."""
        if "all" not in self.classes and classify(response) not in self.classes:
            return
        if not longest_zone(query.lower, self.zones):
            return
        edns = query.edns
        flags = ["qr"] + [name for name, on in (("aa", response.aa), ("tc", response.tc)) if on]
        flags += ["rd"] if query.flags & wire.RD else []
        flags += ["ra"] if response.ra else []
        log.info(
            '%s:%d - %d "%s %s %s %s %d %s %d" %s %s %d',
            query.client[0], query.client[1], query.id, wire.type_name(query.type),
            "IN" if query.cls == 1 else f"CLASS{query.cls}", names.text(query.name), query.transport, query.size,
            str(query.do).lower(), edns.size if edns else 512, wire.rcode_name(response.rcode), ",".join(flags), size,
        )  # fmt: skip


def classify(response: Response) -> str:
    """success, denial or error (`coredns/plugin/pkg/response/classify.go`)."""
    if response.rcode == wire.NXDOMAIN or (response.rcode == wire.NOERROR and not response.answers):
        return "denial"
    return "success" if response.rcode == wire.NOERROR else "error"


def setup(directive: Directive, block: Block) -> Plugin:
    """`log [NAME...] { class ... }`."""
    classes: frozenset[str] = frozenset()
    for option in directive.options:
        if option.name != "class":
            raise option.unknown(("class",))
        for word in option.args:
            if word not in _CLASSES:
                raise option.error(f"log: unknown class {word!r}; expected {', '.join(_CLASSES)}")
        classes |= set(option.args)
    return Log(directive.zones(directive.args) or block.zones, classes or frozenset(("all",)))
