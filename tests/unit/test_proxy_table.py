"""The packet table against the rules of every mode, and against the oracle that never sees a rule."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from netemu.observe.oracle import Source
from netemu.testing.packets import Packet
from tests.unit.proxy_modes import MODES, Proxy, family_of, fate
from tests.unit.proxy_scene import DEFAULT, DROP, NONE, POD, SELF, Case, To, World, in_mode, judged
from tests.unit.proxy_table_more import TABLE
from tests.unit.proxy_world import service

CASES = [pytest.param(case, id=case.about) for case in TABLE]


# What ServiceCIDR objects say reaches rules by NodeFacts; only nftables mode has rules about it.
NETWORK = World((service(),), replace(DEFAULT, service_cidrs=("172.30.0.0/16",)))


def test_every_packet_is_told_apart() -> None:
    assert len({case.about for case in TABLE}) == len(TABLE) >= 150


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
@pytest.mark.parametrize("case", CASES)
def test_oracle(case: Case, mode: str) -> None:
    assert judged(case.world, mode, case.source, case.to) == case.fates[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
async def test_rules(case: Case, mode: str) -> None:
    assert await fate(mode, case.world, case.packet) == case.fates[mode]


@pytest.mark.parametrize("mode", MODES)
async def test_one_world_after_another(mode: str) -> None:
    cases = random.Random(1).sample(TABLE, len(TABLE))
    proxies: dict[tuple[object, object], Proxy] = {}
    wrong = []
    for case in cases:
        family = family_of(case.packet)
        key = in_mode(mode, case.world), family
        if key not in proxies:
            proxies[key] = Proxy(mode, World((), case.world.settings), family)
        await proxies[key].show(case.world)
        if proxies[key].trace(case.packet) != case.fates[mode]:
            wrong.append(case.about)

    assert wrong == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", [POD, SELF], ids=["pod", "node"])
async def test_cluster_ip_of_no_service_is_dropped_where_its_network_is_known(mode: str, source: Source) -> None:
    to = To("172.30.9.9", 80)
    wanted = DROP if mode == "nftables" else NONE
    sent = Packet(source.address, to.address, to.port, to.protocol, source.interface)

    assert judged(NETWORK, mode, source, to) == wanted
    assert await fate(mode, NETWORK, sent) == wanted
