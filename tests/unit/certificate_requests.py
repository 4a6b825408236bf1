"""Certificate signing requests as clients make them."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from netemu.lab.authority import pem_key


def request(name: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """The request (PEM) and its key (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if hosts:
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), pem_key(key)


def signing_request(
    pem: bytes, *, name: str = "csr", signer: str = "kubernetes.io/kube-apiserver-client", **spec: Any
) -> dict[str, Any]:
    """A CertificateSigningRequest for it."""
    whole = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": ["client auth"], **spec}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": whole,
    }
