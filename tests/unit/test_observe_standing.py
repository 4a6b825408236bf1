"""How the network stands: the route that an address takes, and places that are gone."""

from __future__ import annotations

import pytest

from netemu.kernel.rtnetlink_answers import Hop, Route
from netemu.observe.trace.evidence import Watched
from netemu.observe.trace.standing import Standing, read_standings

DEFAULT, WIDE = Route("default", (Hop(2, "172.18.0.1"),)), Route("10.244.0.0/16", (), "blackhole")
NARROW, HOST = Route("10.244.2.0/24", (Hop(3),)), Route("10.244.2.7/32", (Hop(4),))


@pytest.mark.parametrize(
    ("address", "route"),
    [("10.244.2.7", HOST), ("10.244.2.8", NARROW), ("10.244.9.9", WIDE), ("192.0.2.1", DEFAULT)],
)
def test_the_most_specific_route_is_taken_whatever_its_type(address: str, route: Route) -> None:
    assert Standing(routes=(DEFAULT, WIDE, HOST, NARROW)).route(address) == route


def test_of_equal_routes_the_kernel_tells_the_first_one_first() -> None:
    second = Route("default", (Hop(9, "172.18.0.9"),))

    assert Standing(routes=(DEFAULT, second)).route("192.0.2.1") == DEFAULT


def test_an_address_of_ipv6_takes_routes_of_ipv6() -> None:
    there = Route("fd00:10:244:2::/64", (Hop(3),))

    assert Standing(routes=(there,)).route("fd00:10:244:2::2") == there
    assert Standing(routes=(there,)).route("fd00:10:244:3::2") is None


def test_a_place_that_is_gone_is_left_out() -> None:
    assert read_standings([Watched("shop/gone", "no-such-namespace")], ipv6=False) == {}
