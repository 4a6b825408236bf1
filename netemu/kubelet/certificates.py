"""A kubelet's certificates, asked for by CertificateSigningRequests: the first one by a token, others by that before.

The keys never leave the kubelet. Upstream: `pkg/kubelet/certificate`, client-go `util/certificate`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from netemu.client.base import Client
from netemu.client.kubeconfig import Credentials
from netemu.client.rotation import renewal
from netemu.model.certificates import (
    CLIENT_AUTH,
    DIGITAL_SIGNATURE,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    NODE_PREFIX,
    NODES_GROUP,
    SERVER_AUTH,
    CertificateSigningRequest,
    general_name,
)
from netemu.model.errors import ApiError, NetemuError, UserError
from netemu.model.meta import decode
from netemu.model.resources import CERTIFICATESIGNINGREQUESTS

log = logging.getLogger(__name__)

_PATIENCE = 15 * 60.0
"""Seconds that a request may wait for its certificate."""
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 128.0


async def keep_client_certificate(
    client: Client, node: str, credentials: Credentials, install: Callable[[Credentials], None]
) -> None:
    """Renew a node's client certificate in time, until cancelled; `install` takes up each new one."""

    async def renew() -> str:
        renewed = await client_certificate(client, node, credentials)
        install(renewed)
        return renewed.client_certificate

    await _keep(f"client certificate of kubelet {node}", credentials.client_certificate, renew)


async def keep_serving_certificate(
    client: Client, node: str, hosts: Sequence[str], certificate: str, install: Callable[[bytes, bytes], None]
) -> None:
    """Renew what a node serves with in time, until cancelled; `install` takes up each new certificate and its key."""

    async def renew() -> str:
        key, made = await _requested(client, node, KUBELET_SERVING, SERVER_AUTH, hosts)
        install(made, key)
        return made.decode()

    await _keep(f"serving certificate of kubelet {node}", certificate, renew)


async def client_certificate(client: Client, node: str, credentials: Credentials) -> Credentials:
    """Credentials with a certificate for a node, asked for by whoever `client` is.

    Raises UserError where it is refused or does not come, ApiError.
    """
    key, certificate = await _requested(client, node, KUBELET_CLIENT, CLIENT_AUTH, ())
    return replace(credentials, client_certificate=certificate.decode(), client_key=key.decode(), token="")


async def _keep(what: str, certificate: str, renew: Callable[[], Awaitable[str]]) -> None:
    pause = _FIRST_PAUSE
    while True:
        await asyncio.sleep(max(0.0, renewal(certificate) - time.time()))
        try:
            certificate = await renew()
        except (NetemuError, OSError) as error:
            log.warning("%s: no new one: %s; again in %.0f s", what, error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            pause = _FIRST_PAUSE
            log.info("%s: renewed", what)


async def _requested(client: Client, node: str, signer: str, purpose: str, hosts: Sequence[str]) -> tuple[bytes, bytes]:
    """A new key and a certificate of a node for it. Raises UserError where it is refused or does not come, ApiError."""
    key, request = await asyncio.to_thread(_key_and_request, node, hosts)
    spec = {
        "request": base64.b64encode(request).decode(),
        "signerName": signer,
        "usages": [DIGITAL_SIGNATURE, purpose],
    }
    csr = {
        "apiVersion": CERTIFICATESIGNINGREQUESTS.api_version,
        "kind": CERTIFICATESIGNINGREQUESTS.kind,
        "metadata": {"generateName": "csr-"},
        "spec": spec,
    }
    name = (await client.create(CERTIFICATESIGNINGREQUESTS, csr))["metadata"]["name"]
    try:
        return key, await asyncio.wait_for(_issued(client, name), _PATIENCE)
    except TimeoutError:
        raise UserError(f"certificate signing request {name}: not answered in {_PATIENCE:.0f} s") from None


async def _issued(client: Client, name: str) -> bytes:
    """The certificate of a request once it is there. Raises UserError where it is refused."""
    while True:
        try:
            async for event in client.watch(CERTIFICATESIGNINGREQUESTS, field_selector=f"metadata.name={name}"):
                csr = decode(event.object, CertificateSigningRequest)
                if csr.has("Denied") or csr.has("Failed") or event.type == "DELETED":
                    raise UserError(f"certificate signing request {name} is refused")
                if csr.status.certificate:
                    return base64.b64decode(csr.status.certificate)
        except ApiError as error:  # the server is away for a moment
            log.info("certificate signing request %s: %s", name, error)
        await asyncio.sleep(1.0)


def _key_and_request(node: str, hosts: Sequence[str]) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    group = x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODES_GROUP)
    name = x509.Name([group, x509.NameAttribute(NameOID.COMMON_NAME, f"{NODE_PREFIX}{node}")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if hosts:
        names = x509.SubjectAlternativeName([general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    request = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, request.public_bytes(Encoding.PEM)
