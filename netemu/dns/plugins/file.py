"""`file DBFILE [ZONES...]`: zones from a zone file.

    file DBFILE [ZONES...] {
        reload DURATION
        fallthrough [ZONES...]
    }

The file (RFC 1035, 5; `$INCLUDE` and `$GENERATE` too) is read for each of the zones, by default those of the server
block, which are its origin; a relative path begins at `root`, or where the server was started. It is looked at every
`reload` (1m; 0s: never) and read again when its serial is another; secondaries are notified then, if `transfer` names
them. A file with a mistake stops the start, but later leaves the old zone in place. Aliases that leave the zone are
resolved by the whole server (`coredns/plugin/file`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from pathlib import Path

from netemu.dns import names, wire, zonefile
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Fallthrough, Plugin, Refuse, Result, follow, longest_zone
from netemu.dns.watched import Watched
from netemu.dns.wire import Query, Record, Response
from netemu.dns.zone import Found, Zone

log = logging.getLogger(__name__)
_OPTIONS = ("reload", "fallthrough")
_RELOAD = 60.0


class File(Plugin):
    """Zones by origin; each is replaced whole. Raises OSError, and ValueError for mistakes in the file."""

    def __init__(self, path: Path, origins: tuple[bytes, ...], block: Block, falls: Fallthrough, reload: float) -> None:
        self.path, self.block, self.falls = path, block, falls
        self._origins = origins
        self._watched = Watched(path, reload, self._changed)
        self.zones = {origin: load(path, origin) for origin in origins}

    async def start(self) -> None:
        """See Plugin."""
        self._watched.start()
        for origin in self._origins:
            self._announce(origin)

    async def close(self) -> None:
        """See Plugin."""
        await self._watched.close()

    def _changed(self) -> None:
        for origin, old in list(self.zones.items()):
            try:
                new = load(self.path, origin)
            except (OSError, ValueError) as error:
                log.error("plugin/file: keeping the old %s: %s", names.text(origin), error)
                continue
            if new.serial != old.serial:
                log.info("plugin/file: %s has serial %d now", names.text(origin), new.serial)
                self.zones[origin] = new
                self.block.host.invalidate()
                self._announce(origin)

    def _announce(self, origin: bytes) -> None:
        for sibling in self.siblings:
            sibling.zone_changed(origin)

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """See Plugin."""
        origin = longest_zone(query.lower, self._origins)
        if not origin:
            return NEXT
        if query.type in (wire.AXFR, wire.IXFR):
            return Refuse(wire.REFUSED)
        found = self.zones[origin].lookup(query.name, query.type)
        if found.chase:
            return self._chase(query, found)
        if found.rcode == wire.NXDOMAIN and self.falls(query.lower):
            return NEXT
        # What it depends on is left open: a cluster may have had to deny the name first.
        return _response(found, stable=True)

    async def _chase(self, query: Query, found: Found) -> Result:
        """The rcode is that of the target (RFC 6604, 3)."""
        further = await follow(self.block, query, found.chase)
        if further:
            found.answers = found.answers + further.answers
            found.rcode = further.rcode if further.rcode in (wire.NXDOMAIN, wire.SERVFAIL) else wire.NOERROR
        if found.rcode == wire.NXDOMAIN and self.falls(query.lower):
            return NEXT
        return _response(found)

    def transfer(self, zone: bytes) -> list[Record] | None:
        """See Plugin."""
        found = self.zones.get(zone)
        return found.records() if found else None


def _response(found: Found, stable: bool = False) -> Response:
    return Response(
        found.rcode, list(found.answers), list(found.authority), list(found.additional),
        aa=not found.delegated, stable=stable,
    )  # fmt: skip


def load(path: Path, origin: bytes) -> Zone:
    """A zone from its file. Raises OSError, and ValueError (ZoneError) for mistakes in it."""
    try:
        return Zone(origin, zonefile.parse(path.read_text(), origin, str(path)))
    except zonefile.ZoneError:
        raise
    except ValueError as error:
        raise zonefile.ZoneError(f"{path}: {error}") from error


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if not directive.args:
        raise directive.error("file: expected DBFILE [ZONES...]")
    falls, reload = Fallthrough(), _RELOAD
    for option in directive.options:
        if option.name == "fallthrough":
            falls = Fallthrough(option)
        elif option.name == "reload":
            reload = option.duration()
        else:
            raise option.unknown(_OPTIONS)
    path = block.root / directive.args[0]
    origins = directive.zones(directive.args[1:]) or block.zones
    try:
        return File(path, origins, block, falls, reload)
    except OSError as error:
        raise directive.error(f"file: {path}: {error.strerror}") from error
    except ValueError as error:
        raise directive.error(f"file: {error}") from error
