"""Why not, of the network: how links and routes stand, and what that makes of a packet that did not come on.

shop/client eth0 -- veth1 worker-1 eth0 -- one underlay two -- eth0 worker-2 veth2 -- eth0 shop/web-1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from msgspec import structs

from netemu.kernel.rtnetlink_answers import Hop, Link, Route
from netemu.observe.story.whynot_network import Way, on_the_way, on_the_way_back
from netemu.observe.trace.evidence import Flow
from netemu.observe.trace.outcome import answerer
from netemu.observe.trace.standing import Standing
from tests.unit.trace_scene import CLIENT, NODE_1, NODE_2, POD_1, POD_2, WEB, Journey, names

UNDERLAY = "underlay"
DEFAULT = Route("default", (Hop(2, "169.254.1.1"),))


def veth(index: int, name: str, peer: int, *, master: int = 0) -> Link:
    return Link(index, name, "veth", True, 1500, "", master, peer)


BRIDGE = Link(9, "br-nodes", "bridge", True, 1500, "")
NETWORK = {
    POD_1: Standing((veth(2, "eth0", 5),), (DEFAULT,)),
    NODE_1: Standing((veth(2, "eth0", 3), veth(5, "veth1", 2)), (DEFAULT,), forwarding="net.ipv4.ip_forward"),
    UNDERLAY: Standing((veth(3, "one", 2, master=9), veth(4, "two", 2, master=9), BRIDGE), (DEFAULT,)),
    NODE_2: Standing((veth(2, "eth0", 4), veth(5, "veth2", 2)), (DEFAULT,), forwarding="net.ipv4.ip_forward"),
    POD_2: Standing((veth(2, "eth0", 5),), (DEFAULT,)),
}


def but(place: str, link: str, **changes: object) -> Mapping[str, Standing]:
    """The network with one link changed."""
    links = tuple(structs.replace(each, **changes) if each.name == link else each for each in NETWORK[place].links)
    return {**NETWORK, place: replace(NETWORK[place], links=links)}


def routed(place: str, *routes: Route) -> Mapping[str, Standing]:
    return {**NETWORK, place: replace(NETWORK[place], routes=routes)}


def deaf(place: str) -> Mapping[str, Standing]:
    return {**NETWORK, place: replace(NETWORK[place], forwards=False)}


def straight() -> Journey:
    return Journey(Flow(CLIENT, 61001, WEB, 8080)).begin()


def at_worker_1() -> Journey:
    return straight().route(NODE_1, error="No route to host").drop(NODE_1, "route")


def at_the_underlay() -> Journey:
    journey = straight().route(NODE_1, "eth0").link(NODE_1, "eth0", "out").link(UNDERLAY, "one", "in")
    return journey.drop(UNDERLAY, "link", "one", detail="the bridge that has one did not pass it on")


def long() -> Journey:
    journey = at_the_underlay()
    journey.size = 1450
    return journey


def circling() -> Journey:
    journey = straight().to_worker_2()
    for _ in range(3):
        journey.link(NODE_2, "eth0", "out").link(UNDERLAY, "two", "in").link(UNDERLAY, "two", "out")
        journey.link(NODE_2, "eth0", "in")
    return journey.icmp("time exceeded")


def way(journey: Journey, network: Mapping[str, Standing]) -> Way:
    return Way(journey.evidence(), names(), network, POD_1, POD_2, WEB)


CASES: dict[str, tuple[Callable[[], Journey], Mapping[str, Standing], str, str, str]] = {
    # what it is: journey, network, reason, place, words
    "the sender's link": (at_worker_1, but(POD_1, "eth0", up=False), "link-down", POD_1, "link eth0 of shop/client"),
    "a port of the bridge": (at_the_underlay, but(UNDERLAY, "two", up=False), "link-down", UNDERLAY, "link two"),
    "the bridge": (at_the_underlay, but(UNDERLAY, "br-nodes", up=False), "link-down", UNDERLAY, "link br-nodes"),
    "the far node's link": (at_the_underlay, but(NODE_2, "eth0", up=False), "link-down", NODE_2, "link eth0"),
    "routes went with a link": (circling, but(NODE_2, "veth2", up=False), "link-down", NODE_2, "link veth2"),
    "a link behind where it ended is not to blame": (
        at_worker_1, but(NODE_2, "veth2", up=False), "no-route", NODE_1, "has no route to shop/web-1",
    ),
    "too long for what takes it in": (long, but(NODE_2, "eth0", mtu=1400), "mtu", NODE_2, "eth0 of node/worker-2"),
    "a tag's length is let in": (long, but(NODE_2, "eth0", mtu=1446), "link-down", UNDERLAY, "loses packets"),
    "too long for what sends it": (long, but(UNDERLAY, "two", mtu=1446), "mtu", UNDERLAY, "link two of underlay"),
    "the sender remembers a path MTU": (
        lambda: straight().icmp("fragmentation needed, mtu 1400", CLIENT), NETWORK,
        "mtu", POD_1, "shop/client remembers that the packet",
    ),
    "no forwarding": (at_worker_1, deaf(NODE_1), "no-forwarding", NODE_1, "net.ipv4.ip_forward is 0"),
    "a sender need not forward": (
        lambda: Journey(Flow(CLIENT, 61001, WEB, 8080)).drop(POD_1, "route", detail="No route to host"), deaf(POD_1),
        "no-route", POD_1, "No route to host",
    ),
    "a blackhole": (
        at_worker_1, routed(NODE_1, DEFAULT, Route("10.244.2.0/24", (), "blackhole")),
        "blackhole", NODE_1, "the route `blackhole 10.244.2.0/24` of node/worker-1 drops",
    ),
    "a blackhole for a wider prefix": (
        at_worker_1, routed(NODE_1, Route("10.244.0.0/16", (), "blackhole"), Route("10.244.2.0/24", (Hop(2),))),
        "no-route", NODE_1, "No route to host",
    ),
    "a route that refuses": (
        at_worker_1, routed(NODE_1, Route("default", (), "prohibit")), "no-route", NODE_1, "`prohibit default`",
    ),
    "a circle": (circling, NETWORK, "loop", NODE_2, "in a circle between node/worker-2 and underlay"),
    "back at its sender": (
        lambda: straight().link(POD_1, "eth0", "in").drop(POD_1, "route", detail="Invalid argument"), NETWORK,
        "loop", POD_1, "in a circle",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("travel", "network", "reason", "place", "words"), CASES.values(), ids=CASES)
def test_the_cause_is_found(
    travel: Callable[[], Journey], network: Mapping[str, Standing], reason: str, place: str, words: str
) -> None:
    found = on_the_way(way(travel(), network))

    assert found is not None
    assert (found.reason, found.place) == (reason, place), found.text
    assert words in found.text


def test_what_arrived_has_no_cause_on_the_way() -> None:
    assert on_the_way(way(straight().to_worker_2().arrive(), but(NODE_1, "eth0", up=False))) is None


def test_what_a_place_sends_to_itself_goes_in_no_circle() -> None:
    journey = Journey(Flow("127.0.0.1", 61001, "127.0.0.1", 80)).link(POD_1, "lo", "out").link(POD_1, "lo", "in")
    journey.reached = POD_1

    assert on_the_way(replace(way(journey.back("RST").told(), NETWORK), to="", address="127.0.0.1")) is None


def back(journey: Journey, network: Mapping[str, Standing]) -> Way:
    return replace(way(journey, network), source=POD_2, to=POD_1, address=CLIENT, leg="back")


def test_a_server_without_a_route_to_its_client_sends_no_answer() -> None:
    found = on_the_way_back(back(straight().to_worker_2().arrive(), routed(POD_2)))

    assert found is not None
    assert (found.reason, found.place) == ("no-route-back", POD_2)
    assert "has no route back to shop/client (10.244.1.2)" in found.text


def test_an_answer_is_lost_where_nothing_is_forwarded() -> None:
    journey = straight().to_worker_2().arrive().back().link(POD_2, "eth0", "out").link(NODE_2, "veth2", "in")
    found = on_the_way_back(back(journey.drop(NODE_2, "route", detail="No route to host"), deaf(NODE_2)))

    assert found is not None
    assert (found.reason, found.place) == ("no-forwarding", NODE_2)


def test_a_server_that_could_answer_and_did_not_is_no_matter_of_the_network() -> None:
    assert on_the_way_back(back(straight().to_worker_2().arrive(), NETWORK)) is None


def test_who_answered_is_told_by_where_the_answer_was_seen_first() -> None:
    rejected = straight().to_worker_2().drop(NODE_2, "rule", rejected=True).back("port unreachable")
    seen = rejected.link(NODE_2, "eth0", "out").link(NODE_1, "eth0", "in").icmp("port unreachable", "10.96.0.9")

    assert answerer(seen.evidence(), names()) == NODE_2


def test_who_answered_from_a_place_that_is_not_watched_is_told_by_the_source() -> None:
    seen = straight().back().link(NODE_2, "veth2", "in").told()

    assert answerer(seen.evidence(), names()) == POD_2
