"""The contract of `Conntrack`, on the fake."""

from __future__ import annotations

from collections.abc import Callable

from netemu.testing.conntrack import FakeConntrack
from tests.unit.conntrack_contract import CONTRACT, FAMILIES, Target, Wires


class FakeWires:
    """See Wires."""

    def __init__(self) -> None:
        self.table = FakeConntrack()

    def translate(self, protocol: str, to: Target, end: Target) -> None:
        self.table.rules[(protocol, *to)] = end

    def send(self, protocol: str, source: Target, to: Target) -> None:
        self.table.send(protocol, source, to)


@FAMILIES
@CONTRACT
def test_contract(check: Callable[[Wires, bool], None], ipv6: bool) -> None:
    check(FakeWires(), ipv6)
