"""The packet table in ipvs mode with real packets, on a kernel that has IPVS; see tests/kernel for the other modes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from netemu.testing.packets import Fate
from tests.kernel.table_bed import Wire, build, destroy
from tests.kernel.test_proxy_table_packets import check, send_all
from tests.unit.proxy_scene import Case
from tests.unit.proxy_table_more import TABLE

# The processor may be emulated, some twenty times slower.
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Fate]]:
    """Fates by case: everything is sent once."""
    destroy()
    Wire.silence = 1.5
    try:
        build()
        yield asyncio.run(send_all("ipvs", tmp_path_factory.mktemp("state")))
    finally:
        destroy()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.about) for case in TABLE])
def test_packet(sent: dict[str, Fate], case: Case) -> None:
    check(case, "ipvs", sent[case.about])
