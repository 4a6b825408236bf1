"""Golden dumps of IPv6, SCTP, hints, masqueradeAll and restricted node ports, in every mode."""

from __future__ import annotations

import pytest

from netemu.proxy.services import Family
from tests.unit.golden_worlds import GOLDEN, Golden, dual_stack, sixth, table_of
from tests.unit.proxy_world import world


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden.mode} {golden.name}")
async def test_a_world_comes_to_its_golden_dump(golden: Golden) -> None:
    programmed = await golden.programmed()

    assert programmed == golden.text


def test_of_a_dual_stack_world_one_family_sees_nothing_of_the_other() -> None:
    alone, both = table_of(Family.IPV4, *world()), table_of(Family.IPV4, *dual_stack())

    assert (both.ports, both.endpoints) == (alone.ports, alone.endpoints)


def test_addresses_of_the_ipv6_world_are_told_from_those_of_the_ipv4_one() -> None:
    assert sixth(" 10.180.0.1, 203.0.113.0/25 ") == " fd00::10:180:0:1, fd00::203:0:113:0/113 "
