"""nftables mode: the table of one world with every feature on."""

from __future__ import annotations

import pytest

from netemu.model import nft
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.nftables import compile_port, node_port_elements
from netemu.proxy.nftables_mode import base_rules
from tests.unit.nft_world import WORLD_NODE, dumped, in_order, world_table


def compiled() -> dict[str, str]:
    """What we make of it, block by block."""
    base, table = base_rules(KubeProxyConfiguration())(WORLD_NODE), world_table()
    elements = [*node_port_elements(WORLD_NODE)]
    chains = {name: (chain, base.rules[name]) for name, chain in base.chains.items()}
    sets = dict(base.sets)
    for key, port in table.ports.items():
        one = compile_port(port, table.endpoints.get(key, ()), WORLD_NODE)
        chains.update({name: (nft.Chain(name), lines) for name, lines in one.chains.items()})
        sets.update(one.sets)
        elements += one.elements
    text = {}
    for name, (chain, lines) in chains.items():
        rules = [nft.Rule(name, expressions, comment).text() for expressions, comment in lines]
        text[f"chain {name}"] = " ".join([*nft.chain_lines(chain), *rules])
    for name, held in sets.items():
        mine = {e.key: e.text() for e in elements if e.set == name}
        shown = [f"elements = {{ {', '.join(sorted(mine.values()))} }}"] if mine else []
        text[f"{'map' if isinstance(held, nft.Map) else 'set'} {name}"] = " ".join([*nft.set_lines(held), *shown])
    return text


@pytest.mark.parametrize("name", dumped())
def test_what_the_dump_holds_is_programmed(name: str) -> None:
    assert in_order(compiled().get(name, "not there")) == dumped()[name]


def test_nothing_else_is_programmed() -> None:
    assert compiled().keys() - dumped().keys() == set()
