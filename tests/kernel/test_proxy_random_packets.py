"""Random Services, endpoints, policies and settings: real packets through real rules fare as the oracle says.

The worlds are those of tests/unit/test_proxy_table_random.py, which sends them through fake kernels in greater number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from netemu.model.meta import decode
from netemu.model.objects import ServiceCIDR
from netemu.observe.oracle import Origin, Source
from netemu.testing.packets import Fate
from tests.kernel.proxy_bed import Api
from tests.kernel.table_bed import Wire, wired
from tests.kernel.test_proxy_table_packets import check, put, running
from tests.unit.proxy_scene import Case, To, in_mode, judged, judgement, node_object
from tests.unit.test_proxy_table_random import Drawn, drawn

pytestmark = pytest.mark.timeout(300)
PROFILE = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def cases(drawn: Drawn, mode: str) -> list[Case]:
    """The packets, with the fates that the oracle foretells."""
    made = []
    for source, to in drawn.packets:
        fate, hit = judged(drawn.world, mode, source, to), judgement(drawn.world, mode, source, to).hit
        sticky = bool(fate.destinations) and hit is not None and hit.service.spec.session_affinity != "None"
        made.append(Case(_about(source, to), drawn.world, source, to, {mode: fate}, sticky))
    return made


def _about(source: Source, to: To) -> str:
    where = source.interface or ("itself" if source.origin is Origin.NODE else "?")
    return f"{source.address} by {where} to {to.address}:{to.port}/{to.protocol}"


async def fates(drawn: Drawn, mode: str, wire: Wire, state_dir: Path) -> dict[str, Fate]:
    """What becomes of each packet."""
    api = Api()
    api.put(node_object())
    for number, network in enumerate(drawn.world.settings.service_cidrs):
        api.put(decode({"metadata": {"name": f"n{number}"}, "spec": {"cidrs": [network]}}, ServiceCIDR))
    async with running(in_mode(mode, drawn.world), api, state_dir) as server:
        await put(api, server, None, drawn.world)
        found = await asyncio.to_thread(wire.fates, cases(drawn, mode), mode)
        await server.cleanup()
    return found


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """One for all worlds."""
    with wired() as wire:
        yield wire


# ipvs mode needs a kernel that has IPVS: tests/vm does the same there.
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@PROFILE
@given(drawn=drawn())
def test_real_packets_fare_as_the_oracle_says(mode: str, wire: Wire, tmp_path: Path, drawn: Drawn) -> None:
    hold(drawn, mode, wire, tmp_path)


def hold(drawn: Drawn, mode: str, wire: Wire, state_dir: Path) -> None:
    """Send everything and compare."""
    found = asyncio.run(fates(drawn, mode, wire, state_dir))
    for one in cases(drawn, mode):
        check(one, mode, found[one.about])
