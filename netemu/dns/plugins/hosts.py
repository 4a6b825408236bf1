"""`hosts [FILE [ZONES...]]`: names from a hosts file.

    hosts [FILE [ZONES...]] {
        ADDRESS NAME...
        ttl SECONDS
        no_reverse
        reload DURATION
        fallthrough [ZONES...]
    }

Lines of the block count like lines of the file, which is `/etc/hosts` by default and may be missing; names outside of
the zones are ignored. Records live for `ttl` seconds (3600). Addresses are answered with their names, whatever the
zones, unless `no_reverse`. The file is looked at every `reload` (5s; 0s: never). There is no SOA record that a denial
could carry, so a name that is not there is SERVFAIL, unless `fallthrough`; the other type of a name that is there is an
empty answer, and unknown addresses always go to the next plugin (`coredns/plugin/hosts`).
"""

from __future__ import annotations

import ipaddress
import logging
import stat
from pathlib import Path

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Fallthrough, Plugin, Refuse, Result, longest_zone
from netemu.dns.watched import Watched
from netemu.dns.wire import Query, Record, Response

log = logging.getLogger(__name__)

_OPTIONS = ("ttl", "no_reverse", "reload", "fallthrough")
_TTL, _RELOAD, _LONGEST = 3600, 5.0, 65535
_Table = dict[bytes, dict[int, list[bytes]]]


def parse_hosts(lines: list[str], zones: tuple[bytes, ...] = (names.ROOT,), reverse: bool = True) -> _Table:
    """Lower-case name -> type -> RDATA; reverse names included. Lines that mean nothing are passed over."""
    table: _Table = {}
    for line in lines:
        address, *words = line.split("#")[0].split() or [""]
        try:
            packed = ipaddress.ip_address(address.split("%")[0]).packed
            hosts = [host for word in words if longest_zone(host := names.parse(word).lower(), zones)]
        except ValueError:
            continue
        kind = wire.A if len(packed) == 4 else wire.AAAA
        for host in hosts:
            found = table.setdefault(host, {}).setdefault(kind, [])
            found += [packed] if packed not in found else []
        if reverse and hosts:
            pointers = table.setdefault(names.reverse(address.split("%")[0]), {}).setdefault(wire.PTR, [])
            pointers += [host for host in hosts if host not in pointers]
    return table


class Hosts(Plugin):
    """One directive."""

    def __init__(self, path: Path, zones: tuple[bytes, ...], block: Block) -> None:
        self.path, self.zones, self.block = path, zones, block
        self.inline: list[str] = []
        self.ttl, self.reverse, self.reload, self.falls = _TTL, True, _RELOAD, Fallthrough()
        self._table: _Table = {}
        self._watched: Watched | None = None

    async def start(self) -> None:
        """See Plugin."""
        self._watched = Watched(self.path, self.reload, self._changed)
        self._watched.start()
        self.read()

    async def close(self) -> None:
        """See Plugin."""
        if self._watched:
            await self._watched.close()

    def read(self) -> None:
        """Read the file."""
        try:
            lines = self.path.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        self._table = parse_hosts(self.inline + lines, self.zones, self.reverse)
        entries = sum(len(found) for types in self._table.values() for found in types.values())
        self.block.host.metrics.gauge("coredns_hosts_entries", (), lambda: entries)

    def _changed(self) -> None:
        self.read()
        # Not only our own answers: a name that is here now may have been answered by a plugin behind.
        self.block.host.invalidate()

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        pointer = query.type == wire.PTR
        if not pointer and not longest_zone(query.lower, self.zones):
            return NEXT
        types = self._table.get(query.lower, {})
        found = types.get(query.type, [])
        if pointer and not found:
            return NEXT
        if not types:
            return NEXT if self.falls(query.lower) else Refuse(wire.SERVFAIL)
        records = [Record(query.name, query.type, self.ttl, data) for data in found]
        return Response(answers=records, stable=True, depends=(b"hosts",))


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    file, zones = (directive.args[0], directive.args[1:]) if directive.args else ("/etc/hosts", ())
    plugin = Hosts(block.root / file, directive.zones(zones) or block.zones, block)
    if directive.args:
        _look_at(plugin.path, directive)
    for option in directive.options:
        match option.name:
            case "fallthrough":
                plugin.falls = Fallthrough(option)
            case "ttl":
                plugin.ttl = option.number(1, _LONGEST)
            case "reload":
                plugin.reload = option.duration()
            case "no_reverse":
                option.none()
                plugin.reverse = False
            case _:
                plugin.inline.append(_line(option))
    plugin.read()
    return plugin


def _look_at(path: Path, directive: Directive) -> None:
    """A file that is named may come later, so its lack is only said. Raises UserError for one that cannot be read."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            log.warning("plugin/hosts: %s:%d: %s is a folder", directive.file, directive.line, path)
    except FileNotFoundError:
        log.warning("plugin/hosts: %s:%d: no file %s yet", directive.file, directive.line, path)
    except OSError as error:
        raise directive.error(f"hosts: {path}: {error.strerror}") from error


def _line(option: Directive) -> str:
    """A line of the hosts file that stands in the block. Raises UserError for what is neither that nor an option."""
    try:
        ipaddress.ip_address(option.name)
    except ValueError:
        if option.name[0].isdigit() or ":" in option.name:
            raise option.error(f"hosts: {option.name!r} is not an address; expected ADDRESS NAME...") from None
        raise option.unknown(_OPTIONS) from None
    if not option.args:
        raise option.error(f"{option.name}: expected ADDRESS NAME...")
    option.zones(option.args)
    return " ".join((option.name, *option.args))
