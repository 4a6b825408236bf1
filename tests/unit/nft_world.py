"""nftables mode: the world with every feature on, and the table that it makes.

The data is what `nft list table` prints, in the layout of 1.36. Names, maps and checks are those of a dump of the real
kube-proxy 1.30.5 of the same world; what newer versions do otherwise was put in by hand: base chains of the checks
(after DNAT), DNAT and marks in the chains of a Service, the rules for ClusterIPs and hairpin in common chains.
"""

from __future__ import annotations

import re
from dataclasses import replace

from netemu.proxy.services import Family
from netemu.proxy.tracker import Table, Tracker
from tests.unit.proxy_world import DATA, NODE, world

WORLD_NODE = replace(NODE, node_port_networks=("192.168.0.2/32",), service_cidrs=("172.30.0.0/16",))
OLDER_TABLE = DATA / "nftables-1.35.nft"
"""The layout of 1.33 to 1.35, with a chain for each endpoint, as input for `nft -f`."""


def world_table() -> Table:
    """The world as a programmer sees it."""
    tracker = Tracker(Family.IPV4, "test-node")
    services, slices = world()
    for service in services:
        tracker.service_changed(None, service)
    for piece in slices:
        tracker.slice_changed(None, piece)
    tracker.take()
    return tracker.table


def dumped() -> dict[str, str]:
    """The blocks that shall be there."""
    return blocks((DATA / "nftables-world.nft").read_text())


def blocks(listing: str) -> dict[str, str]:
    """`chain NAME`, `set NAME`, `map NAME` to what stands between the braces, blanks normalised."""
    found = re.findall(r"^\s+(\w+ \S+) \{\n(.*?)^\s+\}$", listing, re.DOTALL | re.MULTILINE)
    return {name: in_order(re.sub(r"\s+", " ", body).strip()) for name, body in found}


def in_order(block: str) -> str:
    """Elements in the order of their text: the kernel lists them in the order of their hashes."""
    head, found, tail = block.partition("elements = { ")
    return f"{head}{found}{', '.join(sorted(tail.removesuffix(' }').split(', ')))} }}" if found else block
