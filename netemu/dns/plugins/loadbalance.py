"""`loadbalance [round_robin | weighted FILE]`: addresses in another order in each reply.

    loadbalance [round_robin | weighted FILE] {
        reload DURATION
        prefer CIDR...
    }

Clients mostly take the first address, so a new order for each reply spreads them. `round_robin` shuffles addresses and
mail exchangers, aliases stay in front. `weighted` moves one address to the front, drawn by the weights of the file:

    www.example.org
    192.0.2.1 3
    192.0.2.2 1

with weight 1 for addresses that it does not name; it is looked at every `reload` (30s; 0s: never). `prefer` then moves
addresses of the first range to the front, then those of the second, and so on (`coredns/plugin/loadbalance`).
"""

from __future__ import annotations

import ipaddress
import logging
import random
from pathlib import Path

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin
from netemu.dns.watched import Watched
from netemu.dns.wire import Query, Record, Response

log = logging.getLogger(__name__)
_POLICIES = ("round_robin", "weighted")
_OPTIONS = ("reload", "prefer")
_ADDRESSES = (wire.A, wire.AAAA)
_RELOAD = 30.0

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Weights = dict[bytes, dict[bytes, int]]
"""Lower-case name -> packed address -> weight."""


class LoadBalance(Plugin):
    """Uniform shuffling, or with `weights` one address drawn for the front."""

    def __init__(self, weights: Path | None = None, reload: float = _RELOAD, prefer: tuple[_Network, ...] = ()) -> None:
        self.prefer, self.path = prefer, weights
        self._watched = Watched(weights, reload, self._changed) if weights else None
        self.weights: Weights = parse_weights(weights.read_text()) if weights else {}

    async def start(self) -> None:
        """See Plugin."""
        if self._watched:
            self._watched.start()

    async def close(self) -> None:
        """See Plugin."""
        if self._watched:
            await self._watched.close()

    def _changed(self) -> None:
        assert self.path
        try:
            self.weights = parse_weights(self.path.read_text())
        except (OSError, ValueError) as error:
            log.error("plugin/loadbalance: keeping the old weights: %s: %s", self.path, error)

    def after(self, query: Query, response: Response) -> None:
        """See Plugin."""
        if response.rcode != wire.NOERROR or query.type in (wire.AXFR, wire.IXFR):
            return
        if self.path:
            response.answers = self._drawn(query.lower, response.answers)
        else:
            response.answers, response.authority, response.additional = map(
                shuffled, (response.answers, response.authority, response.additional)
            )
        if self.prefer:
            response.answers = preferred(response.answers, self.prefer)
            response.additional = preferred(response.additional, self.prefer)
        if not self.path and not self.prefer:
            response.shuffle = True
        elif sum(record.type in _ADDRESSES for record in response.answers + response.additional) > 1:
            response.stable = False

    def _drawn(self, name: bytes, records: list[Record]) -> list[Record]:
        """One address moved to the front of the addresses."""
        places = [at for at, record in enumerate(records) if record.type in _ADDRESSES]
        if len(places) < 2:
            return records
        weights = self.weights.get(name, {})
        chosen = random.choices(places, [weights.get(records[at].rdata, 1) for at in places])[0]
        rest = [record for at, record in enumerate(records) if at != chosen]
        return [*rest[: places[0]], records[chosen], *rest[places[0] :]]


def shuffled(records: list[Record]) -> list[Record]:
    """CNAMEs, then other types in their order, then addresses in any, then mail exchangers in any."""
    if len(records) < 2:
        return records
    aliases, others, addresses, exchanges = _kinds(records)
    random.shuffle(addresses)
    random.shuffle(exchanges)
    return aliases + others + addresses + exchanges


def preferred(records: list[Record], networks: tuple[_Network, ...]) -> list[Record]:
    """CNAMEs, then addresses by the range they are in, then mail exchangers, then other types."""
    aliases, others, addresses, exchanges = _kinds(records)

    def rank(record: Record) -> int:
        address = ipaddress.ip_address(record.rdata)
        return next((at for at, network in enumerate(networks) if address in network), len(networks))

    return aliases + sorted(addresses, key=rank) + exchanges + others


def _kinds(records: list[Record]) -> tuple[list[Record], list[Record], list[Record], list[Record]]:
    """Aliases, others, addresses, mail exchangers."""
    kinds: tuple[list[Record], list[Record], list[Record], list[Record]] = ([], [], [], [])
    places = {wire.CNAME: 0, wire.A: 2, wire.AAAA: 2, wire.MX: 3}
    for record in records:
        kinds[places.get(record.type, 1)].append(record)
    return kinds


def parse_weights(text: str) -> Weights:
    """The weights of a file; see the module's docstring. Raises ValueError with the line."""
    found: Weights = {}
    current: dict[bytes, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        try:
            if len(words) == 1:
                current = found.setdefault(names.parse(words[0]).lower(), {})
            elif len(words) == 2 and current is not None and 1 <= int(words[1]) <= 255:
                current[ipaddress.ip_address(words[0]).packed] = int(words[1])
            elif words:
                raise ValueError("expected a name, or beneath one ADDRESS WEIGHT with a weight from 1 to 255")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return found


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    policy, *rest = directive.args or ("round_robin",)
    if policy not in _POLICIES or len(rest) != (policy == "weighted"):
        raise directive.error(f"loadbalance: {' '.join(directive.args)}: expected round_robin or weighted FILE")
    reload, prefer = _RELOAD, tuple[_Network, ...]()
    for option in directive.options:
        if option.name == "reload" and policy == "weighted":
            reload = option.duration()
        elif option.name == "prefer":
            if not option.args:
                raise option.error("prefer: expected at least one range like 10.0.0.0/8")
            prefer += tuple(option.network(word) for word in option.args)
        else:
            raise option.unknown(_OPTIONS if policy == "weighted" else ("prefer",))
    path = block.root / rest[0] if rest else None
    try:
        return LoadBalance(path, reload, prefer)
    except OSError as error:
        raise directive.error(f"loadbalance: {path}: {error.strerror}") from error
    except ValueError as error:
        raise directive.error(f"loadbalance: {path}: {error}") from error
