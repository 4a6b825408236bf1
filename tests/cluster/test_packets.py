"""Single packets, crafted and read with scapy: what translation makes of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from netemu.kernel import netns
from netemu.model.resources import PODS, SERVICES
from netemu.network import names
from tests.cluster.labs import api


def answered(lab: str, packet: Any) -> Any:
    """The answer to a packet that leaves from the client Pod, or None."""
    from scapy.config import conf
    from scapy.sendrecv import sr1

    with netns.entered(names.pod_netns(lab, "shop", "client")):
        conf.ifaces.reload()
        conf.route.resync()
        return sr1(packet, timeout=3, verbose=False, iface="eth0")


@pytest.fixture
def addresses(quickstart: str) -> tuple[str, str, str]:
    """Of the client Pod, of Service web and of cluster DNS."""
    pod, web = api(quickstart).get(PODS, "client", "shop"), api(quickstart).get(SERVICES, "web", "shop")
    return pod["status"]["podIP"], web["spec"]["clusterIP"], "10.96.0.10"


def test_the_answer_to_a_syn_comes_from_the_address_that_was_asked(
    quickstart: str, addresses: tuple[str, str, str]
) -> None:
    from scapy.layers.inet import IP, TCP

    client, web, _ = addresses
    port = random.randint(20000, 30000)
    answer = answered(quickstart, IP(src=client, dst=web) / TCP(sport=port, dport=80, flags="S"))

    assert (answer[IP].src, answer[TCP].sport, answer[TCP].dport) == (web, 80, port)
    assert str(answer[TCP].flags) == "SA"


def test_a_port_that_the_service_does_not_have_is_not_translated(
    quickstart: str, addresses: tuple[str, str, str]
) -> None:
    from scapy.layers.inet import IP, TCP

    client, web, _ = addresses
    answer = answered(quickstart, IP(src=client, dst=web) / TCP(sport=20001, dport=81, flags="S"))

    # In iptables mode it is routed on; a lab has no way out, and the router says so or nobody does.
    assert answer is None or answer[IP].src != web


def test_a_query_in_one_datagram_is_answered_by_cluster_dns(quickstart: str, addresses: tuple[str, str, str]) -> None:
    from scapy.layers.dns import DNS, DNSQR
    from scapy.layers.inet import IP, UDP

    client, web, dns = addresses
    question = DNS(rd=1, qd=DNSQR(qname="web.shop.svc.cluster.local."))
    answer = answered(quickstart, IP(src=client, dst=dns) / UDP(sport=20002, dport=53) / question)

    assert answer[IP].src == dns
    assert [record.rdata for record in answer[DNS].an] == [web]
