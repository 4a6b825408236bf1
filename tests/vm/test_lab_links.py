"""A whole lab whose links have delay and loss, on a kernel that has netem."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.labs import netemu, run

LAB = "t-vm-slow"
TOPOLOGY = """
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: t-vm-slow}
spec:
  nodes: [{name: control-plane}, {name: worker-1, link: {delay: 20ms}}]
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
metadata: {name: web, labels: {app: web}}
spec: {nodeName: worker-1, containers: [{name: c, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes; the time limits are those of an emulated processor."""
    file = tmp_path_factory.mktemp("lab") / "slow.yaml"
    file.write_text(TOPOLOGY)
    netemu("up", str(file), "--timeout", "900", timeout=1200)
    try:
        yield LAB
    finally:
        run("down", LAB, timeout=600)


def test_nodes_have_the_links_that_the_topology_gives_them(lab: str) -> None:
    first, second = (
        netemu("exec", "--lab", lab, f"node/{node}", "--", "tc", "qdisc", "show", "dev", "eth0", timeout=600)
        for node in ("control-plane", "worker-1")
    )

    assert "netem" in first
    assert "delay 5ms" in first
    assert "loss 0.1%" in first
    assert "delay 20ms" in second


def test_a_service_answers_by_name_over_slow_links(lab: str) -> None:
    answer = netemu("exec", "--lab", lab, "client", "--", "curl", "-sS", "--max-time", "60", "http://web", timeout=600)

    assert '"node":"worker-1"' in answer
