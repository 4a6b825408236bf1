"""kubectl certificate: from a key to a user, on a running lab."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from netemu.client import Credentials, HttpClient
from netemu.kubelet.certificates import client_certificate
from netemu.lab import pki
from netemu.model.errors import Forbidden, Unauthorized
from netemu.model.resources import CONFIGMAPS, NODES, SECRETS
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


def test_a_bootstrap_token_becomes_a_kubelet(lab: LabKubectl) -> None:
    """As kubeadm joins: find the cluster by `cluster-info`, trust it by the token, get a certificate by the token."""
    token = ("abcdef", "0123456789abcdef")
    fields = {
        "token-id": token[0],
        "token-secret": token[1],
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    }
    metadata = {"name": f"bootstrap-token-{token[0]}", "namespace": "kube-system"}
    kind = "bootstrap.kubernetes.io/token"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": fields}
    lab.within("kube-system")("create", "-f", "-", stdin=json.dumps(secret))
    signed = "{.data.jws-kubeconfig-abcdef}"
    public = lab.within("kube-public")
    eventually(lambda: public("get", "configmap", "cluster-info", "-o", f"jsonpath={signed}"), "a signature")

    async def join() -> tuple[str, list[str], str]:
        anybody = Credentials(server_of(lab), insecure=True)
        async with HttpClient(anybody) as client:
            found = json.loads((await client.get(CONFIGMAPS, "cluster-info", "kube-public"))["data"]["kubeconfig"])
        ca = base64.b64decode(found["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        bearer = Credentials(server_of(lab), ca=ca, token=".".join(token))
        async with HttpClient(bearer) as client:
            with pytest.raises(Forbidden):
                await client.list(SECRETS, "kube-system")
            mine = await client_certificate(client, "joined", bearer)
        async with HttpClient(mine) as client:
            review = await client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body={})
            node = await client.create(NODES, {"metadata": {"name": "joined"}})
        user = review["status"]["userInfo"]
        return user["username"], user["groups"], node["metadata"]["name"]

    joined = asyncio.run(join())
    lab("delete", "node", "joined")

    assert joined == ("system:node:joined", ["system:nodes", "system:authenticated"], "joined")


def test_a_token_that_is_over_lets_nobody_in(lab: LabKubectl) -> None:
    bearer = Credentials(server_of(lab), ca=pki.server_certificate(lab.lab)[2].read_text(), token="bbbbbb." + "0" * 16)

    async def ask() -> None:
        async with HttpClient(bearer) as client:
            await client.list(NODES)

    with pytest.raises(Unauthorized):
        asyncio.run(ask())
