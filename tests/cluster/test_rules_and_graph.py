"""`netemu rules`, `graph` and `conntrack --stale` on a running lab, the proxy's mode changed under it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from netemu.model.resources import SERVICES
from tests.cluster.labs import api, netemu, netemu_json, run, up

TOPOLOGY = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: t-rules}
spec:
  nodes: [{name: one, zone: west}, {name: two, link: {mtu: 1400}}]
  clients: [{name: laptop}]
  ipFamily: dual
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: web}}
spec: {nodeName: one, containers: [{name: c, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: web}}
spec: {nodeName: two, containers: [{name: c, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes with a Pod each behind one Service."""
    with up("t-rules", TOPOLOGY, tmp_path_factory.mktemp("lab")) as name:
        yield name


def told(lab: str, service: str) -> list[dict[str, Any]]:
    """The rules of a Service on node one, of either family, each as JSON; nothing must be off."""
    families = netemu_json("rules", "one", "--lab", lab, "--service", service)["families"]
    assert [family["off"] for family in families] == [[], []]
    return [rule for family in families for rule in family["rules"]]


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_services_rules_are_told_in_every_mode(lab: str, mode: str) -> None:
    netemu("proxy-mode", "one", mode, "--lab", lab)
    address = api(lab).get(SERVICES, "web", "default")["spec"]["clusterIP"]
    netemu("probe", "--lab", lab, "node/one", f"{address}:80")

    rules = told(lab, "web")

    said = " | ".join(rule["sentence"] for rule in rules)
    assert "half of new connections to" in said
    assert all(f"Pod default/{pod} on {node} (" in said for pod, node in (("near", "one"), ("far", "two")))
    assert all(f"({start}" in said for start in ("10.244.", "[fd00:10:244"))
    assert {port for rule in rules for port in rule["ports"]} == {"default/web:http"}
    assert told(lab, "web:80") == told(lab, "default/web:http")
    counted = [rule["packets"] for rule in rules if rule["text"].startswith("-p tcp") and "DNAT" in rule["text"]]
    assert (sum(counted) > 0) if mode == "iptables" else (counted == [])


def test_the_summary_has_every_service_and_says_what_is_off(lab: str) -> None:
    address = api(lab).get(SERVICES, "web", "default")["spec"]["clusterIP"]
    netemu("proxy-mode", "one", "iptables", "--lab", lab)
    netemu("exec", "--lab", lab, "node/one", "--", "iptables", "-t", "nat", "-N", "KUBE-SVC-AAAAAAAAAAAAAAAA")
    netemu("exec", "--lab", lab, "node/one", "--", "iptables", "-t", "nat", "-A", "KUBE-SVC-AAAAAAAAAAAAAAAA",
           "-m", "comment", "--comment", "old/gone:http -> 10.244.9.9:80", "-j", "ACCEPT")  # fmt: skip
    netemu("exec", "--lab", lab, "node/one", "--", "iptables", "-I", "FORWARD", "-i", "eth7", "-j", "DROP")

    said = netemu("rules", "one", "--lab", lab)

    assert f"{address}:80/tcp" in said
    assert "Not kube-proxy's:\n\nWhat is forwarded (forward)\n  filter FORWARD 1: drops what comes in by eth7" in said
    assert "old/gone:http: no Service explains KUBE-SVC-AAAAAAAAAAAAAAAA 1" in said


def test_what_is_not_there_is_refused_in_one_line(lab: str) -> None:
    service, port, node = (
        run("rules", "one", "--lab", lab, "--service", "wab"),
        run("rules", "one", "--lab", lab, "--service", "web:htpp"),
        run("rules", "three", "--lab", lab),
    )

    assert service.stderr == "error: no Service default/wab; did you mean default/web?\n"
    assert port.stderr == "error: Service default/web has no port 'htpp'; did you mean http?\n"
    assert (node.returncode, node.stderr.count("\n")) == (1, 1)


def test_the_lab_is_drawn_with_links_as_the_kernel_has_them(lab: str, tmp_path: Path) -> None:
    netemu("exec", "--lab", lab, "node/two", "--", "ip", "link", "set", "eth0", "mtu", "1300")
    address = api(lab).get(SERVICES, "web", "default")["spec"]["clusterIP"]
    netemu("probe", "--lab", lab, "node/one", f"{address}:80", "--count", "4")
    picture = tmp_path / "lab.svg"

    drawn = netemu_json("graph", "--lab", lab, "--flows")
    netemu("graph", "--lab", lab, "-w", str(picture), "--service", "web")

    links = {edge["source"]: edge["labels"] for edge in drawn["edges"] if edge["kind"] == "link"}
    assert links == {"node/one": ["mtu 1400"], "node/two": ["mtu 1300"], "client/laptop": ["mtu 1400"]}
    reached = {edge["target"] for edge in drawn["edges"] if edge["source"] == "service/default/web"}
    assert reached == {"pod/default/near", "pod/default/far"}
    assert sum(edge.get("connections", 0) for edge in drawn["edges"] if edge["source"] == "service/default/web") >= 4
    root = ElementTree.parse(picture).getroot()
    services = [each.get("data-id") for each in root.iter() if "service" in str(each.get("class"))]
    assert services == ["service/default/web"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-w", "x.bmp"], "x.bmp: give --format, or a name that ends in .dot"),
        (["-w", "/nowhere/x.svg"], "error: cannot write /nowhere/x.svg: No such file or directory"),
        (["-n", "a", "--service", "web"], "--namespace and --service: give one of them"),
        (["--service", "wab"], "error: no Service default/wab; did you mean default/web?"),
    ],
)
def test_a_drawing_that_cannot_be_is_refused(lab: str, options: list[str], said: str) -> None:
    done = run("graph", "--lab", lab, *options)

    assert (done.returncode in (1, 2), said in done.stderr) == (True, True), done.stderr


def test_an_entry_that_leads_to_nobody_is_found_and_forgotten(lab: str) -> None:
    way = ["-p", "udp", "-s", "10.244.9.9", "-d", "10.96.0.10", "--sport", "40000", "--dport", "53", "-t", "120"]
    back = ["--dst-nat", "10.244.77.77", "--reply-src", "10.244.77.77", "--reply-dst", "10.244.9.9"]
    ports = ["--reply-port-src", "53", "--reply-port-dst", "40000"]
    netemu("exec", "--lab", lab, "node/two", "--", "conntrack", "-I", *way, *back, *ports)

    (found,) = netemu_json("conntrack", "--all", "--stale", "--lab", lab)
    said = netemu("conntrack", "two", "--stale", "--delete", "--lab", lab)

    assert found["node"] == "two"
    assert found["stale"] == "it leads to 10.244.77.77:53, which is no endpoint any more"
    assert said.endswith("service/kube-system/kube-dns:53 > 10.244.77.77:53: " + found["stale"] + "\n")
    assert netemu_json("conntrack", "--all", "--stale", "--lab", lab) == []
