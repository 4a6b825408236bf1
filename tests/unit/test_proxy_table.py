"""The packet table against the rules of every mode, and against the oracle that never sees a rule."""

from __future__ import annotations

import pytest

from netemu.observe.oracle import judge
from netemu.testing.packets import Fate
from tests.unit.proxy_modes import MODES, fate
from tests.unit.proxy_scene import NODE, Case, in_mode
from tests.unit.proxy_table_more import TABLE

CASES = [pytest.param(case, id=case.about) for case in TABLE]


def judged(case: Case, mode: str) -> Fate:
    """The oracle's word as tracers put it."""
    said = judge(
        case.world.services,
        case.world.slices,
        NODE,
        in_mode(mode, case.world),
        case.source,
        case.to.address,
        case.to.port,
        case.to.protocol.upper(),
    )
    verdict = "accept" if said.verdict == "none" else said.verdict
    assert said.reason
    assert said.masqueraded in (frozenset(), said.endpoints)
    return Fate(verdict, said.endpoints, bool(said.masqueraded))


def test_every_packet_is_told_apart() -> None:
    assert len({case.about for case in TABLE}) == len(TABLE) >= 150


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
@pytest.mark.parametrize("case", CASES)
def test_oracle(case: Case, mode: str) -> None:
    assert judged(case, mode) == case.fates[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
async def test_rules(case: Case, mode: str) -> None:
    assert await fate(mode, case.world, case.packet) == case.fates[mode]
