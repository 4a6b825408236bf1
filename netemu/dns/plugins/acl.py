"""`acl [ZONES...]`: who may ask what.

    acl [ZONES...] {
        allow|block|filter|drop [type TYPE...] [net ADDRESS|CIDR...]
    }

Rules are read from the top; the first that fits the client's address and the type decides, and what none fits is
allowed. `block` is REFUSED, `filter` an empty answer without an error, `drop` silence. Without `type`, or with
`type *`, a rule means every type; without `net`, or with `net *`, everybody. Several directives may stand in one server
block, for different zones: they are read in their order, and the first `allow` ends the search (`coredns/plugin/acl`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import NEXT, Block, Plugin, Result, longest_zone
from netemu.dns.wire import Query, Response

_ACTIONS = ("allow", "block", "filter", "drop")
_WORDS = ("type", "net")
_COUNTED = {"allow": "allowed", "block": "blocked", "filter": "filtered", "drop": "dropped"}
_BLOCKED, _FILTERED = 15, 17
"""Extended errors, RFC 8914, 4.16 and 4.18."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Rule:
    """One line; empty `types` and `networks` mean all."""

    action: str
    types: frozenset[int]
    networks: tuple[_Network, ...]

    def fits(self, qtype: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether the rule is about this question from this client."""
        if self.types and qtype not in self.types:
            return False
        return not self.networks or any(address in network for network in self.networks)


class Acl(Plugin):
    """All directives of a server block: (zones, rules) each."""

    def __init__(self, lists: list[tuple[tuple[bytes, ...], tuple[Rule, ...]]], block: Block) -> None:
        self.lists, self.block = lists, block

    def serve(self, query: Query) -> Result:
        """See Plugin."""
        zone, action = self._action(query)
        if zone:
            self.block.count(f"coredns_acl_{_COUNTED[action]}_requests_total", zone)
        if action == "block":
            return Response(wire.REFUSED, aa=False, options=wire.extended_error(_BLOCKED))
        if action == "filter":
            return Response(aa=False, options=wire.extended_error(_FILTERED))
        return Response(aa=False, silent=True) if action == "drop" else NEXT

    def _action(self, query: Query) -> tuple[bytes, str]:
        """The zone whose list speaks, and what is to be done."""
        address = ipaddress.ip_address(query.client[0].split("%")[0])
        found = b""
        for zones, rules in self.lists:
            if zone := longest_zone(query.lower, zones):
                found = zone
                for rule in rules:
                    if rule.fits(query.type, address):
                        return zone, rule.action
        return found, "allow"

    def after(self, query: Query, response: Response) -> None:
        """The next client may be somebody else."""
        response.stable = False


def setup_all(directives: list[Directive], block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    lists = []
    for directive in directives:
        rules = tuple(_rule(option) for option in directive.options)
        if not rules:
            raise directive.error("acl: expected at least one rule, for example `block type ANY net 10.0.0.0/8`")
        lists.append((directive.zones(directive.args) or block.zones, rules))
    return Acl(lists, block)


def _rule(option: Directive) -> Rule:
    if option.name not in _ACTIONS:
        raise option.unknown(_ACTIONS, "action")
    types: set[int] = set()
    networks: list[_Network] = []
    every_type = every_network = False
    words = list(option.args)
    while words:
        what = words.pop(0)
        if what not in _WORDS:
            raise option.error(f"{option.name}: unknown word {what!r}; expected type or net")
        values = []
        while words and words[0] not in _WORDS:
            values.append(words.pop(0))
        if not values:
            raise option.error(f"{option.name}: {what} needs at least one value, or *")
        if what == "type":
            every_type |= "*" in values
            types |= {option.type(word) for word in values if word != "*"}
        else:
            every_network |= "*" in values
            networks += [option.network(word) for word in values if word != "*"]
    return Rule(option.name, frozenset() if every_type else frozenset(types), () if every_network else tuple(networks))
