"""The contract of `Iptables`, on the fake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from netemu.kernel.iptables import Iptables
from netemu.testing.iptables import FakeIptables
from netemu.testing.packets import Node, Packet
from tests.unit.iptables_contract import BEHAVIOUR, REFUSED, check_refusal


@pytest.mark.parametrize("text", REFUSED)
async def test_refuses(text: str) -> None:
    await check_refusal(FakeIptables(), text)


@pytest.mark.parametrize("check", BEHAVIOUR)
async def test_behaves(check: Callable[[Iptables], Awaitable[None]]) -> None:
    await check(FakeIptables())


async def test_tracer_fails_on_a_match_it_does_not_know() -> None:
    fake = FakeIptables()
    await fake.restore("*nat\n-A PREROUTING -m time --timestart 10:00 -j ACCEPT\nCOMMIT\n")

    with pytest.raises(AssertionError, match="-m time"):
        Node(fake.tables).trace(Packet("10.0.0.1", "10.0.0.2", 80))
