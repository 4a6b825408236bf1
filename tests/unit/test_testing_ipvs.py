"""The contract of `Ipvs`, on the fake; and whom the fake lets serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from netemu.kernel.ipvs import AddDestination, AddServer, DelDestination, EditDestination, Ipvs, Request, VirtualServer
from netemu.model.errors import KernelError
from netemu.testing.ipvs import FakeIpvs
from tests.unit.ipvs_contract import BEHAVIOUR, NONE, ONE, REFUSED, TWO, WEB, check_refusal, filled


@pytest.mark.parametrize(("request_", "error", "words"), REFUSED)
def test_refuses(request_: Request, error: type[KernelError], words: str) -> None:
    check_refusal(FakeIpvs(), request_, error, words)


@pytest.mark.parametrize("check", BEHAVIOUR)
def test_behaves(check: Callable[[Ipvs], None]) -> None:
    check(FakeIpvs())


def test_everybody_with_a_weight_may_serve() -> None:
    fake = FakeIpvs()
    filled(fake)
    assert fake.candidates(WEB) == {ONE.target, TWO.target}

    fake.apply(EditDestination(WEB, replace(ONE, weight=0)))
    assert fake.candidates(WEB) == {TWO.target}
    assert fake.candidates(NONE) == set()


def test_a_client_stays_where_persistence_remembers_it_until_that_goes() -> None:
    fake = FakeIpvs()
    fake.apply(AddServer(VirtualServer(WEB, persistence=60)), AddDestination(WEB, ONE), AddDestination(WEB, TWO))

    fake.connect(WEB, "192.0.2.1", TWO.target)
    assert fake.candidates(WEB, "192.0.2.1") == {TWO.target}
    assert fake.candidates(WEB, "192.0.2.2") == {ONE.target, TWO.target}

    fake.apply(DelDestination(WEB, TWO))
    assert fake.candidates(WEB, "192.0.2.1") == {ONE.target}


def test_a_network_of_clients_is_one_client_where_the_prefix_says_so() -> None:
    fake = FakeIpvs()
    fake.apply(AddServer(VirtualServer(WEB, persistence=60, prefix=24)))
    fake.apply(AddDestination(WEB, ONE), AddDestination(WEB, TWO))

    fake.connect(WEB, "192.0.2.1", TWO.target)

    assert fake.candidates(WEB, "192.0.2.77") == {TWO.target}


def test_connections_are_counted_until_they_end() -> None:
    fake = FakeIpvs()
    filled(fake)
    fake.connect(WEB, "192.0.2.1", ONE.target, active=2, inactive=1)
    assert [(each.active, each.inactive) for each in fake.destinations(WEB)] == [(2, 1), (0, 0)]

    fake.disconnect(WEB, ONE.target)
    assert [(each.active, each.inactive) for each in fake.destinations(WEB)] == [(0, 0), (0, 0)]
