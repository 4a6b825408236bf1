"""`autopath [ZONES...] @kubernetes | RESOLV-CONF`: the server walks the search path, so that the client need not.

A resolver in a Pod asks for `www.example.com.shop.svc.cluster.local`, then for `...svc.cluster.local`, and so on, each
for two address families. When the first of these questions comes, this plugin tries all of the client's search path at
once and answers the first with what was found: an alias from the name asked for to the name that exists, and its
records. When nothing is found the first denial is the answer, and the client walks on by itself.

`@kubernetes` asks the plugin of that name whose Pod the client is; it must say `pods verified`, and behind the search
path of the Pod's namespace comes that of the server's own resolv.conf. A file in the form of resolv.conf is the search
path of all clients instead (`coredns/plugin/autopath`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable
from pathlib import Path

from netemu.dns import names, wire
from netemu.dns.corefile import Directive, nearest
from netemu.dns.plugin import NEXT, Block, Plugin, Refuse, Result, longest_zone
from netemu.dns.wire import Query, Record, Response

_HOST = Path("/etc/resolv.conf")
_NO_ANSWER = frozenset((wire.SERVFAIL, wire.REFUSED, wire.FORMERR, wire.NOTIMP))


class Autopath(Plugin):
    """`source` is the name of the plugin that knows the clients, or empty."""

    def __init__(self, zones: tuple[bytes, ...], source: str, search: tuple[bytes, ...], block: Block) -> None:
        self.zones, self.source, self.search, self.block = zones, source, search, block

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """See Plugin."""
        zone = longest_zone(query.lower, self.zones)
        path = self._path(query) if zone else ()
        if not path or not names.within(query.lower, path[0]):
            return NEXT
        if query.lower == path[0]:
            return Refuse(wire.SERVFAIL, "the name is the search domain itself")
        return self._walk(query, path, zone)

    def _path(self, query: Query) -> tuple[bytes, ...]:
        """The search domains to try; the root is the last."""
        if not self.source:
            return (*self.search, names.ROOT)
        plugins = (plugin for plugin in self.siblings if plugin.name == self.source)
        known = next((path for plugin in plugins if (path := plugin.search_path(query))), ())
        return (*known, *self.search, names.ROOT) if known else ()

    async def _walk(self, query: Query, path: tuple[bytes, ...], zone: bytes) -> Result:
        front = query.name[: -len(path[0])]
        first: Response | None = None
        for domain in path:
            if len(front) + len(domain) > 255:
                continue
            response = await self.rest(dataclasses.replace(query, name=front + domain, question=b""))
            response.stable = False
            if response.cause:
                return response
            first = first or response
            if response.rcode != wire.NXDOMAIN and (response.rcode not in _NO_ANSWER or response.answers):
                _alias(response, query.name)
                self.block.count("coredns_autopath_success_total", zone)
                return response
        assert first is not None  # the first domain is that of the question, which was not too long
        return first

    def after(self, query: Query, response: Response) -> None:
        """The same question means something else from a Pod of another namespace."""
        response.stable = False


def _alias(response: Response, asked: bytes) -> None:
    """Lead from the name that was asked for to the first that answers."""
    for record in response.answers:
        if record.name.lower() != asked.lower():
            response.answers = [Record(asked, wire.CNAME, record.ttl, record.name), *response.answers]
            return


def search_domains(path: Path) -> tuple[bytes, ...]:
    """The search list of a resolv.conf. Raises OSError, and ValueError for what is no name."""
    found: tuple[bytes, ...] = ()
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] in ("search", "domain"):
            found = tuple(names.parse(word).lower() for word in words[1:])
    return tuple(name for name in found if name != names.ROOT)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if directive.options:
        raise directive.options[0].unknown(())
    if not directive.args:
        raise directive.error("autopath: expected [ZONES...] and @kubernetes or a file like /etc/resolv.conf")
    *zones, where = directive.args
    source = where[1:] if where.startswith("@") else ""
    if where.startswith("@") and source != "kubernetes":
        raise directive.error(f"autopath: {where} knows no search path{nearest(where, ('@kubernetes',))}")
    path = _HOST if source else block.root / where
    try:
        search = search_domains(path)
    except OSError as error:
        if not source:
            raise directive.error(f"autopath: {path}: {error.strerror}") from error
        search = ()
    except ValueError as error:
        raise directive.error(f"autopath: {path}: {error}") from error
    if not source and not search:
        raise directive.error(f"autopath: {path} names no search domain")
    return Autopath(directive.zones(zones) or block.zones, source, search, block)
