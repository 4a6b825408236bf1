"""The packet table, and random worlds, in ipvs mode with real packets, on a kernel that has IPVS.

See tests/kernel for the other modes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from netemu.testing.packets import Fate
from tests.kernel.table_bed import Wire, build, destroy, wired
from tests.kernel.test_proxy_random_packets import PROFILE, hold
from tests.kernel.test_proxy_table_packets import check, send_all
from tests.unit.proxy_scene import Case
from tests.unit.proxy_table_more import TABLE
from tests.unit.test_proxy_table_random import Drawn, drawn

# The processor may be emulated, some twenty times slower.
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fate]:
    """Fates by case: everything is sent once."""
    destroy()
    Wire.silence = 1.5
    try:
        build()
        return asyncio.run(send_all("ipvs", tmp_path_factory.mktemp("state")))
    finally:
        destroy()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.about) for case in TABLE])
def test_packet(sent: dict[str, Fate], case: Case) -> None:
    check(case, "ipvs", sent[case.about])


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """One for all worlds."""
    with wired(silence=1.5) as wire:
        yield wire


@settings(PROFILE, max_examples=3)
@given(drawn=drawn())
def test_random_worlds_fare_as_the_oracle_says(wire: Wire, tmp_path: Path, drawn: Drawn) -> None:
    hold(drawn, "ipvs", wire, tmp_path)
