"""Changes of mode to and from ipvs with connections that talk all the time: none of them may notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netemu.kernel.ipvs import IpvsNetlink
from tests.kernel.proxy_bed import (
    CLIENT,
    NODE,
    NODE_OUTSIDE,
    ask,
    build,
    destroy,
    echoes,
    endpoint_ns,
    sh,
)
from tests.vm.ipvs_bed import HERE, NODE_PORT, VIP, api_with, node, off, proxy, until
from tests.vm.talk import Talk

BALANCER = "1.2.3.4"
WAYS = {
    "outside to ClusterIP": (CLIENT, VIP, 80),
    "outside to node port": (CLIENT, NODE_OUTSIDE, NODE_PORT),
    "outside to load balancer": (CLIENT, BALANCER, 80),
    "Pod to ClusterIP": (endpoint_ns(1), VIP, 80),
    "node to ClusterIP": (NODE, VIP, 80),
    "node to node port": (NODE, NODE_OUTSIDE, NODE_PORT),
}


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build()
    try:
        yield
    finally:
        destroy()


async def test_no_connection_notices_whatever_the_mode_that_it_was_opened_in(tmp_path: Path) -> None:
    api = api_with(HERE)
    with echoes(), Talk(WAYS, ask) as talk:
        async with proxy(api, tmp_path, annotated=True) as server:
            await off(talk.open, "ipvs")
            for mode in ("iptables", "ipvs", "nftables", "ipvs"):
                api.put(node(mode))
                await until(lambda: server.mode, mode.__eq__)
                await off(talk.open, mode)

    assert talk.complaints() == {}


async def test_a_change_that_was_interrupted_is_finished_and_what_stayed_goes_after_a_restart_too(
    tmp_path: Path,
) -> None:
    api = api_with(HERE)
    with echoes(), ExitStack() as stack:
        async with proxy(api, tmp_path, annotated=True):
            talk = stack.enter_context(Talk(WAYS, ask))
            await off(talk.open, "ipvs")
        api.put(node("iptables"))
        async with proxy(api, tmp_path, annotated=True):
            await until(lambda: "KUBE" not in sh(NODE, "ipset", "list", "-name"))
            await off(talk.more)
            rules, left = sh(NODE, "iptables-save"), servers()
        async with proxy(api, tmp_path, annotated=True):
            await off(talk.more)
            stack.close()
            await until(lambda: not servers())
            links = sh(NODE, "ip", "link")

    assert talk.complaints() == {}
    assert ("KUBE-IPVS" in rules, left) == (False, len({way[1:] for way in WAYS.values()}))
    assert "kube-ipvs0" not in links


def servers() -> int:
    """How many virtual servers the node has."""
    kernel = IpvsNetlink(NODE)
    try:
        return len(kernel.servers())
    finally:
        kernel.close()
