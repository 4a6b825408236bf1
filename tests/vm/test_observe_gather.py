"""What the kernel tells of one packet in ipvs mode: the ipset that decided, the real server that was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.observe.trace.evidence import Balanced, Crossing, Evidence, MapHit, Packet, Routed, RuleHit, Watched
from netemu.observe.trace.gather import gather
from tests.kernel.proxy_bed import CLIENT, NODE, NODE_OUTSIDE, build, destroy, echoes, endpoint_ns
from tests.vm.ipvs_bed import EVERY, HERE, NODE_PORT, PATIENCE, VIP, api_with, proxy

PLACES = [Watched("node", NODE), Watched("client", CLIENT)]
PLACES += [Watched(f"endpoint-{index}", endpoint_ns(index)) for index in (1, 2, 3)]


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build()
    try:
        yield
    finally:
        destroy()


async def follow(start: int, **fields: Any) -> Evidence:
    return await gather(Packet(**fields), PLACES[start], PLACES, timeout=PATIENCE / 10)


async def test_ipvs_tells_which_set_decided_and_which_server_was_chosen(tmp_path: Path) -> None:
    with echoes():
        async with proxy(api_with(HERE), tmp_path):
            by_port = await follow(1, destination=NODE_OUTSIDE, port=NODE_PORT)
            datagram = await follow(1, destination="1.2.3.4", port=53, protocol="udp")
            from_node = await follow(0, destination=VIP, port=80)
            refused = await follow(1, destination=VIP, port=81)

    for evidence, server in (
        (by_port, f"TCP {NODE_OUTSIDE}:{NODE_PORT}"), (datagram, "UDP 1.2.3.4:53"), (from_node, f"TCP {VIP}:80"),
    ):  # fmt: skip
        (balanced,) = (event for event in evidence.events if isinstance(event, Balanced))
        assert (balanced.server, balanced.scheduler, balanced.weight) == (server, "rr", 1)
        arrived = next(event for event in evidence.at(evidence.reached) if isinstance(event, Crossing))
        assert balanced.destination == f"{arrived.headers.destination}:{arrived.headers.port}"
        assert arrived.headers.destination in EVERY
        assert evidence.answer is not None
        assert evidence.answer.what == ("datagram" if evidence is datagram else "SYN-ACK")

    node = by_port.at("node", "there")
    assert any(isinstance(event, Routed) and event.type == "local" for event in node)
    sets = [event for event in node if isinstance(event, MapHit)]
    assert ("ipset", "KUBE-NODE-PORT-TCP", str(NODE_PORT)) in [(each.kind, each.name, each.key) for each in sets]
    acted = [event.text for event in node if isinstance(event, RuleHit)]
    assert any("-j KUBE-MARK-MASQ" in text for text in acted)
    assert any("-j MASQUERADE" in text for text in acted)
    assert refused.reached == ""
    assert refused.answer is not None
    assert refused.answer.what == "port unreachable"
