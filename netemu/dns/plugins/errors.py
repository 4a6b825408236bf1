"""`errors`: a line in the log for every query that could not be answered properly, with the cause."""

from __future__ import annotations

import logging

from netemu.dns import names
from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin
from netemu.dns.wire import Query, Response, type_name

log = logging.getLogger(__name__)


class Errors(Plugin):
    """Logs `response.cause` in CoreDNS's form: code, name, type, cause."""

    def after(self, query: Query, response: Response) -> None:
        """See Plugin."""
        if response.cause:
            name = names.text(query.name)
            log.error("plugin/errors: %d %s %s: %s", response.rcode, name, type_name(query.type), response.cause)


def setup(directive: Directive, block: Block) -> Plugin:
    """`errors [stderr] { stacktrace }`."""
    if directive.args not in ((), ("stderr",), ("stdout",)):
        raise directive.error(f"errors: expected nothing or stdout, got {' '.join(directive.args)}")
    for option in directive.options:
        if option.name != "stacktrace":
            raise option.unknown(("stacktrace",))
    return Errors()
