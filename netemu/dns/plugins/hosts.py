"""`hosts [FILE [ZONES...]] { inline lines; ttl N; no_reverse; reload D; fallthrough [ZONES...] }`: names from a hosts
file."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Fallthrough, Plugin, Result, longest_zone
from netemu.dns.wire import Query, Record, Response

_OPTIONS = ("ttl", "no_reverse", "reload", "fallthrough")
_Table = dict[bytes, dict[int, list[bytes]]]


def parse_hosts(lines: list[str], reverse: bool = True) -> _Table:
    """Lower-case name -> type -> RDATA; reverse names included."""
    table: _Table = {}
    for line in lines:
        address, *words = line.split("#")[0].split() or [""]
        try:
            packed = ipaddress.ip_address(address).packed
            hosts = [names.parse(word) for word in words]
        except ValueError:
            continue
        for host in hosts:
            table.setdefault(host.lower(), {}).setdefault(wire.A if len(packed) == 4 else wire.AAAA, []).append(packed)
        if reverse and hosts:
            pointers = table.setdefault(names.reverse(address), {}).setdefault(wire.PTR, [])
            pointers += [host for host in hosts if host not in pointers]
    return table


class Hosts(Plugin):
    """Reads its file again when that changed, at most once per `reload` seconds (`coredns/plugin/hosts`)."""

    def __init__(self, path: Path, zones: tuple[bytes, ...], inline: list[str], falls: Fallthrough) -> None:
        self.path, self.zones, self.falls = path, zones, falls
        self.ttl, self.reverse, self.reload = 3600, True, 5.0
        self._inline = inline
        self._table: _Table = {}
        self._stamp: object = None
        self._next_look = 0.0

    def _look(self) -> _Table:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + self.reload if self.reload else float("inf")
            try:
                found = self.path.stat()
                stamp: object = (found.st_mtime_ns, found.st_size)
                lines = self.path.read_text().splitlines() if stamp != self._stamp else []
            except OSError:
                stamp, lines = "missing", []
            if stamp != self._stamp:
                self._table, self._stamp = parse_hosts(self._inline + lines, self.reverse), stamp
        return self._table

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        if not longest_zone(query.lower, self.zones) and not names.is_reverse(query.lower):
            return NEXT
        found = self._look().get(query.lower)
        if found and query.type in found:
            return Response(answers=[Record(query.name, query.type, self.ttl, data) for data in found[query.type]])
        if names.is_reverse(query.lower) or (not found and self.falls(query.lower)):
            return NEXT
        return Response(wire.NOERROR if found else wire.NXDOMAIN)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    file, zones = (directive.args[0], directive.args[1:]) if directive.args else ("/etc/hosts", ())
    inline, falls, plugin_options = [], Fallthrough(), []
    for option in directive.options:
        if option.name == "fallthrough":
            falls = Fallthrough(option)
        elif option.name in _OPTIONS:
            plugin_options.append(option)
        elif option.name[0].isdigit() or ":" in option.name:
            inline.append(" ".join((option.name, *option.args)))
        else:
            raise option.unknown(_OPTIONS)
    plugin = Hosts(Path(file), directive.zones(zones) or block.zones, inline, falls)
    for option in plugin_options:
        if option.name == "ttl":
            plugin.ttl = option.number(1, 2**31 - 1)
        elif option.name == "reload":
            plugin.reload = option.duration()
        else:
            plugin.reverse = False
    return plugin
