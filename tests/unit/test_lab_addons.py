"""Cluster DNS as kubeadm sets it up."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.lab.addons import cluster_dns
from netemu.lab.config import LabConfig, resolve
from netemu.lab.node_local_dns import node_local_dns
from netemu.lab.topology import Metadata, Topology


@pytest.fixture
def config() -> LabConfig:
    return resolve(Topology(metadata=Metadata(name="t")))


def test_a_server_that_still_starts_is_not_asked_whether_it_lives(config: LabConfig) -> None:
    pods: list[Any] = [
        obj["spec"].get("template", obj)["spec"]
        for obj in (*cluster_dns(config), *node_local_dns(config))
        if obj["kind"] in ("Deployment", "Pod")
    ]
    probes = [container["livenessProbe"] for pod in pods for container in pod["containers"]]

    assert len(probes) == 1 + len(config.nodes)
    assert {probe["initialDelaySeconds"] for probe in probes} == {60}
