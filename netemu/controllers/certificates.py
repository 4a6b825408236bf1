"""CertificateSigningRequests: kubelets' own are approved, approved ones are signed, old ones go.

What is approved without asking anybody is a matter of the requester's roles: `create` on
`certificatesigningrequests/nodeclient` for the first certificate of a kubelet, on `.../selfnodeclient` for its next
one. Certificates for serving are left to an administrator, but for nodes whose names and addresses are known for sure.
Only Kubernetes' own signers are signed for.
Upstream: `pkg/controller/certificates/{approver,signer,cleaner}`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from netemu.client.base import Client
from netemu.controllers.actions import Action, Actions, Again, Delete, Patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model import times
from netemu.model.certificates import (
    KUBELET_CLIENT,
    KUBELET_SERVING,
    NODE_PREFIX,
    NODES_GROUP,
    SIGNERS,
    CertificateSigningRequest,
    read_request,
    unfit,
)
from netemu.model.meta import Condition, encode
from netemu.model.resources import CERTIFICATESIGNINGREQUESTS, SUBJECTACCESSREVIEWS

_HOUR = 3600.0
_DECIDED_FOR, _PENDING_FOR = _HOUR, 24 * _HOUR
_SHORTEST = 600
_APPROVALS = {
    "selfnodeclient": "Auto approving self kubelet client certificate after SubjectAccessReview.",
    "nodeclient": "Auto approving kubelet client certificate after SubjectAccessReview.",
}
"""Subresource that the requester must be allowed to create, to what an approval says."""


_SERVING = "Auto approving kubelet serving certificate: its names and addresses are known to be the node's."


class Signer(Protocol):
    """The cluster's authority."""

    lifetime: float
    """Seconds that a certificate is good for at most."""

    def sign(self, request: bytes, usages: Sequence[str], seconds: float) -> bytes:
        """A certificate (PEM) for the key of a request (PEM), with its subject and names."""
        ...


def approvable(csr: CertificateSigningRequest) -> Sequence[str]:
    """By which of the approvals a request may be approved, most special first. Pure."""
    if csr.spec.signer_name != KUBELET_CLIENT or csr.status.conditions or csr.status.certificate:
        return ()
    try:
        asked = read_request(base64.b64decode(csr.spec.request))
    except ValueError:
        return ()
    if unfit(KUBELET_CLIENT, asked, csr.spec.usages):
        return ()
    return tuple(_APPROVALS) if asked.common_name == csr.spec.username else ("nodeclient",)


def serves_itself(csr: CertificateSigningRequest, hosts: Mapping[str, Collection[str]]) -> bool:
    """Whether a node asks for a certificate to serve with, of names and addresses that are all its own. Pure."""
    if csr.spec.signer_name != KUBELET_SERVING or csr.status.conditions or csr.status.certificate:
        return False
    try:
        asked = read_request(base64.b64decode(csr.spec.request))
    except ValueError:
        return False
    if unfit(KUBELET_SERVING, asked, csr.spec.usages) or asked.common_name != csr.spec.username:
        return False
    own = hosts.get(asked.common_name.removeprefix(NODE_PREFIX), ())
    return NODES_GROUP in csr.spec.groups and {*asked.dns_names, *asked.addresses} <= {*own}


def approval(csr: CertificateSigningRequest, message: str) -> Patch:
    """The approval of a request. Pure."""
    condition = Condition(type="Approved", status="True", reason="AutoApproved", message=message)
    return _with_condition(csr, condition, "approval")


def signature(csr: CertificateSigningRequest, signer: Signer) -> Actions:
    """The certificate of an approved request, or why it is refused. Pure but for the signer's dice."""
    ready = csr.has("Approved") and not csr.has("Denied") and not csr.has("Failed") and not csr.status.certificate
    if not ready or csr.spec.signer_name not in SIGNERS:
        return []
    request = base64.b64decode(csr.spec.request)
    if why := unfit(csr.spec.signer_name, read_request(request), csr.spec.usages):
        failed = Condition(type="Failed", status="True", reason="SignerValidationFailure", message=why)
        return [_with_condition(csr, failed, "status")]
    wanted = csr.spec.expiration_seconds
    seconds = signer.lifetime if wanted is None else min(max(wanted, _SHORTEST), signer.lifetime)
    certificate = base64.b64encode(signer.sign(request, csr.spec.usages, seconds)).decode()
    version = csr.metadata.resource_version
    patch = {"status": {"certificate": certificate}}
    return [Patch(CERTIFICATESIGNINGREQUESTS, csr.name, patch, subresource="status", resource_version=version)]


def cleaning(csr: CertificateSigningRequest) -> Actions:
    """Its deletion once it is old, or when to look again. Pure but for the clock."""
    decided = [one.last_update_time or one.last_transition_time for one in csr.status.conditions]
    since, limit = (decided[-1], _DECIDED_FOR) if decided else (csr.metadata.creation_timestamp, _PENDING_FOR)
    left = limit - times.seconds_since(since) if since else limit
    if left > 0:
        return [Again(left)]
    return [Delete(CERTIFICATESIGNINGREQUESTS, csr.name, uid=csr.metadata.uid)]


def _with_condition(csr: CertificateSigningRequest, condition: Condition, subresource: str) -> Patch:
    conditions = [encode(one) for one in (*csr.status.conditions, condition)]
    version, patch = csr.metadata.resource_version, {"status": {"conditions": conditions}}
    return Patch(CERTIFICATESIGNINGREQUESTS, csr.name, patch, subresource=subresource, resource_version=version)


class CertificateController:
    """Watches CertificateSigningRequests."""

    name = "certificate-controller"
    needs = (CERTIFICATESIGNINGREQUESTS,)

    def __init__(
        self, client: Client, cache: Cache, signer: Signer, hosts: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """`hosts`: the names and addresses of each node that is known for sure, by the name of the node."""
        self._client, self._signer, self._hosts = client, signer, hosts or {}
        self._requests = cache.of(CERTIFICATESIGNINGREQUESTS, CertificateSigningRequest)

    def watch(self, queue: Queue) -> None:
        """Every request that there is."""
        self._requests.on_change(lambda _, new: queue.mark(new.name) if new else None)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        csr = self._requests.get(key)
        if csr is None:
            return ()
        for by in approvable(csr):
            if await self._allowed(csr, by):
                return [approval(csr, _APPROVALS[by])]
        if serves_itself(csr, self._hosts):
            return [approval(csr, _SERVING)]
        signed = await asyncio.to_thread(signature, csr, self._signer) if csr.has("Approved") else []
        return signed or cleaning(csr)

    async def _allowed(self, csr: CertificateSigningRequest, by: str) -> bool:
        group, resource = CERTIFICATESIGNINGREQUESTS.group, CERTIFICATESIGNINGREQUESTS.plural
        attributes = {"group": group, "version": "*", "resource": resource, "subresource": by, "verb": "create"}
        spec = csr.spec
        asked: dict[str, Any] = {"user": spec.username, "uid": spec.uid, "groups": list(spec.groups)}
        asked |= {"extra": encode(spec.extra or {}), "resourceAttributes": attributes}
        answer: Mapping[str, Any] = await self._client.create(SUBJECTACCESSREVIEWS, {"spec": asked})
        return bool(answer["status"].get("allowed"))
