"""Services and EndpointSlices to values, and what changed between two syncs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.proxy.endpoints import Endpoint, choose, merge
from netemu.proxy.iptables import compile_port, probability, suffix
from netemu.proxy.services import Family, PortKey, ServicePort, service_ports
from netemu.proxy.tracker import Tracker
from tests.unit.proxy_world import NODE, endpoint_slice, service

KEY = PortKey("default", "web", "http", "TCP")


def only(**fields: Any) -> ServicePort:
    (port,) = service_ports(service(**fields), Family.IPV4).values()
    return port


def test_port_name_is_part_of_the_text_only_if_there_is_one() -> None:
    assert (only().key.text, only(ports={"": 80}).key.text) == ("default/web:http", "default/web")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"ip": "None"}, id="headless"),
        pytest.param({"ip": ""}, id="no cluster IP yet"),
        pytest.param({"type": "ExternalName"}, id="ExternalName"),
        pytest.param({"labels": {"service.kubernetes.io/service-proxy-name": ""}}, id="another proxy's"),
        pytest.param({"labels": {"service.kubernetes.io/headless": ""}}, id="labelled headless"),
        pytest.param({"ip": "fd00::1", "ipFamilies": ["IPv6"]}, id="other family"),
    ],
)
def test_service_has_no_ports_here(fields: dict[str, Any]) -> None:
    assert service_ports(service(**fields), Family.IPV4) == {}


def test_dual_stack_service_has_one_address_per_family() -> None:
    dual = service(ip="172.30.0.1", clusterIPs=["172.30.0.1", "fd00::1"], ipFamilies=["IPv4", "IPv6"])

    addresses = {family: [p.cluster_ip for p in service_ports(dual, family).values()] for family in Family}

    assert addresses == {Family.IPV4: ["172.30.0.1"], Family.IPV6: ["fd00::1"]}


def test_affinity_lasts_three_hours_unless_told_otherwise() -> None:
    plain = only(sessionAffinity="ClientIP", sessionAffinityConfig=None)

    assert (plain.affinity_seconds, only(affinity=60).affinity_seconds) == (10800, 60)


def test_addresses_of_the_other_family_and_nonsense_are_left_out() -> None:
    port = only(external_ips=["fd00::1", "10.0.0.07", "x"], ranges=[" 10.0.0.9/8 ", "fd00::/8", "nonsense"])

    assert (port.external_ips, port.source_ranges) == (("10.0.0.7",), ("10.0.0.0/8",))


def test_external_policy_of_a_plain_cluster_ip_service_is_ignored() -> None:
    assert not only(external_policy="Local").external_local
    assert only(external_policy="Local", external_ips=["198.51.100.1"]).external_local


def tracker() -> Tracker:
    made = Tracker(Family.IPV4, "test-node")
    made.service_changed(None, service())
    made.slice_changed(None, endpoint_slice("default/web", [("10.180.0.1", "test-node")]))
    made.take()
    return made


def test_change_that_is_taken_back_before_a_sync_is_none() -> None:
    changed = tracker()
    changed.service_changed(None, service(ip="172.30.0.99"))
    changed.service_changed(None, service())
    changed.slice_changed(None, endpoint_slice("default/web", []))
    changed.slice_changed(None, endpoint_slice("default/web", [("10.180.0.1", "test-node")]))

    assert changed.pending == (0, 0)


def test_update_without_meaning_for_rules_asks_for_no_sync() -> None:
    assert not tracker().service_changed(service(), service(labels={"team": "a"}))


def test_endpoint_that_moves_between_slices_touches_nothing() -> None:
    changed = tracker()
    changed.slice_changed(None, endpoint_slice("default/web", [("10.180.0.1", "test-node")], suffix="2"))
    changed.slice_changed(endpoint_slice("default/web", []), None)

    assert changed.take().touched == frozenset()


def test_slice_that_moves_to_another_service_leaves_the_first() -> None:
    changed = tracker()
    old = endpoint_slice("default/web", [("10.180.0.1", "test-node")])
    other = endpoint_slice("default/web", [("10.180.0.1", "test-node")])
    changed.slice_changed(old, type(other)(metadata=_relabelled(other), endpoints=other.endpoints, ports=other.ports))

    assert changed.take().touched == {KEY}
    assert KEY not in changed.table.endpoints


def _relabelled(piece: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(piece.metadata, labels={"kubernetes.io/service-name": "other"})


def test_deleted_udp_port_is_remembered_for_its_flows() -> None:
    changed = Tracker(Family.IPV4, "test-node")
    dns = service(ports={"dns": "53/UDP"})
    changed.service_changed(None, dns)
    changed.take()
    changed.service_changed(dns, None)

    assert [port.cluster_ip for port in changed.take().udp_removed] == ["172.30.0.10"]


def test_local_copy_of_an_endpoint_wins() -> None:
    remote, local = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.1", 80, local=True)

    for order in ([remote, local], [local, remote]):
        merged = merge("default/web", [{("http", "TCP"): (endpoint,)} for endpoint in order])
        assert merged[KEY] == (local,)


def test_endpoints_are_sorted_as_text() -> None:
    endpoints = [Endpoint("10.0.0.2", 80), Endpoint("10.0.0.10", 80)]

    assert [e.ip for e in choose(only(), endpoints, {}).cluster] == ["10.0.0.10", "10.0.0.2"]


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("default/web:httptcp", "CDGGSHYLG3RE2FKL"),
        ("default/web:httptcp10.180.0.1:8080", "7WW7JE3MKVJF5U6Q"),
        ("default/stickytcp", "BJWR5DPVIKTHVKZU"),
    ],
)
def test_chain_names_are_upstreams(text: str, digest: str) -> None:
    assert suffix(text) == digest


@pytest.mark.parametrize(("n", "text"), [(1, "1.00000000000"), (2, "0.50000000000"), (3, "0.33333333349")])
def test_probabilities_are_what_the_kernel_keeps(n: int, text: str) -> None:
    assert probability(n) == text


_endpoints = st.builds(
    Endpoint,
    ip=st.integers(1, 254).map(lambda n: f"10.180.0.{n}"),
    port=st.sampled_from([80, 8080]),
    ready=st.booleans(),
    serving=st.booleans(),
    terminating=st.booleans(),
    local=st.booleans(),
)
_ports = st.builds(
    ServicePort,
    key=st.just(KEY),
    cluster_ip=st.just("172.30.0.10"),
    port=st.just(80),
    node_port=st.sampled_from([0, 30080]),
    affinity_seconds=st.sampled_from([0, 60]),
    load_balancer_ips=st.sampled_from([(), ("1.2.3.4",)]),
    source_ranges=st.sampled_from([(), ("192.168.0.0/24",)]),
    internal_local=st.booleans(),
    external_local=st.booleans(),
)
_some = st.lists(_endpoints, max_size=6, unique_by=lambda e: e.target)


@settings(deadline=None)
@given(port=_ports, endpoints=_some, data=st.data())
def test_compile_does_not_depend_on_the_order_of_endpoints(
    port: ServicePort, endpoints: list[Endpoint], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(endpoints))

    assert compile_port(port, endpoints, NODE) == compile_port(port, shuffled, NODE)


@settings(deadline=None)
@given(port=_ports, endpoints=_some)
def test_every_jump_of_a_service_port_leads_to_a_chain_it_has(port: ServicePort, endpoints: list[Endpoint]) -> None:
    compiled = compile_port(port, endpoints, NODE)
    rules = [r for lines in (*compiled.chains.values(), *compiled.shared.values()) for r in lines]
    own = {t for r in rules if (t := r.rpartition("-j ")[2].split(" ")[0]).startswith(("KUBE-S", "KUBE-E", "KUBE-F"))}

    assert own - {"KUBE-SERVICES"} <= compiled.chains.keys()
