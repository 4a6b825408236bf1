"""What only iptables mode's rules can show; where packets go in every mode stands in the packet table."""

from __future__ import annotations

from dataclasses import replace

from netemu.testing.packets import Fate, Node, Packet
from tests.unit.proxy_world import Proxy, endpoint_slice, service

VIP, NODE_IP, CLIENT, POD = "172.30.0.10", "192.168.0.2", "203.0.113.9", "10.180.0.200"
HERE, THERE = ("10.180.0.1", "test-node"), ("10.180.1.1", "node-b")


async def node_with(**fields: int) -> Node:
    proxy = Proxy()
    proxy.add(service(**fields), endpoint_slice("default/web", [HERE, THERE]))  # type: ignore[arg-type]
    await proxy.sync()
    return Node(proxy.fake.tables, frozenset({NODE_IP}))


async def test_remembered_client_goes_to_its_endpoint_only() -> None:
    node = await node_with(affinity=60)
    target = f"{THERE[0]}:8080"
    chain = next(c for c, rules in node.tables["nat"].items() if any(target in r for r in rules) and "SEP" in c)

    fate = replace(node, remembered=frozenset({chain})).trace(Packet(POD, VIP, 80, interface="veth1"))

    assert fate == Fate("dnat", frozenset({target}))


async def test_martian_to_loopback_is_dropped() -> None:
    assert (await node_with()).trace(Packet(CLIENT, "127.0.0.1", 5432)) == Fate("drop")
