"""hostPort: three Pods of one node share a port number, as conformance wants it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netemu.model.resources import PODS
from tests.cluster.labs import api, eventually, netemu_json, run, up

NODE = "172.18.0.3"
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: two
  containers: [{{name: c, image: echo, ports: [{{containerPort: 80, hostPort: 8080, {more}}}]}}]
"""
LAB = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: ports}
spec:
  nodes: [{name: one}, {name: two}]
  clients: [{name: outside}]
""" + "".join(
    POD.format(name=name, more=more)
    for name, more in (
        ("loopback", "hostIP: 127.0.0.1"), ("address", f"hostIP: {NODE}"), ("udp", f"hostIP: {NODE}, protocol: UDP"),
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with up("t-host-ports", LAB, tmp_path_factory.mktemp("ports")) as name:
        yield name


@pytest.mark.parametrize(
    ("source", "to", "udp", "server"),
    [
        ("client/outside", f"{NODE}:8080", False, "address"), ("client/outside", f"{NODE}:8080", True, "udp"),
        ("node/one", f"{NODE}:8080", False, "address"), ("node/two", f"{NODE}:8080", False, "address"),
        ("node/two", "127.0.0.1:8080", False, "loopback"), ("address", f"{NODE}:8080", False, "address"),
    ],
)  # fmt: skip
def test_who_answers_on_the_port(lab: str, source: str, to: str, udp: bool, server: str) -> None:
    result = netemu_json("probe", "--lab", lab, source, to, *(["--udp"] if udp else []))

    assert list(result["servers"]) == [server]


def test_a_port_goes_with_its_pod(lab: str) -> None:
    api(lab).delete(PODS, "address", "default")
    eventually(lambda: not api(lab).there(PODS, "address", "default"), "the Pod is gone")

    assert run("probe", "--lab", lab, "client/outside", f"{NODE}:8080", "--timeout", "1").returncode == 1
    assert list(netemu_json("probe", "--lab", lab, "client/outside", f"{NODE}:8080", "--udp")["servers"]) == ["udp"]
