"""A whole lab in ipvs mode whose links have delay and loss, on a kernel that has IPVS and netem.

One lab for all of it: coming up takes an emulated processor a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.lab.trace import Tracer, read_scene
from netemu.network.names import client_netns, node_netns, pod_netns
from tests.cluster.labs import netemu, run
from tests.cluster.traces.trace_table import compact, links_of, parties, read_stories, write_stories
from tests.vm.talk import Talk

LAB = "t-vm-lab"
TOPOLOGY = """
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: t-vm-lab}
spec:
  nodes: [{name: control-plane}, {name: worker-1, link: {delay: 20ms}}]
  clients: [{name: laptop}]
  proxy: {mode: ipvs}
  dns: {replicas: 1}
  links: {delay: 5ms, loss: 0.1%}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: control-plane, containers: [{name: c, image: pause}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: web}}
spec: {nodeName: control-plane, containers: [{name: c, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: web, run: far}}
spec: {nodeName: worker-1, containers: [{name: c, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 10.96.0.80
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  selector: {run: far}
  ports: [{port: 80, targetPort: 8080}]
"""
VIP, FAR_NODE = ("10.96.0.80", 80), ("172.18.0.3", 30080)
STORIES = Path(__file__).parent / "traces.txt"
TRACES = [
    *2 * [("client", "web:80")],
    *2 * [("near", "svc/web:80")],
    ("client/laptop", "node/worker-1:30080"),
    ("node/worker-1", "svc/web:80"),
    ("client", "svc/web:81"),
]
WAYS = {
    "Pod to ClusterIP": (pod_netns(LAB, "default", "client"), *VIP),
    "outside to node port": (client_netns(LAB, "laptop"), *FAR_NODE),
    "node to ClusterIP": (node_netns(LAB, "worker-1"), *VIP),
}

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes; the time limits are those of an emulated processor."""
    file = tmp_path_factory.mktemp("lab") / "lab.yaml"
    file.write_text(TOPOLOGY)
    netemu("up", str(file), "--timeout", "900", timeout=1200)
    try:
        yield LAB
    finally:
        run("down", LAB, timeout=600)


def on(lab: str, *argv: str) -> str:
    return netemu("exec", "--lab", lab, *argv, timeout=600)


def test_nodes_have_the_links_that_the_topology_gives_them(lab: str) -> None:
    first, second = (
        on(lab, f"node/{node}", "--", "tc", "qdisc", "show", "dev", "eth0") for node in ("control-plane", "worker-1")
    )

    assert "netem" in first
    assert "delay 5ms" in first
    assert "loss 0.1%" in first
    assert "delay 20ms" in second


def test_a_service_answers_by_name_over_slow_links(lab: str) -> None:
    answer = on(lab, "client", "--", "curl", "-sS", "--max-time", "60", "http://web")

    assert '"node":' in answer


def test_ipvs_leads_to_every_endpoint_from_inside_and_outside(lab: str) -> None:
    inside = probed(lab, "client", "web:80")
    outside = probed(lab, "client/laptop", "172.18.0.3:30080")
    flows = json.loads(netemu("flows", "--lab", lab, "--service", "default/web", "-o", "json", timeout=600))
    sets = on(lab, "node/worker-1", "--", "ipset", "save")
    rules = on(lab, "node/worker-1", "--", "iptables-save", "-t", "nat")

    assert inside["servers"].keys() == outside["servers"].keys() == {"near", "far"}
    # Conntrack has what IPVS chose.
    assert {flow["endpoint"]["name"] for flow in flows} == {"default/near", "default/far"}
    assert {(flow["client"]["name"], flow["via"], flow["node"]) for flow in flows} >= {
        ("default/client", "cluster IP", "control-plane"), ("client/laptop", "node port", "worker-1")
    }  # fmt: skip
    assert "create KUBE-CLUSTER-IP hash:ip,port" in sets
    assert "KUBE-SVC-" not in rules


def test_the_rules_that_carry_a_service_are_told_with_sets_and_virtual_servers(lab: str) -> None:
    probed(lab, "client/laptop", "172.18.0.3:30080")
    answer = netemu("rules", "worker-1", "--lab", lab, "--service", "web", "-o", "json", timeout=600)
    (family,) = json.loads(answer)["families"]
    said = {rule["chain"]: rule["sentence"] for rule in family["rules"]}

    assert (family["mode"], family["off"]) == ("ipvs", [])
    assert said["ipset KUBE-NODE-PORT-TCP"] == "node port 30080/tcp of default/web is a node port"
    taken = [rule["packets"] for rule in family["rules"] if rule["text"].startswith("-A -t 172.18.0.3:30080 ")]
    assert len(taken) == 1
    assert taken[0] >= 10  # one connection has several packets, and IPVS sees all of them
    servers = [rule["sentence"] for rule in family["rules"] if rule["chain"] == "virtual servers"]
    place = "cluster IP 10.96.0.80:80/tcp of default/web"
    assert f"sends what goes to {place} to one of 2 endpoints, in turn" in servers
    assert "Pod default/far on worker-1 (" in said["tcp 10.96.0.80:80"] + said["tcp 172.18.0.3:30080"]


def test_every_connection_is_as_the_oracle_predicts_for_ipvs(lab: str) -> None:
    done = run("matrix", "--lab", lab, "-n", "default", "--timeout", "10", "-o", "json", timeout=600)
    told = json.loads(done.stdout)

    wrong = [
        (one["vantage"], one["destination"], one["difference"]) for one in told["connections"] if "difference" in one
    ]
    assert wrong == []
    astray = [one for one in told["connections"] if one["reason"] == "answer-astray"]
    assert {one["measured"] for one in astray} == {"dropped"}  # IPVS falls back to other nodes' endpoints


def test_the_story_of_a_packet_tells_what_ipvs_chose(lab: str) -> None:
    scene, known = read_scene(lab), read_stories(STORIES)
    links, told = links_of(lab, scene.objects.pods), dict[str, str]()
    for source, to in TRACES:
        tracer = Tracer(lab, source, "default", scene)
        for _again in range(3):  # the links of this lab lose one packet of a thousand
            story, _ = asyncio.run(tracer.story(to, timeout=20))
            if story.outcome != "lost":
                break
        server, _ = parties(story, scene.names)
        # One server after the other has its turn, so a row has a story for each of them.
        told[f"ipvs: {source} -> {to} by {server or 'nobody'}"] = "\n".join(compact(story, scene.names, links))
    if os.environ.get("NETEMU_WRITE_TRACES"):
        write_stories(STORIES, told)

    assert {title: known.get(title, "").rstrip() for title in told} == told


def test_changes_of_mode_cut_no_connection(lab: str) -> None:
    with Talk(WAYS, hello, timeout=60) as talk:
        talk.open("in ipvs mode")
        for mode in ("nftables", "ipvs"):
            netemu("proxy-mode", "--lab", lab, "all", mode, "--timeout", "300", timeout=600)
            talk.open(f"in {mode} mode")

    assert talk.complaints() == {}


def hello(sock: socket.socket) -> str:
    """Who answers a request on an open connection."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    body = b""
    while not body.rstrip().endswith(b"}"):
        if not (got := sock.recv(1 << 16)):
            raise ConnectionError("closed by the other end")
        body += got
    said: dict[str, Any] = json.loads(body.partition(b"\r\n\r\n")[2])
    return f"{said['pod']} sees {said['client']}"


def probed(lab: str, *args: str) -> Any:
    """Ten connections."""
    options = ("--count", "10", "--timeout", "20", "-o", "json")
    return json.loads(netemu("probe", "--lab", lab, *args, *options, timeout=600))
