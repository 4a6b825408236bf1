"""Rules as a kernel has them: in a packet's order, in words, and held against the API's objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from netemu.model import nft
from netemu.model.nft import Field
from netemu.model.objects import EndpointSlice, Service
from netemu.observe.names import NODE, POD, Party, names_of
from netemu.observe.oracle import NodeView
from netemu.observe.rules.check import Finding, findings
from netemu.observe.rules.iptables import chains_of_iptables
from netemu.observe.rules.iptables_saved import options_of
from netemu.observe.rules.listed import chains_of_listing
from netemu.observe.rules.nftables import chains_of_nftables
from netemu.observe.rules.told import by_port, meaning, told
from netemu.observe.rules.walk import NodeRules, fixed, of_service, others, share_text, shares
from netemu.observe.rules.words import Words
from netemu.observe.trace.evidence import Backend, MapHit, RuleHit
from tests.unit.golden_worlds import dual_stack, sixth
from tests.unit.proxy_world import DATA, endpoint_slice
from tests.unit.rules_world import SERVICES, SLICES, TEST_NODE, world_names, world_rules

MODES = ("iptables", "nftables", "ipvs")
SAVED = (DATA / "iptables-world.save").read_text()
SAID = {
    "iptables": {
        "default/web": [
            "sends what goes to cluster IP 172.30.0.10:80/tcp of default/web:http to any of its endpoints",
            "marks for masquerade what comes from outside the Pod network (10.0.0.0/8)",
            "sends a third of new connections to Pod default/web-1 on node-b (10.180.1.1:8080)",
            "marks for masquerade what Pod default/web-1 on node-c (10.180.2.1) sends to itself",
            "changes the destination to Pod default/web-1 on test-node (10.180.0.1:8080)",
            "masquerades: the source becomes this node's address",
        ],
        "default/sticky": [
            "sends a client that was sent to Pod default/sticky-2 on node-b (10.180.1.2:8080) within the last 10800 s "
            "there again",
            "changes the destination to Pod default/sticky-2 on node-b (10.180.1.2:8080), and remembers the client",
            "sends half of new connections to Pod default/sticky-2 on node-b (10.180.1.2:8080)",
            "takes what goes to node port 30080/tcp of default/sticky, as traffic from outside",
        ],
        "prod/lb-ranges": [
            "has source ranges looked at, for what goes to load balancer IP 1.2.3.4:443/tcp of prod/lb-ranges:https",
            "admits what comes from 203.0.113.0/25",
            "drops what goes to load balancer IP 1.2.3.4:443/tcp of prod/lb-ranges:https: the sender is in none "
            "of its source ranges",
        ],
        "prod/lb-local": [
            "takes what goes to external IP 192.168.99.22:80/tcp of prod/lb-local:p80, as traffic from outside",
            "sends what comes from an address of this node to any endpoint of prod/lb-local:p80",
            "sends whatever comes here to endpoints of prod/lb-local:p80 on this node",
            "marks for masquerade what this node itself sends",
            "lets what goes to health check node port 31000 through",
        ],
        "default/empty": [
            "refuses what goes to cluster IP 172.30.0.17:80/tcp of default/empty:p80: it has no endpoints",
        ],
        "prod/np-remote": [
            "drops what goes to node port 30091/tcp of prod/np-remote:p80: it has no endpoint "
            "on this node, and its traffic policy is Local",
        ],
    },
    "nftables": {
        "default/web": [
            "marks for masquerade what goes to a cluster IP and comes from outside the Pod network (10.0.0.0/8)",
            "sends what goes to cluster IP 172.30.0.10:80/tcp of default/web:http to any of its endpoints",
            "sends a third of new connections to each of Pod default/web-1 on test-node (10.180.0.1:8080), Pod "
            "default/web-1 on node-b (10.180.1.1:8080) and Pod default/web-1 on node-c (10.180.2.1:8080)",
            "masquerades what is marked, and takes the mark off: the source becomes this node's address",
        ],
        "default/sticky": [
            "sends a client that was sent to Pod default/sticky-2 on node-b (10.180.1.2:8080) within the last 10800 s "
            "there again",
            "remembers the client for this endpoint",
            "takes what goes to node port 30080/tcp of default/sticky, as traffic from outside",
        ],
        "prod/lb-ranges": [
            "drops what does not come from 1.2.3.4, 192.168.0.0/24, 203.0.113.0/25: the sender is in none of "
            "prod/lb-ranges:https's source ranges",
        ],
        "default/empty": [
            "refuses what goes to cluster IP 172.30.0.17:80/tcp of default/empty:p80: it has no endpoints",
        ],
        "prod/np-remote": [
            "drops what goes to node port 30091/tcp of prod/np-remote:p80: it has no endpoint on this node, and its "
            "traffic policy is Local",
        ],
    },
    "ipvs": {
        "default/web": [
            "cluster IP 172.30.0.10:80/tcp of default/web:http is a cluster IP",
            "sends what goes to cluster IP 172.30.0.10:80/tcp of default/web:http to one of 3 endpoints, in turn",
            "Pod default/web-1 on node-b (10.180.1.1:8080) gets new connections",
            "Pod default/web-1 on test-node (10.180.0.1:8080) is masqueraded when it reaches itself",
        ],
        "default/sticky": [
            "sends what goes to node port 192.168.7.2:30080/tcp of default/sticky to one of 2 endpoints, in turn; a "
            "client stays with its own for 10800 s",
            "node port 30080/tcp of default/sticky is a node port",
        ],
        "prod/lb-ranges": [
            "load balancer IP 1.2.3.4:443/tcp of prod/lb-ranges:https admits this source range: 203.0.113.0/25",
            "172.30.0.12 is on kube-ipvs0, so this node takes packets for it in",
        ],
        "default/empty": [
            "refuses what goes to node port 192.168.0.2:30099/tcp of default/empty:p80: it has no endpoints",
        ],
    },
}


def off(rules: NodeRules, services: Sequence[Service] = SERVICES, slices: Sequence[EndpointSlice] = SLICES) -> list[
    Finding
]:  # fmt: skip
    names = world_names()
    return findings(rules, TEST_NODE, services, slices, Words(names))


def saved(text: str, services: Sequence[Service] = SERVICES) -> NodeRules:
    names = world_names()
    known = names_of(names.parties.items(), services)
    return NodeRules("ip", "iptables", chains_of_iptables(text, Words(known)))


# --- in words


@pytest.mark.parametrize(("mode", "service"), [(mode, key) for mode in SAID for key in SAID[mode]])
def test_each_rule_of_a_service_has_a_sentence(mode: str, service: str) -> None:
    met = of_service(world_rules(mode), service)

    said = {each.line.sentence for each in met}
    assert [sentence for sentence in SAID[mode][service] if sentence not in said] == []


@pytest.mark.parametrize("mode", MODES)
def test_no_rule_is_told_by_its_text_alone(mode: str) -> None:
    rules = world_rules(mode)

    clumsy = re.compile(r"hands|marks what|KUBE-S[VE]|is in the set$|-j |unknown")
    lines = [line for chain in rules.chains.values() for line in chain.lines]
    assert [line.text for line in lines if not line.sentence or clumsy.search(line.sentence)] == []


@pytest.mark.parametrize("mode", MODES)
def test_what_is_about_other_services_is_left_out(mode: str) -> None:
    met = of_service(world_rules(mode), "default/web")

    named = {port for each in met for port in each.line.ports}
    assert named == {"default/web:http"}


def test_of_a_service_with_two_ports_one_can_be_asked_for() -> None:
    rules = world_rules("iptables")

    both = {port for each in of_service(rules, "kube-system/dns") for port in each.line.ports}
    one = {port for each in of_service(rules, "kube-system/dns:dns-tcp") for port in each.line.ports}

    assert (both, one) == ({"kube-system/dns:dns", "kube-system/dns:dns-tcp"}, {"kube-system/dns:dns-tcp"})


@pytest.mark.parametrize("mode", MODES)
def test_rules_are_in_the_order_a_packet_meets_them(mode: str) -> None:
    met = of_service(world_rules(mode), "prod/lb-ranges")

    stages = list(dict.fromkeys(each.stage for each in met))
    order = ["prerouting", "input", "forward", "output", "postrouting"]
    assert stages == [stage for stage in order if stage in stages]
    assert (stages[0], stages[-1], met[0].depth) == ("prerouting", "postrouting", 0)


@pytest.mark.parametrize("mode", MODES)
def test_masquerading_is_told_only_where_something_is_translated(mode: str) -> None:
    stages = {each.stage for each in of_service(world_rules(mode), "default/empty")}

    assert "postrouting" not in stages


def test_a_chain_is_told_once_and_what_leads_to_it_again_says_so() -> None:
    met = of_service(world_rules("iptables"), "prod/lb-local")

    chain = [(each.chain, each.number) for each in met]
    assert len(chain) == len(set(chain))
    assert [each.number for each in met if each.chain == "KUBE-SERVICES" and each.seen] == [5]


@pytest.mark.parametrize("mode", MODES)
def test_the_fixed_part_and_the_services_parts_are_all_there_is(mode: str) -> None:
    rules = world_rules(mode)
    services = [each for service in SERVICES for each in of_service(rules, service.key)]

    told = {(each.table, each.chain, each.number) for each in [*services, *fixed(rules)]}
    # Sets of ipvs mode are told behind the first rule that looks them up, in the table of that rule.
    all_of = {
        (chain.table, chain.name, number)
        for chain in rules.chains.values()
        for number in range(1, len(chain.lines) + 1)
        if not chain.name.startswith("ipset")
    }
    assert (all_of - told, others(rules)) == (set(), [])


def test_counters_come_with_the_rules() -> None:
    rules = saved(SAVED.replace("-A KUBE-MARK-MASQ", "[12:720] -A KUBE-MARK-MASQ"))

    line = rules.line("nat", "KUBE-MARK-MASQ", 1)
    assert line is not None
    assert (line.packets, line.bytes, line.text) == (12, 720, "-j MARK --set-xmark 0x4000/0x4000")


def test_a_rule_is_found_by_what_a_trace_says_of_it() -> None:
    table = world_rules("nftables")
    masquerading = table.chains["kube-proxy", "masquerading"].lines[0]

    assert masquerading.handle
    assert table.with_handle("kube-proxy", "masquerading", masquerading.handle) is masquerading
    assert (table.with_handle("kube-proxy", "masquerading", 99999), table.line("nat", "KUBE-X", 1)) == (None, None)


def hit(table: str, chain: str, **where: Any) -> RuleHit:
    backend: Backend = "nft" if table == "kube-proxy" else "iptables-nft"
    return RuleHit(
        seconds=0.0, place="node/test-node", leg="there", backend=backend, family="ip", table=table, chain=chain,
        verdict="jump", **where,
    )  # fmt: skip


def test_what_a_trace_hit_is_told_with_the_same_sentences() -> None:
    say = {mode: meaning({"node/test-node": [world_rules(mode)]}) for mode in MODES}
    handle = world_rules("nftables").chains["kube-proxy", "masquerading"].lines[0].handle
    vip, port = "172.30.0.10 . tcp . 80", "172.30.0.10,tcp:80"
    element = MapHit(
        seconds=0.0, place="node/test-node", leg="there", kind="map", family="ip", table="kube-proxy",
        name="service-ips", key=vip,
    )  # fmt: skip
    member = msgspec.structs.replace(element, kind="ipset", family="", table="", name="KUBE-CLUSTER-IP", key=port)

    assert say["iptables"](hit("nat", "KUBE-MARK-MASQ", number=1)) == "sets the mark that means: masquerade on leaving"
    assert say["nftables"](hit("kube-proxy", "masquerading", handle=handle)).startswith("masquerades what is marked")
    assert say["nftables"](element).startswith("sends what goes to cluster IP 172.30.0.10:80/tcp of default/web:http")
    assert say["ipvs"](member) == "cluster IP 172.30.0.10:80/tcp of default/web:http is a cluster IP"
    elsewhere = msgspec.structs.replace(element, place="shop/client")
    assert [say["nftables"](elsewhere), say["iptables"](hit("nat", "OUTPUT", policy=True))] == ["", ""]


def test_a_walk_becomes_indented_lines_with_what_was_counted() -> None:
    rules = saved(SAVED.replace("-A PREROUTING", "[1:60] -A PREROUTING"))

    lines = list(told(of_service(rules, "default/empty"), texts=False))

    assert lines[:4] == [
        "",
        "What is for this node (input)",
        "  filter INPUT 4: of what begins a connection, asks whether it goes to an external address or node port "
        "without endpoints",
        "    filter KUBE-EXTERNAL-SERVICES 2: refuses what goes to node port 30099/tcp of default/empty:p80: it "
        "has no endpoints",
    ]
    assert "  nat PREROUTING 1: asks whether it goes to a Service  [1 packet]" in told(of_service(rules, "default/web"))


@pytest.mark.parametrize("mode", MODES)
def test_of_each_service_port_it_is_known_where_it_is_taken_and_where_to(mode: str) -> None:
    rows = {row.port: row for row in by_port(world_rules(mode))}

    local = rows["prod/lb-local:p80"]
    assert {"172.30.0.13:80/tcp", "5.6.7.8:80/tcp", "192.168.99.22:80/tcp", ":30090/tcp"} == set(local.places)
    assert (local.endpoints, local.packets) == ({"10.180.0.4:80", "10.180.1.4:80"}, 0 if mode == "ipvs" else None)
    assert (rows["default/empty:p80"].endpoints, len(rows)) == (set(), 11)


def test_without_comments_endpoints_are_known_by_who_leads_to_them() -> None:
    rules = saved(re.sub(r'-m comment --comment "[^"]*" ', "", SAVED))

    met = of_service(rules, "default/web")
    assert sum(each.chain.startswith("KUBE-SEP-") for each in met) == 6


def test_chains_of_older_releases_are_known_too() -> None:
    def sentences(text: str) -> list[str]:
        return [each.line.sentence for each in of_service(saved(text), "prod/lb-local")]

    assert sentences(SAVED.replace("KUBE-EXT-", "KUBE-XLB-")) == sentences(SAVED)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("-i eth0 -j DROP", "drops what comes in by eth0"),
        ("! -s 10.0.0.0/8 -p udp -j ACCEPT", "lets what does not come from 10.0.0.0/8 through"),
        ("-p udp -m udp --dport 53 -j REJECT", "refuses what goes to port 53/udp"),
        ("-d 192.0.2.1/32 -p tcp -m tcp --dport 22 -j DROP", "drops what goes to 192.0.2.1:22/tcp"),
        ("-o eth0 -j MASQUERADE", "masquerades what leaves by eth0: the source becomes this node's address"),
        (
            "-d 169.254.20.10/32 -p udp -m udp --dport 53 -j CT --notrack",
            "keeps what goes to 169.254.20.10:53/udp out of conntrack",
        ),
        ("-o eth0 -j SNAT --to-source 192.0.2.7", "changes the source of what leaves by eth0 to 192.0.2.7"),
        ("-p tcp -j REDIRECT --to-ports 15001", "sends what is tcp to this node itself"),
        ("-j CNI-FORWARD", "hands whatever comes here to CNI-FORWARD"),
        ("-m conntrack ! --ctstate NEW -j RETURN", "leaves this chain with what conntrack does not call NEW"),
    ],
)
def test_rules_of_others_are_told_too(text: str, sentence: str) -> None:
    rules = saved(SAVED.replace(":KUBE-SERVICES", ":CNI-FORWARD - [0:0]\n:KUBE-SERVICES", 1).replace(
        "-A INPUT -j KUBE-FIREWALL", f"-A INPUT {text}\n-A INPUT -j KUBE-FIREWALL"))  # fmt: skip

    assert [each.line.sentence for each in others(rules)] == [sentence]


LISTED = """\
table inet guard { # handle 7
\tset bad {
\t\ttype ipv4_addr
\t\telements = { 192.0.2.1 }
\t}

\tchain in { # handle 1
\t\tcomment "ours"
\t\ttype filter hook input priority filter - 10; policy drop;
\t\tct state established,related accept # handle 3
\t\ttcp dport 22 counter packets 4 bytes 240 drop comment "no ssh" # handle 4
\t\tjump more # handle 5
\t\tip daddr 10.0.0.1 dnat ip to 10.0.0.2:80 # handle 6
\t\tmeta mark set 0x00000001 # handle 8
\t}

\tchain more { # handle 2
\t\ticmp type echo-request limit rate 5/second reject with icmp admin-prohibited # handle 9
\t}

\tchain edge { # handle 10
\t\ttype filter hook ingress device "eth0" priority filter; policy accept;
\t\tdrop # handle 11
\t}
}
"""


def test_tables_of_others_are_told_as_the_tool_lists_them() -> None:
    met = others(NodeRules("ip", "iptables", chains_of_listing(LISTED)))

    assert [(each.stage, each.table, each.chain, each.line.sentence) for each in met] == [
        ("input", "inet guard", "in", "lets what matches `ct state established,related` through"),
        ("input", "inet guard", "in", "drops what matches `tcp dport 22`"),
        ("input", "inet guard", "in", "hands whatever comes here to more"),
        ("input", "inet guard", "more", "refuses what matches `icmp type echo-request limit rate 5/second`"),
        ("input", "inet guard", "in", "changes the destination of what matches `ip daddr 10.0.0.1`: ip to 10.0.0.2:80"),
        ("input", "inet guard", "in", "does `meta mark set 0x00000001`"),
    ]
    assert [(each.line.handle, each.line.packets, each.number) for each in met[:2]] == [(3, None, 1), (4, 4, 2)]
    assert met[1].line.text == 'tcp dport 22 counter packets 4 bytes 240 drop comment "no ssh"'


def test_options_with_blanks_and_negations_are_taken_apart() -> None:
    matches = r'! -s 10.0.0.0/8 -p tcp -m comment --comment "a \"b\"" -m tcp --dport 80'
    options = options_of(f"{matches} -j DNAT --to-destination x")

    assert options.matches == {"-s": "! 10.0.0.0/8", "-p": "tcp", "--comment": 'a "b"', "--dport": "80"}
    assert (options.target, options.more, options.chain) == ("DNAT", {"--to-destination": "x"}, "")


def test_a_rule_of_nftables_that_somebody_added_is_told() -> None:
    matches = (nft.Match(Field.IIFNAME, ("eth0",)), nft.Match(Field.TCP_DPORT, (22,)))
    table = nft.Table("ip", "kube-proxy")
    rule = nft.Rule("services", (*matches, nft.Counter(3, 180), nft.DROP))
    chains = chains_of_nftables(nft.Ruleset(table, (nft.Chain("services"),), (rule,)), Words(world_names()))

    (line,) = chains["kube-proxy", "services"].lines
    assert (line.sentence, line.packets) == ("drops what comes in by eth0 and has tcp dport 22", 3)


@pytest.mark.parametrize(
    ("chances", "words"),
    [
        ([None], ["every new connection"]),
        ([0.5, None], ["half of new connections"] * 2),
        ([1 / 3, 0.5, None], ["a third of new connections"] * 3),
        ([1 / 7, 1 / 6, None], ["1 in 7 new connections", "1 in 7 new connections", "71 % of new connections"]),
    ],
)
def test_shares_add_the_chances_up(chances: list[float | None], words: list[str]) -> None:
    assert [share_text(part) for part in shares(chances)] == words


def test_rules_of_ipv6_are_told_with_its_addresses() -> None:
    services, slices = dual_stack()
    pods = [(sixth("10.180.0.1"), Party(POD, "default/web-1", "test-node")), (sixth("192.168.0.2"), Party(NODE, "n"))]
    words = Words(names_of(pods, services))
    rules = NodeRules("ip6", "iptables", chains_of_iptables((DATA / "iptables-world6.save").read_text(), words))
    node = NodeView("test-node", (sixth("192.168.0.2"),), pod_cidrs=(sixth("10.180.0.0/24"),))

    said = [each.line.sentence for each in of_service(rules, "default/web")]

    pod = "Pod default/web-1 on test-node ([fd00::10:180:0:1]:8080)"
    assert f"sends a third of new connections to {pod}" in said
    assert (
        "sends what goes to cluster IP [fd00::172:30:0:10]:80/tcp of default/web:http to any of its endpoints" in said
    )
    assert findings(rules, node, services, slices, words) == []


# --- what is off


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_off_where_rules_are_those_of_the_objects(mode: str) -> None:
    assert off(world_rules(mode)) == []


def test_rules_that_no_service_explains_are_told_by_what_they_claim() -> None:
    left = [service for service in SERVICES if service.key != "default/sticky"]

    found = off(saved(SAVED, left), left)

    assert [finding.port for finding in found] == ["default/sticky"]
    assert re.fullmatch(r"no Service explains KUBE-\S+ \d+ and \d+ more", found[0].what)


@pytest.mark.parametrize("mode", ["nftables", "ipvs"])
def test_so_are_elements_and_virtual_servers(mode: str) -> None:
    left = [service for service in SERVICES if service.key != "prod/lb-local"]
    names = names_of(world_names().parties.items(), left)

    found = findings(world_rules(mode, names), TEST_NODE, left, SLICES, Words(names))

    claims = " ".join(finding.port for finding in found)
    assert "no Service explains" in found[0].what
    assert ("prod/lb-local:p80" if mode == "nftables" else "5.6.7.8:80/tcp") in claims
    assert "default/web" not in claims


def test_a_missing_rule_is_told_by_the_place_that_it_should_take() -> None:
    text = "\n".join(
        line for line in SAVED.splitlines() if "--dport 30080" not in line and "172.30.0.10/32" not in line
    )

    found = off(saved(text))

    assert found == [
        Finding("default/web:http", "no rule for cluster IP 172.30.0.10:80/tcp"),
        Finding("default/sticky", "no rule for node port 30080/tcp"),
    ]


def test_an_endpoint_without_a_rule_and_a_rule_without_an_endpoint_are_told() -> None:
    slices = [piece for piece in SLICES if piece.labels["kubernetes.io/service-name"] != "web"]
    slices.append(
        endpoint_slice("default/web", [["10.180.0.1", "test-node"], ["10.180.1.9", "node-b"]], {"http": 8080})
    )

    found = [finding.what for finding in off(saved(SAVED), slices=slices)]

    assert found == [
        "no rule leads to 10.180.1.9:8080",
        "rules lead to Pod default/web-1 on node-b (10.180.1.1:8080), which is no endpoint to be used here",
        "rules lead to Pod default/web-1 on node-c (10.180.2.1:8080), which is no endpoint to be used here",
    ]
