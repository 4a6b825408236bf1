"""Which certificate requests are approved by themselves, and which are signed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from cryptography import x509

from netemu.controllers.actions import Again, Delete, Patch
from netemu.controllers.certificates import approvable, approval, cleaning, serves_itself, signature
from netemu.lab.authority import Authority
from netemu.model import times
from netemu.model.certificates import KUBELET_CLIENT, KUBELET_SERVING, CertificateSigningRequest
from netemu.model.meta import decode
from tests.unit.certificate_requests import request, signing_request

CLIENT_USAGES, SERVING_USAGES = ["digital signature", "client auth"], ["digital signature", "server auth"]
NODES = ("system:nodes",)
AUTHORITY = Authority.create("test", lifetime=3600)
APPROVED = [{"type": "Approved", "status": "True"}]


def csr(
    name: str = "system:node:n1", groups: Sequence[str] = NODES, hosts: Sequence[str] = (), **change: Any
) -> CertificateSigningRequest:
    pem, _ = request(name, groups, hosts)
    status = {"conditions": change.pop("conditions", [])}
    spec = {"signer": KUBELET_CLIENT, "usages": CLIENT_USAGES, "username": "system:node:n1", **change}
    return decode({**signing_request(pem, **spec), "status": status}, CertificateSigningRequest)


@pytest.mark.parametrize(
    ("asked", "by"),
    [
        (csr(), ("selfnodeclient", "nodeclient")),
        (csr(username="system:bootstrap:abcdef"), ("nodeclient",)),
        (csr(name="ann"), ()),
        (csr(groups=("system:masters",)), ()),
        (csr(groups=(*NODES, "more")), ()),
        (csr(hosts=("n1",)), ()),
        (csr(usages=["client auth"]), ()),
        (csr(usages=[*CLIENT_USAGES, "server auth"]), ()),
        (csr(usages=[*CLIENT_USAGES, "key encipherment"]), ("selfnodeclient", "nodeclient")),
        (csr(signer=KUBELET_SERVING, usages=SERVING_USAGES, hosts=("n1",)), ()),
        (csr(conditions=APPROVED), ()),
    ],
)
def test_what_may_be_approved_by_itself(asked: CertificateSigningRequest, by: Sequence[str]) -> None:
    assert tuple(approvable(asked)) == tuple(by)


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({}, True),
        ({"hosts": ("n1",)}, True),
        ({"hosts": ("n1", "10.0.0.2")}, False),
        ({"hosts": ("kubernetes",)}, False),
        ({"hosts": ()}, False),
        ({"username": "system:node:n2"}, False),
        ({"username": "ann"}, False),
        ({"groups_of_asker": []}, False),
        ({"name": "system:node:n3", "username": "system:node:n3"}, False),
        ({"usages": CLIENT_USAGES}, False),
        ({"conditions": [{"type": "Denied", "status": "True"}]}, False),
    ],
)
def test_a_node_that_is_known_serves_with_its_own_names_only(change: dict[str, Any], fine: bool) -> None:
    asker = {"groups": change.pop("groups_of_asker", [*NODES])}
    serving = {"signer": KUBELET_SERVING, "usages": SERVING_USAGES, "hosts": ("n1", "10.0.0.1"), **change}
    asked = csr(**serving)
    asked = msgspec.structs.replace(asked, spec=msgspec.structs.replace(asked.spec, **asker))

    assert serves_itself(asked, {"n1": ("n1", "10.0.0.1"), "n2": ("n2", "10.0.0.2")}) is fine


def test_an_approval_says_by_what() -> None:
    patch = approval(csr(), "Because.")

    (condition,) = patch.patch["status"]["conditions"]
    assert (patch.subresource, condition["type"], condition["reason"]) == ("approval", "Approved", "AutoApproved")
    assert condition["message"] == "Because."


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (csr(conditions=APPROVED), ""),
        (csr(conditions=APPROVED, signer=KUBELET_SERVING, usages=SERVING_USAGES, hosts=("n1", "10.0.0.1")), ""),
        (csr(conditions=APPROVED, signer=KUBELET_SERVING, usages=SERVING_USAGES), "at least one DNS or IP"),
        (csr(conditions=APPROVED, name="ann"), "subject common name does not begin with system:node:"),
        (csr(conditions=APPROVED, signer="kubernetes.io/kube-apiserver-client", name="ann", groups=("devs",)), ""),
    ],
)
def test_approved_requests_are_signed_where_the_signer_may(asked: CertificateSigningRequest, why: str) -> None:
    (patch,) = signature(asked, AUTHORITY)

    assert isinstance(patch, Patch)
    assert patch.subresource == "status"
    if why:
        assert why in patch.patch["status"]["conditions"][-1]["message"]
    else:
        made = x509.load_pem_x509_certificate(base64.b64decode(patch.patch["status"]["certificate"]))
        made.verify_directly_issued_by(AUTHORITY.certificate)
        assert made.subject == x509.load_pem_x509_csr(base64.b64decode(asked.spec.request)).subject


@pytest.mark.parametrize(
    "asked",
    [
        csr(),
        csr(conditions=[{"type": "Denied", "status": "True"}]),
        csr(conditions=APPROVED, signer="example.com/other"),
        csr(conditions=[*APPROVED, {"type": "Failed", "status": "True"}]),
    ],
)
def test_nothing_else_is_signed(asked: CertificateSigningRequest) -> None:
    assert signature(asked, AUTHORITY) == []


@pytest.mark.parametrize(("wanted", "seconds"), [(None, 3600), (600, 600), (86400, 3600)])
def test_a_certificate_ends_when_it_was_asked_to_but_not_later_than_others(wanted: int | None, seconds: int) -> None:
    (patch,) = signature(csr(conditions=APPROVED, expirationSeconds=wanted), AUTHORITY)

    assert isinstance(patch, Patch)
    made = x509.load_pem_x509_certificate(base64.b64decode(patch.patch["status"]["certificate"]))
    lived = (made.not_valid_after_utc - made.not_valid_before_utc).total_seconds()
    assert seconds <= lived <= seconds * 1.06


@pytest.mark.parametrize(
    ("since", "conditions", "gone"),
    [("2020-01-01T00:00:00Z", [], True), (times.now(), [], False), (times.now(), APPROVED, False)],
)
def test_old_requests_go(since: str, conditions: list[dict[str, str]], gone: bool) -> None:
    dated = [{**one, "lastUpdateTime": since} for one in conditions]
    obj = {"metadata": {"name": "x", "uid": "u", "creationTimestamp": since}, "status": {"conditions": dated}}
    (action,) = cleaning(decode(obj, CertificateSigningRequest))

    assert isinstance(action, Delete if gone else Again)
