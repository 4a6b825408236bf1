"""Certificates of a running lab are renewed before they end, and nobody who is connected notices."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from netemu.client.rotation import validity
from netemu.lab import pki
from netemu.lab.config import load_config
from tests.clients.apiserver import find_kubectl
from tests.clients.labs import LabKubectl
from tests.cluster.labs import eventually, netemu, run

LAB = "t-rotation"
TOPOLOGY = f"""
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {{name: {LAB}}}
spec:
  nodes: [{{name: one}}, {{name: two}}]
  dns: {{replicas: 1}}
  controlPlane: {{certificateValidityPeriod: 20s}}
  clients: [{{name: shop, names: [shop.example.com], ports: [443]}}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabKubectl]:
    program, tmp_path = find_kubectl(), tmp_path_factory.mktemp("lab")
    (tmp_path / "lab.yaml").write_text(TOPOLOGY)
    netemu("up", str(tmp_path / "lab.yaml"))
    yield LabKubectl(LAB, program, tmp_path / "cache")
    run("down", LAB)


def test_a_lab_outlives_its_certificates(lab: LabKubectl) -> None:
    issued = {each.path: each.certificate for each in pki.issued(load_config(LAB))}
    last = max(validity(text)[1] for text in issued.values())
    watch = lab.start("get", "configmaps", "--watch-only", "-o", "name")

    def new_ones() -> bool:
        now = {each.path: each.certificate for each in pki.issued(load_config(LAB))}
        return time.time() > last and all(now[path] != text for path, text in issued.items())

    eventually(new_ones, "new certificates for everybody, the old ones being over", within=40)
    lab("create", "configmap", "later")
    lab("run", "later", "--image=nginx", "--overrides", '{"spec": {"nodeName": "two"}}')
    lab("wait", "--for=condition=Ready", "pod/later", "--timeout=20s")
    lab("logs", "later")
    outside = lab.exec(
        "later", "curl", "-s", "--cacert", str(pki.server_certificate(LAB)[2]), "https://shop.example.com"
    )
    requests = {tuple(row.split()[i] for i in (2, 3, -1)) for row in lab("get", "csr", "--no-headers").splitlines()}

    assert watch.stdout is not None
    assert watch.poll() is None
    while (seen := watch.stdout.readline()) and seen != "configmap/later\n":
        pass
    watch.kill()
    watch.communicate()
    assert seen == "configmap/later\n"
    assert "shop" in outside
    assert requests == {
        (f"kubernetes.io/{signer}", f"system:node:{name}", "Approved,Issued")
        for name in ("one", "two")
        for signer in ("kube-apiserver-client-kubelet", "kubelet-serving")
    }
    lab("delete", "pod", "later", "--grace-period=1")
    eventually(lambda: not lab.pod_networks(), "the end of the Pod")
