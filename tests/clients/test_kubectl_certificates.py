"""kubectl certificate: from a key to a user, on a running lab."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from netemu.lab import pki
from tests.clients.apiserver import find_kubectl
from tests.clients.labs import LabKubectl
from tests.cluster.labs import eventually
from tests.unit.certificate_requests import request, signing_request


def server_of(lab: LabKubectl) -> str:
    """The URL of the lab's API server."""
    return lab("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")


def columns(lab: LabKubectl, name: str) -> list[str]:
    """What `get csr` prints of one, without its age."""
    words = lab("get", "csr", name, "--no-headers").split()
    return [words[0], *words[2:]]


@pytest.mark.parametrize("minor", [27, 32, 33])
def test_an_approved_request_becomes_a_user(lab: LabKubectl, tmp_path: Path, minor: int) -> None:
    kubectl = LabKubectl(lab.lab, find_kubectl(minor), tmp_path / "cache")
    name, (pem, key) = f"ann-{minor}", request("ann", ("devs",))
    kubectl("create", "-f", "-", stdin=json.dumps(signing_request(pem, name=name, expirationSeconds=3600)))
    pending = columns(kubectl, name)
    approved = kubectl("certificate", "approve", name)
    eventually(lambda: columns(kubectl, name)[-1] == "Approved,Issued", "a certificate")
    certificate = base64.b64decode(kubectl.field("csr", name, path=".status.certificate"))
    (tmp_path / "ann").write_bytes(
        pki.kubeconfig("ann", server_of(lab), pki.server_certificate(lab.lab)[2].read_bytes(), "ann", certificate, key)
    )
    who = kubectl("--kubeconfig", str(tmp_path / "ann"), "auth", "whoami", "-o", "json")

    signer = "kubernetes.io/kube-apiserver-client"
    assert pending == [name, signer, "kubernetes-admin", "60m", "Pending"]
    assert approved == f"certificatesigningrequest.certificates.k8s.io/{name} approved\n"
    assert json.loads(who)["status"]["userInfo"]["groups"] == ["devs", "system:authenticated"]


def test_a_denied_request_gets_nothing(lab: LabKubectl) -> None:
    pem, _ = request("eve")
    lab("create", "-f", "-", stdin=json.dumps(signing_request(pem, name="eve")))
    denied = lab("certificate", "deny", "eve")
    again = lab.run("certificate", "approve", "eve")

    assert denied == "certificatesigningrequest.certificates.k8s.io/eve denied\n"
    assert columns(lab, "eve")[-1] == "Denied"
    assert again.returncode == 1
    assert 'certificate signing request "eve" is already Denied' in again.stderr or "mutually exclusive" in again.stderr


def test_who_may_not_approve_is_told(lab: LabKubectl) -> None:
    pem, _ = request("bob")
    lab("create", "-f", "-", stdin=json.dumps(signing_request(pem, name="bob")))
    lab("create", "clusterrole", "csr-editor", "--verb=get,update,patch", "--resource=csr,csr/approval")
    lab("create", "clusterrolebinding", "csr-editor", "--clusterrole=csr-editor", "--user=carl")
    refused = lab.run("certificate", "approve", "bob", "--as=carl")

    assert "user not permitted to approve requests with signerName" in refused.stderr
