"""What single connections see, on the smallest network that can answer, refuse, be silent, or not be there."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from netemu.kernel import netns
from netemu.observe.matrix.measure import Ask, measure
from netemu.observe.predict import Outcome

NAMESPACE = "t-measure"
ANSWERED, REFUSED, DROPPED, UNREACHABLE = Outcome
OPEN, CLOSED = 7001, 7002


@pytest.fixture(scope="module")
def listening() -> Iterator[None]:
    """A namespace with loopback; packets to 127.0.0.9 and ::9 are dropped as they come in."""
    netns.delete(NAMESPACE)
    netns.create(NAMESPACE)
    try:
        for command in ("ip link set lo up", "ip -6 addr add ::9/128 dev lo"):
            subprocess.run(["ip", "-n", NAMESPACE, *command.split()[1:]], check=True)
        subprocess.run(["ip", "netns", "exec", NAMESPACE, "nft", "-f", "-"], input=_DROP, text=True, check=True)
        with netns.entered(NAMESPACE):
            servers = [socket.create_server((address, OPEN), family=family) for address, family in ADDRESSES.items()]
        yield
        for server in servers:
            server.close()
    finally:
        netns.delete(NAMESPACE)


_DROP = """
table inet t {
    chain c {
        type filter hook input priority 0;
        ip daddr 127.0.0.9 drop
        ip6 daddr ::9 drop
    }
}
"""
ADDRESSES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}
CASES = [
    ("127.0.0.1", OPEN, "TCP", ANSWERED),
    ("::1", OPEN, "TCP", ANSWERED),
    ("127.0.0.1", CLOSED, "TCP", REFUSED),
    ("::1", CLOSED, "UDP", REFUSED),
    ("127.0.0.1", CLOSED, "UDP", REFUSED),
    ("127.0.0.9", OPEN, "TCP", DROPPED),
    ("::9", OPEN, "UDP", DROPPED),
    ("192.0.2.1", OPEN, "TCP", UNREACHABLE),
    ("2001:db8::1", OPEN, "UDP", UNREACHABLE),
]


@pytest.mark.usefixtures("listening")
async def test_every_outcome_is_seen_at_the_same_time() -> None:
    asks = [Ask(NAMESPACE, address, port, protocol, (outcome,)) for address, port, protocol, outcome in CASES]

    found = await measure(asks, timeout=2)

    assert [(*case[:3], each.outcome) for case, each in zip(CASES, found, strict=True)] == CASES
    assert all(each.server == "" for each in found)  # a server that only accepts says nothing of itself


@pytest.mark.usefixtures("listening")
async def test_refusals_of_one_node_are_asked_for_one_after_the_other() -> None:
    asks = [Ask(NAMESPACE, "127.0.0.1", CLOSED, "TCP", (REFUSED,), refused_by="n1") for _ in range(20)]

    assert {each.outcome for each in await measure(asks, timeout=2)} == {REFUSED}


async def test_from_a_namespace_that_is_gone_nothing_is_reached() -> None:
    (found,) = await measure([Ask("t-gone", "127.0.0.1", OPEN, "TCP", (ANSWERED,))])

    assert found.outcome is UNREACHABLE
    assert "t-gone" in found.detail
