"""Why not: evidence of packets that went wrong, and the cause that is found in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from netemu.observe.reasons import Because, Reason
from netemu.observe.story.cause import WhyNot
from netemu.observe.story.destination import Destination
from netemu.observe.story.expected import Expected
from netemu.observe.story.whynot import Facts, nowhere, why_not
from netemu.observe.trace.evidence import Flow
from tests.unit.objects_world import a_pod, a_service
from tests.unit.trace_scene import (
    CLIENT,
    NODE_1,
    NODE_2,
    POD_1,
    POD_2,
    SERVICE,
    VIP,
    WEB,
    Journey,
    names,
    objects,
    through_the_rules,
)

TARGET = f"{WEB}:8080"
RIGHT = Expected(
    "dnat", Reason.TRANSLATED, "cluster IP of shop/web:http", "worker-1", frozenset({TARGET}),
    frozenset({(TARGET, CLIENT)}), SERVICE, SERVICE.spec.ports[0], "cluster IP",
)  # fmt: skip
DIRECT = Expected("direct", Reason.DIRECT, "", "", frozenset({TARGET}), frozenset({(TARGET, CLIENT)}))


NO_SUCH_PORT = Expected("reject", Reason.WRONG_PORT, "", "worker-1", service=SERVICE)


def failing(reason: Reason, verdict: str = "reject", text: str = "why") -> Expected:
    return Expected(verdict, reason, text, "worker-1", service=SERVICE, port=SERVICE.spec.ports[0], via="cluster IP")  # type: ignore[arg-type]


def refused_by_kube() -> Journey:
    journey = Journey().begin().rule(NODE_1, "filter", "KUBE-SERVICES", "reject", "-j REJECT")
    return journey.drop(NODE_1, "rule", rejected=True).icmp("port unreachable")


def arrived() -> Journey:
    return through_the_rules().dnat(NODE_1).to_worker_2().arrive()


def straight() -> Journey:
    return Journey(Flow(CLIENT, 61001, WEB, 8080)).begin().to_worker_2().arrive()


CASES: dict[str, tuple[Callable[[], Journey], Expected, str, str, str]] = {
    # what it is: journey, expected, reason, place, words
    "stale conntrack entry": (
        lambda: Journey(protocol="udp").begin().dnat(NODE_1, "10.244.2.9", new=False).to_worker_2(), RIGHT,
        "stale-conntrack", NODE_1, "has an entry from before, so the packet was sent on to 10.244.2.9:8080",
    ),
    "translated to what is no endpoint": (
        lambda: Journey().begin().dnat(NODE_1, "10.244.2.9").to_worker_2(), RIGHT,
        "missing-rule", NODE_1, "it should have been sent to shop/web-1:8080",
    ),
    "translated by no rule": (
        lambda: Journey().begin().route(NODE_1, "eth0").link(NODE_1, "eth0", "out"), RIGHT,
        "missing-rule", NODE_1, "translated by no rule",
    ),
    "refused by old rules": (refused_by_kube, RIGHT, "missing-rule", NODE_1, "refused or dropped by a rule"),
    "reached though it should not": (
        lambda: arrived().back().home(), failing(Reason.NO_ENDPOINTS, text="shop/web has no endpoints"),
        "missing-rule", NODE_1, "it should have been refused (shop/web has no endpoints)",
    ),
    "masquerade is missing": (
        lambda: arrived().back().home(), replace(RIGHT, sources=frozenset({(TARGET, "172.18.0.3")})),
        "wrong-source", NODE_1, "saw the source 10.244.1.2; it should have seen 172.18.0.3",
    ),
    "rule of somebody else, before the translation": (
        lambda: Journey().begin().rule(NODE_1, "raw", "PREROUTING", "drop", "-s 10.244.1.2/32 -j DROP")
        .drop(NODE_1, "rule"), RIGHT,
        "dropped-by-rule", NODE_1, "the rule `-s 10.244.1.2/32 -j DROP` of raw PREROUTING on node/worker-1 drops",
    ),
    "rule of somebody else, on another node": (
        lambda: through_the_rules().dnat(NODE_1).to_worker_2()
        .rule(NODE_2, "filter", "FORWARD", "reject", "-j REJECT").drop(NODE_2, "rule", rejected=True)
        .icmp("port unreachable"), RIGHT,
        "dropped-by-rule", NODE_2, "rejects the packet",
    ),
    "no route": (
        lambda: through_the_rules().dnat(NODE_1).route(NODE_1, error="Network is unreachable")
        .drop(NODE_1, "route", rejected=True).icmp("network unreachable"), RIGHT,
        "no-route", NODE_1, "has no route to shop/web-1 (10.244.2.3): Network is unreachable",
    ),
    "link down": (
        lambda: through_the_rules().dnat(NODE_1).route(NODE_1, "eth0")
        .drop(NODE_1, "link", "eth0", detail="it did not leave through eth0"), RIGHT,
        "link-down", NODE_1, "a link of node/worker-1 is down or loses packets: it did not leave through eth0",
    ),
    "nobody on the link": (
        lambda: through_the_rules().dnat(NODE_1).route(NODE_1, "eth0", silent=True)
        .drop(NODE_1, "link", "eth0", detail="no neighbour on eth0 answers for 10.244.2.3"), RIGHT,
        "no-neighbour", NODE_1, "nobody on link eth0 of node/worker-1 has shop/web-1 (10.244.2.3)",
    ),
    "MTU": (
        lambda: Journey(size=1500).begin().dnat(NODE_1).drop(NODE_1, "route", "eth0", rejected=True)
        .icmp("fragmentation needed, mtu 1400"), RIGHT,
        "mtu", NODE_1, "packet of 1500 bytes is too long",
    ),
    "MTU, and nobody says so": (
        lambda: through_the_rules().dnat(NODE_1).route(NODE_1, "eth0")
        .drop(NODE_1, "link", "eth0", detail="1500 bytes are more than the MTU of eth0, 1400"), RIGHT,
        "mtu", NODE_1, "1500 bytes are more than the MTU of eth0",
    ),
    "longer than the sender's own link": (
        lambda: Journey(size=1600).drop(POD_1, "link", "eth0", detail="Message too long"), RIGHT,
        "mtu", POD_1, "the packet of 1600 bytes does not fit through a link of shop/client: Message too long",
    ),
    "in a circle": (
        lambda: Journey(Flow(CLIENT, 61001, "10.244.1.99", 80)).begin().route(NODE_1, "eth0")
        .link(NODE_1, "eth0", "out").drop(NODE_1, "link", "eth0").icmp("time exceeded"), DIRECT,
        "loop", NODE_1, "routes lead to 10.244.1.99, and nobody there has it",
    ),
    "lost on a link": (
        lambda: through_the_rules().dnat(NODE_1).to_worker_2().drop(NODE_2, "unknown", "eth0"), RIGHT,
        "lost", NODE_2, "seen last at node/worker-2, link eth0",
    ),
    "nobody listens": (
        lambda: straight().back("RST").home(), DIRECT,
        "not-listening", POD_2, "Pod shop/web-1 refused: nothing listens on port 8080",
    ),
    "the server says nothing": (arrived, RIGHT, "no-answer", POD_2, "sent no answer"),
    "the answer is not translated back": (
        lambda: arrived().back().link(POD_2, "eth0", "out").link(NODE_2, "veth2", "in"), RIGHT,
        "answer-astray", NODE_2, "on which nobody translates it back",
    ),
    "the answer is dropped": (
        lambda: straight().back().link(POD_2, "eth0", "out").link(NODE_2, "veth2", "in").drop(NODE_2, "rule"), DIRECT,
        "answer-lost", NODE_2, "was lost at node/worker-2 (rule)",
    ),
    "no endpoints": (
        refused_by_kube, failing(Reason.NO_ENDPOINTS),
        "no-endpoints", NODE_1, "has no ready endpoint of IPv4",
    ),
    "policy Local": (
        lambda: Journey().begin().drop(NODE_1, "rule"), failing(Reason.NO_LOCAL_ENDPOINT, "drop"),
        "no-local-endpoint", NODE_1,
        "internalTrafficPolicy of Service shop/web is Local, and node worker-1 has no endpoint",
    ),
    "wrong port": (
        lambda: Journey(Flow(CLIENT, 61001, VIP, 8080)).begin().drop(NODE_1, "rule", rejected=True)
        .icmp("port unreachable"), NO_SUCH_PORT,
        "wrong-port", NODE_1, "Service shop/web has no port 8080/TCP",
    ),
    "wrong port, which the mode does not refuse": (
        lambda: Journey(Flow(CLIENT, 61001, VIP, 8080)).begin().drop(NODE_1, "unknown"),
        replace(NO_SUCH_PORT, verdict="unreachable", reason=Reason.NO_ROUTE),
        "wrong-port", NODE_1, "Service shop/web has no port 8080/TCP",
    ),
    "source ranges": (
        lambda: Journey().begin().drop(NODE_1, "rule"), failing(Reason.SOURCE_RANGE, "drop"),
        "source-range", NODE_1, "do not have the source 10.244.1.2",
    ),
    "what the oracle alone knows": (
        lambda: Journey().begin().drop(NODE_1, "rule"), failing(Reason.LOOPBACK, "drop", "only the node itself"),
        "loopback", NODE_1, "only the node itself",
    ),
}  # fmt: skip


def cause(journey: Journey, expected: Expected, **facts: object) -> WhyNot | None:
    destination = Destination("web:80", journey.flow.destination, journey.flow.port)
    known = Facts(objects(), names(), **facts)  # type: ignore[arg-type]
    return why_not(journey.evidence(), expected, destination, known)


@pytest.mark.parametrize(("travel", "expected", "reason", "place", "words"), CASES.values(), ids=CASES)
def test_the_cause_is_found(
    travel: Callable[[], Journey], expected: Expected, reason: str, place: str, words: str
) -> None:
    found = cause(travel(), expected)

    assert found is not None
    assert (found.reason, found.place) == (reason, place)
    assert words in found.text


@pytest.mark.parametrize(
    ("journey", "expected"), [(arrived().back().home(), RIGHT), (straight().back().home(), DIRECT)]
)
def test_what_is_as_it_should_be_has_no_cause(journey: Journey, expected: Expected) -> None:
    assert cause(journey, expected) is None


def test_rules_of_a_proxy_that_stands_still_are_old() -> None:
    journey = Journey().begin().dnat(NODE_1, "10.244.2.9").to_worker_2()
    found = cause(journey, RIGHT, proxies={"worker-1": "rules are at revision 7, not yet 9"})

    assert found is not None
    assert found.reason == "proxy-stopped"
    assert "rules are at revision 7" in found.text


FOREIGN = {
    "sent elsewhere": (
        lambda: Journey().begin().rule(NODE_1, "nat", "PREROUTING", "dnat", "-j DNAT --to-destination 10.244.2.9:8080")
        .dnat(NODE_1, "10.244.2.9").to_worker_2(), RIGHT, "DNAT --to-destination", "translates the packet",
    ),
    "another table of nf_tables": (
        lambda: Journey().begin().rule(NODE_1, "mine", "pre", "accept", "tcp dport 80 dnat to 10.244.2.9:8080")
        .dnat(NODE_1, "10.244.2.9").to_worker_2(), RIGHT, "dnat to 10.244.2.9", "translates the packet",
    ),
    "masqueraded": (
        lambda: through_the_rules().rule(NODE_1, "nat", "POSTROUTING", "masquerade", "-j MASQUERADE")
        .translate(NODE_1, Flow("172.18.0.3", 61001, WEB, 8080)).to_worker_2().arrive(), RIGHT,
        "-j MASQUERADE", "saw the source 172.18.0.3",
    ),
    "kept from kube-proxy's": (
        lambda: Journey().begin().rule(NODE_1, "nat", "PREROUTING", "accept", "-j ACCEPT")
        .route(NODE_1, "eth0").link(NODE_1, "eth0", "out"), RIGHT, "-j ACCEPT", "lets the packet past kube-proxy's",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("travel", "expected", "rule", "words"), FOREIGN.values(), ids=FOREIGN)
def test_a_rule_of_somebody_else_that_translates_is_named(
    travel: Callable[[], Journey], expected: Expected, rule: str, words: str
) -> None:
    found = cause(travel(), expected)

    assert found is not None
    assert (found.reason, found.place) == ("foreign-rule", NODE_1)
    assert rule in found.text
    assert words in found.text
    assert found.remedy.startswith("remove the rule")


def test_a_cluster_ip_has_no_route_outside_of_the_cluster() -> None:
    journey = Journey().route("underlay", error="Network is unreachable").drop("underlay", "route", rejected=True)
    found = cause(journey.icmp("network unreachable"), replace(DIRECT, verdict="unreachable", reason=Reason.NO_ROUTE))

    assert found is not None
    assert (found.reason, found.place) == ("no-route", "underlay")
    assert "made by the rules of nodes" in found.text
    assert "node port" in found.remedy


def test_why_a_query_is_lost_is_why_the_name_is_not_known() -> None:
    query = WhyNot(
        reason=Reason.LINK_DOWN, place="underlay", text="a link of underlay is down", remedy="`ip link` there"
    )
    found = nowhere(
        Destination("one:80"), Because(Reason.DNS_FAILS, "nobody tells what the name one is: timeout"), query
    )

    assert (found.reason, found.place, found.remedy) == ("link-down", "underlay", "`ip link` there")
    assert found.text == (
        "nobody tells what the name one is: timeout, because a query gets no answer: a link of underlay is down"
    )


def test_a_headless_service_is_told_by_its_name() -> None:
    headless = a_service(clusterIP="None", ports=[{"port": 80, "targetPort": 8080}])
    journey = Journey(Flow(CLIENT, 61001, WEB, 80)).begin().to_worker_2().arrive().back("RST").home()
    known = Facts(objects(headless, a_pod("web-1", WEB, node="worker-2")), names(headless))
    found = why_not(journey.evidence(), DIRECT, Destination("web:80", WEB, 80, "Service shop/web"), known)

    assert found is not None
    assert (found.reason, found.remedy) == ("headless", "use the Pods' own port: 8080")


def test_what_has_no_address_has_a_cause() -> None:
    because = Because(Reason.UNSCHEDULED, "Pod shop/a is on no node yet")

    assert nowhere(Destination("a:80", owner="Pod shop/a"), because) == WhyNot(
        reason=Reason.UNSCHEDULED, place="Pod shop/a", text="Pod shop/a is on no node yet"
    )


def test_a_cause_is_printed_with_its_place_and_its_remedy() -> None:
    found = WhyNot(reason=Reason.MTU, place="node/worker-1", text="too long", remedy="shorter")

    assert [*found.lines()] == ["why not: too long", "   where: node/worker-1", "  remedy: shorter"]
