"""`loadbalance [round_robin]`: addresses in another order in each reply; aliases first, other types where they were."""

from __future__ import annotations

import random

from netemu.dns import wire
from netemu.dns.corefile import Directive
from netemu.dns.plugin import Block, Plugin
from netemu.dns.wire import Query, Record, Response

_SHUFFLED = frozenset((wire.A, wire.AAAA, wire.MX))


class LoadBalance(Plugin):
    """Uniform shuffling (`coredns/plugin/loadbalance/loadbalance.go`)."""

    def after(self, query: Query, response: Response) -> None:
        """See Plugin."""
        if response.rcode != wire.NOERROR:
            return
        response.shuffle = True
        response.answers = shuffled(response.answers)
        response.additional = shuffled(response.additional)


def shuffled(records: list[Record]) -> list[Record]:
    """CNAMEs, then other types in their order, then addresses in any."""
    if len(records) < 2:
        return records
    aliases = [record for record in records if record.type == wire.CNAME]
    others = [record for record in records if record.type not in _SHUFFLED and record.type != wire.CNAME]
    addresses = [record for record in records if record.type in _SHUFFLED and record.type != wire.MX]
    exchanges = [record for record in records if record.type == wire.MX]
    random.shuffle(addresses)
    random.shuffle(exchanges)
    return aliases + others + addresses + exchanges


def setup(directive: Directive, block: Block) -> Plugin:
    """`loadbalance [round_robin]`."""
    if directive.args not in ((), ("round_robin",)) or directive.options:
        raise directive.error(f"loadbalance: {' '.join(directive.args)} is not supported; expected round_robin")
    return LoadBalance()
