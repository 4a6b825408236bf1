"""`netemu matrix` on a lab with every kind of Service: predictions hold for real packets, and broken rules show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from netemu.model.resources import SERVICES
from tests.cluster.labs import api, netemu, run, up
from tests.cluster.matrix_lab import topology

pytestmark = pytest.mark.timeout(180)
LAB = "t-matrix"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Both families; the mode changes from test to test."""
    with up(LAB, topology(), tmp_path_factory.mktemp("lab")) as name:
        yield name


def matrix(*args: str) -> tuple[int, str]:
    """Exit code and output."""
    done = run("matrix", "--lab", LAB, "--timeout", "2", *args)
    return done.returncode, done.stdout or done.stderr


def different(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Where, what for, and how."""
    found = (one for one in report["connections"] if "difference" in one)
    return [(one["vantage"], f"{one['destination']}/{one['protocol']}", one["difference"]) for one in found]


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_every_connection_is_as_predicted(lab: str, mode: str) -> None:
    netemu("proxy-mode", "all", mode, "--lab", lab)

    _, text = matrix("-o", "json")
    report = json.loads(text)

    assert different(report) == []
    assert report["vantages"][-4:] == ["node/control-plane", "node/worker-1", "node/worker-2", "client/laptop"]
    told = [one for one in report["connections"] if one.get("sourceSeen")]
    assert len(told) > 300  # servers said whom they saw, and that was compared
    outcomes = {one["measured"] for one in report["connections"]}
    assert outcomes >= {"answered", "refused", "dropped"}
    kinds = {one["kind"].partition(" of ")[0] for one in report["connections"]}
    assert kinds == {"cluster IP", "external IP", "load balancer IP", "node port", "endpoint"}


def start_anew(lab: str) -> None:
    """The kube-proxy of worker-1: its rules are whole, and it looks at them again in half a minute."""
    for mode in ("nftables", "iptables"):
        netemu("proxy-mode", "worker-1", mode, "--lab", lab)


def remove_rule(lab: str) -> None:
    """On worker-1 the rule of Service single's cluster IP is gone."""
    saved = netemu("exec", "--lab", lab, "node/worker-1", "--", "iptables-save", "-t", "nat")
    rule = next(
        line for line in saved.splitlines() if "default/single:http cluster IP" in line and "KUBE-SERVICES" in line
    )
    undo = f"*nat\n-D{rule[2:]}\nCOMMIT\n"
    command = ["ip", "netns", "exec", f"{lab}.node.worker-1", "iptables-restore", "--noflush"]
    subprocess.run(command, input=undo, text=True, check=True)


def test_rule_that_is_missing_is_a_difference_where_it_matters(lab: str) -> None:
    netemu("proxy-mode", "all", "iptables", "--lab", lab)
    start_anew(lab)
    remove_rule(lab)

    code, text = matrix("--service", "default/single", "-o", "json")
    report = json.loads(text)

    assert code == 1
    wrong = "unreachable, should be answered"
    assert {(place, how) for place, _, how in different(report)} == {("default/one", wrong), ("node/worker-1", wrong)}
    assert [where for _, where, _ in different(report) if not where.endswith(":80/TCP")] == []
    stories = [one["story"] for one in report["connections"] if "story" in one]
    assert [(each["source"], each["outcome"], each["whyNot"]["reason"]) for each in stories] == [
        ("default/one", "rejected", "missing-rule"),
        ("node/worker-1", "rejected", "missing-rule"),
    ]


@pytest.fixture
def forestalled(lab: str) -> Iterator[None]:
    """On worker-1 somebody's rule keeps what Pods send to Service single from kube-proxy's."""
    netemu("proxy-mode", "all", "iptables", "--lab", lab)
    start_anew(lab)
    ip = api(lab).get(SERVICES, "single", "default")["spec"]["clusterIP"]
    rule = ["PREROUTING", "-d", ip, "-p", "tcp", "--dport", "80", "-j", "ACCEPT"]
    iptables = ["exec", "--lab", lab, "node/worker-1", "--", "iptables", "-t", "nat"]
    netemu(*iptables, "-I", *rule)
    yield
    netemu(*iptables, "-D", *rule)


@pytest.mark.usefixtures("forestalled")
def test_reports_tell_of_differences(tmp_path: Path) -> None:
    page, xml = tmp_path / "matrix.html", tmp_path / "matrix.xml"
    only = ("--service", "single", "-n", "default")

    assert matrix(*only, "--traces", "0", "-o", "html", "-w", str(page))[0] == 1
    assert page.read_text().count('class="differs"') == 1
    assert matrix(*only, "--traces", "0", "-o", "junit", "-w", str(xml))[0] == 1
    suite = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("28", "1")
    assert "cluster IP of default/single:http" in (suite.find(".//failure").text or "")  # type: ignore[union-attr]

    code, table = matrix(*only, "--traces", "1", "--count", "2")
    assert code == 1
    assert "no route!=masq" in table
    assert "  2 of 2 times unreachable, should be answered (Network is unreachable)" in table
    assert "  a packet sent afterwards:" in table
    assert "1 of 28 connections are not as predicted" in table


def test_what_is_not_there_is_refused_in_a_line(lab: str) -> None:
    assert matrix("--service", "default/singel") == (
        1,
        "error: no Service 'default/singel'; did you mean default/single?\n",
    )
    assert matrix("-n", "defaul")[1] == "error: no Services in namespace 'defaul'; did you mean default?\n"
