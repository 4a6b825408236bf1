"""The truth table: which connections are in it, what contradicts a prediction, and how it is told."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import msgspec
import pytest

from netemu.cli.junit import Case, junit
from netemu.observe.cluster import Cluster, Sender
from netemu.observe.matrix.report import explanation, html, lines, report, word
from netemu.observe.matrix.table import Matrix, Measured, Row, plan
from netemu.observe.predict import Outcome
from netemu.observe.reasons import Reason
from netemu.observe.story.cause import WhyNot
from netemu.observe.story.story import Story
from tests.unit.predict_scene import (
    A1,
    B1,
    CLIENT,
    EXTERNAL,
    LAPTOP,
    NODE_PORT,
    OPEN,
    VIP,
    cluster,
    gateway,
    node,
    node_ip,
    pod,
)
from tests.unit.proxy_world import endpoint_slice, service

SENDERS = [pod("a2"), pod("a1"), pod("b1"), node("n1"), node("n2"), node("n3"), CLIENT]
HERE, THERE = (A1, "n1"), (B1, "n2")


def table(where: Cluster, senders: list[Sender] = SENDERS, **only: str) -> Matrix:
    return plan(where, senders, **only)


def found(matrix: Matrix, **of: Measured) -> Matrix:
    """With measurements by vantage's last name, for each of its cells."""
    by_cell = {
        (cell.vantage.name, cell.row): [of[name]]
        for cell in matrix.cells
        if (name := cell.vantage.name.rpartition("/")[2]) in of
    }
    return matrix.measured(by_cell, 1.5)


def test_vantages_are_a_pod_of_each_node_the_nodes_and_clients() -> None:
    matrix = table(cluster(OPEN, [HERE]))

    names = [each.name for each in matrix.vantages]
    assert names == ["default/a1", "default/b1", "node/n1", "node/n2", "node/n3", "client/laptop"]
    assert matrix.notes == ("node n3 has no Pod to look from",)


def test_systems_pods_are_looked_from_where_there_is_no_other() -> None:
    dns = Sender("kube-system/coredns", ("10.244.0.9",), "n1")

    assert [each.name for each in table(cluster(), [dns, pod("a1")]).vantages] == ["default/a1"]
    assert [each.name for each in table(cluster(), [dns]).vantages] == ["kube-system/coredns"]


def test_rows_are_every_address_of_every_port() -> None:
    rows = table(cluster(OPEN, [HERE])).rows

    assert [(row.kind, row.destination, row.node) for row in rows] == [
        ("cluster IP", f"{VIP}:80", ""),
        ("external IP", f"{EXTERNAL}:80", ""),
        ("load balancer IP", "172.18.255.1:80", ""),
        *(("node port", f"{node_ip(name)}:{NODE_PORT}", name) for name in ("n1", "n2", "n3")),
    ]


def test_pods_and_nodes_ask_their_own_node_port_and_the_next_nodes_clients_all() -> None:
    asked: dict[str, list[str]] = {}
    for cell in table(cluster(OPEN, [HERE])).cells:
        if cell.row.node:
            asked.setdefault(cell.vantage.name, []).append(cell.row.node)

    assert asked["default/a1"] == asked["node/n1"] == ["n1", "n2"]
    assert asked["node/n3"] == ["n1", "n3"]
    assert asked["client/laptop"] == ["n1", "n2", "n3"]


def test_headless_services_have_their_ready_endpoints() -> None:
    at = endpoint_slice("default/web", [HERE, (*THERE, "silent")])
    matrix = table(cluster(services=[service(ip="None")], slices=[at]))

    assert [(row.kind, row.destination) for row in matrix.rows if row.service == "default/web"] == [
        ("endpoint", f"{A1}:8080")
    ]


def test_sctp_ports_are_predicted_and_said_not_to_be_measured() -> None:
    sctp = service("default/sctp", "10.96.0.101", ports={"x": "80/SCTP"})
    matrix = table(cluster(services=[sctp], slices=()))

    assert {cell.row.destination for cell in matrix.cells} == {"10.96.0.101:80"}
    assert {word(cell) for cell in matrix.cells} == {"(refused)", "(no route)"}
    assert "SCTP ports are predicted and not measured: in parentheses" in list(lines(matrix))
    assert list(lines(matrix))[-1].startswith("0 of 0 connections are as predicted")
    assert {one.measured for one in report(matrix).connections} == {""}
    assert "<td>(refused)</td>" not in html(matrix, "lab")
    assert '<td class="refused"' in html(matrix, "lab")


def test_without_a_vantage_that_went_the_table_says_so() -> None:
    matrix = table(cluster(OPEN, [HERE])).without({"default/a1": "no Pod 'a1'"})

    assert "default/a1" not in {each.name for each in matrix.vantages}
    assert "default/a1" not in {cell.vantage.name for cell in matrix.cells}
    assert matrix.cells
    assert matrix.notes[-1] == "not looked from default/a1: no Pod 'a1'"


def test_only_one_service_or_namespace() -> None:
    other = service("other/api", "10.96.0.102")
    both = cluster(services=[service(ip=VIP), other], slices=())

    assert {row.service for row in table(both, namespace="other").rows} == {"other/api"}
    assert {row.service for row in table(both, service="default/web").rows} == {"default/web"}


GOOD = Measured(Outcome.ANSWERED, "a1", "n1", "10.244.1.11")


@pytest.mark.parametrize(
    ("measured", "difference"),
    [
        pytest.param(GOOD, "", id="as predicted"),
        pytest.param(Measured(Outcome.ANSWERED), "", id="answered by somebody who does not say who he is"),
        pytest.param(Measured(Outcome.DROPPED), "dropped, should be answered", id="another outcome"),
        pytest.param(
            Measured(Outcome.ANSWERED, "c1", "n3", B1),
            "answered by c1 on n3, should be default/a1",
            id="another server",
        ),
        pytest.param(
            Measured(Outcome.ANSWERED, "a1", "n1", node_ip("n2")),
            f"the server saw {node_ip('n2')}, should be {B1}",
            id="another source",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_a_prediction(measured: Measured, difference: str) -> None:
    matrix = table(cluster({}, [HERE]), [pod("b1")])

    assert [cell.difference for cell in found(matrix, b1=measured).cells] == [difference]


def test_of_several_attempts_those_that_went_wrong_are_counted() -> None:
    matrix = table(cluster({}, [HERE]), [pod("b1")])
    key = (matrix.cells[0].vantage.name, matrix.rows[0])
    lost = Measured(Outcome.DROPPED)

    assert matrix.measured({key: [GOOD, GOOD]}, 1).differences == ()
    (cell,) = matrix.measured({key: [GOOD, lost, GOOD, lost]}, 1).differences
    assert cell.difference == "2 of 4 times dropped, should be answered"
    assert cell.measured == lost


def test_routers_may_be_silent_about_what_they_have_no_way_to() -> None:
    matrix = found(table(cluster({}, [HERE]), [CLIENT]), laptop=Measured(Outcome.DROPPED))

    assert [word(cell) for cell in matrix.cells] == ["no route"]
    assert matrix.differences == ()


def test_pod_of_the_host_network_answers_for_its_node() -> None:
    where = cluster({}, [(node_ip("n2"), "n2")])
    matrix = found(table(where, [pod("a1")]), a1=Measured(Outcome.ANSWERED, "host", "n2", A1))

    assert matrix.differences == ()


@pytest.fixture
def broken() -> Matrix:
    """From b1 nothing comes back, and the node's address is not hidden from a1."""
    matrix = table(cluster({}, [HERE]), [pod("a1"), pod("b1"), CLIENT])
    return found(
        matrix, a1=Measured(Outcome.ANSWERED, "a1", "n1", A1), b1=Measured(Outcome.DROPPED, detail="no answer"),
        laptop=Measured(Outcome.UNREACHABLE),
    )  # fmt: skip


def test_table_tells_both_where_they_differ(broken: Matrix) -> None:
    text = list(lines(broken))

    assert f"default/web:http  cluster IP  {VIP}:80/TCP  ok!=masq  dropped!=ok  no route" in text
    at = text.index(f"default/b1 (n2) to default/web:http, cluster IP {VIP}:80/TCP")
    assert text[at + 1 : at + 5] == [
        "  dropped, should be answered (no answer)",
        f"  endpoints: {A1}:8080",
        "  predicted because (translated): n2: cluster IP of default/web:http",
        f"  to see a packet: netemu trace default/b1 {VIP}:80",
    ]
    assert text[-1] == "2 of 3 connections are not as predicted (vantages: 3, addresses: 1, 1.5 s)"


def test_differences_of_one_kind_are_explained_together_but_for_those_with_a_story() -> None:
    matrix = table(cluster(OPEN, [HERE]), [pod("b1")])
    lost = found(matrix, b1=Measured(Outcome.DROPPED))
    row = lost.differences[1].row
    story = Story(source="default/b1", destination=row.destination, protocol="tcp", outcome="lost", summary="lost")
    told = lost.telling({("default/b1", row): story})

    for one, groups in ((lost, 1), (told, 2)):
        text = list(lines(one))
        assert len(one.differences) == 5
        assert sum(line.startswith("default/b1 (n2) to default/web:http, ") for line in text) == 5
        assert text.count("  dropped, should be answered") == groups
        assert html(one, "lab").count("<dd>") == groups
    assert "; and so on" in "\n".join(lines(lost))


def test_one_difference_of_each_kind_is_looked_at_first() -> None:
    web, api = service(ip=VIP), service("default/api", "10.96.0.101")
    ends = [endpoint_slice("default/web", [HERE]), endpoint_slice("default/api", [HERE])]
    matrix = table(cluster(services=[web, api], slices=ends), [pod("a1"), pod("b1")])
    lost = found(matrix, a1=Measured(Outcome.DROPPED), b1=Measured(Outcome.DROPPED))

    assert len(lost.differences) == 4
    assert [cell.row.service for cell in lost.unexplained(2)] == ["default/api", "default/web"]
    assert len(lost.unexplained(9)) == 4
    assert lost.unexplained(0) == ()


def test_story_of_a_packet_is_told_below_its_difference(broken: Matrix) -> None:
    cell = broken.differences[1]
    why = WhyNot(reason=Reason.MISSING_RULE, place="node/n2", text="a rule is missing")
    story = Story(
        source="default/b1", destination=f"{VIP}:80", protocol="tcp", outcome="lost", summary="lost", why_not=why
    )
    text = list(lines(broken.telling({(cell.vantage.name, cell.row): story})))

    at = text.index("  a packet sent afterwards:")
    assert text[at - 1] == "  cause: a rule is missing"
    assert text[at + 1] == f"    default/b1 -> {VIP}:80, TCP"
    assert "    why not: a rule is missing" in text[at:]


def test_differences_are_red_and_columns_stay_in_line(broken: Matrix) -> None:
    plain, coloured = list(lines(broken)), list(lines(broken, colour=True))

    assert [line.replace("\x1b[1;31m", "").replace("\x1b[0m", "").rstrip() for line in coloured] == plain
    assert "\x1b[1;31mdropped!=ok\x1b[0m" in "\n".join(coloured)


def test_narrow_terminal_gets_numbers_for_vantages(broken: Matrix) -> None:
    text = list(lines(broken, width=80))

    assert text[:3] == ["1: default/a1 on n1", "2: default/b1 on n2", "3: client/laptop"]
    assert text[4].split() == ["SERVICE", "KIND", "ADDRESS", "1", "2", "3"]


def test_all_as_predicted_is_said_in_a_line() -> None:
    matrix = found(table(cluster({}, [HERE]), [pod("b1")]), b1=GOOD)

    assert list(lines(matrix))[-1] == "1 of 1 connections are as predicted (vantages: 1, addresses: 1, 1.5 s)"


def test_json_has_every_connection(broken: Matrix) -> None:
    told = json.loads(msgspec.json.encode(report(broken)))

    assert (told["count"], told["different"]) == (3, 2)
    one = next(each for each in told["connections"] if each["vantage"] == "default/a1")
    assert one["predicted"] == ["answered"]
    assert one["sources"] == [gateway("n1")]
    assert one["sourceSeen"] == A1
    assert one["reason"] == "translated"
    assert one["difference"] == f"the server saw {A1}, should be {gateway('n1')}"


def test_html_is_one_page_with_nothing_unescaped(broken: Matrix) -> None:
    page = html(broken, "lab<1>")

    assert page.count('<td class="differs"') == 2
    assert '<td class="no" title="no route leads to' in page
    assert "lab&lt;1&gt;" in page
    assert "http" not in page.replace("web:http", "")  # nothing is loaded from anywhere


def test_junit_has_a_case_for_each_connection(broken: Matrix) -> None:
    cases = [Case("a<b", 0.1, each.difference, "\n".join(explanation(each)), each.row.service) for each in broken.cells]
    suite = ElementTree.fromstring(junit("matrix", cases))

    assert suite.attrib == {"name": "matrix", "tests": "3", "failures": "2"}
    failure = suite.find("./testcase[2]/failure")
    assert failure is not None
    assert failure.get("message") == "dropped, should be answered"
    assert "cluster IP of default/web:http" in (failure.text or "")


def test_rows_of_a_node_say_whose_port_it_is() -> None:
    row = Row("default/web", "http", "TCP", "node port", "172.18.0.2", 30080, "n1")
    matrix = table(cluster(OPEN, [HERE]), [CLIENT])

    assert row in matrix.rows
    assert "node port of n1" in "\n".join(lines(matrix))
    assert LAPTOP not in "\n".join(lines(matrix))
