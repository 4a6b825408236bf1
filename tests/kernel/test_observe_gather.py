"""One packet followed through a client, a node and endpoints: what the kernel tells in every kind of rules.

client 203.0.113.9 --- 203.0.113.1 node 10.180.0.254 --- 10.180.0.1 endpoint; and 2001:db8:113::/64, fd00:180::/64.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from netemu.kernel import sysctl
from netemu.model.errors import KernelError, UserError
from netemu.observe.trace.evidence import (
    Crossing,
    Dropped,
    Event,
    Evidence,
    Leg,
    MapHit,
    Packet,
    Routed,
    RuleHit,
    Translation,
    Watched,
)
from netemu.observe.trace.gather import gather
from tests.kernel import proxy_bed as bed
from tests.kernel.proxy_bed import CLIENT, NODE, endpoint_ns

ENDPOINT = endpoint_ns(1)
SERVICE, ADDRESS = "10.96.0.10", "10.180.0.1"
SERVICE6, ADDRESS6, CLIENT6, NODE6 = "fd00:96::a", "fd00:180::1", "2001:db8:113::9", "2001:db8:113::1"
PLACES = [Watched("client", CLIENT), Watched("node", NODE), Watched("endpoint", ENDPOINT)]
LEGACY, NFT = "legacy", "nft"


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    bed.destroy()
    bed.build(1)
    try:
        for place, lines in {
            CLIENT: ["addr add 2001:db8:113::9/64 dev eth0 nodad", f"route add default via {NODE6}"],
            NODE: [
                f"addr add {NODE6}/64 dev out nodad", "addr add fd00:180::fe/128 dev ep1 nodad",
                f"route add {ADDRESS6}/128 dev ep1",
            ],
            ENDPOINT: [
                f"addr add {ADDRESS6}/128 dev eth0 nodad", "route add fd00:180::fe/128 dev eth0",
                "route add default via fd00:180::fe dev eth0",
            ],
        }.items():  # fmt: skip
            for line in lines:
                subprocess.run(["ip", "-6", "-n", place, *line.split()], check=True)
        bed.sh(NODE, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        with bed.echoes(1):
            yield
    finally:
        bed.destroy()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No rules, no connections, and after the test nothing of a trace."""
    bed.sh(NODE, "nft", "flush", "ruleset")
    bed.sh(NODE, "conntrack", "-F")
    yield
    assert "netemu" not in bed.sh(NODE, "nft", "list", "tables")


def nft(text: str) -> None:
    bed.sh(NODE, "nft", "-f", "-", text=text)


@contextlib.contextmanager
def iptables(kind: str, *rules: str, family: str = "ip") -> Iterator[None]:
    """Rules of the node, gone after. A rule is `TABLE ARGUMENTS`."""
    tool = f"{family}tables-{kind}"
    for rule in rules:
        table, *arguments = rule.split()
        bed.sh(NODE, tool, "-t", table, *arguments)
    try:
        yield
    finally:
        for table in sorted({rule.split()[0] for rule in rules}):
            for flag in ("-F", "-X"):
                bed.sh(NODE, tool, "-t", table, flag)
        bed.sh(NODE, tool, "-P", "FORWARD", "ACCEPT")


def follow(start: str = "client", *, timeout: float = 5, **fields: Any) -> Evidence:
    packet = Packet(**{"destination": SERVICE, "port": 80, **fields})
    source = next(place for place in PLACES if place.name == start)
    return asyncio.run(gather(packet, source, PLACES, timeout=timeout))


def path(evidence: Evidence, leg: Leg) -> list[str]:
    """Ends of links, in order."""
    crossings = (event for event in evidence.events if isinstance(event, Crossing) and event.leg == leg)
    return [f"{event.place} {event.direction} {event.link}" for event in crossings]


def of(evidence: Evidence, kind: type[Any], place: str = "node", leg: Leg = "there") -> list[Any]:
    return [event for event in evidence.at(place, leg) if isinstance(event, kind)]


def told(events: list[RuleHit]) -> list[str]:
    """`TABLE CHAIN VERDICT`, policies in brackets."""
    said = (f"{hit.table} {hit.chain} {hit.verdict}" for hit in events)
    return [f"[{text}]" if hit.policy else text for hit, text in zip(events, said, strict=True)]


def names(events: tuple[Event, ...]) -> list[str]:
    return [type(event).__name__ for event in events]


THERE = ["client out eth0", "node in out", "node out ep1", "endpoint in eth0"]
BACK = ["endpoint out eth0", "node in ep1", "node out out", "client in eth0"]
SERVICE_RULES = [
    "nat -N SVC",
    f"nat -A PREROUTING -d {SERVICE} -p tcp --dport 80 -m comment --comment here -j SVC",
    "nat -A SVC -j MARK --set-xmark 0x4000/0x4000",
    f"nat -A SVC -p tcp -j DNAT --to-destination {ADDRESS}:8080",
    "nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully",
]


@pytest.mark.parametrize("kind", [LEGACY, NFT])
def test_rules_of_iptables_are_told_with_text_number_and_counters(kind: str) -> None:
    with iptables(kind, *SERVICE_RULES):
        evidence = follow()

    assert path(evidence, "there") == THERE
    assert path(evidence, "back") == BACK
    assert evidence.reached == "endpoint"
    assert evidence.answer is not None
    assert (evidence.answer.what, evidence.answer.source, evidence.answer.port) == (
        "SYN-ACK", SERVICE, evidence.packet.source_port,
    )  # fmt: skip
    hits = [hit for hit in of(evidence, RuleHit) if hit.table == "nat"]
    assert told(hits) == [
        "nat PREROUTING jump", "nat SVC mark", "nat SVC dnat", "nat POSTROUTING masquerade",
    ]  # fmt: skip
    jump, mark, dnat, masquerade = hits
    assert {hit.backend for hit in hits} == {f"iptables-{kind}"}
    assert (jump.to, jump.comment, jump.number, jump.hook) == ("SVC", "here", 1, "prerouting")
    assert (mark.number, dnat.number) == (1, 2)
    assert dnat.text == f"-p tcp -j DNAT --to-destination {ADDRESS}:8080"
    assert masquerade.mark == 0x4000
    assert dnat.before is not None
    assert (dnat.before.packets, dnat.after.packets) == (0, 1)
    (translation,) = of(evidence, Translation)
    assert (translation.kinds, translation.new) == (("dnat", "snat"), True)
    assert (translation.after.destination, translation.after.port) == (ADDRESS, 8080)
    assert translation.after.source == "10.180.0.254"
    (route,) = of(evidence, Routed)
    assert (route.destination, route.type, route.out_link, route.in_link) == (ADDRESS, "unicast", "ep1", "out")


def test_a_chain_and_its_packet_stand_between_the_frames() -> None:
    with iptables(LEGACY, *SERVICE_RULES):
        evidence = follow()
    inner = names(evidence.at("node", "there"))

    assert inner[0] == inner[-1] == "Crossing"
    assert inner.index("Routed") > max(
        i for i, hit in enumerate(inner) if hit == "RuleHit" and i < inner.index("Routed")
    )
    assert [event.seconds for event in evidence.events] == sorted(event.seconds for event in evidence.events)
    back = of(evidence, Translation, leg="back")[0]
    assert (back.after.source, back.after.port) == (SERVICE, 80) or back.after.destination == bed.CLIENT_IP
    assert not back.new


NFT_SERVICE = f"""
table ip shop {{
    map services {{
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = {{ {SERVICE} . tcp . 80 : goto web, {SERVICE} . udp . 80 : goto web }}
    }}
    set known {{ type ipv4_addr; flags interval; elements = {{ 203.0.113.0/24 comment "outside" }} }}
    chain pre {{
        type nat hook prerouting priority -100;
        ip saddr @known counter comment "who"
        ip daddr . meta l4proto . th dport vmap @services
    }}
    chain web {{
        meta l4proto tcp dnat to {ADDRESS}:8080
        meta l4proto udp dnat to {ADDRESS}:8080
    }}
    chain post {{ type nat hook postrouting priority 100; oifname "ep1" masquerade fully-random; }}
}}"""


def test_rules_of_nftables_are_told_with_the_elements_that_decided() -> None:
    nft(NFT_SERVICE)
    evidence = follow()
    both = [event for event in evidence.at("node", "there") if isinstance(event, RuleHit | MapHit)]
    nat = [event for event in both if event.table == "shop"]  # tables of iptables that a test made stay, empty

    assert [event.text if isinstance(event, RuleHit) else f"{event.key}: {event.data}" for event in nat] == [
        'ip saddr @known counter packets 1 bytes 44 comment "who"',
        "203.0.113.0/24: ",
        "ip daddr . meta l4proto . th dport vmap @services",
        f"{SERVICE} . tcp . 80: goto web",
        f"meta l4proto tcp dnat to {ADDRESS}:8080",
        'oifname "ep1" masquerade fully-random',
    ]
    known, _, lookup, *_ = nat
    assert isinstance(known, RuleHit)
    assert isinstance(lookup, RuleHit)
    assert known.after is not None
    assert (known.after.packets, known.comment) == (1, "who")
    assert (lookup.verdict, lookup.to, lookup.backend) == ("goto", "web", "nft")
    assert evidence.reached == "endpoint"
    assert path(evidence, "back") == BACK


def test_a_datagram_is_followed_back_through_a_masquerade() -> None:
    """What answers it bears nothing of it, and the node sent it from another port."""
    nft(NFT_SERVICE)
    evidence = follow(protocol="udp")

    assert path(evidence, "there") == THERE
    assert path(evidence, "back") == BACK
    assert evidence.answer is not None
    assert evidence.answer.what == "datagram"
    sent, arrived = (event for event in evidence.events if isinstance(event, Crossing) and event.link == "ep1")
    assert sent.headers.flow.reversed == arrived.headers.flow
    assert sent.headers.source_port != evidence.packet.source_port


def test_a_connection_that_is_there_already_is_not_asked_about_again() -> None:
    nft(NFT_SERVICE)
    first = follow(protocol="udp", source_port=61234)
    again = follow(protocol="udp", source_port=61234)

    assert of(first, Translation)[0].new
    assert not of(again, Translation)[0].new
    assert of(again, Translation)[0].after == of(first, Translation)[0].after
    assert again.reached == "endpoint"
    assert not any(hit.chain == "pre" for hit in of(again, RuleHit))


@pytest.mark.parametrize("port", [80, 81])
def test_a_closed_port_resets_and_the_translation_is_told_though_it_is_gone(port: int) -> None:
    nft(f"""table ip shop {{
        chain pre {{ type nat hook prerouting priority -100; tcp dport {port} dnat to {ADDRESS}:9; }}
    }}""")
    evidence = follow(port=port)

    assert evidence.answer is not None
    assert evidence.answer.what == "RST"
    assert evidence.reached == "endpoint"
    assert of(evidence, Translation)[0].after.port == 9


@pytest.mark.parametrize(
    ("rule", "by", "rejected", "answer"),
    [
        ("tcp dport 80 drop", "rule", False, ""),
        ("tcp dport 80 reject", "rule", True, "port unreachable"),
        ("tcp dport 80 reject with tcp reset", "rule", True, "RST"),
        ("ip saddr 1.2.3.4 accept", "policy", False, ""),
    ],
)
def test_nftables_ends_a_packet(rule: str, by: str, rejected: bool, answer: str) -> None:
    policy = "drop" if by == "policy" else "accept"
    nft(f"table ip f {{ chain ends {{ type filter hook forward priority 0; policy {policy}; {rule}; }}\n}}")
    evidence = follow(destination=ADDRESS, timeout=0.1)
    (end,) = of(evidence, Dropped)

    assert (end.by, end.rejected) == (by, rejected)
    assert "chain ends, table ip f" in end.detail
    assert (evidence.answer.what if evidence.answer else "") == answer
    assert evidence.reached == ""
    assert path(evidence, "there") == THERE[:2]


@pytest.mark.parametrize("kind", [LEGACY, NFT])
@pytest.mark.parametrize(
    ("rules", "by", "detail"),
    [
        (["filter -A FORWARD -p tcp --dport 80 -j DROP"], "rule", "rule 1 of chain FORWARD, table ip filter"),
        (["filter -A FORWARD -p tcp -j REJECT"], "rule", "rule 1 of chain FORWARD, table ip filter"),
        (["filter -A FORWARD -p udp", "filter -P FORWARD DROP"], "policy", "policy of chain FORWARD, table ip filter"),
    ],
)
def test_iptables_ends_a_packet(kind: str, rules: list[str], by: str, detail: str) -> None:
    with iptables(kind, *rules):
        evidence = follow(destination=ADDRESS, timeout=0.1)
    (end,) = of(evidence, Dropped)

    assert (end.by, end.detail) == (by, detail)
    assert end.rejected == ("REJECT" in rules[0]) == (evidence.answer is not None)


def test_no_route_is_told_where_it_is_missing() -> None:
    evidence = follow(destination="192.0.2.1", timeout=0.1)
    there = of(evidence, Routed)
    assert there[0].out_link == "up0"  # the way to nowhere that the bed has

    bed.sh(NODE, "ip", "route", "add", "unreachable", "192.0.2.0/24")
    try:
        evidence = follow(destination="192.0.2.1", timeout=0.1)
    finally:
        bed.sh(NODE, "ip", "route", "del", "unreachable", "192.0.2.0/24")
    (end,) = of(evidence, Dropped)
    assert (end.by, end.rejected) == ("route", True)
    assert evidence.answer is not None
    assert evidence.answer.what == "host unreachable"
    assert evidence.answer.about is not None
    assert evidence.answer.about.what == "SYN"


def test_a_packet_that_is_larger_than_a_link_takes_is_told() -> None:
    bed.sh(NODE, "ip", "link", "set", "ep1", "mtu", "1300")
    try:
        evidence = follow(destination=ADDRESS, protocol="udp", size=1400, timeout=0.1)
    finally:
        bed.sh(NODE, "ip", "link", "set", "ep1", "mtu", "1500")
    (end,) = of(evidence, Dropped)

    assert (end.by, end.link, end.rejected) == ("link", "ep1", True)
    assert evidence.answer is not None
    assert evidence.answer.what == "fragmentation needed, mtu 1300"


def test_a_packet_of_the_node_passes_its_output_rules() -> None:
    with iptables(LEGACY, "nat -A OUTPUT -d 10.96.0.10 -p tcp -j DNAT --to-destination 10.180.0.1:8080"):
        evidence = follow("node")

    assert told([hit for hit in of(evidence, RuleHit) if hit.table == "nat"])[0] == "nat OUTPUT dnat"
    first, second = of(evidence, Routed)
    assert (first.destination, first.out_link) == (SERVICE, "up0")
    assert (second.destination, second.out_link) == (ADDRESS, "ep1")
    assert path(evidence, "there") == ["node out ep1", "endpoint in eth0"]
    assert evidence.answer is not None
    assert (evidence.answer.what, evidence.answer.source, evidence.answer.source_port) == ("SYN-ACK", SERVICE, 80)


def test_what_is_refused_on_its_way_out_has_no_frame() -> None:
    with iptables(NFT, "filter -A OUTPUT -d 10.180.0.1 -j DROP"):
        evidence = follow("node", destination=ADDRESS, timeout=0.1)

    assert path(evidence, "there") == []
    assert [type(event).__name__ for event in evidence.events][-1] == "Dropped"
    assert [end.by for end in of(evidence, Dropped)] == ["rule"]


def test_a_packet_that_its_own_link_does_not_take_is_not_sent() -> None:
    evidence = follow("node", destination=ADDRESS, protocol="udp", size=1600)

    assert path(evidence, "there") == []
    assert [(end.by, end.detail) for end in of(evidence, Dropped)] == [("link", "Message too long")]


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_ipv6_is_told_as_ipv4_is(protocol: str) -> None:
    nft(f"""table ip6 shop {{ chain pre {{ type nat hook prerouting priority -100;
        ip6 daddr {SERVICE6} dnat to {ADDRESS6}; }}
        chain post {{ type nat hook postrouting priority 100; masquerade; }}
        }}""")
    evidence = follow(destination=SERVICE6, port=9, protocol=protocol)

    assert path(evidence, "there") == THERE
    assert path(evidence, "back") == BACK
    assert evidence.answer is not None
    assert evidence.answer.what == {"tcp": "RST", "udp": "port unreachable", "icmp": "echo reply"}[protocol]
    assert evidence.answer.source == SERVICE6
    (translation,) = of(evidence, Translation)
    assert translation.kinds == ("dnat", "snat")
    assert translation.after.destination == ADDRESS6
    assert of(evidence, RuleHit)[0].text == f"ip6 daddr {SERVICE6} dnat to {ADDRESS6}"


@pytest.mark.parametrize("kind", [LEGACY, NFT])
def test_rules_of_ip6tables_are_told_as_those_of_iptables(kind: str) -> None:
    rules = [
        f"nat -A PREROUTING -d {SERVICE6}/128 -p tcp -j DNAT --to-destination [{ADDRESS6}]:9",
        "filter -A FORWARD -p tcp -j ACCEPT",
    ]
    with iptables(kind, *rules, family="ip6"):
        evidence = follow(destination=SERVICE6)

    hits = [hit for hit in of(evidence, RuleHit) if hit.number]
    assert told(hits) == ["nat PREROUTING dnat", "filter FORWARD accept"]
    assert {(hit.family, hit.backend) for hit in hits} == {("ip6", f"iptables-{kind}")}
    assert evidence.answer is not None
    assert (evidence.answer.what, evidence.answer.source) == ("RST", SERVICE6)


def test_rules_of_others_are_told_in_the_tools_words() -> None:
    nft("""table inet firewall { chain ends { type filter hook forward priority 0;
        meta nfproto ipv4 tcp flags syn / syn,ack counter accept comment "first"; }
        }""")
    evidence = follow(destination=ADDRESS, port=8080)
    (hit,) = (hit for hit in of(evidence, RuleHit) if hit.table == "firewall")

    assert (hit.family, hit.verdict, hit.comment) == ("inet", "accept", "first")
    assert hit.text.startswith("meta nfproto ipv4 tcp flags syn / syn,ack counter")


def test_several_traces_at_once_do_not_see_each_other() -> None:
    async def both() -> list[Evidence]:
        packets = (Packet(destination=SERVICE, port=port, protocol="udp") for port in (80, 81, 82))
        return await asyncio.gather(*(gather(packet, PLACES[0], PLACES, timeout=0.2) for packet in packets))

    nft(NFT_SERVICE)
    with iptables(LEGACY, "filter -A FORWARD -p udp --dport 8080 -j ACCEPT"):
        found = asyncio.run(both())
    assert [evidence.reached for evidence in found] == ["endpoint", "", ""]
    for evidence in found:
        crossed = [event for event in evidence.events if isinstance(event, Crossing) and event.leg == "there"]
        assert {event.headers.port for event in crossed} <= {
            evidence.packet.port, 8080,
        }  # fmt: skip
    accepted = [hit for hit in of(found[0], RuleHit) if hit.table == "filter" and hit.number]
    assert told(accepted) == ["filter FORWARD accept"]


def test_a_busy_network_does_not_hold_a_trace_up() -> None:
    nft(NFT_SERVICE)
    stop = threading.Event()

    def flood() -> None:
        with bed.in_ns(CLIENT, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            while not stop.is_set():
                sock.sendto(b"somebody else's", (ADDRESS, 9))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        found = [follow(protocol="udp"), follow(protocol="udp", port=81, timeout=0.1)]
    finally:
        stop.set()
        thread.join()

    assert [evidence.reached for evidence in found] == ["endpoint", ""]
    assert path(found[0], "back") == BACK


def test_nothing_is_left_when_it_is_cancelled() -> None:
    logger = sysctl.read("net.netfilter.nf_log.2", NODE)

    async def cancelled() -> None:
        task = asyncio.create_task(gather(Packet(destination="192.0.2.1", port=9), PLACES[0], PLACES, timeout=30))
        while "netemu-trace" not in bed.sh(NODE, "nft", "list", "tables"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with iptables(LEGACY, "filter -A FORWARD -p udp"):
        asyncio.run(cancelled())
    assert "netemu-trace" not in bed.sh(NODE, "nft", "list", "tables")
    assert sysctl.read("net.netfilter.nf_log.2", NODE) == logger


def test_what_cannot_be_sent_at_all_says_why() -> None:
    with pytest.raises(KernelError, match="bind udp port 8080"):
        asyncio.run(
            gather(Packet(destination=SERVICE, port=1, protocol="udp", source_port=8080), PLACES[2], PLACES)
        )  # fmt: skip
    for what in ("addr", "route"):
        bed.sh(CLIENT, "ip", "-6", what, "flush", "dev", "eth0")
    try:
        with pytest.raises(UserError, match="client has no IPv6 address"):
            follow(destination=SERVICE6)
    finally:
        for line in (f"addr add {CLIENT6}/64 dev eth0 nodad", f"route add default via {NODE6}"):
            bed.sh(CLIENT, "ip", "-6", *line.split(), check=False)
