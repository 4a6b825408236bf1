"""Delay and loss of links, measured with packets: netem, which few kernels of containers and small machines have."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from netemu.kernel import netns
from netemu.network import names, shaping, underlay
from netemu.network.plan import ClientPlan, LinkPlan, NetworkPlan, NodePlan

LAB = "t-vm-links"
NODES = tuple(NodePlan(f"n{i}", (f"172.18.0.{i + 2}",), (f"10.244.{i}.0/24",)) for i in range(2))
PLAN = NetworkPlan(LAB, nodes=NODES, clients=(ClientPlan("laptop", ("203.0.113.10",)),))
N0, N1 = (names.node_netns(LAB, node.name) for node in NODES)
LAPTOP = names.client_netns(LAB, "laptop")
DELAY = 0.4
"""Far above what an emulated processor needs for a packet."""


@pytest.fixture
def lab() -> Iterator[NetworkPlan]:
    underlay.destroy(LAB)
    underlay.build(PLAN)
    yield PLAN
    underlay.destroy(LAB)


def udp(where: str, timeout: float = 30.0) -> socket.socket:
    with netns.entered(where):
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.settimeout(timeout)
    return found


def round_trip(source: str, destination: str, address: str) -> float:
    """Seconds until an answer is back, the second time: the first packets also make caches warm."""
    with udp(source) as asking, udp(destination) as answering:
        answering.bind((address, 7))
        for _ in range(2):
            begin = time.monotonic()
            asking.sendto(b"?", (address, 7))
            _, back = answering.recvfrom(16)
            answering.sendto(b"!", back)
            asking.recv(16)
    return time.monotonic() - begin


def arrived(count: int, source: str, destination: str, address: str) -> int:
    """How many of `count` packets arrive."""
    with udp(source) as sending, udp(destination, timeout=2.0) as receiving:
        receiving.bind((address, 7))
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for _ in range(count):
            sending.sendto(b"?", (address, 7))
        found = 0
        while True:
            try:
                receiving.recv(16)
            except TimeoutError:
                return found
            found += 1


def test_without_limits_packets_are_quick_and_all_arrive(lab: NetworkPlan) -> None:
    assert round_trip(N0, N1, NODES[1].addresses[0]) < DELAY
    assert arrived(200, N0, N1, NODES[1].addresses[0]) == 200


def test_delay_applies_to_each_direction(lab: NetworkPlan) -> None:
    shaping.shape(lab, LinkPlan("n1", delay=DELAY))

    assert 2 * DELAY <= round_trip(N0, N1, NODES[1].addresses[0]) < 4 * DELAY


def test_delays_of_two_links_add_up(lab: NetworkPlan) -> None:
    for machine in ("laptop", "n1"):
        shaping.shape(lab, LinkPlan(machine, delay=DELAY))

    assert 4 * DELAY <= round_trip(LAPTOP, N1, NODES[1].addresses[0]) < 6 * DELAY


def test_links_of_others_are_not_delayed(lab: NetworkPlan) -> None:
    shaping.shape(lab, LinkPlan("n1", delay=DELAY))

    assert round_trip(LAPTOP, N0, NODES[0].addresses[0]) < DELAY


def test_loss_takes_its_share_of_packets(lab: NetworkPlan) -> None:
    shaping.shape(lab, LinkPlan("n1", loss=0.5))

    # Six standard deviations to either side.
    assert 58 <= arrived(200, N0, N1, NODES[1].addresses[0]) <= 142


def test_a_lost_link_carries_nothing(lab: NetworkPlan) -> None:
    shaping.shape(lab, LinkPlan("n1", loss=1.0))

    assert arrived(20, N0, N1, NODES[1].addresses[0]) == 0


def test_limits_are_taken_away(lab: NetworkPlan) -> None:
    shaping.shape(lab, LinkPlan("n1", delay=DELAY, loss=0.5))
    shaping.shape(lab, LinkPlan("n1"))

    assert round_trip(N0, N1, NODES[1].addresses[0]) < DELAY
    assert arrived(50, N0, N1, NODES[1].addresses[0]) == 50


def test_links_of_a_plan_are_slow_from_the_start() -> None:
    plan = NetworkPlan(LAB, nodes=NODES, links=(LinkPlan("n0", delay=DELAY, rate=100_000_000),))
    underlay.build(plan)
    try:
        assert round_trip(N0, N1, NODES[1].addresses[0]) >= 2 * DELAY
    finally:
        underlay.destroy(LAB)
