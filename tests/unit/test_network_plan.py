"""Names, addresses and requests: the decisions of the network room, without a kernel."""

from __future__ import annotations

import pytest

from netemu.model.errors import KernelError
from netemu.network import names, node, pods, shaping, underlay
from netemu.network.ipam import Ipam
from netemu.network.plan import ClientPlan, LinkPlan, NetworkPlan, NodePlan, first_address, machine_mac
from netemu.testing.netlink import FakeHost

NODES = (NodePlan("n0", ("172.18.0.2",), ("10.244.0.0/24",)), NodePlan("n1", ("172.18.0.3",), ("10.244.1.0/24",)))
PLAN = NetworkPlan("lab", nodes=NODES, clients=(ClientPlan("laptop", ("203.0.113.10",)),))


@pytest.fixture
def host() -> FakeHost:
    """A machine on which PLAN was built."""
    host = FakeHost("lab.underlay", *(netns for _, netns in PLAN.machines()))
    _build(host, set())
    return host


def _build(host: FakeHost, present: set[str], plan: NetworkPlan = PLAN) -> None:
    router = host.netlink("lab.underlay")
    router.apply(*underlay.switches(plan, present), *underlay.ports(plan, present), *underlay.routing(plan))
    for each in plan.nodes:
        host.netlink(names.node_netns("lab", each.name)).apply(*node.node_requests(plan, each))
    host.netlink("lab.client.laptop").apply(*node.client_requests(plan, plan.clients[0]))


def test_node_has_a_way_to_the_pods_of_the_other(host: FakeHost) -> None:
    ways = {route.to: route.hops[0].via for route in host.netlink("lab.node.n0").routes()}

    assert ways == {
        "172.18.0.0/16": "",
        "default": "172.18.0.1",
        "10.244.1.0/24": "172.18.0.3",
        "172.18.255.0/24": "172.18.0.1",
    }


def test_with_two_families_everything_is_there_twice() -> None:
    nodes = tuple(
        NodePlan(f"n{i}", (f"172.18.0.{i + 2}", f"fc00::{i + 2}"), (f"10.244.{i}.0/24", f"fd00:0:0:{i}::/64"))
        for i in range(2)
    )
    plan = NetworkPlan(
        "lab", ("172.18.0.0/16", "fc00::/64"), ("172.18.255.0/24", "fc00::ff:0/112"), nodes=nodes,
        clients=(ClientPlan("laptop", ("203.0.113.10", "2001:db8:113::10")),),
        client_networks=("203.0.113.0/24", "2001:db8:113::/64"),
    )  # fmt: skip
    host = FakeHost("lab.underlay", *(netns for _, netns in plan.machines()))
    _build(host, set(), plan)
    one, router = host.netlink("lab.node.n0"), host.netlink("lab.underlay")

    assert [(route.to, route.hops[0].via) for route in one.routes() if ":" in route.to + route.hops[0].via] == [
        ("fc00::/64", ""),
        ("default", "fc00::1"),
        ("fc00::ff:0/112", "fc00::1"),
        ("fd00:0:0:1::/64", "fc00::3"),
    ]
    assert {each.address: each.mac for each in one.neighbours()} == {
        "172.18.0.1": "02:42:ac:12:00:01", "fc00::1": "02:42:ac:12:00:01",
        "172.18.0.3": "02:42:ac:12:00:03", "fc00::3": "02:42:ac:12:00:03",
    }  # fmt: skip
    (pool,) = [route for route in router.routes() if route.to == "fc00::ff:0/112"]
    assert [hop.via for hop in pool.hops] == ["fc00::2", "fc00::3"]


def test_router_spreads_the_pool_over_all_nodes(host: FakeHost) -> None:
    (route,) = [route for route in host.netlink("lab.underlay").routes() if route.to == PLAN.load_balancer_pools[0]]

    assert [hop.via for hop in route.hops] == ["172.18.0.2", "172.18.0.3"]


def test_everybody_knows_their_neighbours_macs(host: FakeHost) -> None:
    known = {each.address: each.mac for each in host.netlink("lab.node.n0").neighbours()}

    assert known == {address: machine_mac([address]) for address in ("172.18.0.1", "172.18.0.3")}


def test_macs_are_what_neighbours_believe(host: FakeHost) -> None:
    (eth0,) = [link for link in host.netlink("lab.node.n1").links() if link.name == "eth0"]

    assert eth0.mac == machine_mac(["172.18.0.3"])


def test_building_again_asks_for_nothing_that_is_there(host: FakeHost) -> None:
    before = host.netlink("lab.underlay").links()

    _build(host, {link.name for link in before})

    assert before == host.netlink("lab.underlay").links()


def test_pod_is_laid_as_kindnet_lays_it(host: FakeHost) -> None:
    host = FakeHost("node", "pod")
    host.netlink("node").apply(*pods.node_side(["10.244.1.1"], ["10.244.1.5"], "veth1", "pod", 1500))
    host.netlink("pod").apply(*pods.pod_side(NODES[1], ["10.244.1.5"]))

    assert [(route.to, route.hops[0].via) for route in host.netlink("pod").routes()] == [
        ("10.244.1.1/32", ""),
        ("default", "10.244.1.1"),
        ("10.244.1.0/24", "10.244.1.1"),
    ]


def test_held_addresses_are_read_from_routes(host: FakeHost) -> None:
    host = FakeHost("node", "pod")
    netlink = host.netlink("node")
    netlink.apply(*pods.node_side(["10.244.1.1", "fd00::1"], ["10.244.1.5", "fd00::5"], "veth1", "pod", 1500))

    assert pods.held(netlink.links(), netlink.routes()) == {"10.244.1.5": "veth1", "fd00::5": "veth1"}


@pytest.mark.parametrize(
    ("name", "port"),
    [
        pytest.param("worker-1", "worker-1", id="short"),
        pytest.param("a-very-long-worker", "veth8ef1b8ad", id="longer than a link's name may be"),
        pytest.param("br-nodes", "veth4d8bd9d9", id="taken by a switch"),
    ],
)
def test_port_of_the_underlay_is_named_after_its_machine(name: str, port: str) -> None:
    plan = NetworkPlan("lab", nodes=(NodePlan(name, ("172.18.0.2",), ("10.244.0.0/24",)),))

    (named,) = plan.ports.values()

    assert len(named) <= 15
    assert named == (name if port == name else names.host_veth(f"lab.node.{name}"))


def test_client_of_a_nodes_name_gets_another_port() -> None:
    plan = NetworkPlan("lab", nodes=NODES[:1], clients=(ClientPlan("n0", ("203.0.113.10",)),))

    assert len(set(plan.ports.values())) == 2


def test_namespaces_of_a_lab_are_told_from_those_of_a_longer_name() -> None:
    assert names.of_lab("lab", ["lab.underlay", "lab.pod.shop.web", "lab-2.underlay", "labs.node.n0", "lab"]) == [
        "lab.underlay",
        "lab.pod.shop.web",
    ]


def test_namespace_of_the_longest_pod_name_fits_a_file_name() -> None:
    one, two = (names.pod_netns("l" * 63, "n" * 63, "p" * 252 + last) for last in "ab")

    assert len(one) <= 255
    assert one != two


@pytest.mark.parametrize(("cidr", "first"), [("10.244.1.0/24", "10.244.1.1"), ("10.0.0.4/32", "10.0.0.4")])
def test_gateway_is_the_first_address(cidr: str, first: str) -> None:
    assert first_address(cidr) == first


def test_addresses_go_round_before_one_is_used_again() -> None:
    ipam = Ipam("10.244.0.0/29")
    given = []
    for owner in "abcdef":
        given.append(ipam.allocate(owner))
        ipam.release(owner)

    assert [address[-1] for address in given] == ["2", "3", "4", "5", "6", "2"]


def test_owner_keeps_its_address() -> None:
    ipam = Ipam("10.244.0.0/24")

    assert ipam.allocate("a") == ipam.allocate("a") == "10.244.0.2"


def test_restarted_allocation_goes_on_after_the_highest() -> None:
    ipam = Ipam("10.244.0.0/24", {"10.244.0.7": "a"})

    assert (ipam.allocate("b"), ipam.owner("10.244.0.7")) == ("10.244.0.8", "a")


@pytest.mark.parametrize(("cidr", "size"), [("10.244.0.0/30", 1), ("10.244.0.0/31", 0), ("10.244.0.0/32", 0)])
def test_full_range_is_refused(cidr: str, size: int) -> None:
    ipam = Ipam(cidr)
    for number in range(size):
        ipam.allocate(str(number))

    with pytest.raises(KernelError, match="no addresses available"):
        ipam.allocate("one too many")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        pytest.param(LinkPlan("n0"), "", id="no limits"),
        pytest.param(LinkPlan("n0", rate=10**7), "tbf rate 10000000bit burst 32768 latency 50ms", id="a rate"),
        pytest.param(LinkPlan("n0", rate=10**9), "tbf rate 1000000000bit burst 1250000 latency 50ms", id="a high rate"),
        pytest.param(LinkPlan("n0", delay=0.01, loss=0.05), "netem delay 10000us loss 5%", id="delay and loss"),
        pytest.param(LinkPlan("n0", rate=10**6, loss=0.5), "netem loss 50% rate 1000000bit", id="all by netem"),
    ],
)
def test_queueing_discipline_of(link: LinkPlan, words: str) -> None:
    assert " ".join(shaping.qdisc(link)) == words
