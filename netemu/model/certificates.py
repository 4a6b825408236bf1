"""CertificateSigningRequests: what they say, and which of them each of Kubernetes' own signers signs.

Upstream: `k8s.io/api/certificates/v1`, `pkg/apis/certificates/helpers.go`, `pkg/controller/certificates/signer`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netemu.model.meta import Condition, KubeObject, Struct

if TYPE_CHECKING:
    from cryptography import x509

API_SERVER_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
SIGNERS = (API_SERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING)

NODES_GROUP, NODE_PREFIX = "system:nodes", "system:node:"
DIGITAL_SIGNATURE, KEY_ENCIPHERMENT = "digital signature", "key encipherment"
CLIENT_AUTH, SERVER_AUTH = "client auth", "server auth"


class CertificateSigningRequestSpec(Struct, frozen=True):
    request: str = ""
    """PEM, base64."""
    signer_name: str = ""
    expiration_seconds: int | None = None
    usages: tuple[str, ...] = ()
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] | None = None


class CertificateSigningRequestStatus(Struct, frozen=True):
    conditions: tuple[Condition, ...] = ()
    certificate: str = ""


class CertificateSigningRequest(KubeObject, frozen=True):
    spec: CertificateSigningRequestSpec = CertificateSigningRequestSpec()
    status: CertificateSigningRequestStatus = CertificateSigningRequestStatus()

    def has(self, condition: str) -> bool:
        """Whether it is `Approved`, `Denied` or `Failed`."""
        return any(one.type == condition and one.status != "False" for one in self.status.conditions)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the X.509 request inside asks for."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Mail addresses and URIs."""


def read_request(pem: bytes) -> Asked:
    """Decode and check its signature. Raises ValueError."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    request = x509.load_pem_x509_csr(pem)
    if not request.is_signature_valid:
        raise ValueError("its signature is wrong")
    names = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = tuple(str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    try:
        also = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Asked(names[0] if names else "", groups)
    return Asked(
        names[0] if names else "",
        groups,
        tuple(also.get_values_for_type(x509.DNSName)),
        tuple(str(one) for one in also.get_values_for_type(x509.IPAddress)),
        (*also.get_values_for_type(x509.RFC822Name), *also.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def general_name(host: str) -> x509.GeneralName:
    """A name or an address as certificates hold it."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def unfit(signer: str, asked: Asked, usages: Sequence[str]) -> str:
    """Why one of Kubernetes' signers does not sign a request; empty if it does."""
    purpose = SERVER_AUTH if signer == KUBELET_SERVING else CLIENT_AUTH
    needed = {purpose} if signer == API_SERVER_CLIENT else {purpose, DIGITAL_SIGNATURE}
    if not needed <= set(usages) <= {DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, purpose}:
        return f"usages did not match {sorted(needed)}"
    if signer == API_SERVER_CLIENT:
        return ""
    if asked.organizations != (NODES_GROUP,):
        return f"subject organization is not {NODES_GROUP}"
    if not asked.common_name.startswith(NODE_PREFIX):
        return f"subject common name does not begin with {NODE_PREFIX}"
    if asked.others:
        return "email and URI subjectAltNames are not allowed"
    if signer == KUBELET_SERVING and not (asked.dns_names or asked.addresses):
        return "at least one DNS or IP subjectAltName is required"
    if signer == KUBELET_CLIENT and (asked.dns_names or asked.addresses):
        return "DNS and IP subjectAltNames are not allowed"
    return ""
