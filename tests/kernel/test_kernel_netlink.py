"""One contract for rtnetlink: what the kernel accepts, refuses and shows, the fake does too; iproute2 is the judge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netemu.kernel import netns
from netemu.kernel.netlink import Netlink, Rtnetlink
from netemu.kernel.rtnetlink import (
    AddAddress,
    AddBridge,
    AddBridgeEntry,
    AddDummy,
    AddNeighbour,
    AddRoute,
    AddVeth,
    DelAddress,
    DelLink,
    DelNeighbour,
    DelRoute,
    NextHop,
    Request,
    SetLink,
)  # fmt: skip
from netemu.kernel.rtnetlink_answers import Hop
from netemu.model.errors import KernelError, KernelExists, KernelNotFound
from netemu.testing.netlink import FakeHost

HERE, THERE = "t-kernel-here", "t-kernel-there"
Open = Callable[[str], Rtnetlink]
NO_DUMMY = "this kernel has no links of type dummy (module dummy)"

BRIDGE: list[Request] = [AddBridge("br0", mac="02:42:ac:12:00:01"), AddAddress("br0", "172.18.0.1/16")]
PAIR: list[Request] = [
    AddVeth("veth0", "eth0", THERE, mac="0a:58:0a:f4:01:01", peer_mac="0a:58:0a:f4:01:05", peer_index=2)
]
POD: list[Request] = [
    SetLink("lo", up=True),
    SetLink("eth0", up=True),
    AddAddress("eth0", "10.244.1.5/24", prefix_route=False),
]


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def open_in(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens rtnetlink in one of two empty namespaces."""
    opened: list[Rtnetlink] = []

    def keep(netlink: Rtnetlink) -> Rtnetlink:
        opened.append(netlink)
        return netlink

    if request.param == "fake":
        host = FakeHost(HERE, THERE)
        yield lambda name: keep(host.netlink(name))
        return
    netns.create(HERE)
    netns.create(THERE)
    yield lambda name: keep(Netlink(name))
    for netlink in opened:
        netlink.close()
    netns.delete(HERE)
    netns.delete(THERE)


def test_veth_pair_has_its_ends_in_two_namespaces(open_in: Open) -> None:
    open_in(HERE).apply(*PAIR)

    ends = {link.name: link for netns in (HERE, THERE) for link in open_in(netns).links() if link.name != "lo"}

    assert {"veth0", "eth0"} == set(ends)
    assert (ends["eth0"].index, ends["veth0"].peer) == (2, 2)
    assert ends["eth0"].mac == "0a:58:0a:f4:01:05"


def test_only_the_near_end_of_a_pair_is_up(open_in: Open) -> None:
    open_in(HERE).apply(*PAIR)

    assert [link.up for link in open_in(HERE).links() if link.name == "veth0"] == [True]
    assert [link.up for link in open_in(THERE).links() if link.name == "eth0"] == [False]


def test_veth_becomes_a_port_of_a_bridge_made_in_the_same_call(open_in: Open) -> None:
    open_in(HERE).apply(AddBridge("br0"), AddVeth("veth0", "eth0", THERE, master="br0", mtu=1400))

    links = {link.name: link for link in open_in(HERE).links()}

    assert links["veth0"].master == links["br0"].index
    assert links["veth0"].mtu == 1400


def test_dummy_link_is_made_or_refused_by_name(open_in: Open) -> None:
    here = open_in(HERE)
    try:
        here.apply(AddDummy("kube-ipvs0"))
    except KernelError as error:
        shown = str(error)
    else:
        shown = " ".join(f"{link.type} {link.up}" for link in here.links() if link.name == "kube-ipvs0")

    assert shown in ("dummy False", f"add link kube-ipvs0 type dummy in {HERE}: {NO_DUMMY}")


def test_deleting_one_end_deletes_both(open_in: Open) -> None:
    open_in(HERE).apply(*PAIR)

    open_in(THERE).apply(DelLink("eth0"))

    assert [link.name for link in open_in(HERE).links()] == ["lo"]


def test_address_brings_the_route_to_its_network(open_in: Open) -> None:
    open_in(HERE).apply(*BRIDGE)

    (route,) = [route for route in open_in(HERE).routes() if ":" not in route.to]

    assert (route.to, route.src, route.scope) == ("172.18.0.0/16", "172.18.0.1", "link")


def test_address_without_prefix_route_brings_none(open_in: Open) -> None:
    open_in(HERE).apply(*PAIR)
    open_in(THERE).apply(*POD)

    assert "10.244.1.5/24" in [address.address for address in open_in(THERE).addresses()]
    assert [route for route in open_in(THERE).routes() if ":" not in route.to] == []


def test_default_route_goes_through_a_link_scope_gateway(open_in: Open) -> None:
    open_in(HERE).apply(*PAIR)
    there = open_in(THERE)

    there.apply(*POD, AddRoute("10.244.1.1", dev="eth0", src="10.244.1.5"), AddRoute("default", via="10.244.1.1"))

    assert {("default", "10.244.1.1"), ("10.244.1.1/32", "")} == {
        (route.to, route.hops[0].via) for route in there.routes() if ":" not in route.to
    }


def test_onlink_route_needs_no_route_to_its_gateway(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(*BRIDGE, AddRoute("default", via="192.0.2.1", dev="br0", onlink=True))

    assert "192.0.2.1" in [route.hops[0].via for route in here.routes() if route.to == "default"]


def test_multipath_route_has_all_its_next_hops(open_in: Open) -> None:
    here = open_in(HERE)
    hops = (NextHop("172.18.0.2", "br0"), NextHop("172.18.0.3", "br0", weight=3))

    here.apply(*BRIDGE, AddRoute("172.18.255.0/24", nexthops=hops))

    (route,) = [route for route in here.routes() if route.to == "172.18.255.0/24"]
    assert (Hop(2, "172.18.0.2", 1), Hop(2, "172.18.0.3", 3)) == route.hops


def test_replacing_a_route_leaves_one(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(
        *BRIDGE, AddRoute("10.0.0.0/8", via="172.18.0.2"), AddRoute("10.0.0.0/8", via="172.18.0.3", replace=True)
    )

    assert [route.hops[0].via for route in here.routes() if route.to == "10.0.0.0/8"] == ["172.18.0.3"]


def test_blackhole_route_needs_no_link(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(AddRoute("10.96.0.0/16", type="blackhole"))

    assert [route.type for route in here.routes() if route.to == "10.96.0.0/16"] == ["blackhole"]


def test_neighbour_is_permanent_and_can_be_overwritten(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(*BRIDGE, *(AddNeighbour("172.18.0.2", mac, "br0") for mac in ("02:42:ac:12:00:02", "02:42:ac:12:00:09")))

    assert [(each.mac, each.permanent) for each in here.neighbours() if each.address == "172.18.0.2"] == [
        ("02:42:ac:12:00:09", True)
    ]


def test_bridge_entry_is_of_a_port_and_can_be_written_again(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(*BRIDGE, AddVeth("v", "e", THERE, master="br0"), *2 * [AddBridgeEntry("02:42:ac:12:00:02", "v")])

    assert "v" in [link.name for link in here.links()]


def test_address_is_added_twice_with_replace(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(*BRIDGE, AddAddress("br0", "172.18.0.1/16", replace=True))

    assert [address.address for address in here.addresses()].count("172.18.0.1/16") == 1


def test_removing_an_address_removes_its_route(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(*BRIDGE, DelAddress("br0", "172.18.0.1/16"))

    assert [route for route in here.routes() if ":" not in route.to] == []


def test_ipv6_address_is_usable_at_once(open_in: Open) -> None:
    here = open_in(HERE)

    here.apply(
        AddBridge("br0"), AddAddress("br0", "fd00:10:244::1/64"), AddRoute("fd00:10:245::/64", via="fd00:10:244::2")
    )

    assert "fd00:10:245::/64" in [route.to for route in here.routes()]


@pytest.mark.parametrize(
    ("requests", "kind", "words"),
    [
        pytest.param([AddBridge("br0")], KernelExists, "add link br0", id="a second link of one name"),
        pytest.param([AddAddress("br0", "172.18.0.1/16")], KernelExists, "already|File exists", id="a second address"),
        pytest.param(
            [AddVeth("v", "eth0", "t-kernel-none")], KernelNotFound, "no network namespace", id="peer nowhere"
        ),
        pytest.param([AddVeth("v", "lo", THERE)], KernelExists, "add link v", id="a peer of a name that is taken"),
        pytest.param([AddVeth("v", "e", THERE, master="none")], KernelNotFound, "add link v", id="port of no bridge"),
        pytest.param([SetLink("none", up=True)], KernelNotFound, "No such device", id="set a missing link"),
        pytest.param([DelLink("none")], KernelNotFound, "No such device", id="delete a missing link"),
        pytest.param([AddAddress("none", "1.1.1.1/32")], KernelNotFound, "No such device", id="address of no link"),
        pytest.param([DelAddress("br0", "1.1.1.1/32")], KernelError, "not", id="delete a missing address"),
        pytest.param([AddRoute("default", via="9.9.9.9")], KernelError, "ENETUNREACH", id="unreachable gateway"),
        pytest.param([AddRoute("default", dev="none")], KernelNotFound, "No such device", id="route to no link"),
        pytest.param([AddRoute("172.18.0.0/16", dev="br0")], KernelExists, "File exists", id="a second route"),
        pytest.param([DelRoute("10.0.0.0/8")], KernelNotFound, "No such process", id="delete a missing route"),
        pytest.param([AddRoute("10.0.0.0/8", dev="br0", src="1.1.1.1")], KernelError, "prefsrc", id="foreign source"),
        pytest.param([AddNeighbour("1.1.1.1", "02:00:00:00:00:01", "none")], KernelNotFound, "No such", id="no link"),
        pytest.param([AddBridgeEntry("02:00:00:00:00:01", "none")], KernelNotFound, "No such", id="entry of no port"),
        pytest.param(
            [AddBridgeEntry("02:00:00:00:00:01", "lo")], KernelError, "add bridge", id="entry of no bridge's port"
        ),
        pytest.param([DelNeighbour("172.18.0.9", "br0")], KernelNotFound, "No such file", id="a missing neighbour"),
    ],
)
def test_refuses(open_in: Open, requests: list[Request], kind: type[KernelError], words: str) -> None:
    here = open_in(HERE)
    here.apply(*BRIDGE)
    before = here.links(), here.addresses(), here.routes(), here.neighbours()

    with pytest.raises(kind, match=words):
        here.apply(*requests)

    assert before == (here.links(), here.addresses(), here.routes(), here.neighbours())


def test_requests_after_a_refused_one_are_tried_and_the_first_refusal_is_raised(open_in: Open) -> None:
    here = open_in(HERE)

    with pytest.raises(KernelError, match=r"9\.9\.9\.9"):
        here.apply(*BRIDGE, AddRoute("default", via="9.9.9.9"), AddBridge("br0"), AddBridge("br1"))

    assert "br1" in [link.name for link in here.links()]


def test_missing_namespace_is_named(open_in: Open) -> None:
    with pytest.raises(KernelNotFound, match="t-kernel-none"):
        open_in("t-kernel-none")


@pytest.fixture
def pair() -> Iterator[None]:
    netns.create(HERE)
    netns.create(THERE)
    with Netlink(HERE) as here, Netlink(THERE) as there:
        here.apply(*PAIR, AddAddress("veth0", "10.244.1.1/32"), AddRoute("10.244.1.5", dev="veth0"))
        there.apply(*POD, AddRoute("10.244.1.1", dev="eth0"), AddRoute("default", via="10.244.1.1"))
    yield
    netns.delete(HERE)
    netns.delete(THERE)


def _ip(name: str, *what: str) -> Any:
    return json.loads(subprocess.run(["ip", "-j", "-n", name, *what], capture_output=True, check=True).stdout)


def test_iproute2_sees_the_same_links(pair: None) -> None:
    with Netlink(THERE) as there:
        ours = [(link.index, link.name, link.mtu, link.mac) for link in there.links()]

    assert ours == [(it["ifindex"], it["ifname"], it["mtu"], it["address"]) for it in _ip(THERE, "link")]


def test_iproute2_sees_the_same_routes(pair: None) -> None:
    assert [(it["dst"], it.get("gateway")) for it in _ip(THERE, "-4", "route")] == [
        ("default", "10.244.1.1"),
        ("10.244.1.1", None),
    ]


def test_hundreds_of_requests_go_in_one_call() -> None:
    netns.create(HERE)
    try:
        with Netlink(HERE) as here:
            here.apply(AddBridge("br0"), *(AddAddress("br0", f"10.0.{i // 250}.{i % 250}/32") for i in range(1000)))

        assert len(_ip(HERE, "-4", "addr", "show", "dev", "br0")[0]["addr_info"]) == 1000
    finally:
        netns.delete(HERE)
