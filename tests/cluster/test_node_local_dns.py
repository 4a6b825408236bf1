"""NodeLocal DNSCache as an option of the topology."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from netemu.model.errors import NotFound
from netemu.model.resources import PODS
from tests.cluster.labs import api, eventually, netemu, run, up

LAB = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: cached}
spec:
  nodes: [{name: one}, {name: two}]
  dns: {nodeLocal: true}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: two
  containers: [{name: c, image: pause}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with up("t-node-local", LAB, tmp_path_factory.mktemp("dns")) as name:
        yield name


def dig(lab: str) -> Any:
    return json.loads(run("dig", "--lab", lab, "client", "kubernetes", "A", "-o", "json").stdout)


def tracked(lab: str) -> list[str]:
    """conntrack entries of DNS questions of Pods to the cluster IP, on the client's node."""
    lines = netemu("exec", "--lab", lab, "node/two", "--", "conntrack", "-L", "-p", "udp", "--dport", "53")
    return [line for line in lines.splitlines() if "dst=10.96.0.10" in line]


def rules(lab: str) -> int:
    saved = netemu("exec", "--lab", lab, "node/two", "--", "iptables-save")
    return saved.count("NodeLocal DNS Cache")


def test_every_node_has_a_cache(lab: str) -> None:
    pods, _ = api(lab).list(PODS, "kube-system", labelSelector="k8s-app=node-local-dns")

    assert {pod["spec"]["nodeName"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods} == {
        "one": 0, "two": 0,
    }  # fmt: skip


def test_pods_get_answers_without_conntrack(lab: str) -> None:
    found = dig(lab)

    assert found["result"]["addresses"] == ["10.96.0.1"]
    assert tracked(lab) == []


def test_without_its_cache_a_node_asks_cluster_dns_through_the_rules(lab: str) -> None:
    there = rules(lab)
    api(lab).request("DELETE", PODS.path("kube-system", "node-local-dns-two"))

    def gone() -> bool:
        try:
            return not api(lab).get(PODS, "node-local-dns-two", "kube-system")
        except NotFound:
            return True

    eventually(gone, "the cache has ended")
    found = dig(lab)

    # Two addresses, two protocols; five rules each.
    assert (there, rules(lab)) == (20, 0)
    assert found["result"]["addresses"] == ["10.96.0.1"]
    assert len(tracked(lab)) == 1
