"""A whole lab in ipvs mode, and one whose mode changes while it runs, on a kernel that has IPVS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.model.resources import PODS
from tests.cluster.labs import ROOT, api, netemu, run

LAB = "t-ipvs"
_SECONDS = "900"

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The quickstart's lab in ipvs mode."""
    quickstart = (ROOT / "topologies/quickstart.yaml").read_text()
    topology = tmp_path / "ipvs.yaml"
    topology.write_text(quickstart.replace("spec:\n  nodes:", "spec:\n  proxy:\n    mode: ipvs\n  nodes:", 1))
    netemu("up", str(topology), "--name", LAB, "--timeout", _SECONDS, timeout=1200)
    try:
        yield LAB
    finally:
        run("down", LAB, timeout=600)


def test_a_lab_in_ipvs_mode_answers_by_name_and_from_outside(lab: str) -> None:
    pods, _ = api(lab).list(PODS, "shop", labelSelector="app=web")
    names = {pod["metadata"]["name"] for pod in pods}

    inside = probed(lab, "-n", "shop", "client", "web:80")
    outside = probed(lab, "client/laptop", "172.18.0.3:30080")
    sets = netemu("exec", "--lab", lab, "node/worker-1", "--", "ipset", "save", timeout=600)
    rules = netemu("exec", "--lab", lab, "node/worker-1", "--", "iptables-save", "-t", "nat", timeout=600)

    assert inside["servers"].keys() == outside["servers"].keys() == names
    assert "create KUBE-CLUSTER-IP hash:ip,port" in sets
    assert "KUBE-SVC-" not in rules


def probed(lab: str, *args: str) -> Any:
    """Ten connections."""
    options = ("--count", "10", "--timeout", "20", "-o", "json")
    return json.loads(netemu("probe", "--lab", lab, *args, *options, timeout=600))
