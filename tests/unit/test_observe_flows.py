"""Entries of conntrack tables as flows of Services, and as `conntrack -L` prints them."""

from __future__ import annotations

import pytest

from netemu.kernel.conntrack_events import ASSURED, CONFIRMED, SEEN_REPLY, Tracked, Tuple
from netemu.model.meta import ObjectMeta
from netemu.model.objects import Service, ServicePort, ServiceSpec
from netemu.observe.conntrack.flows import Counts, End, Held, ServiceFlow, concerns, flow_of, flows_of, state, sums_of
from netemu.observe.conntrack.text import in_names, line
from netemu.observe.names import CLIENT, NODE, POD, Party, names_of

NOW = 1_790_000_100.0
BEGAN = 1_790_000_000 * 10**9
WEB = Service(
    metadata=ObjectMeta(name="web", namespace="shop"),
    spec=ServiceSpec(type="NodePort", cluster_ip="10.96.0.20", ports=(ServicePort(port=80, node_port=30080),)),
)
NAMES = names_of(
    [
        ("172.18.0.3", Party(NODE, "a")), ("172.18.0.4", Party(NODE, "b")), ("203.0.113.10", Party(CLIENT, "laptop")),
        ("10.244.1.5", Party(POD, "shop/client", "a")), ("10.244.2.3", Party(POD, "shop/web-1", "b")),
    ],
    [WEB],
)  # fmt: skip


def entry(
    original: tuple[str, int, str, int], reply: tuple[str, int, str, int] | None = None, *,
    protocol: str = "tcp", status: int = CONFIRMED | SEEN_REPLY | ASSURED, state: str = "ESTABLISHED",
    packets: tuple[int, int] = (6, 4), began: int = BEGAN,
) -> Tracked:  # fmt: skip
    """Without a reply direction it is the original one turned round."""
    back = reply or (*original[2:], *original[:2])
    return Tracked(
        "update", 1, Tuple(protocol, *original), Tuple(protocol, *back), status, state if protocol == "tcp" else "",
        timeout=119, packets=packets, bytes=(packets[0] * 60, packets[1] * 100), began=began, use=1,
    )  # fmt: skip


CLUSTER_IP = entry(("10.244.1.5", 4000, "10.96.0.20", 80), ("10.244.2.3", 8080, "10.244.1.5", 4000))
NODE_PORT = entry(("203.0.113.10", 5000, "172.18.0.3", 30080), ("10.244.2.3", 8080, "172.18.0.3", 61000))
SEEN_BY_B = entry(("10.244.1.5", 4000, "10.244.2.3", 8080))
MASQUERADED_SEEN_BY_B = entry(("172.18.0.3", 61000, "10.244.2.3", 8080))
DIRECT = entry(("10.244.1.5", 4001, "10.244.2.3", 8080))
STALE = entry(("10.244.1.5", 4002, "10.96.0.20", 80))


def flows(*held: Held) -> list[tuple[str, str, str, str]]:
    """Node, client, Service and endpoint."""
    return [
        (flow.node, flow.client.name, flow.service, flow.endpoint.name if flow.endpoint else "")
        for flow in flows_of(held, NAMES, NOW)
    ]


def test_a_flow_tells_who_asked_what_and_who_got_it() -> None:
    assert flow_of("a", NODE_PORT, NAMES, NOW, "new") == ServiceFlow(
        protocol="tcp",
        client=End("client/laptop", "203.0.113.10", 5000),
        service="shop/web:80",
        via="node port",
        destination=End("node/a", "172.18.0.3", 30080),
        endpoint=End("shop/web-1", "10.244.2.3", 8080),
        source_seen=End("node/a", "172.18.0.3", 61000),
        node="a",
        state="ESTABLISHED",
        there=Counts(6, 360),
        back=Counts(4, 400),
        age=100.0,
        event="new",
    )


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ([("a", CLUSTER_IP)], [("a", "shop/client", "shop/web:80", "shop/web-1")]),
        ([("b", SEEN_BY_B), ("a", CLUSTER_IP)], [("a", "shop/client", "shop/web:80", "shop/web-1")]),
        ([("b", MASQUERADED_SEEN_BY_B), ("a", NODE_PORT)], [("a", "client/laptop", "shop/web:80", "shop/web-1")]),
        ([("b", MASQUERADED_SEEN_BY_B)], [("b", "node/a", "", "shop/web-1")]),
        ([("b", DIRECT), ("a", DIRECT)], [("a", "shop/client", "", "shop/web-1")]),
        ([("a", STALE)], [("a", "shop/client", "shop/web:80", "")]),
        ([("a", CLUSTER_IP), ("a", DIRECT)],
         [("a", "shop/client", "", "shop/web-1"), ("a", "shop/client", "shop/web:80", "shop/web-1")]),
    ],
    ids=["one node", "seen further on", "masqueraded", "beginning not seen", "no Service", "not translated", "several"],
)  # fmt: skip
def test_each_flow_is_told_once(held: list[Held], told: list[tuple[str, str, str, str]]) -> None:
    assert flows(*held) == told


def test_only_what_is_wanted_is_told_though_all_entries_count() -> None:
    held = [("a", CLUSTER_IP), ("b", SEEN_BY_B), ("a", DIRECT)]
    told = flows_of(held, NAMES, NOW, lambda each: each is SEEN_BY_B or each is DIRECT)

    assert [flow.client.port for flow in told] == [4001]


def test_connections_of_a_client_to_an_endpoint_are_summed() -> None:
    again = entry(("10.244.1.5", 4009, "10.96.0.20", 80), ("10.244.2.3", 8080, "10.244.1.5", 4009), packets=(1, 2))
    told = flows_of([("a", CLUSTER_IP), ("a", again), ("a", STALE), ("a", NODE_PORT)], NAMES, NOW)

    assert [(s.client, s.service, s.endpoint, s.connections, s.there, s.back) for s in sums_of(told)] == [
        ("shop/client", "shop/web:80", "shop/web-1:8080", 2, Counts(7, 420), Counts(6, 600)),
        ("client/laptop", "shop/web:80", "shop/web-1:8080", 1, Counts(6, 360), Counts(4, 400)),
        ("shop/client", "shop/web:80", "", 1, Counts(6, 360), Counts(4, 400)),
    ]


def test_without_a_note_of_its_beginning_a_flow_has_no_age() -> None:
    assert flow_of("a", entry(("1.1.1.1", 1, "2.2.2.2", 2), began=0), NAMES, NOW).age is None


@pytest.mark.parametrize(
    ("protocol", "status", "of_tcp", "expected"),
    [
        ("tcp", CONFIRMED | SEEN_REPLY, "TIME_WAIT", "TIME_WAIT"),
        ("tcp", CONFIRMED, "SYN_SENT", "SYN_SENT"),
        ("udp", CONFIRMED, "", "unreplied"),
        ("udp", CONFIRMED | SEEN_REPLY, "", "replied"),
        ("udp", CONFIRMED | SEEN_REPLY | ASSURED, "", "assured"),
    ],
)
def test_the_state(protocol: str, status: int, of_tcp: str, expected: str) -> None:
    one = entry(("1.1.1.1", 1, "2.2.2.2", 2), protocol=protocol, status=status, state=of_tcp)

    assert state(one) == expected


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [(["203.0.113.10"], True), (["10.244.2.3"], True), (["10.244.9.9", "172.18.0.3"], True), (["10.244.1.5"], False)],
)
def test_whom_an_entry_concerns(addresses: list[str], expected: bool) -> None:
    assert concerns(NODE_PORT, addresses) is expected


@pytest.mark.parametrize(
    ("one", "text", "said"),
    [
        (NODE_PORT,
         "tcp      6 119 ESTABLISHED src=203.0.113.10 dst=172.18.0.3 sport=5000 dport=30080 packets=6 bytes=360 "
         "src=10.244.2.3 dst=172.18.0.3 sport=8080 dport=61000 packets=4 bytes=400 [ASSURED] mark=0 delta-time=100 "
         "use=1",
         "client/laptop:5000 > service/shop/web:80 > shop/web-1:8080 as node/a:61000"),
        (entry(("10.244.1.5", 4000, "192.0.2.1", 53), protocol="udp", status=CONFIRMED, packets=(0, 0)),
         "udp      17 119 src=10.244.1.5 dst=192.0.2.1 sport=4000 dport=53 [UNREPLIED] "
         "src=192.0.2.1 dst=10.244.1.5 sport=53 dport=4000 mark=0 delta-time=100 use=1",
         "shop/client:4000 > 192.0.2.1:53"),
    ],
)  # fmt: skip
def test_an_entry_in_conntracks_own_form_and_in_names(one: Tracked, text: str, said: str) -> None:
    assert line(one, NOW) == text
    assert in_names(one, NAMES) == said
