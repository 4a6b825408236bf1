"""ipvs mode, its end: what another mode leaves standing for open connections, and when that goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netemu.kernel import ipvs
from netemu.kernel.ipvs import ServerKey, VirtualServer
from netemu.model.errors import KernelError
from netemu.proxy import ipvs_leaving
from netemu.proxy.ipvs_mode import leave
from netemu.proxy.services import Family
from netemu.testing.iptables import FakeIptables
from netemu.testing.packets import Packet
from tests.unit.ipvs_world import IpvsBed, IpvsProxy
from tests.unit.proxy_world import NODE, endpoint_slice, service

VIP = ServerKey("tcp", "172.30.0.10", 80)
NODE_PORT = ServerKey("tcp", "192.168.0.2", 30080)
WEB = service(type="NodePort", node_ports={"http": 30080})
HERE, THERE = ("10.180.0.1", "test-node"), ("10.180.1.1", "node-b")
A, B = "10.180.0.1:8080", "10.180.1.1:8080"
BOTH = endpoint_slice("default/web", [HERE, THERE])
CLIENT = "203.0.113.9"


async def working(protocol: str = "TCP") -> IpvsProxy:
    """A node with a Service that has connections, and one that has none."""
    proxy = IpvsProxy()
    ports, targets = {"http": f"80/{protocol}"}, {"http": f"8080/{protocol}"}
    await proxy.sync(
        service(type="NodePort", ports=ports, node_ports={"http": 30080}),
        endpoint_slice("default/web", [HERE, THERE], targets),
        service("default/idle", "172.30.0.11"),
        endpoint_slice("default/idle", [HERE]),
        full=True,
    )
    return proxy


def standing(bed: IpvsBed) -> dict[tuple[str, str, int], dict[str, int]]:
    return dict(bed.balancer.weights)


def has_link(bed: IpvsBed) -> bool:
    return any(link.name == "kube-ipvs0" for link in bed.links.links())


async def test_open_connections_keep_their_way_and_nobody_else_does() -> None:
    proxy = await working()
    proxy.bed.balancer.connect(VIP, CLIENT, B)
    await proxy.leave()

    assert standing(proxy.bed) == {tuple(VIP)[:3]: {B: 0}}
    assert (proxy.bed.bound, proxy.bed.sets.names()) == ({"172.30.0.10"}, [])


@pytest.mark.parametrize(("protocol", "stays"), [("TCP", True), ("SCTP", True), ("UDP", False)])
async def test_what_has_an_end_is_waited_for(protocol: str, stays: bool) -> None:
    proxy = await working(protocol)
    proxy.bed.balancer.connect(VIP._replace(protocol=protocol.lower()), CLIENT, B)
    await proxy.leave()

    assert bool(standing(proxy.bed)) == has_link(proxy.bed) == stays


async def test_it_goes_when_the_connections_have_ended() -> None:
    proxy = await working()
    for key in (VIP, NODE_PORT):
        proxy.bed.balancer.connect(key, CLIENT, B)
    await proxy.leave()
    proxy.bed.balancer.disconnect(VIP, B)
    first = ipvs_leaving.tidy(proxy.edge)
    left, bound = standing(proxy.bed), proxy.bed.bound
    proxy.bed.balancer.disconnect(NODE_PORT, B)
    second = ipvs_leaving.tidy(proxy.edge)

    assert (first, left, bound) == (True, {tuple(NODE_PORT)[:3]: {B: 0}}, set())
    assert (second, standing(proxy.bed), has_link(proxy.bed)) == (False, {}, False)


async def test_who_comes_later_knows_it_from_the_kernel() -> None:
    proxy = await working()
    proxy.bed.balancer.connect(VIP, CLIENT, B)
    await proxy.leave()
    later = IpvsProxy(proxy.bed)
    waiting = ipvs_leaving.tidy(later.edge)
    proxy.bed.balancer.disconnect(VIP, B)

    assert waiting
    assert not ipvs_leaving.tidy(later.edge)
    assert not has_link(proxy.bed)


async def test_a_mode_at_work_is_left_alone() -> None:
    proxy = await working()
    before = standing(proxy.bed)

    assert not ipvs_leaving.tidy(proxy.edge)
    assert (standing(proxy.bed), has_link(proxy.bed)) == (before, True)


async def test_the_link_waits_for_both_families() -> None:
    four = await working()
    six = IpvsProxy(four.bed, node=replace(NODE, family=Family.IPV6, node_ip="fd00:192::2"), iptables=FakeIptables())
    both = service(ipFamilies=["IPv4", "IPv6"], clusterIPs=["172.30.0.10", "fd00:172::a"])
    pods = endpoint_slice("default/web", [("fd00:10::1", "test-node")], suffix="6", address_type="IPv6")
    await six.sync(both, pods, full=True)
    key = ServerKey("tcp", "fd00:172::a", 80)
    four.bed.balancer.connect(key, "fd00:203::9", "[fd00:10::1]:8080")
    await four.leave()
    await six.leave()
    waiting = [ipvs_leaving.tidy(proxy.edge) for proxy in (four, six)]
    bound = four.bed.bound
    four.bed.balancer.disconnect(key, "[fd00:10::1]:8080")
    for proxy in (four, six):
        ipvs_leaving.tidy(proxy.edge)

    assert (waiting, bound) == ([True, True], {"fd00:172::a"})
    assert (standing(four.bed), has_link(four.bed)) == ({}, False)


async def test_foreign_virtual_servers_keep_neither_link_nor_anything() -> None:
    bed = IpvsBed()
    yours = ServerKey("tcp", "10.2.0.1", 80)
    bed.balancer.apply(ipvs.AddServer(VirtualServer(yours)))
    proxy = IpvsProxy(bed, excluded=["10.2.0.0/16"])
    await proxy.sync(WEB, BOTH, full=True)
    await proxy.leave()

    assert [server.key for server in bed.balancer.servers()] == [yours]
    assert not has_link(bed)


async def test_coming_back_meanwhile_takes_over_what_is_left() -> None:
    proxy = await working()
    proxy.bed.balancer.connect(VIP, CLIENT, B)
    await proxy.leave()
    again = IpvsProxy(proxy.bed)
    await again.sync(WEB, BOTH, full=True)

    assert again.bed.view().trace(Packet("10.180.0.9", "172.30.0.10", 80)).destinations == {A, B}
    assert {each.target: each.active for each in again.bed.balancer.destinations(VIP)}[B] == 1


# --- both families, both kinds of iptables


async def test_one_that_cannot_be_removed_keeps_none_of_the_others_from_going() -> None:
    four, six = await working(), IpvsProxy(node=replace(NODE, family=Family.IPV6, node_ip="fd00:192::2"))
    await six.sync(full=True)
    foreign = "*filter\n{} OUTPUT -m set --match-set KUBE-CLUSTER-IP dst -j ACCEPT\nCOMMIT\n"
    await four.bed.iptables.restore(foreign.format("-A"))

    with pytest.raises(KernelError, match="KUBE-CLUSTER-IP"):
        await leave([four.programmer, six.programmer], None)
    assert (has_link(six.bed), six.bed.sets.names()) == (False, [])

    await four.bed.iptables.restore(foreign.format("-D"))
    await leave([four.programmer, six.programmer], None)
    assert (has_link(four.bed), four.bed.sets.names()) == (False, [])


async def test_sets_that_rules_of_the_other_kind_of_iptables_refer_to_go_after_these() -> None:
    proxy = await working()

    await leave([IpvsProxy(proxy.bed, iptables=FakeIptables()).programmer, proxy.programmer], None)

    assert (has_link(proxy.bed), proxy.bed.sets.names()) == (False, [])
