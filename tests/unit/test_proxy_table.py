"""The packet table against the rules of every mode, and against the oracle that never sees a rule."""

from __future__ import annotations

import random

import pytest
from msgspec import structs

from netemu.observe.oracle import Source
from netemu.proxy.services import Family
from netemu.testing.packets import Packet
from tests.unit.proxy_modes import MODES, Proxy, family_of, fate
from tests.unit.proxy_scene import (
    DEFAULT,
    DROP,
    HERE,
    NONE,
    POD,
    SELF,
    THERE,
    A,
    B,
    Case,
    To,
    World,
    case,
    dnat,
    in_mode,
    judged,
)
from tests.unit.proxy_table_more import TABLE
from tests.unit.proxy_world import service

CASES = [pytest.param(row, id=row.about) for row in TABLE]


# What ServiceCIDR objects say reaches rules by NodeFacts; only nftables mode has rules about it.
NETWORK = World((service(),), structs.replace(DEFAULT, service_cidrs=("172.30.0.0/16",)))


def test_every_packet_is_told_apart() -> None:
    assert len({row.about for row in TABLE}) == len(TABLE) >= 150


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
@pytest.mark.parametrize("row", CASES)
def test_oracle(row: Case, mode: str) -> None:
    assert judged(row.world, mode, row.source, row.to) == row.fates[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", CASES)
async def test_rules(row: Case, mode: str) -> None:
    assert await fate(mode, row.world, row.packet) == row.fates[mode]


@pytest.mark.parametrize("mode", MODES)
async def test_one_world_after_another(mode: str) -> None:
    rows = random.Random(1).sample(TABLE, len(TABLE))
    proxies: dict[tuple[object, object], Proxy] = {}
    wrong = []
    for row in rows:
        family = family_of(row.packet)
        key = in_mode(mode, row.world), family
        if key not in proxies:
            proxies[key] = Proxy(mode, World((), row.world.settings), family)
        await proxies[key].show(row.world)
        if proxies[key].trace(row.packet) != row.fates[mode]:
            wrong.append(row.about)

    assert wrong == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", [POD, SELF], ids=["pod", "node"])
async def test_cluster_ip_of_no_service_is_dropped_where_its_network_is_known(mode: str, source: Source) -> None:
    to = To("172.30.9.9", 80)
    wanted = DROP if mode == "nftables" else NONE
    sent = Packet(source.address, to.address, to.port, to.protocol, source.interface)

    assert judged(NETWORK, mode, source, to) == wanted
    assert await fate(mode, NETWORK, sent) == wanted


@pytest.mark.parametrize("mode", MODES)
async def test_affinity_timeout_can_change_while_endpoints_stay(mode: str) -> None:
    sticky = [
        case("", {"affinity": seconds}, [HERE, THERE], POD, To("172.30.0.10", 80), dnat(A, B)) for seconds in (60, 90)
    ]
    proxy = Proxy(mode, sticky[0].world, Family.IPV4)
    for each in sticky:
        await proxy.show(each.world)

        assert proxy.trace(each.packet) == each.fates[mode]
