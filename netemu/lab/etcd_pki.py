"""Certificates of a lab's etcd: an authority of its own, and what members and API servers show each other.

As kubeadm has it, etcd trusts another authority than the API server does. Whoever has a certificate of the cluster's
authority, a kubelet for example, is held to what the API server lets him do, and must not get behind it.
Files are kubeadm's: `etcd/ca.crt`, `etcd/server.crt`, `etcd/peer.crt`, `apiserver-etcd-client.crt`, with their keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from netemu.lab.authority import YEAR, Authority, pem, pem_key
from netemu.lab.config import write_file

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

_LIFETIME = 10 * YEAR
"""As long as the authority itself: nobody renews these."""


def issue(pki: Path, hosts: Sequence[str]) -> None:
    """Make everything for members at these names and addresses, unless it is there."""
    last = pki / "apiserver-etcd-client.crt"
    if last.exists():
        return
    authority = Authority.create("etcd-ca", lifetime=_LIFETIME)
    write_file(pki / "etcd/ca.crt", pem(authority.certificate))
    write_file(pki / "etcd/ca.key", pem_key(authority.key), mode=0o600)
    everywhere = ("localhost", "127.0.0.1", *hosts)
    # A member's gateway is a client of the member itself, and shows the server's certificate.
    pairs = {
        "etcd/server": authority.issue("etcd-server", hosts=everywhere, peer=True),
        "etcd/peer": authority.issue("etcd-peer", hosts=everywhere, peer=True),
        "apiserver-etcd-client": authority.issue("kube-apiserver-etcd-client"),
    }
    for name, (certificate, key) in pairs.items():
        write_file(pki / f"{name}.key", key, mode=0o600)
        write_file(pki / f"{name}.crt", certificate)


def member_flags(pki: Path) -> list[str]:
    """etcd's flags for TLS between members and with clients; nobody is served without a certificate."""
    etcd = pki / "etcd"
    return [
        "--client-cert-auth", "--trusted-ca-file", str(etcd / "ca.crt"),
        "--cert-file", str(etcd / "server.crt"), "--key-file", str(etcd / "server.key"),
        "--peer-client-cert-auth", "--peer-trusted-ca-file", str(etcd / "ca.crt"),
        "--peer-cert-file", str(etcd / "peer.crt"), "--peer-key-file", str(etcd / "peer.key"),
    ]  # fmt: skip


def client_tls(pki: Path) -> ssl.SSLContext:
    """How the API server connects to members: checks theirs, shows its own."""
    import ssl

    context = ssl.create_default_context(cafile=str(pki / "etcd/ca.crt"))
    context.load_cert_chain(pki / "apiserver-etcd-client.crt", pki / "apiserver-etcd-client.key")
    return context
