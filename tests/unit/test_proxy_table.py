"""The packet table against the rules of every mode, and against the oracle that never sees a rule."""

from __future__ import annotations

import random

import pytest

from tests.unit.proxy_modes import MODES, Proxy, family_of, fate
from tests.unit.proxy_scene import Case, World, in_mode, judged
from tests.unit.proxy_table_more import TABLE

CASES = [pytest.param(case, id=case.about) for case in TABLE]


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
