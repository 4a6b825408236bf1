"""The contract of `Ipset`, on the fake; and how entries are written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netemu.kernel.ipset import Entry, Ipset, Request
from netemu.model.errors import KernelError, UserError
from netemu.testing.ipset import FakeIpset
from netemu.testing.iptables import FakeIptables
from tests.unit.ipset_contract import BEHAVIOUR, KEPT, REFUSED, check_held, check_kept, check_refusal, filled


@pytest.mark.parametrize(("request_", "error"), REFUSED)
def test_refuses(request_: Request, error: type[KernelError]) -> None:
    check_refusal(FakeIpset(), request_, error)


@pytest.mark.parametrize(("name", "given", "shown"), KEPT)
def test_keeps(name: str, given: str, shown: str) -> None:
    check_kept(FakeIpset(), name, given, shown)


@pytest.mark.parametrize("check", BEHAVIOUR)
def test_behaves(check: Callable[[Ipset], None]) -> None:
    check(FakeIpset())


async def test_rules_hold_sets() -> None:
    iptables = FakeIptables()
    fake = FakeIpset(iptables.tables)
    filled(fake)
    await iptables.restore("*filter\n-A INPUT -m set --match-set WEB dst,dst -j ACCEPT\nCOMMIT\n")

    check_held(fake)


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.1,80", "10.0.0.1,icmp:1", "10.0.0.1,tcp:x", "::1,tcp:1,::/129"])
def test_entries_that_are_none_are_told(text: str) -> None:
    with pytest.raises(UserError, match="ipset entry"):
        Entry.parse(text)
