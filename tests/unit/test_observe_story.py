"""The story of a packet: what its evidence is told as."""

from __future__ import annotations

import json

import msgspec
import pytest

from netemu.observe.reasons import Reason
from netemu.observe.story.cause import WhyNot
from netemu.observe.story.destination import Destination
from netemu.observe.story.story import Story, Teller, lines_of, nowhere_story, story_of
from netemu.observe.trace.evidence import Flow, MapHit, RuleHit
from netemu.observe.trace.evidence_file import pcapng_of
from tests.unit.trace_scene import CLIENT, NODE_1, VIP, WEB, Journey, names, through_the_rules


def sentence(hit: RuleHit | MapHit) -> str:
    """What is known of rules here."""
    return "one of the endpoints" if isinstance(hit, RuleHit) and hit.verdict == "dnat" else ""


TELLER = Teller(names(), sentence)


WHOLE = """\
shop/client -> web:80 (10.96.0.9:80), TCP

shop/client
     0.000 ms  link         out eth0  10.244.1.2:61001 -> 10.96.0.9:80 SYN
                          to node/worker-1: shop/client -> service/shop/web:80

node/worker-1
     0.010 ms  link         in veth1  10.244.1.2:61001 -> 10.96.0.9:80 SYN
                          from shop/client: shop/client -> service/shop/web:80
     0.020 ms  rule         nat PREROUTING: -j KUBE-SERVICES
                          on to chain KUBE-SERVICES
     0.030 ms  rule         nat KUBE-SEP-X: -p tcp -j DNAT --to-destination 10.244.2.3:8080
                          one of the endpoints
     0.040 ms  translation  conntrack tcp 10.244.1.2:61001 -> 10.96.0.9:80  =>  10.244.1.2:61001 -> 10.244.2.3:8080
                          the destination becomes shop/web-1:8080 on worker-2
     0.050 ms  route        route get 10.244.2.3: via 172.18.0.4 dev eth0
                          on to node/worker-2
     0.060 ms  link         out eth0  10.244.1.2:61001 -> 10.244.2.3:8080 SYN
                          to node/worker-2: shop/client -> shop/web-1:8080

node/worker-2
     0.070 ms  link         in eth0  10.244.1.2:61001 -> 10.244.2.3:8080 SYN
                          from node/worker-1: shop/client -> shop/web-1:8080
     0.080 ms  route        route get 10.244.2.3: dev veth2
                          shop/web-1 is on this link
     0.090 ms  link         out veth2  10.244.1.2:61001 -> 10.244.2.3:8080 SYN
                          to shop/web-1: shop/client -> shop/web-1:8080

shop/web-1
     0.100 ms  link         in eth0  10.244.1.2:61001 -> 10.244.2.3:8080 SYN
                          from node/worker-2: shop/client -> shop/web-1:8080

shop/web-1 (the way back)
     0.110 ms  link         out eth0  10.244.2.3:8080 -> 10.244.1.2:61001 SYN-ACK
                          to node/worker-2: shop/web-1:8080 -> shop/client

node/worker-2 (the way back)
     0.120 ms  link         in veth2  10.244.2.3:8080 -> 10.244.1.2:61001 SYN-ACK
                          from shop/web-1: shop/web-1:8080 -> shop/client
     0.130 ms  link         out eth0  10.244.2.3:8080 -> 10.244.1.2:61001 SYN-ACK
                          to node/worker-1: shop/web-1:8080 -> shop/client

node/worker-1 (the way back)
     0.140 ms  link         in eth0  10.244.2.3:8080 -> 10.244.1.2:61001 SYN-ACK
                          from node/worker-2: shop/web-1:8080 -> shop/client
     0.150 ms  translation  conntrack tcp 10.244.2.3:8080 -> 10.244.1.2:61001  =>  10.96.0.9:80 -> 10.244.1.2:61001
                          the answer is translated back: the source becomes service/shop/web:80
     0.160 ms  link         out veth1  10.96.0.9:80 -> 10.244.1.2:61001 SYN-ACK
                          to shop/client: service/shop/web:80 -> shop/client

shop/client (the way back)
     0.170 ms  link         in eth0  10.96.0.9:80 -> 10.244.1.2:61001 SYN-ACK
                          from node/worker-1: service/shop/web:80 -> shop/client

answered by shop/web-1:8080 on worker-2 after 0.50 ms; it saw the source 10.244.1.2, the sender's own
"""


def told(journey: Journey, cause: WhyNot | None = None) -> Story:
    return story_of(journey.evidence(), "shop/client", Destination("web:80", VIP, 80), TELLER, cause)


def test_a_story_goes_from_hop_to_hop_and_back() -> None:
    journey = through_the_rules().dnat(NODE_1).to_worker_2().arrive().back().home()

    assert "\n".join(lines_of(told(journey))) + "\n" == WHOLE


@pytest.mark.parametrize(
    ("journey", "outcome", "summary"),
    [
        (
            through_the_rules().dnat(NODE_1).to_worker_2().arrive().back().home(), "answered",
            "answered by shop/web-1:8080 on worker-2 after 0.50 ms; it saw the source 10.244.1.2, the sender's own",
        ),
        (
            Journey().begin().translate(NODE_1, Flow("172.18.0.3", 7, WEB, 8080)).to_worker_2().arrive().back().home(),
            "answered",
            "answered by shop/web-1:8080 on worker-2 after 0.50 ms; it saw the source 172.18.0.3, not the sender's "
            "10.244.1.2",
        ),
        (
            Journey(Flow(CLIENT, 7, WEB, 81)).begin().to_worker_2().arrive().back("RST").home(), "refused",
            "refused (RST) by shop/web-1:81 on worker-2 after 0.50 ms",
        ),
        (
            Journey().begin().drop(NODE_1, "rule", rejected=True).icmp("port unreachable"), "rejected",
            "rejected on the way (port unreachable) by node/worker-1 after 0.50 ms",
        ),
        (Journey().begin().drop(NODE_1, "rule"), "lost", "no answer; the packet was seen last at node/worker-1"),
        (
            through_the_rules().dnat(NODE_1).to_worker_2().arrive(), "lost",
            "no answer; the packet reached shop/web-1:8080 on worker-2",
        ),
    ],
)  # fmt: skip
def test_a_story_ends_with_what_came_of_the_packet(journey: Journey, outcome: str, summary: str) -> None:
    story = told(journey)

    assert (story.outcome, story.summary) == (outcome, summary)


def test_json_has_what_is_printed_and_the_evidence_of_each_step() -> None:
    story = told(through_the_rules().dnat(NODE_1).to_worker_2().arrive().back().home())
    steps = json.loads(msgspec.json.encode(story))["steps"]

    assert [step["what"] for step in steps] == [step.what for step in story.steps]
    assert [step["event"]["event"] for step in steps[:5]] == ["crossing", "crossing", "rule", "rule", "translation"]


def test_what_could_not_be_sent_is_a_story_too() -> None:
    cause = WhyNot(reason=Reason.UNSCHEDULED, place="Pod shop/a", text="Pod shop/a is on no node yet")
    story = nowhere_story("shop/client", Destination("pod/a:80", owner="Pod shop/a"), "tcp", cause)

    assert [*lines_of(story)] == [
        "shop/client -> pod/a:80, TCP",
        "",
        "nothing was sent: there is no address to send to",
        "why not: Pod shop/a is on no node yet",
        "   where: Pod shop/a",
    ]


def test_frames_of_all_packets_become_one_file_with_an_interface_for_each_end_of_a_link() -> None:
    evidence = through_the_rules().dnat(NODE_1).to_worker_2().evidence()
    data = b"".join(pcapng_of([evidence, evidence], {CLIENT: "shop/client"}))

    assert data.count(b"frame") == 8
    assert [data.count(name) for name in (b"shop/client eth0", b"node/worker-1 veth1", b"node/worker-2 eth0")] == [
        1,
        1,
        1,
    ]
