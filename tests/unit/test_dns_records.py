"""What a cluster's objects mean for names, and what a change of them touches; the questions are in `dns_table`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.dns import names, wire
from netemu.dns.objects import Cluster
from netemu.dns.records import Answer, Facts, answer
from netemu.model.objects import Namespace
from tests.unit.dns_cluster import FACTS, ask, cluster, endpoint, port, put, service, slice_of

CLUSTER = cluster()


def test_without_a_service_in_front_the_server_names_itself() -> None:
    assert ask(cluster(), "cluster.local.", "NS", Facts(local=("10.0.77.7",))).answers == ("NS ns.dns.cluster.local.",)
    assert ask(cluster(), "ns.dns.cluster.local.", "A", Facts(local=("10.0.77.7",))).answers == ("A 10.0.77.7",)


def test_srv_weights_are_at_least_one() -> None:
    found = cluster()
    put(found, service("crowd", "None", port("http", 80)))
    put(found, slice_of("crowd", "1", [endpoint(f"10.0.20.{n}") for n in range(150)], port("http", 80)))
    said = ask(found, "_http._tcp.crowd.shop.svc.cluster.local.", "SRV")

    assert {answer.split()[2] for answer in said.answers} == {"1"}
    assert len(said.answers) == 150


def test_a_headless_service_in_front_names_the_server_by_its_endpoints() -> None:
    found = cluster()
    put(found, service("kube-dns", "None", port("dns", 53, "UDP"), namespace="kube-system"))
    ends = [endpoint("10.0.9.53", "one"), endpoint("10.0.9.54", "two")]
    put(found, slice_of("kube-dns", "1", ends, port("dns", 53, "UDP"), namespace="kube-system"))

    owners = ("NS one.kube-dns.kube-system.svc.cluster.local.", "NS two.kube-dns.kube-system.svc.cluster.local.")
    assert ask(found, "cluster.local.", "NS").answers == owners
    assert ask(found, "ns.dns.cluster.local.", "A").answers == ("A 10.0.9.53", "A 10.0.9.54")


def test_an_alias_leaving_the_zone_says_what_is_to_be_resolved_elsewhere() -> None:
    said = answer(CLUSTER, names.parse("out.shop.svc.cluster.local"), wire.AAAA, names.parse("cluster.local"), FACTS)

    assert names.text(said.chase) == "Www.Example.COM."


def test_a_rolling_replacement_shows_each_stage_at_once() -> None:
    found, name = cluster(), "roll.shop.svc.cluster.local."
    put(found, service("roll", "None", port("http", 80)))
    stages = [[], [endpoint("10.0.7.1", ready=False)], [endpoint("10.0.7.1")],
              [endpoint("10.0.7.1", ready=False, serving=True, terminating=True), endpoint("10.0.7.2")], []]  # fmt: skip  # noqa: E501

    seen = []
    for stage in stages:
        put(found, slice_of("roll", "1", stage, port("http", 80)))
        seen.append((ask(found, name, "A").answers, ask(found, "1.7.0.10.in-addr.arpa.", "PTR").rcode))

    assert seen == [
        ((), "NXDOMAIN"), ((), "NXDOMAIN"), (("A 10.0.7.1",), "NOERROR"), (("A 10.0.7.2",), "NXDOMAIN"), ((), "NXDOMAIN"),  # noqa: E501
    ]  # fmt: skip


def test_changes_of_endpoints_that_are_not_ready_change_nothing() -> None:
    found = cluster()

    assert not put(found, slice_of("unready", "1", [endpoint("10.0.3.9", ready=False)], port("http", 80)))
    assert put(found, slice_of("unready", "1", [endpoint("10.0.3.9")], port("http", 80)))


TOUCHED = [
    pytest.param(service("web", "10.96.0.77", port("http", 80)), ("web.shop.svc A", "5.0.96.10 PTR"),
                 ("dual.shop.svc A", "peers.shop.svc A"), id="the address of a Service"),
    pytest.param(service("web", "10.96.0.5", port("http", 81)), ("web.shop.svc A", "_http._tcp.web.shop.svc SRV"),
                 ("dual.shop.svc A", "peers.shop.svc A"), id="the ports of a Service"),
    pytest.param(service("web", "", type="ExternalName", externalName="dual.shop.svc.cluster.local"),
                 ("web.shop.svc A", "chain.shop.svc A"), ("dual.shop.svc A", "peers.shop.svc A"),
                 id="a Service that others are aliases of"),
    pytest.param(slice_of("peers", "1", [endpoint("10.0.1.1"), endpoint("10.0.1.2")], port("http", 8080)),
                 ("peers.shop.svc A", "10-0-1-3.peers.shop.svc A", "3.1.0.10 PTR"), ("2.1.0.10 PTR", "web.shop.svc A"),
                 id="an endpoint that left"),
    pytest.param(slice_of("hosts", "1", [endpoint("10.0.2.1", "db-7")], port("db", 5432)),
                 ("hosts.shop.svc A", "db-0.hosts.shop.svc A", "1.2.0.10 PTR"), ("web.shop.svc A",),
                 id="an endpoint with another hostname"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "touched", "others"), TOUCHED)
def test_a_change_names_the_answers_it_touches_and_no_others(
    change: dict[str, Any], touched: tuple[str, ...], others: tuple[str, ...]
) -> None:
    found = cluster()
    tags = {question: said(found, question).depends for question in (*touched, *others)}
    changed = set(put(found, change))

    assert [bool(changed & set(tags[question])) for question in touched] == [True] * len(touched)
    assert [bool(changed & set(tags[question])) for question in others] == [False] * len(others)


@pytest.mark.parametrize("question", ["absent.shop.svc A", "web.shop.svc AAAA", "shop.svc A", "unready.shop.svc A"])
def test_a_denial_depends_on_everything_because_it_tells_the_serial(question: str) -> None:
    assert said(CLUSTER, question).depends == ()


def said(of: Cluster, question: str) -> Answer:
    """What is said to `NAME TYPE`; the name is under cluster.local, or under in-addr.arpa for PTR."""
    name, kind = question.split()
    zone = names.parse("in-addr.arpa" if kind == "PTR" else "cluster.local")
    return answer(of, names.join(name.encode().split(b"."), zone), wire.TYPES[kind], zone, FACTS)


def test_deleting_a_namespace_hides_names_but_not_pointers() -> None:
    found = cluster()
    found.set_namespace("shop", None)

    assert ask(found, "web.shop.svc.cluster.local.", "A").rcode == "NXDOMAIN"
    assert ask(found, "5.0.96.10.in-addr.arpa.", "PTR").answers == ("PTR web.shop.svc.cluster.local.",)


def test_a_service_that_becomes_an_alias_loses_its_address() -> None:
    found = cluster()
    put(found, service("web", "", type="ExternalName", externalName="example.com"))

    assert ask(found, "web.shop.svc.cluster.local.", "A").answers == ("CNAME example.com.",)
    assert ask(found, "5.0.96.10.in-addr.arpa.", "PTR").rcode == "NXDOMAIN"


def test_an_empty_cluster_after_everything_is_deleted_holds_nothing() -> None:
    found = cluster()
    for item in dns_objects():
        (found.set_slice if "addressType" in item else found.set_service)(
            item["metadata"]["namespace"], item["metadata"]["name"], None
        )

    assert ask(found, "peers.shop.svc.cluster.local.", "A").rcode == "NXDOMAIN"
    assert not found._slice_at
    assert not found._service_at


def dns_objects() -> list[dict[str, dict[str, str]]]:
    from tests.unit.dns_cluster import SERVICES, SLICES

    return [*SERVICES, *SLICES]


@given(st.lists(st.sampled_from([*"abc-_*.", "svc", "pod", "shop", "web", "_tcp", "é", "1-2-3-4", "x" * 60]), max_size=8),  # noqa: E501
       st.sampled_from(sorted(wire.TYPES.values())))  # fmt: skip
def test_no_question_breaks_the_walk(labels: list[str], qtype: int) -> None:
    name = names.join([label.encode() for label in labels], names.parse("cluster.local"))

    assert answer(CLUSTER, name, qtype, names.parse("cluster.local"), FACTS).rcode in (0, 3, 5)


def test_a_namespace_that_is_present_twice_changes_nothing() -> None:
    assert not cluster().set_namespace("shop", Namespace())


@pytest.mark.parametrize(
    ("cidr", "count", "first"),
    [
        ("10.96.0.0/16", 1, "96.10.in-addr.arpa."),
        ("10.0.0.0/17", 128, "0.0.10.in-addr.arpa."),
        ("10.0.0.0/27", 32, "0.0.0.10.in-addr.arpa."),
        ("10.1.2.3/32", 1, "3.2.1.10.in-addr.arpa."),
        ("fd00:10:96::/112", 1, "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa."),
        ("fd00::/10", 4, "0.d.f.ip6.arpa."),
    ],
)
def test_a_range_of_addresses_is_as_many_reverse_zones_as_its_mask_needs(cidr: str, count: int, first: str) -> None:
    zones = names.reverse_zones(cidr)

    assert (len(zones), names.text(zones[0])) == (count, first)
