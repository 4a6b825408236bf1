"""Who gets which cluster IP and node port."""

from __future__ import annotations

import random
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.apiserver.allocation import ServiceAllocator, static_band
from netemu.apiserver.defaults import apply_defaults
from netemu.client.base import Obj
from netemu.model.errors import InternalError
from netemu.model.resources import SERVICES

V4, V6 = "10.96.0.0/16", "fd00:10:96::/112"


def allocator(*cidrs: str, ports: tuple[int, int] = (30000, 32767), seed: int = 1) -> ServiceAllocator:
    return ServiceAllocator(cidrs or (V4,), ports, rng=random.Random(seed))


def service(name: str = "web", *ports: Obj, **spec: Any) -> Obj:
    obj: Obj = {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": "x"}, "ports": list(ports) or [{"port": 80}], **spec},
    }
    apply_defaults(SERVICES, obj)
    return obj


def created(pool: ServiceAllocator, obj: Obj) -> Obj:
    assert pool.allocate(obj, None) == []
    pool.settle(obj)
    return obj


def updated(pool: ServiceAllocator, obj: Obj, old: Obj) -> Obj:
    apply_defaults(SERVICES, obj)
    assert pool.allocate(obj, old) == []
    pool.settle(obj)
    return obj


def refusal(pool: ServiceAllocator, obj: Obj, old: Obj | None = None) -> str:
    before = pool.used
    errors = pool.allocate(obj, old)
    assert pool.used == before
    return "; ".join(map(str, errors))


# --- cluster IPs ----------------------------------------------------------------------------------


def test_a_service_gets_an_address_of_the_dynamic_band() -> None:
    spec = created(allocator(), service())["spec"]

    assert int(ip_address("10.96.1.0")) < int(ip_address(spec["clusterIP"])) < int(ip_address("10.96.255.255"))
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


def test_the_same_seed_gives_the_same_addresses() -> None:
    first, second = (created(allocator(seed=7), service(type="NodePort")) for _ in range(2))

    assert first == second


def test_an_address_asked_for_is_given() -> None:
    assert created(allocator(), service(clusterIP="10.96.0.10"))["spec"]["clusterIPs"] == ["10.96.0.10"]


@pytest.mark.parametrize(
    ("ip", "why"),
    [
        ("10.96.0.10", "provided IP is already allocated"),
        ("10.97.0.1", "the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"),
        ("10.96.0.0", "the provided IP (10.96.0.0) is not in the valid range. The range of valid IPs is 10.96.0.0/16"),
        ("10.96.255.255",
         "the provided IP (10.96.255.255) is not in the valid range. The range of valid IPs is 10.96.0.0/16"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_had_is_refused(ip: str, why: str) -> None:
    pool = allocator()
    created(pool, service("dns", clusterIP="10.96.0.10"))

    text = refusal(pool, service(clusterIP=ip))

    assert text == f'spec.clusterIPs: Invalid value: []string{{"{ip}"}}: failed to allocate IP {ip}: {why}'


def test_the_static_band_is_used_when_the_dynamic_one_is_full() -> None:
    pool = allocator("10.96.0.0/27")
    addresses = {created(pool, service(f"s{index}"))["spec"]["clusterIP"] for index in range(30)}

    assert len(addresses) == 30
    with pytest.raises(InternalError, match="range is full"):
        pool.allocate(service("last"), None)


def test_released_addresses_can_be_had_again() -> None:
    pool = allocator()
    old = created(pool, service(clusterIP="10.96.0.10"))
    pool.release(old)

    assert created(pool, service("other", clusterIP="10.96.0.10"))["spec"]["clusterIP"] == "10.96.0.10"


def test_releasing_what_is_not_held_is_no_error() -> None:
    pool = allocator()
    pool.release(service(clusterIP="10.96.0.10"))

    assert pool.used == (0, 0)


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"type": "ExternalName", "externalName": "x.example"}])
def test_headless_and_external_names_hold_nothing(spec: Obj) -> None:
    pool = allocator()
    obj = created(pool, service(**spec))

    assert pool.used == (0, 0)
    assert obj["spec"].get("clusterIP") in ("None", None)


def test_a_loaded_service_keeps_others_from_its_values() -> None:
    pool = allocator()
    pool.load([service("old", {"port": 80, "nodePort": 30080}, type="NodePort", clusterIPs=["10.96.0.9"])])

    assert "already allocated" in refusal(pool, service(clusterIP="10.96.0.9"))
    assert "already allocated" in refusal(pool, service("x", {"port": 1, "nodePort": 30080}, type="NodePort"))


# --- node ports -----------------------------------------------------------------------------------


def node_ports(obj: Obj) -> list[int | None]:
    return [port.get("nodePort") for port in obj["spec"]["ports"]]


@pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
def test_node_ports_come_from_the_upper_band(kind: str) -> None:
    numbers = node_ports(created(allocator(), service("web", {"port": 1}, {"port": 2}, type=kind)))

    assert len(set(numbers)) == 2
    assert all(number is not None and 30086 <= number <= 32767 for number in numbers)


def test_a_node_port_asked_for_is_given() -> None:
    assert node_ports(created(allocator(), service("a", {"port": 80, "nodePort": 30000}, type="NodePort"))) == [30000]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (30080, "provided port is already allocated"),
        (80, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
    ],
)
def test_a_node_port_that_cannot_be_had_is_refused(number: int, why: str) -> None:
    pool = allocator()
    created(pool, service("first", {"port": 80, "nodePort": 30080}, type="NodePort"))

    text = refusal(pool, service("second", {"port": 1}, {"port": 80, "nodePort": number}, type="NodePort"))

    assert text == f"spec.ports[1].nodePort: Invalid value: {number}: {why}"


def test_one_service_may_have_a_node_port_for_tcp_and_for_udp() -> None:
    dns = service(
        "dns", {"port": 53, "protocol": "TCP", "nodePort": 30053}, {"port": 53, "protocol": "UDP", "nodePort": 30053},
        type="NodePort",
    )  # fmt: skip

    assert node_ports(created(allocator(), dns)) == [30053, 30053]


def test_the_same_port_for_tcp_and_udp_gets_the_same_node_port() -> None:
    dns = service("dns", {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, type="NodePort")

    numbers = node_ports(created(allocator(), dns))

    assert numbers[0] == numbers[1]


def test_load_balancers_may_do_without_node_ports_but_keep_those_asked_for() -> None:
    obj = service(
        "lb", {"port": 1}, {"port": 2, "nodePort": 30002}, type="LoadBalancer", allocateLoadBalancerNodePorts=False
    )

    assert node_ports(created(allocator(), obj)) == [None, 30002]


def test_local_load_balancers_have_a_health_check_node_port() -> None:
    pool = allocator()
    spec = created(pool, service(type="LoadBalancer", externalTrafficPolicy="Local"))["spec"]

    assert 30000 <= spec["healthCheckNodePort"] <= 32767
    assert spec["healthCheckNodePort"] not in node_ports({"spec": spec})
    assert pool.used == (1, 2)


def test_a_health_check_node_port_in_use_is_refused() -> None:
    pool = allocator()
    created(pool, service("a", {"port": 1, "nodePort": 30001}, type="NodePort"))

    text = refusal(pool, service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30001))

    assert text.startswith("spec.healthCheckNodePort: Invalid value: 30001: ")


def test_a_full_range_of_node_ports_leaves_no_address_behind() -> None:
    pool = allocator(ports=(30000, 30000))
    created(pool, service("a", type="NodePort"))
    before = pool.used

    with pytest.raises(InternalError, match="failed to allocate a nodePort"):
        pool.allocate(service("b", type="NodePort"), None)

    assert pool.used == before


# --- updates --------------------------------------------------------------------------------------


def test_an_update_without_them_keeps_address_and_node_ports() -> None:
    pool = allocator()
    old = created(pool, service(type="NodePort"))

    new = updated(pool, service(type="NodePort"), old)

    assert new["spec"] == old["spec"]
    assert pool.used == (1, 1)


@pytest.mark.parametrize(
    ("before", "after", "used"),
    [
        ({"type": "ClusterIP"}, {"type": "NodePort"}, (1, 1)),
        ({"type": "NodePort"}, {"type": "ClusterIP"}, (1, 0)),
        ({"type": "NodePort"}, {"type": "LoadBalancer"}, (1, 1)),
        ({"type": "LoadBalancer"}, {"type": "ExternalName", "externalName": "x.y"}, (0, 0)),
        ({"type": "ExternalName", "externalName": "x.y"}, {"type": "ClusterIP"}, (1, 0)),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, {"type": "NodePort"}, (1, 1)),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
         {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}, (1, 1)),
    ],
)  # fmt: skip
def test_a_change_of_type_takes_and_gives_back(before: Obj, after: Obj, used: tuple[int, int]) -> None:
    pool = allocator()
    old = created(pool, service(**before))

    # As a patch does it: everything stored, with the new type on top.
    new: Obj = {"metadata": old["metadata"], "spec": {**old["spec"], **after}}
    updated(pool, new, old)

    assert pool.used == used


def test_a_port_that_goes_gives_its_node_port_back() -> None:
    pool = allocator()
    old = created(pool, service("a", {"name": "a", "port": 1}, {"name": "b", "port": 2}, type="NodePort"))
    gone = old["spec"]["ports"][1]["nodePort"]

    updated(pool, service("a", {"name": "a", "port": 1}, type="NodePort"), old)

    assert node_ports(created(pool, service("z", {"port": 1, "nodePort": gone}, type="NodePort"))) == [gone]


def test_until_a_write_is_settled_nobody_else_gets_what_either_version_has() -> None:
    pool = allocator()
    old = created(pool, service("a", {"port": 1, "nodePort": 30001}, type="NodePort"))
    new = service("a", {"port": 1, "nodePort": 30002}, type="NodePort")
    assert pool.allocate(new, old) == []

    for number in (30001, 30002):
        assert "already allocated" in refusal(pool, service("b", {"port": 1, "nodePort": number}, type="NodePort"))

    pool.settle(old)
    assert created(pool, service("b", {"port": 1, "nodePort": 30002}, type="NodePort"))
    assert "already allocated" in refusal(pool, service("c", {"port": 1, "nodePort": 30001}, type="NodePort"))


# --- dual stack -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cidrs", "spec", "families"),
    [
        ((V4,), {}, ["IPv4"]),
        ((V6,), {}, ["IPv6"]),
        ((V4, V6), {}, ["IPv4"]),
        ((V6, V4), {}, ["IPv6"]),
        ((V4, V6), {"ipFamilies": ["IPv6"]}, ["IPv6"]),
        ((V4, V6), {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"]),
        ((V4,), {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4"]),
        ((V4, V6), {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, ["IPv6", "IPv4"]),
        ((V4, V6), {"clusterIP": "fd00:10:96::10"}, ["IPv6"]),
        ((V4, V6), {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:10:96::7"],
                    "ipFamilyPolicy": "RequireDualStack"}, ["IPv4", "IPv6"]),
    ],
)  # fmt: skip
def test_families_and_one_address_of_each(cidrs: tuple[str, ...], spec: Obj, families: list[str]) -> None:
    result = created(allocator(*cidrs), service(**spec))["spec"]

    assert result["ipFamilies"] == families
    assert [f"IPv{ip_address(ip).version}" for ip in result["clusterIPs"]] == families
    assert result["clusterIP"] == result["clusterIPs"][0]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"ipFamilyPolicy": "RequireDualStack"},
         'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": '
         "this cluster is not configured for dual-stack services"),
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        ({"clusterIP": "fd00::1"},
         'spec.clusterIPs[0]: Invalid value: []string{"fd00::1"}: IPv6 is not configured on this cluster'),
        ({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"},
         'spec.ipFamilyPolicy: Invalid value: "SingleStack": '
         "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"),
    ],
)  # fmt: skip
def test_a_single_stack_cluster_refuses_the_other_family(spec: Obj, text: str) -> None:
    assert refusal(allocator(), service(**spec)) == text


def test_a_headless_service_without_selector_has_both_families_anywhere() -> None:
    spec = created(allocator(), service(selector={}, clusterIP="None"))["spec"]

    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4", "IPv6"], "RequireDualStack")


def test_a_service_can_gain_and_lose_the_second_family() -> None:
    pool = allocator(V4, V6)
    single = created(pool, service())
    dual = updated(pool, service(ipFamilyPolicy="PreferDualStack"), single)
    again = updated(pool, {**dual, "spec": {**dual["spec"], "ipFamilyPolicy": "SingleStack"}}, dual)

    assert dual["spec"]["clusterIPs"][0] == single["spec"]["clusterIP"] == again["spec"]["clusterIP"]
    assert (len(dual["spec"]["clusterIPs"]), len(again["spec"]["clusterIPs"])) == (2, 1)
    assert pool.used == (1, 0)


def test_a_pool_needs_cidrs_of_different_families() -> None:
    with pytest.raises(ValueError, match="another family"):
        allocator(V4, "10.97.0.0/16")


@pytest.mark.parametrize(("size", "band"), [(16, 0), (32, 16), (256, 16), (4096, 256), (65536, 256)])
def test_the_static_band_of_addresses(size: int, band: int) -> None:
    assert static_band(size, 16, 256, 16) == band


changes = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "headless", "delete"]),
        st.sampled_from(["Cluster", "Local"]),
        st.booleans(),
    ),
    max_size=25,
)


@given(changes)
@settings(max_examples=60, deadline=None)
def test_what_is_held_is_what_the_stored_services_have(steps: list[tuple[str, str, str, bool]]) -> None:
    pool = allocator("10.96.0.0/26", ports=(30000, 30020))
    stored: dict[str, Obj] = {}
    for name, kind, policy, written in steps:
        old = stored.get(name)
        if kind == "delete":
            if old:
                pool.release(stored.pop(name))
            continue
        if old and ("None" in (old["spec"].get("clusterIP"),)) != (kind == "headless"):
            continue  # refused by validation
        new = service(name, type="ClusterIP" if kind == "headless" else kind)
        if kind == "headless":
            new["spec"]["clusterIP"] = "None"
        if kind == "LoadBalancer":
            new["spec"]["externalTrafficPolicy"] = policy
        assert pool.allocate(new, old) == []
        if written:
            stored[name] = new
        if name in stored:
            pool.settle(stored[name])
        else:
            pool.release(new)

    addresses = [ip for s in stored.values() for ip in s["spec"].get("clusterIPs") or () if ip != "None"]
    ports = [port["nodePort"] for s in stored.values() for port in s["spec"]["ports"] if port.get("nodePort")]
    ports += [s["spec"]["healthCheckNodePort"] for s in stored.values() if s["spec"].get("healthCheckNodePort")]
    assert len(set(addresses)) == len(addresses)
    assert len(set(ports)) == len(ports)
    assert pool.used == (len(addresses), len(ports))
