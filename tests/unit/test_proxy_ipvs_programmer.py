"""ipvs mode, the programmer on fakes: what it adopts, its order of work, how real servers leave, what it cleans."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from netemu.kernel import ipset, ipvs
from netemu.kernel.iptables import parse_save
from netemu.kernel.ipvs import Destination, ServerFlag, ServerKey, VirtualServer
from netemu.kernel.rtnetlink import AddAddress, DelAddress
from netemu.model.errors import KernelError, KernelNotFound
from netemu.proxy import rulefiles
from netemu.proxy.iptables_programmer import IptablesProgrammer
from netemu.proxy.ipvs_programmer import SWEEP_SECONDS
from netemu.proxy.ipvs_sets import IpSet
from netemu.proxy.services import Family
from netemu.testing.iptables import FakeIptables
from netemu.testing.packets import Packet
from tests.unit import ipvs_dump
from tests.unit.ipvs_dump import saved_servers, saved_sets
from tests.unit.ipvs_world import IpvsBed, IpvsProxy, programmed
from tests.unit.proxy_world import BASE, DATA, NODE, endpoint_slice, service, world

VIP = ServerKey("tcp", "172.30.0.10", 80)
WEB = service()
A, B = "10.180.0.1:8080", "10.180.1.1:8080"
HERE, THERE = ("10.180.0.1", "test-node"), ("10.180.1.1", "node-b")
BOTH, ONLY_HERE = endpoint_slice("default/web", [HERE, THERE]), endpoint_slice("default/web", [HERE])
FRONT = ("tcp", "172.30.0.10", 80)


def dump(bed: IpvsBed) -> str:
    """Everything that the bed holds."""
    return ipvs_dump.dump(saved_sets(bed.sets), saved_servers(bed.balancer), bed.iptables.tables, bed.bound)


async def test_one_world_with_every_feature_comes_to_the_golden_dump() -> None:
    services, slices = world()

    bed = await programmed(*services, *slices)

    assert dump(bed) == (DATA / "ipvs-world.dump").read_text()


# --- syncs


async def test_a_restart_with_nothing_changed_asks_nothing_of_the_kernel() -> None:
    services, slices = world()
    first = IpvsProxy()
    await first.sync(*services, *slices, full=True)
    asked = first.bed.asked

    await IpvsProxy(first.bed).sync(*services, *slices, full=True)

    assert first.bed.asked == asked


@pytest.mark.parametrize("seed", range(4))
async def test_partial_syncs_come_to_the_same_as_a_full_one(seed: int) -> None:
    services, slices = world()
    proxy = IpvsProxy()
    await proxy.sync(full=True)
    for index in range(len(services)):
        await proxy.sync(services[(index + seed) % len(services)])
    for piece in slices:
        await proxy.sync(piece)

    assert dump(proxy.bed) == dump(await programmed(*services, *slices))


async def test_everything_of_a_deleted_service_goes() -> None:
    proxy = IpvsProxy()
    await proxy.sync(full=True)
    before = dump(proxy.bed)
    await proxy.sync(WEB, BOTH)
    proxy.remove(WEB, BOTH)
    await proxy.sync()

    assert dump(proxy.bed) == before


async def test_an_address_stays_while_another_port_of_the_service_needs_it() -> None:
    proxy = IpvsProxy()
    await proxy.sync(service(ports={"http": 80, "https": 443}), BOTH, full=True)
    await proxy.sync(service(ports={"https": 443}))

    assert proxy.bed.bound == {"172.30.0.10"}
    assert list(proxy.bed.balancer.weights) == [("tcp", "172.30.0.10", 443)]


async def test_one_endpoint_more_takes_one_request() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    asked = proxy.bed.asked
    await proxy.sync(endpoint_slice("default/web", [HERE, THERE, ("10.180.2.1", "node-c")]))

    assert proxy.bed.asked == asked + 1


async def test_others_are_served_while_the_kernel_takes_its_time() -> None:
    proxy, served, waited = IpvsProxy(), threading.Event(), []
    apply = proxy.bed.balancer.apply

    def slow(*requests: ipvs.Request) -> None:
        waited.append(served.wait(10))
        apply(*requests)

    proxy.bed.balancer.apply = slow  # type: ignore[method-assign]
    asyncio.get_running_loop().call_later(0.01, served.set)
    await proxy.sync(WEB, BOTH, full=True)

    assert set(waited) == {True}
    assert proxy.bed.balancer.weights[FRONT] == {A: 1, B: 1}


async def test_what_somebody_removed_comes_back_with_a_full_sync() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    before = dump(proxy.bed)
    proxy.bed.balancer.apply(ipvs.Flush())
    proxy.bed.sets.apply(ipset.Flush("KUBE-CLUSTER-IP"))
    proxy.bed.links.apply(DelAddress("kube-ipvs0", "172.30.0.10/32"))
    await proxy.bed.iptables.restore("*nat\n-F KUBE-SERVICES\nCOMMIT\n")
    await proxy.sync(full=True)

    assert dump(proxy.bed) == before


async def test_a_virtual_server_that_is_not_wanted_goes_unless_it_is_excluded() -> None:
    bed = IpvsBed()
    mine, yours, marked = ServerKey("tcp", "10.1.0.1", 80), ServerKey("tcp", "10.2.0.1", 80), ServerKey(fwmark=7)
    bed.balancer.apply(*(ipvs.AddServer(VirtualServer(key)) for key in (mine, yours, marked)))
    await IpvsProxy(bed, excluded=["10.2.0.0/16"]).sync(full=True)

    assert [server.key for server in bed.balancer.servers()] == [yours, marked]


async def test_a_virtual_server_found_with_other_settings_is_edited_in_place() -> None:
    bed = IpvsBed()
    bed.balancer.apply(ipvs.AddServer(VirtualServer(VIP, "wlc", 5, flags=ServerFlag.ONE_PACKET)))
    await IpvsProxy(bed, scheduler="mh").sync(service(affinity=60), BOTH, full=True)

    assert bed.balancer.servers() == [VirtualServer(VIP, "mh", 60, flags=ServerFlag.SCHED_2)]
    assert not any(isinstance(request, ipvs.DelServer) for request in bed.balancer.requests)


async def test_a_new_node_address_answers_node_ports_after_the_next_full_sync() -> None:
    proxy = IpvsProxy()
    await proxy.sync(service(type="NodePort", node_ports={"http": 30080}), BOTH, full=True)
    proxy.bed.links.apply(AddAddress("eth0", "192.168.8.2/24"))
    await proxy.sync(full=True)

    assert ("tcp", "192.168.8.2", 30080) in proxy.bed.balancer.weights


async def test_the_lowest_service_name_keeps_an_address_and_port_that_two_claim() -> None:
    proxy = IpvsProxy()
    other = service("default/again", "172.30.0.11", external_ips=["198.51.100.7"])
    await proxy.sync(service(external_ips=["198.51.100.7"]), BOTH, full=True)
    await proxy.sync(other, endpoint_slice("default/again", [("10.180.1.9", "node-b")]))
    front = ("tcp", "198.51.100.7", 80)
    claimed = set(proxy.bed.balancer.weights[front])
    proxy.remove(other)
    await proxy.sync()

    assert claimed == {"10.180.1.9:8080"}
    assert set(proxy.bed.balancer.weights[front]) == {A, B}
    assert "198.51.100.7" in proxy.bed.bound


# --- order


async def test_a_service_is_complete_before_its_address_lets_packets_in() -> None:
    bed = IpvsBed()
    seen: list[dict[str, int]] = []
    apply = bed.links.apply

    def watched(*requests: object) -> None:
        if any(isinstance(each, AddAddress) for each in requests):
            seen.append(dict(bed.balancer.weights[FRONT]))
        apply(*requests)  # type: ignore[arg-type]

    bed.links.apply = watched  # type: ignore[method-assign]
    await IpvsProxy(bed).sync(WEB, BOTH, full=True)

    assert seen == [{A: 1, B: 1}]


async def test_a_failed_sync_is_made_good_by_the_next_full_one() -> None:
    proxy = IpvsProxy()
    await proxy.sync(full=True)
    proxy.bed.iptables.fail_next = "resource temporarily unavailable"
    with pytest.raises(KernelError):
        await proxy.sync(WEB, BOTH)
    await proxy.sync(full=True)

    assert dump(proxy.bed) == dump(await programmed(WEB, BOTH))


# --- real servers that leave


async def test_an_idle_real_server_goes_at_once() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    await proxy.sync(ONLY_HERE)

    assert proxy.bed.balancer.weights[FRONT] == {A: 1}


@pytest.mark.parametrize("kind", ["active", "inactive"])
async def test_a_real_server_with_connections_keeps_them_and_gets_no_new_one(kind: str) -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    proxy.bed.balancer.connect(VIP, "203.0.113.9", B, **{"active": 0, kind: 1})
    written = await proxy.sync(ONLY_HERE)

    assert proxy.bed.balancer.weights[FRONT] == {A: 1, B: 0}
    assert proxy.bed.view().trace(Packet("10.180.0.9", "172.30.0.10", 80)).destinations == {A}
    assert written.again == SWEEP_SECONDS


async def test_it_goes_when_it_is_seen_without_connections_a_minute_later() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    proxy.bed.balancer.connect(VIP, "203.0.113.9", B)
    await proxy.sync(ONLY_HERE)
    proxy.now += SWEEP_SECONDS
    await proxy.sync()
    still = dict(proxy.bed.balancer.weights[FRONT])
    proxy.bed.balancer.disconnect(VIP, B)
    proxy.now += SWEEP_SECONDS
    written = await proxy.sync()

    assert still == {A: 1, B: 0}
    assert proxy.bed.balancer.weights[FRONT] == {A: 1}
    assert written.again == 0


async def test_one_that_is_wanted_again_gets_its_weight_back_and_keeps_its_connections() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    proxy.bed.balancer.connect(VIP, "203.0.113.9", B)
    await proxy.sync(ONLY_HERE)
    await proxy.sync(BOTH)

    assert proxy.bed.balancer.weights[FRONT] == {A: 1, B: 1}
    assert {each.target: each.active for each in proxy.bed.balancer.destinations(VIP)}[B] == 1


async def test_after_a_restart_it_is_still_on_its_way_out() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    proxy.bed.balancer.connect(VIP, "203.0.113.9", B)
    await proxy.sync(ONLY_HERE)
    again = IpvsProxy(proxy.bed)
    await again.sync(WEB, ONLY_HERE, full=True)
    left = dict(proxy.bed.balancer.weights[FRONT])
    proxy.bed.balancer.disconnect(VIP, B)
    await again.sync(full=True)

    assert left == {A: 1, B: 0}
    assert proxy.bed.balancer.weights[FRONT] == {A: 1}


async def test_a_restart_sets_the_weights_of_wanted_real_servers_to_1() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    proxy.bed.balancer.apply(
        ipvs.EditDestination(VIP, Destination("10.180.0.1", 8080, 0)),
        ipvs.EditDestination(VIP, Destination("10.180.1.1", 8080, 7)),
    )
    await IpvsProxy(proxy.bed).sync(WEB, BOTH, full=True)

    assert proxy.bed.balancer.weights[FRONT] == {A: 1, B: 1}


async def test_udp_real_servers_go_at_once_whatever_they_do() -> None:
    proxy = IpvsProxy()
    udp = {"dns": "53/UDP"}
    await proxy.sync(service(ports=udp), endpoint_slice("default/web", [HERE, THERE], udp), full=True)
    proxy.bed.balancer.connect(ServerKey("udp", "172.30.0.10", 53), "203.0.113.9", "10.180.1.1:53")
    await proxy.sync(endpoint_slice("default/web", [HERE], udp))

    assert proxy.bed.balancer.weights["udp", "172.30.0.10", 53] == {"10.180.0.1:53": 1}


async def test_a_deleted_service_takes_its_connections_along() -> None:
    proxy = IpvsProxy()
    await proxy.sync(WEB, BOTH, full=True)
    proxy.bed.balancer.connect(VIP, "203.0.113.9", B)
    await proxy.sync(ONLY_HERE)
    proxy.remove(WEB)
    written = await proxy.sync()

    assert proxy.bed.balancer.servers() == []
    assert written.again == 0


# --- policies that find nothing here


async def test_services_whose_local_policy_finds_nothing_here_are_counted_once() -> None:
    ports = {"http": 80, "https": 443}
    proxy = IpvsProxy()
    written = await proxy.sync(
        service(ports=ports, type="LoadBalancer", ingress=["1.2.3.4"], external_policy="Local"),
        endpoint_slice("default/web", [THERE], {"http": 8080, "https": 8443}),
        full=True,
    )

    assert written.no_local == (0, 1)


# --- two families, cleaning up


async def test_two_families_share_the_link_and_leave_each_other_alone() -> None:
    bed = IpvsBed()
    node6 = replace(NODE, family=Family.IPV6, node_ip="fd00:192::2")
    four, six = IpvsProxy(bed), IpvsProxy(bed, node=node6, iptables=FakeIptables())
    both = service(ip="172.30.0.10", ipFamilies=["IPv4", "IPv6"], clusterIPs=["172.30.0.10", "fd00:172::a"])
    pieces = BOTH, endpoint_slice("default/web", [("fd00:10::1", "test-node")], suffix="6", address_type="IPv6")
    await four.sync(both, *pieces, full=True)
    await six.sync(both, *pieces, full=True)
    await four.sync(full=True)

    assert bed.bound == {"172.30.0.10", "fd00:172::a"}
    assert bed.balancer.weights[FRONT] == {A: 1, B: 1}
    assert bed.balancer.weights["tcp", "fd00:172::a", 80] == {"[fd00:10::1]:8080": 1}
    assert bed.sets.sets["KUBE-6-LOOP-BACK"] == ("hash:ip,port,ip", {"fd00:10::1,tcp:8080,fd00:10::1"})


def test_sets_of_ipv6_have_names_of_their_own_cut_to_what_ipset_takes() -> None:
    assert [of.named(Family.IPV6) for of in IpSet] == [
        "KUBE-6-LOOP-BACK", "KUBE-6-CLUSTER-IP", "KUBE-6-EXTERNAL-IP", "KUBE-6-EXTERNAL-IP-LOCAL",
        "KUBE-6-LOAD-BALANCER", "KUBE-6-LOAD-BALANCER-FW", "KUBE-6-LOAD-BALANCER-LOCAL",
        "KUBE-6-LOAD-BALANCER-SOURCE-IP", "KUBE-6-LOAD-BALANCER-SOURCE-CID", "KUBE-6-NODE-PORT-TCP",
        "KUBE-6-NODE-PORT-LOCAL-TCP", "KUBE-6-NODE-PORT-UDP", "KUBE-6-NODE-PORT-LOCAL-UDP",
        "KUBE-6-NODE-PORT-SCTP-HASH", "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS", "KUBE-6-HEALTH-CHECK-NODE-PORT",
        "KUBE-6-IPVS-IPS",
    ]  # fmt: skip


async def test_cleanup_leaves_nothing_of_ours_and_everything_foreign() -> None:
    bed = IpvsBed()
    await bed.iptables.restore("*filter\n:MINE - [0:0]\n-A INPUT -j MINE\nCOMMIT\n")
    bed.sets.apply(ipset.Create(ipset.SetSpec("mine", "hash:ip")))
    before = await bed.iptables.save()
    proxy = IpvsProxy(bed)
    await proxy.sync(WEB, BOTH, full=True)
    await proxy.programmer.cleanup()

    assert await bed.iptables.save() == before
    assert bed.sets.names() == ["mine"]
    assert (bed.balancer.servers(), bed.bound) == ([], set())
    assert all(link.name != "kube-ipvs0" for link in bed.links.links())


async def test_cleanup_where_nothing_is_succeeds() -> None:
    bed = IpvsBed()
    asked = bed.asked
    await IpvsProxy(bed).programmer.cleanup()

    assert bed.asked == asked


@pytest.mark.parametrize("leaving", ["iptables", "ipvs"])
async def test_the_mode_that_takes_over_keeps_what_both_have_under_the_same_names(leaving: str) -> None:
    bases = {"iptables": rulefiles.load("iptables", BASE), "ipvs": rulefiles.load("ipvs", ("base.rules",))}
    alone, bed = IpvsBed(), IpvsBed()
    ours, theirs = IpvsProxy(bed), IptablesProgrammer(bed.iptables, bases["iptables"])
    ours.add(WEB, BOTH)
    ours.tracker.take()
    table = ours.tracker.table
    if leaving == "ipvs":
        await ours.programmer.program(table, NODE, None)
        await theirs.program(table, NODE, None)
        await ours.programmer.cleanup(bases["iptables"])
        await IptablesProgrammer(alone.iptables, bases["iptables"]).program(table, NODE, None)
    else:
        await theirs.program(table, NODE, None)
        await ours.programmer.program(table, NODE, None)
        await theirs.cleanup(bases["ipvs"])
        await IpvsProxy(alone).programmer.program(table, NODE, None)
    left, wanted = parse_save(await bed.iptables.save()), parse_save(await alone.iptables.save())

    for name in ("nat", "filter"):
        assert without_the_kubelets(left[name]) == without_the_kubelets(wanted[name])


def without_the_kubelets(chains: dict[str, list[str]]) -> dict[str, set[str]]:
    """Chains but those that stay for the kubelet's sake."""
    theirs = ("KUBE-MARK-MASQ", "KUBE-FIREWALL", "KUBE-PROXY-CANARY")
    return {
        chain: {rule for rule in rules if not rule.endswith(theirs)}
        for chain, rules in chains.items()
        if chain not in theirs
    }


async def test_a_kernel_without_the_scheduler_says_so() -> None:
    proxy = IpvsProxy(scheduler="none")

    with pytest.raises(KernelNotFound, match="no such scheduler"):
        await proxy.sync(WEB, BOTH, full=True)
