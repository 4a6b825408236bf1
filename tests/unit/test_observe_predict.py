"""What the oracle says of connections in a whole cluster: a table, one line per situation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from netemu.observe.cluster import Sender
from netemu.observe.predict import Outcome, Prediction, predict
from netemu.observe.reasons import Reason
from tests.unit.predict_scene import (
    A1,
    A2,
    B1,
    BALANCER,
    C1,
    CLIENT,
    EXTERNAL,
    LAPTOP,
    LOCAL,
    NODE_PORT,
    OPEN,
    VIP,
    cluster,
    fate,
    gateway,
    node,
    node_ip,
    on_host,
    pod,
    with_host_port,
)
from tests.unit.proxy_world import endpoint_slice, service

HERE, BESIDE, THERE, FAR = (A1, "n1"), (A2, "n1"), (B1, "n2"), (C1, "n3")
N1, N2, N3 = map(node_ip, ("n1", "n2", "n3"))
G1, G2, G3 = map(gateway, ("n1", "n2", "n3"))
ONE_LOST = {"answered: translated": {f"{B1}:8080 sees {A2}"}, "dropped: answer-astray": set[str]()}
INTERNAL = {"internal_policy": "Local"}
RANGES = {**OPEN, "ranges": ["10.0.0.0/8"]}


def yes(*pairs: tuple[str, str]) -> dict[str, set[str]]:
    """Answered by these servers, each of which sees that source."""
    return {"answered: translated": {f"{server}:8080 sees {source}" for server, source in pairs}}


def no(outcome: str, reason: Reason) -> dict[str, set[str]]:
    return {f"{outcome}: {reason}": set()}


# fmt: off
TABLE = [
    # cluster IP
    ("pod to cluster IP", {}, [HERE, THERE], pod("a2"), (VIP, 80), yes((A1, A2), (B1, A2)), {}),
    ("pod to itself by cluster IP sees its gateway", {}, [HERE], pod("a1"), (VIP, 80), yes((A1, G1)), {}),
    ("node to cluster IP is masqueraded by the link it leaves by", {}, [HERE, THERE], node("n1"), (VIP, 80),
        yes((A1, G1), (B1, N1)), {}),
    ("client has no way to a cluster IP", {}, [HERE], CLIENT, (VIP, 80), no("unreachable", Reason.NO_ROUTE), {}),
    ("no endpoints", {}, [], pod("a1"), (VIP, 80), no("refused", Reason.NO_ENDPOINTS), {}),
    ("none ready", {}, [(*HERE, "silent")], pod("a2"), (VIP, 80), no("refused", Reason.NOT_READY), {}),
    ("port that the Service does not have", {}, [HERE], pod("a2"), (VIP, 81), no("unreachable", Reason.NO_ROUTE),
        {"nftables": no("refused", Reason.WRONG_PORT), "ipvs": no("refused", Reason.WRONG_PORT)}),
    ("address of no Service", {}, [HERE], pod("a2"), ("10.96.9.9", 80), no("unreachable", Reason.NO_ROUTE),
        {"nftables": no("dropped", Reason.NO_SERVICE)}),
    ("internal policy Local, endpoint here", INTERNAL, [HERE, THERE], pod("a2"), (VIP, 80), yes((A1, A2)), {}),
    ("internal policy Local, endpoints elsewhere", INTERNAL, [THERE], pod("a2"), (VIP, 80),
        no("dropped", Reason.NO_LOCAL_ENDPOINT), {"ipvs": no("refused", Reason.NO_LOCAL_ENDPOINT)}),
    # node port
    ("client to node port, endpoint on the node", OPEN, [HERE], CLIENT, (N1, NODE_PORT), yes((A1, G1)), {}),
    ("client to node port, endpoint on another node", OPEN, [THERE], CLIENT, (N1, NODE_PORT), yes((B1, N1)), {}),
    ("client to node port, policy Local keeps its address", LOCAL, [HERE, THERE], CLIENT, (N1, NODE_PORT),
        yes((A1, LAPTOP)), {}),
    ("client to node port, policy Local, no endpoint on the node", LOCAL, [THERE], CLIENT, (N1, NODE_PORT),
        no("dropped", Reason.NO_LOCAL_ENDPOINT), {"ipvs": no("dropped", Reason.ANSWER_ASTRAY)}),
    ("pod to its own node's port", OPEN, [HERE, THERE], pod("a2"), (N1, NODE_PORT), yes((A1, G1), (B1, N1)), {}),
    ("pod to another node's port, endpoint on its own node", OPEN, [HERE], pod("a2"), (N2, NODE_PORT),
        yes((A1, N2)), {}),
    ("pod to another node's port, policy Local: only that node brings answers back", LOCAL, [HERE, THERE, FAR],
        pod("a2"), (N2, NODE_PORT), ONE_LOST, {"ipvs": yes((B1, A2))}),
    ("pod to itself by another node's port", OPEN, [HERE], pod("a1"), (N2, NODE_PORT), yes((A1, N2)), {}),
    ("node to another node's port", OPEN, [HERE, FAR], node("n1"), (N2, NODE_PORT), yes((A1, N2), (C1, N2)), {}),
    ("node to its own port", OPEN, [HERE], node("n1"), (N1, NODE_PORT), yes((A1, G1)), {}),
    ("node to its own port, policy Local, endpoint elsewhere", LOCAL, [THERE], node("n1"), (N1, NODE_PORT),
        yes((B1, N1)), {}),
    ("node to its loopback's node port", OPEN, [HERE], node("n1"), ("127.0.0.1", NODE_PORT), yes((A1, G1)),
        {"nftables": no("refused", Reason.NOT_LISTENING), "ipvs": no("refused", Reason.NOT_LISTENING)}),
    ("client to a node port without endpoints", OPEN, [], CLIENT, (N1, NODE_PORT),
        no("refused", Reason.NO_ENDPOINTS), {}),
    # load balancer and external IPs
    ("client to load balancer: any node takes it", OPEN, [HERE], CLIENT, (BALANCER, 80),
        yes((A1, G1), (A1, N2), (A1, N3)), {}),
    ("client to load balancer, policy Local: nodes with endpoints", LOCAL, [HERE, THERE], CLIENT, (BALANCER, 80),
        yes((A1, LAPTOP), (B1, LAPTOP)), {}),
    ("client to load balancer, policy Local, none ready", LOCAL, [(*HERE, "silent")], CLIENT, (BALANCER, 80),
        no("refused", Reason.NOT_READY), {}),
    ("pod to load balancer stays in the cluster", OPEN, [THERE], pod("a2"), (BALANCER, 80), yes((B1, N1)), {}),
    ("pod to load balancer, policy Local, from a node without endpoint", LOCAL, [THERE], pod("a2"), (BALANCER, 80),
        yes((B1, A2)), {}),
    ("source ranges", RANGES, [HERE], CLIENT, (BALANCER, 80), no("dropped", Reason.SOURCE_RANGE), {}),
    ("source ranges, inside", RANGES, [HERE], pod("a2"), (BALANCER, 80), yes((A1, G1)), {}),
    ("load balancer's other ports", OPEN, [HERE], CLIENT, (BALANCER, 81), no("unreachable", Reason.LOOP),
        {"ipvs": no("refused", Reason.WRONG_PORT)}),
    ("node to a load balancer without endpoints gets its own packet back", OPEN, [], node("n1"), (BALANCER, 80),
        {"dropped: forged": set(), "refused: no-endpoints": set()},
        {"nftables": no("refused", Reason.NO_ENDPOINTS), "ipvs": no("refused", Reason.NO_ENDPOINTS)}),
    ("external IP from a pod", OPEN, [THERE], pod("a2"), (EXTERNAL, 80), yes((B1, N1)), {}),
    ("external IP from outside: nobody routes it", OPEN, [THERE], CLIENT, (EXTERNAL, 80),
        no("unreachable", Reason.NO_ROUTE), {}),
    # an endpoint on the node's own network
    ("endpoint on the host network, from a pod of that node", {}, [(N1, "n1")], pod("a1"), (VIP, 80),
        yes((N1, A1)), {}),
    ("endpoint on the host network, from another node", {}, [(N1, "n1")], node("n2"), (VIP, 80), yes((N1, N2)), {}),
    ("endpoint outside the cluster", {}, [(LAPTOP, "")], pod("a1"), (VIP, 80), yes((LAPTOP, A1)), {}),
    ("endpoint that nobody has", {}, [("10.244.1.99", "n2")], pod("a1"), (VIP, 80),
        no("unreachable", Reason.NO_ROUTE), {}),
    # where no Service has a say
    ("pod to pod", {}, [], pod("a1"), (C1, 8080), {"answered: direct": {f"{C1}:8080 sees {A1}"}}, {}),
    ("pod to itself", {}, [], pod("a1"), (A1, 8080), {"answered: direct": {f"{A1}:8080 sees {A1}"}}, {}),
    ("node to its own pod", {}, [], node("n1"), (A1, 8080), {"answered: direct": {f"{A1}:8080 sees {G1}"}}, {}),
    ("client to pod", {}, [], CLIENT, (C1, 8080), {"answered: direct": {f"{C1}:8080 sees {LAPTOP}"}}, {}),
    ("port that no pod declares", {}, [], pod("a1"), (C1, 9), no("refused", Reason.NOT_LISTENING), {}),
    ("undeclared port of an endpoint", {}, [(C1, "n3")], pod("a1"), (C1, 8080),
        {"answered: direct": {f"{C1}:8080 sees {A1}"}}, {}),
    ("no such pod", {}, [], pod("a1"), ("10.244.2.99", 8080), no("unreachable", Reason.NO_ROUTE), {}),
    ("kubelet of another node", {}, [], pod("a1"), (N2, 10250), {"answered: direct": {f"{N2}:10250 sees {A1}"}}, {}),
    ("closed port of a node", {}, [], CLIENT, (N2, 9), no("refused", Reason.NOT_LISTENING), {}),
    ("client outside", {}, [], pod("a1"), (LAPTOP, 443), {"answered: direct": {f"{LAPTOP}:443 sees {A1}"}}, {}),
    ("resolver outside, by TCP", {}, [], pod("a1"), ("172.18.0.1", 53), no("refused", Reason.NOT_LISTENING), {}),
    ("family that the pod does not have", {}, [], pod("a1"), ("fd00:10:244:1::9", 80),
        no("unreachable", Reason.NO_ADDRESS), {}),
]
# fmt: on


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
@pytest.mark.parametrize(
    ("what", "at", "sender", "to", "wanted", "by_mode"), [pytest.param(*row[1:], id=row[0]) for row in TABLE]
)
def test_prediction(
    what: Mapping[str, Any],
    at: Sequence[Sequence[str]],
    sender: Sender,
    to: tuple[str, int],
    wanted: dict[str, set[str]],
    by_mode: Mapping[str, dict[str, set[str]]],
    mode: str,
) -> None:
    assert fate(cluster(what, at, mode=mode), sender, *to) == by_mode.get(mode, wanted)


def test_host_port_leads_to_its_pod_and_only_on_its_node() -> None:
    where = cluster(pods=[with_host_port("h", "n1", "10.244.0.20", 8088)])

    assert fate(where, CLIENT, N1, 8088) == {"answered: host-port": {f"10.244.0.20:8080 sees {LAPTOP}"}}
    assert fate(where, CLIENT, N2, 8088) == no("refused", Reason.NOT_LISTENING)


def test_pod_of_the_host_network_answers_on_its_node() -> None:
    where = cluster(pods=[on_host("h", "n2", (9100, "TCP"))])

    assert fate(where, pod("a1"), N2, 9100) == {"answered: direct": {f"{N2}:9100 sees {A1}"}}


def test_cache_on_the_node_answers_instead_of_the_service() -> None:
    dns = service("kube-system/kube-dns", "10.96.0.10", ports={"dns": "53/UDP"})
    ends = endpoint_slice("kube-system/kube-dns", [THERE], {"dns": "53/UDP"})
    where = cluster(services=[dns], slices=[ends], caches=["10.96.0.10"])

    assert fate(where, pod("a1"), "10.96.0.10", 53, "UDP") == {"answered: direct": {f"10.96.0.10:53 sees {A1}"}}


def test_ip_mode_proxy_sends_pods_past_the_load_balancer_that_is_none() -> None:
    where = cluster({**OPEN, "ingress": [{"ip": BALANCER, "ipMode": "Proxy"}]}, [HERE])

    assert fate(where, pod("a2"), BALANCER, 80) == no("unreachable", Reason.LOOP)


def test_address_that_goes_in_circles_costs_no_more_in_a_large_cluster() -> None:
    where = cluster({**OPEN, "ingress": [{"ip": BALANCER, "ipMode": "Proxy"}]}, [HERE])
    many = {f"n{number}": where.nodes["n2"] for number in range(2, 100)}
    large = replace(where, nodes={**where.nodes, **many})

    assert len(predict(large, pod("a2"), BALANCER, 80).endings[0].steps) == 2
    assert fate(large, CLIENT, BALANCER, 80) == no("unreachable", Reason.LOOP)


def test_services_that_take_each_others_endpoints_end_somewhere() -> None:
    one = service("default/one", "10.96.0.101", external_ips=[B1], ports={"http": 8080})
    other = service("default/other", "10.96.0.102", external_ips=[A1], ports={"http": 8080})
    ends = [endpoint_slice("default/one", [HERE]), endpoint_slice("default/other", [THERE])]

    assert fate(cluster(services=[one, other], slices=ends), pod("c1"), A1, 8080) == no("unreachable", Reason.LOOP)


def test_headless_service_has_no_address_that_rules_know() -> None:
    headless = service(ip="None")
    where = cluster(services=[headless], slices=[endpoint_slice("default/web", [THERE])])

    assert fate(where, pod("a1"), B1, 8080) == {"answered: direct": {f"{B1}:8080 sees {A1}"}}


def test_forged_source_where_ipvs_does_not_masquerade_a_pod_to_itself() -> None:
    where = cluster({**LOCAL}, [HERE], mode="ipvs")

    assert fate(where, pod("a1"), N2, NODE_PORT) == no("dropped", Reason.FORGED)


def test_words_name_every_node_that_had_a_say() -> None:
    said = predict(cluster(LOCAL, [HERE]), pod("a2"), N2, NODE_PORT)

    assert said.outcomes == (Outcome.DROPPED,)
    assert said.words == (
        "n2: node port of default/web:http; Pods may use any endpoint; "
        f"the answer goes to {A2} without passing n2, which would translate it back"
    )
    steps = [(step.node, step.verdict) for step in said.endings[0].steps]
    assert steps == [("n1", "none"), ("n2", "dnat"), ("n1", "none")]


def test_what_a_prediction_says_of_the_source() -> None:
    web = cluster(OPEN, [HERE, THERE])

    def kept(said: Prediction) -> set[bool]:
        return {ending.source == said.source for ending in said.answers}

    assert kept(predict(web, pod("a2"), VIP, 80)) == {True}
    assert kept(predict(web, CLIENT, N1, NODE_PORT)) == {False}
    assert kept(predict(web, CLIENT, VIP, 80)) == set()
    assert kept(predict(web, pod("a1"), VIP, 80)) == {True, False}  # itself masqueraded, the other not
    assert predict(web, pod("a2"), VIP, 80).endpoints == {f"{A1}:8080", f"{B1}:8080"}
