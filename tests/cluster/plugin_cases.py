"""Tests as a user of the plugin writes them; `test_pytest_plugin` runs this file and judges what comes of it.

Those whose names end in `_fails` must fail, in `_is_an_error` must not begin, all others pass; they run in this order.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netemu.kernel.conntrack import ConntrackNetlink
from netemu.model.resources import CONFIGMAPS, NODES, PODS, SERVICES
from netemu.testing.lab import Lab
from netemu.testing.vantage import Vantage

pytestmark = pytest.mark.netemu("plugin_lab.yaml")

Find = Callable[[str], Vantage]
NO_PODS = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 0}}
LOSE_THE_RULE = "iptables -t nat -S KUBE-SERVICES | grep 10.96.0.80 | sed s/^-A/-D/ | xargs iptables -t nat"


def test_claims_that_hold(pod: Find, node: Find, client: Find) -> None:
    inside, outside = pod("client"), client("laptop")

    assert inside.assert_reaches("web:80", count=3).answered == 3
    assert inside.assert_spread("web:80", over=2, count=100).nodes
    inside.assert_source_ip("web:80")
    outside.assert_reaches(node("two").at(30080))
    outside.assert_reaches("node/two:30080")
    inside.assert_source_ip("service/web:80")
    outside.assert_refused(node("two").at(30081))
    inside.assert_dropped("203.0.113.99:80", udp=True)
    inside.assert_resolves("web", to=["10.96.0.80"], queries=2)
    inside.assert_resolves("nobody", status="not found")


def test_packets_are_taken_and_sent(lab: Lab, pod: Find) -> None:
    from scapy.layers.dns import DNS, DNSQR
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import ARP, Ether

    inside = pod("client")
    with inside.sniff("tcp port 80") as packets:
        inside.assert_reaches("web:80")
    syn = packets[0]
    with lab.pods(selector="app=web")[0].sniff() as arriving:
        question = DNS(rd=1, qd=DNSQR(qname="web.default.svc.cluster.local"))
        answer = inside.send(IP(dst="10.96.0.10") / UDP(sport=4000, dport=53) / question, timeout=20)
        syn_to = IP(dst=lab.pods(selector="app=web")[0].address) / TCP(sport=4001, dport=8080, flags="S")
        accepted = inside.send(syn_to, timeout=20)
        arriving.wait(1, timeout=20)
    silence = inside.send(IP(dst="203.0.113.99") / UDP(dport=9), timeout=0.2)
    frame = inside.send(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=inside.address), timeout=0.2)

    assert (syn[IP].src, syn[IP].dst, str(syn[TCP].flags)) == (inside.address, "10.96.0.80", "S")
    assert {packet[IP].src for packet in packets} == {inside.address, "10.96.0.80"}
    assert answer is not None
    assert answer[DNS].an[0].rdata == "10.96.0.80"
    assert accepted is not None
    assert str(accepted[TCP].flags) == "SA"
    assert inside.address in {packet[IP].src for packet in arriving if IP in packet}
    assert silence is frame is None


def test_connections_of_earlier_tests_are_forgotten(lab: Lab, node: Find) -> None:
    flows = ConntrackNetlink(node("one").netns).flows

    assert not {4000, 4001} & {flow.source_port for protocol in ("udp", "tcp") for flow in flows(protocol)}


def test_a_packet_has_a_story(lab: Lab, pod: Find) -> None:
    story = pod("client").trace("web:80")

    assert (story.outcome, story.source_seen, story.why_not) == ("answered", pod("client").address, None)
    assert story.endpoint in {place.at(8080) for place in lab.pods(selector="app=web")}


def test_nothing_is_lost_while_nothing_happens(pod: Find) -> None:
    line = pod("client").assert_no_loss("web:80", during=lambda: "a word", rate=20, margin=0.1)

    assert [event.what for event in line.events] == ["the change begins", "it has ended"]


async def test_claims_work_in_a_loop_too(pod: Find) -> None:
    pod("client").assert_reaches("web:80")


def test_what_a_test_changes(lab: Lab, pod: Find) -> None:
    lab.delete("service", "web")
    lab.delete("pod", "client")
    lab.apply(
        NO_PODS,
        """
        {apiVersion: v1, kind: Namespace, metadata: {name: fresh}}
        ---
        {apiVersion: v1, kind: Service, metadata: {name: fresh, namespace: fresh}, spec: {ports: [{port: 1}]}}
        """,
    )
    lab.api.merge_patch(NODES, "two", {"spec": {"unschedulable": True}})
    fault = {"data": {"slow": '{"fault": "servfail", "name": "*.example.com"}'}}
    lab.api.merge_patch(CONFIGMAPS, "dns-faults", fault, "kube-system")

    assert not lab.api.there(SERVICES, "web", "default")


def test_is_put_back(lab: Lab, pod: Find) -> None:
    pod("client").assert_spread("web:80", over=2, count=100)
    pod("client").assert_resolves("fresh.fresh", status="not found")

    faults = lab.api.get(CONFIGMAPS, "dns-faults", "kube-system").get("data")
    assert not lab.api.get(NODES, "two")["spec"].get("unschedulable")
    assert (faults or {}) == {}
    assert len(lab.api.list(PODS, "default")[0]) == 3


def test_a_lost_rule_fails(lab: Lab, pod: Find, node: Find) -> None:
    node("one").exec("sh", "-c", LOSE_THE_RULE)

    pod("client").assert_reaches("web:80")


def test_the_rule_is_there_again(pod: Find) -> None:
    pod("client").assert_reaches("web:80")


def test_a_spread_over_too_many_fails(pod: Find) -> None:
    pod("client").assert_spread("web:80", over=3, count=30)


def test_a_change_that_loses_fails(lab: Lab, pod: Find) -> None:
    pod("client").assert_no_loss("web:80", during=lambda: lab.apply(NO_PODS), margin=0.2)


def test_an_unknown_name_fails(pod: Find) -> None:
    pod("client").assert_resolves("nobody")


def test_a_place_that_is_not_there_fails(pod: Find) -> None:
    pod("clinet")


def test_a_claim_is_tried_again_within_its_time(lab: Lab, pod: Find) -> None:
    lab.api.merge_patch(SERVICES, "web", {"spec": {"selector": {"app": "nobody"}}}, "default")

    pod("client").assert_refused("web:80", within=10)


@pytest.mark.netemu("nowhere.yaml")
def test_a_topology_that_is_not_there_is_an_error(lab: Lab) -> None:
    pass
