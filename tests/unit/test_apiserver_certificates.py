"""CertificateSigningRequests: who has asked, what each way in changes, and who may."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from netemu.apiserver.admission import REQUESTER, Admission
from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import AUTHENTICATED, Attributes, User
from netemu.apiserver.certificates import CertificateGuard
from netemu.apiserver.registry import Registry
from netemu.apiserver.rules import Rules
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.tables.table import table
from netemu.model.errors import Forbidden, Invalid
from netemu.model.resources import CERTIFICATESIGNINGREQUESTS as CSRS
from netemu.testing.store import MemoryStore
from tests.unit.certificate_requests import request, signing_request

ANN, APPROVER, SIGNER = User("ann", (AUTHENTICATED,)), User("approver"), User("signer")
PEM, _ = request("ann", ("devs",))
APPROVED = {"type": "Approved", "status": "True", "reason": "Fine"}
DENIED = {"type": "Denied", "status": "True", "reason": "No"}
CERTIFICATE = {"status": {"certificate": "AAAA"}}


class Signers:
    """One may approve for all signers of the domain, another sign for one of them."""

    def why(self, user: User, wanted: Attributes) -> str:
        asked = (user.name, wanted.verb, wanted.resource, wanted.name)
        fine = ("approver", "approve", "signers", "kubernetes.io/*"), (
            "signer", "sign", "signers", "kubernetes.io/kube-apiserver-client",
        )  # fmt: skip
        return "so" if asked in fine else ""

    def refusal(self, user: User, wanted: Attributes) -> str:
        return ""

    def rules(self, user: User, namespace: str) -> dict[str, Any]:
        return {}


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    store, admission = MemoryStore(), Admission()
    rules = admission.around(Rules.upstream())
    running = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]), rules=rules)
    await running.start()
    admission.begin(CertificateGuard(Signers()))
    yield running
    await running.close()
    await store.close()


@contextmanager
def acting(user: User) -> Iterator[None]:
    before = REQUESTER.set(user)
    yield
    REQUESTER.reset(before)


async def test_the_requester_is_written_in_and_nothing_is_decided_yet(registry: Registry) -> None:
    forged = {**signing_request(PEM, username="root", groups=["system:masters"]), "status": {"conditions": [APPROVED]}}
    with acting(ANN):
        made = await registry.create(CSRS, forged)

    assert (made["spec"]["username"], made["spec"]["groups"]) == ("ann", [AUTHENTICATED])
    assert "status" not in made


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"request": "bm90aGluZw=="}, "spec.request: Invalid value"),
        ({"request": ""}, "spec.request: Required value"),
        ({"usages": []}, "spec.usages: Required value: usages are required"),
        ({"usages": ["fishing"]}, 'spec.usages[0]: Unsupported value: "fishing"'),
        ({"usages": ["any", "any"]}, 'spec.usages[1]: Duplicate value: "any"'),
        ({"signerName": "mine"}, "spec.signerName: Invalid value"),
        ({"signerName": "kubernetes.io/legacy-unknown"}, "the legacy signerName is not allowed"),
        ({"expirationSeconds": 599}, "may not specify a duration less than 600 seconds (10 minutes)"),
    ],
)
async def test_a_wrong_request_is_refused(registry: Registry, change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        await registry.create(CSRS, signing_request(PEM) | {"spec": {**signing_request(PEM)["spec"], **change}})

    assert field in refused.value.message


async def test_nobody_asks_for_a_certificate_of_masters(registry: Registry) -> None:
    pem, _ = request("me", ("system:masters",))
    with acting(ANN), pytest.raises(Forbidden, match="with system:masters group is not allowed"):
        await registry.create(CSRS, signing_request(pem))


async def test_who_may_approve_and_who_may_sign(registry: Registry) -> None:
    await registry.create(CSRS, signing_request(PEM))
    approval, state = {"status": {"conditions": [APPROVED]}}, []
    for user, subresource, patch in (
        (ANN, "approval", approval),
        (SIGNER, "approval", approval),
        (APPROVER, "approval", approval),
        (APPROVER, "status", CERTIFICATE),
        (SIGNER, "status", CERTIFICATE),
    ):
        with acting(user):
            try:
                done = await registry.patch(CSRS, "csr", patch, subresource=subresource)
                state.append((user.name, table(CSRS, [done], {}, "")["rows"][0]["cells"][-1]))
            except Forbidden as refused:
                state.append((user.name, refused.message.partition(": ")[2]))

    client = "kubernetes.io/kube-apiserver-client"
    assert state == [
        ("ann", f'user not permitted to approve requests with signerName "{client}"'),
        ("signer", f'user not permitted to approve requests with signerName "{client}"'),
        ("approver", "Approved"),
        ("approver", f'user not permitted to sign requests with signerName "{client}"'),
        ("signer", "Approved,Issued"),
    ]


@pytest.mark.parametrize(
    ("subresource", "status", "why"),
    [
        ("status", {"conditions": [APPROVED, DENIED]}, 'condition of type "Approved"'),
        ("status", {"conditions": []}, 'condition of type "Approved"'),
        ("approval", {"conditions": []}, 'may not remove a condition of type "Approved"'),
        ("approval", {"conditions": [APPROVED, DENIED]}, "mutually exclusive"),
        ("approval", {"conditions": [{**APPROVED, "status": "False"}]}, "status.conditions[0].status"),
        ("status", {"conditions": [APPROVED], "certificate": "BBBB"}, "may not modify existing certificate content"),
    ],
)
async def test_what_is_decided_stays(registry: Registry, subresource: str, status: dict[str, Any], why: str) -> None:
    await registry.create(CSRS, signing_request(PEM))
    await registry.patch(CSRS, "csr", {"status": {"conditions": [APPROVED]}}, subresource="approval")
    await registry.patch(CSRS, "csr", CERTIFICATE, subresource="status")

    with pytest.raises(Invalid) as refused:
        await registry.patch(CSRS, "csr", {"status": status}, subresource=subresource)

    assert why in refused.value.message


async def test_each_way_in_changes_its_own_part_only(registry: Registry) -> None:
    made = await registry.create(CSRS, signing_request(PEM))
    wanted = {"status": {"conditions": [APPROVED], "certificate": "AAAA"}, "spec": {"usages": ["any"]}}
    approved = await registry.patch(CSRS, "csr", wanted, subresource="approval")
    relabelled = await registry.patch(CSRS, "csr", {"metadata": {"labels": {"a": "b"}}, **wanted})

    assert "certificate" not in approved["status"]
    assert {"lastUpdateTime", "lastTransitionTime"} <= approved["status"]["conditions"][0].keys()
    assert (relabelled["metadata"]["labels"], relabelled["spec"]) == ({"a": "b"}, made["spec"])
    assert relabelled["status"] == approved["status"]
