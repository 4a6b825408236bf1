"""`chaos [VERSION] [AUTHORS...]`: who answers here, in class CH.

`version.bind` and `version.server` tell the version, `authors.bind` the authors, `hostname.bind` and `id.server` the
name of this machine, all as TXT records of class CH with TTL 0 (RFC 4892). Other names and classes are passed on
(`coredns/plugin/chaos`).
"""

from __future__ import annotations

import random
import socket

from netemu import __version__
from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result
from netemu.dns.wire import Query, Record, Response

_CHAOS = 3
_LONGEST = 255
_AUTHORS = names.parse("authors.bind")


class Chaos(Plugin):
    """Answers from its settings; lets class CH into the server block."""

    any_class = True

    def __init__(self, version: str, authors: tuple[str, ...]) -> None:
        self.authors = authors
        self.texts = {
            **dict.fromkeys(map(names.parse, ("version.bind", "version.server")), version),
            **dict.fromkeys(map(names.parse, ("hostname.bind", "id.server")), socket.gethostname() or "localhost"),
        }

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        if query.cls != _CHAOS or query.type != wire.TXT:
            return NEXT
        if query.lower == _AUTHORS:
            texts = random.sample(self.authors, len(self.authors))
        elif text := self.texts.get(query.lower):
            texts = [text]
        else:
            return NEXT
        records = [Record(query.name, wire.TXT, 0, wire.txt(text.encode()[:_LONGEST]), _CHAOS) for text in texts]
        return Response(answers=records, aa=False)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if directive.options:
        raise directive.options[0].unknown(())
    version, *authors = directive.args or (f"netemu-{__version__}",)
    return Chaos(version, tuple(authors) or ("netemu",))
