"""Questions to a cluster, as CoreDNS answers them. An empty NOERROR is NODATA."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.dns import names, wire
from netemu.dns.records import Facts, answer
from netemu.model.objects import Namespace
from tests.unit.dns_cluster import FACTS, Case, ask, cases, cluster, endpoint, port, put, service, slice_of

TABLE = """
web.shop.svc A NOERROR A 10.96.0.5
web.shop.svc AAAA NOERROR
web.shop.svc TXT NOERROR
web.shop.svc MX NOERROR
web.shop.svc CNAME NOERROR
web.shop.svc ANY NOERROR
web.shop.svc DS NOERROR
web.shop.svc HTTPS NOERROR
web.shop.svc CAA NOERROR
web.shop.svc TYPE65280 NOERROR
web.shop.svc NS NOERROR
web.shop.svc SOA NOERROR
web.shop.svc PTR NOERROR
WEB.Shop.SVC A NOERROR A 10.96.0.5
web.shop.svc SRV NOERROR SRV 0 50 80 web.shop.svc.cluster.local.; SRV 0 50 53 web.shop.svc.cluster.local.
_http._tcp.web.shop.svc SRV NOERROR SRV 0 100 80 web.shop.svc.cluster.local.
_dns._udp.web.shop.svc SRV NOERROR SRV 0 100 53 web.shop.svc.cluster.local.
http.tcp.web.shop.svc SRV NOERROR SRV 0 100 80 web.shop.svc.cluster.local.
_http._tcp.web.shop.svc A NOERROR A 10.96.0.5
_http._tcp.web.shop.svc AAAA NOERROR
_http._tcp.web.shop.svc TXT NOERROR
_http._udp.web.shop.svc SRV NXDOMAIN
_nope._tcp.web.shop.svc SRV NXDOMAIN
_80._tcp.web.shop.svc SRV NXDOMAIN
_._tcp.web.shop.svc SRV NOERROR SRV 0 100 80 web.shop.svc.cluster.local.
_tcp.web.shop.svc SRV NXDOMAIN
a._http._tcp.web.shop.svc SRV NXDOMAIN
a.b.c.web.shop.svc A NXDOMAIN
dual.shop.svc A NOERROR A 10.96.0.6
dual.shop.svc AAAA NOERROR AAAA fd00:10:96::6
_http._tcp.dual.shop.svc SRV NOERROR SRV 0 50 80 dual.shop.svc.cluster.local.
dual.shop.svc SRV NOERROR SRV 0 25 80 dual.shop.svc.cluster.local.; SRV 0 25 443 dual.shop.svc.cluster.local.
six.shop.svc A NOERROR
six.shop.svc AAAA NOERROR AAAA fd00:10:96::7
plain.shop.svc A NOERROR A 10.96.0.8
plain.shop.svc SRV NOERROR SRV 0 100 8080 plain.shop.svc.cluster.local.
_http._tcp.plain.shop.svc SRV NXDOMAIN
_sig._sctp.sctp.shop.svc SRV NOERROR SRV 0 100 7000 sctp.shop.svc.cluster.local.
portless.shop.svc A NOERROR A 10.96.0.11
portless.shop.svc SRV NOERROR
1digit.shop.svc A NOERROR A 10.96.0.12
pod.svc.svc A NOERROR A 10.96.0.13
absent.shop.svc A NXDOMAIN
absent.shop.svc AAAA NXDOMAIN
absent.shop.svc SRV NXDOMAIN
absent.shop.svc TXT NXDOMAIN
absent.shop.svc MX NXDOMAIN
absent.shop.svc ANY NXDOMAIN
absent.shop.svc NS NXDOMAIN
absent.shop.svc SOA NOERROR
web.absent.svc A NXDOMAIN
orphan.gone.svc A NXDOMAIN
gone.svc A NXDOMAIN
*.shop.svc A NXDOMAIN
any.shop.svc A NXDOMAIN
_*._tcp.web.shop.svc SRV NXDOMAIN
shop.svc A NOERROR
shop.svc SRV NOERROR
shop.svc TXT NXDOMAIN
empty.svc A NOERROR
empty.svc AAAA NOERROR
svc A NOERROR
svc AAAA NOERROR
svc TXT NXDOMAIN
pod A NOERROR
@ A NOERROR
@ AAAA NOERROR
@ SRV NOERROR
@ MX NOERROR
@ ANY NOERROR
@ TXT NXDOMAIN
@ SOA NOERROR SOA ns.dns.cluster.local. hostmaster.cluster.local. 1700000000 7200 1800 86400 30
@ NS NOERROR NS kube-dns.kube-system.svc.cluster.local.
@ AXFR REFUSED
@ IXFR REFUSED
ns.dns A NOERROR A 10.96.0.10
ns.dns AAAA NOERROR
ns.dns TXT NXDOMAIN
dns A NXDOMAIN
x.dns A NXDOMAIN
node A NXDOMAIN
web A NXDOMAIN
dns-version TXT NOERROR TXT "1.1.0"
DNS-Version TXT NOERROR TXT "1.1.0"
dns-version A NXDOMAIN
x.dns-version TXT NXDOMAIN
peers.shop.svc A NOERROR A 10.0.1.1; A 10.0.1.2; A 10.0.1.3
peers.shop.svc AAAA NOERROR
peers.shop.svc TXT NOERROR
10-0-1-2.peers.shop.svc A NOERROR A 10.0.1.2
10-0-1-2.peers.shop.svc SRV NOERROR SRV 0 100 8080 10-0-1-2.peers.shop.svc.cluster.local.
10-0-1-2.peers.shop.svc AAAA NOERROR
10-0-1-9.peers.shop.svc A NXDOMAIN
_http._tcp.peers.shop.svc SRV NOERROR SRV 0 33 8080 10-0-1-1.peers.shop.svc.cluster.local.; SRV 0 33 8080 10-0-1-2.peers.shop.svc.cluster.local.; SRV 0 33 8080 10-0-1-3.peers.shop.svc.cluster.local.
_nope._tcp.peers.shop.svc SRV NXDOMAIN
hosts.shop.svc A NOERROR A 10.0.2.1; A 10.0.2.2; A 10.0.2.3
hosts.shop.svc AAAA NOERROR AAAA fd00::
db-0.hosts.shop.svc A NOERROR A 10.0.2.1
db-0.hosts.shop.svc AAAA NOERROR
db-1.hosts.shop.svc A NOERROR A 10.0.2.2; A 10.0.2.3
DB-1.hosts.shop.svc A NOERROR A 10.0.2.2; A 10.0.2.3
10-0-2-1.hosts.shop.svc A NXDOMAIN
fd00--0.hosts.shop.svc AAAA NOERROR AAAA fd00::
fd00--0.hosts.shop.svc A NOERROR
_db._tcp.hosts.shop.svc SRV NOERROR SRV 0 25 5432 db-0.hosts.shop.svc.cluster.local.; SRV 0 25 5432 db-1.hosts.shop.svc.cluster.local.; SRV 0 25 5432 fd00--0.hosts.shop.svc.cluster.local.
unready.shop.svc A NXDOMAIN
unready.shop.svc TXT NXDOMAIN
10-0-3-2.unready.shop.svc A NXDOMAIN
eager.shop.svc A NOERROR A 10.0.3.3
noports.shop.svc A NOERROR A 10.0.4.1
noports.shop.svc SRV NOERROR
bare.shop.svc A NXDOMAIN
named.web.shop.svc A NOERROR A 10.0.0.6
10-0-0-5.web.shop.svc A NOERROR A 10.0.0.5
10-0-0-5.web.shop.svc SRV NOERROR SRV 0 100 8080 10-0-0-5.web.shop.svc.cluster.local.
nobody.shop.svc A NXDOMAIN
out.shop.svc CNAME NOERROR CNAME Www.Example.COM.
out.shop.svc A NOERROR CNAME Www.Example.COM.
out.shop.svc TXT NOERROR
out.shop.svc SRV NOERROR
out.shop.svc ANY NOERROR
_http._tcp.out.shop.svc SRV NXDOMAIN
x.out.shop.svc A NXDOMAIN
inner.shop.svc A NOERROR A 10.96.0.5; CNAME web.shop.svc.cluster.local.
inner.shop.svc AAAA NOERROR
chain.shop.svc A NOERROR A 10.96.0.5; CNAME inner.shop.svc.cluster.local.; CNAME web.shop.svc.cluster.local.
selfish.shop.svc A NOERROR
ping.shop.svc A NOERROR
dangling.shop.svc A NOERROR
dangling.shop.svc CNAME NOERROR CNAME gone.shop.svc.cluster.local.
literal.shop.svc A NXDOMAIN
10-0-0-5.shop.pod A NOERROR A 10.0.0.5
1-2-3-4.shop.pod A NOERROR A 1.2.3.4
1-2-3-4.shop.pod AAAA NOERROR
fd00-10--20.shop.pod AAAA NOERROR AAAA fd00:10::20
fd00-10--20.shop.pod A NOERROR
01-2-3-4.shop.pod A NXDOMAIN
1-2-3-256.shop.pod A NXDOMAIN
1-2-3.shop.pod A NXDOMAIN
x.shop.pod A NXDOMAIN
1-2-3-4.absent.pod A NXDOMAIN
shop.pod A NOERROR
x.1-2-3-4.shop.pod A NOERROR A 1.2.3.4
5.0.96.10.in-addr.arpa. PTR NOERROR PTR web.shop.svc.cluster.local.
5.0.96.10.IN-ADDR.arpa. PTR NOERROR PTR web.shop.svc.cluster.local.
5.0.96.10.in-addr.arpa. A NXDOMAIN
99.0.96.10.in-addr.arpa. PTR NOERROR PTR orphan.gone.svc.cluster.local.
2.1.0.10.in-addr.arpa. PTR NOERROR PTR 10-0-1-2.peers.shop.svc.cluster.local.
5.0.0.10.in-addr.arpa. PTR NOERROR PTR 10-0-0-5.web.shop.svc.cluster.local.
6.0.0.10.in-addr.arpa. PTR NOERROR PTR named.web.shop.svc.cluster.local.
1.3.0.10.in-addr.arpa. PTR NXDOMAIN
1.5.0.10.in-addr.arpa. PTR NOERROR PTR 10-0-5-1.nobody.shop.svc.cluster.local.
1.2.0.192.in-addr.arpa. PTR NXDOMAIN
0.96.10.in-addr.arpa. PTR NXDOMAIN
x.0.96.10.in-addr.arpa. PTR NXDOMAIN
in-addr.arpa. PTR NOERROR
in-addr.arpa. SOA NOERROR SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1700000000 7200 1800 86400 30
7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa. PTR NOERROR PTR six.shop.svc.cluster.local.
5.0.0.0.0.6.a.0.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. PTR NOERROR PTR web.shop.svc.cluster.local.
5.0.0.0.0.6.a.0.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. PTR NXDOMAIN
"""  # noqa: E501
CLUSTER = cluster()


@pytest.mark.parametrize("case", cases(TABLE), ids=lambda case: f"{case.name} {case.type}")
def test_a_question_is_answered_as_coredns_answers_it(case: Case) -> None:
    assert ask(CLUSTER, case.name, case.type) == case


VERIFIED = """
10-0-0-5.shop.pod A NOERROR A 10.0.0.5
10-0-0-5.empty.pod A NXDOMAIN
10-0-0-7.shop.pod A NXDOMAIN
1-2-3-4.shop.pod A NXDOMAIN
shop.pod A NOERROR
"""
DISABLED = """
10-0-0-5.shop.pod A NXDOMAIN
shop.pod A NXDOMAIN
pod A NOERROR
"""
POD_NAMES = """
web-0.named.shop.svc A NOERROR A 10.0.6.1
10-0-6-1.named.shop.svc A NXDOMAIN
"""
SHOWN = """
web.shop.svc A NXDOMAIN
5.0.96.10.in-addr.arpa. PTR NXDOMAIN
kube-dns.kube-system.svc A NOERROR A 10.96.0.10
"""


@pytest.mark.parametrize("case", cases(VERIFIED), ids=str)
def test_verified_pods_must_exist(case: Case) -> None:
    assert ask(cluster(pods="verified"), case.name, case.type) == case


@pytest.mark.parametrize("case", cases(DISABLED), ids=str)
def test_disabled_pods_have_no_names(case: Case) -> None:
    assert ask(cluster(pods="disabled"), case.name, case.type) == case


@pytest.mark.parametrize("case", cases(POD_NAMES), ids=str)
def test_endpoint_pod_names_replace_dashed_addresses(case: Case) -> None:
    found = cluster(endpoint_pod_names=True)
    put(found, service("named", "None", port("http", 80)))
    put(found, slice_of("named", "1", [endpoint("10.0.6.1", pod="web-0")], port("http", 80)))

    assert ask(found, case.name, case.type) == case


@pytest.mark.parametrize("case", cases(SHOWN), ids=str)
def test_the_namespaces_option_hides_all_others(case: Case) -> None:
    assert ask(cluster(namespaces=frozenset((b"kube-system",))), case.name, case.type) == case


def test_without_a_service_in_front_the_server_names_itself() -> None:
    assert ask(cluster(), "cluster.local.", "NS", Facts(local=("10.0.77.7",))).answers == ("NS ns.dns.cluster.local.",)
    assert ask(cluster(), "ns.dns.cluster.local.", "A", Facts(local=("10.0.77.7",))).answers == ("A 10.0.77.7",)


def test_srv_records_bring_the_addresses_of_their_targets() -> None:
    zone = names.parse("cluster.local")
    said = answer(CLUSTER, names.parse("_http._tcp.dual.shop.svc.cluster.local"), wire.SRV, zone, FACTS)

    found = sorted(wire.record_text(record) for record in said.additional)
    assert found == [
        "dual.shop.svc.cluster.local.\t30\tIN\tA\t10.96.0.6",
        "dual.shop.svc.cluster.local.\t30\tIN\tAAAA\tfd00:10:96::6",
    ]


def test_answers_spell_the_owner_and_the_zone_as_the_question_did() -> None:
    zone = names.parse("cluster.local")
    said = answer(CLUSTER, names.parse("_HTTP._tcp.Web.shop.svc.Cluster.LOCAL"), wire.SRV, zone, FACTS)

    assert names.text(said.answers[0].name) == "_HTTP._tcp.Web.shop.svc.Cluster.LOCAL."
    assert wire.rdata_text(said.answers[0]).endswith("web.shop.svc.Cluster.LOCAL.")


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
