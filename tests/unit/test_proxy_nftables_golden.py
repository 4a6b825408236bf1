"""nftables mode: the table of one world with every feature on.

The data is a dump of the real kube-proxy 1.30.5 with what 1.33 to 1.35 do otherwise put in: base chains of the checks
(after DNAT), and ClusterIP masquerading that no longer looks at the port.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from netemu.model import nft
from netemu.proxy import nftables_base
from netemu.proxy.nftables import compile_port, node_port_elements
from netemu.proxy.services import Family
from netemu.proxy.tracker import Tracker
from tests.unit.proxy_world import DATA, NODE, world

FILES = ("base.nft", "nodeports-listed.nft", "service-cidrs.nft")
WORLD = replace(NODE, node_port_networks=("192.168.0.2/32",))


def dumped() -> dict[str, str]:
    """`chain NAME`, `set NAME`, `map NAME` to what stands between the braces, blanks normalised."""
    text = (DATA / "nftables-world.nft").read_text()
    blocks = re.findall(r"^  (\w+ \S+) \{\n(.*?)^  \}", text, re.DOTALL | re.MULTILINE)
    return {name: re.sub(r"\s+", " ", body).strip() for name, body in blocks}


def compiled() -> dict[str, str]:
    """The same of ours."""
    base = nftables_base.load(FILES, "ip", {"service_cidrs": "172.30.0.0/16"})
    tracker = Tracker(Family.IPV4, "test-node")
    services, slices = world()
    for service in services:
        tracker.service_changed(None, service)
    for piece in slices:
        tracker.slice_changed(None, piece)
    tracker.take()
    elements = [*node_port_elements(WORLD)]
    chains = {name: (chain, base.rules[name]) for name, chain in base.chains.items()}
    sets = dict(base.sets)
    for key, port in tracker.table.ports.items():
        one = compile_port(port, tracker.table.endpoints.get(key, ()), WORLD)
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


def in_order(block: str) -> str:
    """Elements in the order of their text: the kernel lists them in the order of their hashes."""
    head, found, tail = block.partition("elements = { ")
    return f"{head}{found}{', '.join(sorted(tail.removesuffix(' }').split(', ')))} }}" if found else block


@pytest.mark.parametrize("name", dumped())
def test_what_the_dump_holds_is_programmed(name: str) -> None:
    assert in_order(compiled().get(name, "not there")) == in_order(dumped()[name])


def test_nothing_else_is_programmed() -> None:
    cut = ("kube-system/dns", "default/term")  # left out of the dump; same shape as the others

    assert [name for name in compiled().keys() - dumped().keys() if not any(c in name for c in cut)] == []
