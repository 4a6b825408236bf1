"""Whole networks: built, crossed by real packets, kept apart, and removed without a trace.

Address plan: nodes 172.18.0.2 and fc00::2 and on, Pods 10.244.N.2 and fd00:0:0:N::2 and on, clients 203.0.113.10 and
2001:db8:113::10 and on.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from msgspec.structs import replace

from netemu.kernel import netns, sysctl
from netemu.kernel.netlink import Netlink
from netemu.model.errors import KernelError, KernelNotFound, UserError
from netemu.network import names, shaping, underlay
from netemu.network.plan import ClientPlan, LinkPlan, NetworkPlan, NodePlan
from netemu.network.pods import PodNetwork

LAB = "t-network-a"
NODES = tuple(
    NodePlan(f"n{i}", (f"172.18.0.{i + 2}", f"fc00::{i + 2}"), (f"10.244.{i}.0/24", f"fd00:0:0:{i}::/64"))
    for i in range(3)
)
PLAN = NetworkPlan(
    LAB,
    node_networks=("172.18.0.0/16", "fc00::/64"),
    load_balancer_pools=("172.18.255.0/24", "fc00::ff:0/112"),
    nodes=NODES,
    clients=(ClientPlan("laptop", ("203.0.113.10", "2001:db8:113::10")),),
    client_networks=("203.0.113.0/24", "2001:db8:113::/64"),
)
N0, N1 = (names.node_netns(LAB, node.name) for node in NODES[:2])
LAPTOP = names.client_netns(LAB, "laptop")


@pytest.fixture
def lab() -> Iterator[NetworkPlan]:
    underlay.build(PLAN)
    yield PLAN
    underlay.destroy(LAB)


@pytest.fixture
def pods(lab: NetworkPlan) -> Iterator[dict[str, str]]:
    """Two Pods on n0, one on n1: name to first address."""
    with pod_networks(lab) as networks:
        yield {pod: _pod(lab, networks[node], pod) for pod, node in (("a", 0), ("b", 0), ("c", 1))}


@contextmanager
def pod_networks(plan: NetworkPlan) -> Iterator[list[PodNetwork]]:
    networks = [PodNetwork(plan.lab, node) for node in plan.nodes]
    yield networks
    for network in networks:
        network.close()


def _pod(plan: NetworkPlan, network: PodNetwork, name: str) -> str:
    """A new Pod; its first address."""
    netns.create(names.pod_netns(plan.lab, "shop", name))
    return network.add(names.pod_netns(plan.lab, "shop", name))[0]


def pod(name: str) -> str:
    return names.pod_netns(LAB, "shop", name)


@contextmanager
def server(netns_name: str, answer: bytes = b"", port: int = 80) -> Iterator[None]:
    """Answers connections with the client's address as it sees it, and `answer`."""
    with netns.entered(netns_name):
        listening = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)

    def serve() -> None:
        while True:
            try:
                connection, client = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(client[0].removeprefix("::ffff:").encode() + answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()


def connect(netns_name: str, address: str, port: int = 80, timeout: float = 2) -> str:
    with netns.entered(netns_name):
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with client:
        client.settimeout(timeout)
        client.connect((address, port))
        return client.recv(100).decode()


@pytest.mark.parametrize(
    ("source", "seen_as"),
    [
        pytest.param(pod("a"), "10.244.0.2", id="a Pod of the same node"),
        pytest.param(pod("c"), "10.244.1.2", id="a Pod of another node"),
        pytest.param(pod("b"), "10.244.0.3", id="itself"),
        pytest.param(N0, "10.244.0.1", id="its node, by the gateway address"),
        pytest.param(N1, "172.18.0.3", id="another node"),
        pytest.param(LAPTOP, "203.0.113.10", id="a client outside"),
    ],
)
def test_pod_is_reached_with_the_source_address_of(pods: dict[str, str], source: str, seen_as: str) -> None:
    with server(pod("b")):
        assert seen_as == connect(source, pods["b"])


@pytest.mark.parametrize(
    ("source", "seen_as"),
    [
        pytest.param(pod("a"), "fd00::2", id="a Pod of the same node"),
        pytest.param(pod("c"), "fd00:0:0:1::2", id="a Pod of another node"),
        pytest.param(pod("b"), "fd00::3", id="itself"),
        pytest.param(N0, "fd00::1", id="its node, by the gateway address"),
        pytest.param(N1, "fc00::3", id="another node"),
        pytest.param(LAPTOP, "2001:db8:113::10", id="a client outside"),
    ],
)
def test_pod_is_reached_over_ipv6_with_the_source_address_of(pods: dict[str, str], source: str, seen_as: str) -> None:
    with server(pod("b")):
        assert seen_as == connect(source, "fd00::3")


@pytest.mark.parametrize(
    ("source", "seen_as"),
    [
        pytest.param(N1, "172.18.0.3", id="another node"),
        pytest.param(pod("a"), "10.244.0.2", id="a Pod of its own"),
        pytest.param(pod("c"), "10.244.1.2", id="a Pod of another node"),
        pytest.param(LAPTOP, "203.0.113.10", id="a client outside"),
    ],
)
def test_node_is_reached_with_the_source_address_of(pods: dict[str, str], source: str, seen_as: str) -> None:
    with server(N0):
        assert seen_as == connect(source, "172.18.0.2")


def test_pod_reaches_a_client_outside(pods: dict[str, str]) -> None:
    with server(LAPTOP):
        assert connect(pod("c"), "203.0.113.10") == "10.244.1.2"
        assert connect(pod("c"), "2001:db8:113::10") == "fd00:0:0:1::2"


@pytest.mark.parametrize(("address", "seen_as"), [("172.18.255.1", "203.0.113.10"), ("fc00::ff:1", "2001:db8:113::10")])
def test_load_balancer_pool_is_spread_over_all_nodes(lab: NetworkPlan, address: str, seen_as: str) -> None:
    with ExitStack() as servers:
        for node in NODES:
            where = names.node_netns(LAB, node.name)
            with Netlink(where):
                _run("ip", "-n", where, "addr", "add", address, "dev", "lo")
            servers.enter_context(server(where, f" {node.name}".encode()))

        answers = {connect(LAPTOP, address) for _ in range(60)}

    assert {f"{seen_as} n0", f"{seen_as} n1", f"{seen_as} n2"} == answers


def test_links_carry_packets_at_once(pods: dict[str, str]) -> None:
    shown = [_run("ip", "-o", "-n", where, "link") for where in names.of_lab(LAB, netns.names())]

    # Until the kernel has activated a link, its queueing discipline is one that drops everything.
    waiting = [line for text in shown for line in text.splitlines() if "qdisc noop " in line or "NO-CARRIER" in line]
    assert waiting == []


def test_large_datagram_crosses_in_fragments(pods: dict[str, str]) -> None:
    with netns.entered(pod("c")):
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(pod("a")):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listening, sender:
        listening.bind(("", 5000))
        listening.settimeout(2)

        sender.sendto(b"x" * 9000, (pods["c"], 5000))

        assert len(listening.recv(65535)) == 9000


def test_no_neighbour_is_ever_learnt(pods: dict[str, str]) -> None:
    with server(pod("c")), server(pod("b")), server(LAPTOP):
        for source in (pod("a"), N0, N1, LAPTOP):
            connect(source, pods["b"])
            connect(source, pods["c"])
            connect(source, "fd00::3")
            connect(source, "fd00:0:0:1::2")
        connect(pod("c"), "203.0.113.10")
        connect(pod("c"), "2001:db8:113::10")

    for where in names.of_lab(LAB, netns.names()):
        with Netlink(where) as netlink:
            # Multicast entries are no neighbours: the kernel drops them at will.
            learnt = [each for each in netlink.neighbours() if not each.permanent and not each.address.startswith("ff")]
        assert learnt == []


def test_pod_may_ping_and_bind_any_port_without_privileges(pods: dict[str, str]) -> None:
    assert sysctl.read("net.ipv4.ip_unprivileged_port_start", pod("a")) == "0"
    assert sysctl.read("net.ipv4.ping_group_range", pod("a")) == "0\t2147483647"


def test_pod_routes_are_those_of_kindnet(pods: dict[str, str]) -> None:
    shown = _run("ip", "-n", pod("a"), "-4", "route").replace(" proto static", "")

    assert [line.strip() for line in shown.splitlines()] == [
        "default via 10.244.0.1 dev eth0",
        "10.244.0.0/24 via 10.244.0.1 dev eth0 src 10.244.0.2",
        "10.244.0.1 dev eth0 scope link src 10.244.0.2",
    ]


def test_adding_a_pod_twice_gives_one_address(lab: NetworkPlan) -> None:
    with pod_networks(lab) as networks:
        first = _pod(lab, networks[0], "a")

        assert (first, "fd00::2") == networks[0].add(pod("a"))


def test_restarted_pod_network_knows_who_has_which_address(pods: dict[str, str], lab: NetworkPlan) -> None:
    with pod_networks(lab) as networks:
        assert networks[0].add(pod("b")) == (pods["b"], "fd00::3")
        netns.create(pod("new"))
        assert networks[0].add(pod("new")) == ("10.244.0.4", "fd00::4")


def test_deleted_pod_frees_its_address_and_no_way_leads_to_it(lab: NetworkPlan) -> None:
    network = PodNetwork(LAB, NodePlan("n0", ("172.18.0.2",), ("10.244.0.0/30",)))
    address = _pod(lab, network, "a")

    network.delete(pod("a"))
    network.delete(pod("a"))

    assert address not in _run("ip", "-n", N0, "route")
    assert address == _pod(lab, network, "b")
    network.close()


def test_pod_is_connected_again_after_a_deletion(lab: NetworkPlan) -> None:
    with pod_networks(lab) as networks:
        _pod(lab, networks[0], "a")
        networks[0].delete(pod("a"))

        address = networks[0].add(pod("a"))[0]

        with server(pod("a")):
            assert connect(N0, address) == "10.244.0.1"


def test_pod_of_the_same_name_gets_a_new_link_after_its_namespace_went(lab: NetworkPlan) -> None:
    with pod_networks(lab) as networks:
        _pod(lab, networks[0], "a")
        netns.delete(pod("a"))

        address = _pod(lab, networks[0], "a")

        with server(pod("a")):
            assert connect(N0, address) == "10.244.0.1"


def test_full_range_says_so(lab: NetworkPlan) -> None:
    network = PodNetwork(LAB, NodePlan("n0", ("172.18.0.2",), ("10.244.0.0/30",)))
    _pod(lab, network, "a")

    with pytest.raises(KernelError, match=r"no addresses available in range 10\.244\.0\.0/30"):
        _pod(lab, network, "b")
    network.close()


def test_pod_without_a_namespace_costs_no_address(lab: NetworkPlan) -> None:
    network = PodNetwork(LAB, NodePlan("n0", ("172.18.0.2",), ("10.244.0.0/30",)))

    with pytest.raises(KernelNotFound, match="none"):
        network.add(pod("none"))

    assert _pod(lab, network, "a") == "10.244.0.2"
    network.close()


def test_building_again_changes_nothing(lab: NetworkPlan) -> None:
    before = {where: _state(where) for where in names.of_lab(LAB, netns.names())}

    underlay.build(PLAN)

    assert before == {where: _state(where) for where in names.of_lab(LAB, netns.names())}


def test_building_again_mends_what_is_missing(lab: NetworkPlan) -> None:
    netns.delete(N1)
    _run("ip", "-n", N0, "route", "del", "10.244.1.0/24")

    underlay.build(PLAN)

    with server(N1):
        assert connect(N0, "172.18.0.3") == "172.18.0.2"
    assert "10.244.1.0/24" in _run("ip", "-n", N0, "route")


def test_destroy_removes_the_lab_and_nothing_else() -> None:
    other = replace(PLAN, lab="t-network-ab", nodes=NODES[:1])
    underlay.build(PLAN)
    underlay.build(other)

    underlay.destroy(LAB)

    left = set(netns.names())
    underlay.destroy(other.lab)
    assert {"t-network-ab.underlay", "t-network-ab.node.n0"} <= left
    assert names.of_lab(LAB, left) == []


def test_two_labs_with_the_same_addresses_do_not_meet(pods: dict[str, str]) -> None:
    twin = replace(PLAN, lab="t-network-b")
    underlay.build(twin)
    try:
        with pod_networks(twin) as networks:
            here, there = pods["b"], [_pod(twin, networks[0], name) for name in ("a", "b")][1]
            with server(pod("b"), b" one"), server(names.pod_netns(twin.lab, "shop", "b"), b" two"):
                answers = connect(pod("a"), here), connect(names.pod_netns(twin.lab, "shop", "a"), there)
    finally:
        underlay.destroy(twin.lab)

    assert here == there
    assert answers == ("10.244.0.2 one", "10.244.0.2 two")


def test_host_network_is_byte_for_byte_the_same_meanwhile() -> None:
    before = _host()
    changes = subprocess.Popen(["ip", "monitor", "link"], stdout=subprocess.PIPE, text=True)
    underlay.build(PLAN)
    with pod_networks(PLAN) as networks:
        _pod(PLAN, networks[0], "a")
        during = _host()
        networks[0].delete(pod("a"))
    underlay.destroy(LAB)
    changes.terminate()

    assert before == during == _host()
    assert changes.communicate()[0] == ""


def test_rate_of_a_link_is_kept(lab: NetworkPlan) -> None:
    shaping.shape(lab, LinkPlan("n1", rate=10_000_000))

    assert "rate 10Mbit" in _run("tc", "-n", N1, "qdisc", "show", "dev", "eth0")
    assert "rate 10Mbit" in _run("tc", "-n", names.underlay_netns(LAB), "qdisc", "show", "dev", "n1")


def test_limits_of_a_link_are_taken_away(lab: NetworkPlan) -> None:
    shaping.shape(lab, LinkPlan("n1", rate=10_000_000))
    shaping.shape(lab, LinkPlan("n1"))

    assert "tbf" not in _run("tc", "-n", N1, "qdisc", "show", "dev", "eth0")


def test_delay_is_there_or_refused_by_name(lab: NetworkPlan) -> None:
    try:
        shaping.shape(lab, LinkPlan("n1", delay=0.01))
    except KernelError as err:
        shown = str(err)
    else:
        shown = _run("tc", "-n", N1, "qdisc", "show", "dev", "eth0")

    assert "delay 10ms" in shown or "no sch_netem" in shown


def test_link_of_no_machine_is_refused(lab: NetworkPlan) -> None:
    with pytest.raises(UserError, match="no node or client"):
        shaping.shape(lab, LinkPlan("n9", rate=1))


def _state(where: str) -> list[str]:
    """What was configured there; operational states and IPv6's own addresses settle when they like."""
    links = json.loads(_run("ip", "-n", where, "-j", "link"))
    found = [str([link.get(field) for field in ("ifname", "mtu", "address", "master", "link_index")]) for link in links]
    for part in (["-4", "-o", "addr"], ["-4", "route", "show", "table", "all"], ["neigh", "show", "nud", "permanent"]):
        found += sorted(line.replace("linkdown ", "") for line in _run("ip", "-n", where, *part).splitlines())
    return found


def _host() -> list[str]:
    asked = (
        ["ip", "-d", "link"], ["ip", "addr"], ["ip", "route", "show", "table", "all"], ["ip", "rule"],
        ["sysctl", "net.ipv4.ip_forward"], ["nft", "list", "ruleset"], ["iptables-save"],
    )  # fmt: skip
    # Counters and the time of day are not ours to keep.
    return [line for argv in asked for line in _run(*argv).splitlines() if not line.startswith(("#", ":"))]


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
