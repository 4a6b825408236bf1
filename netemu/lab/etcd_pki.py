"""Certificates of a lab's etcd: an authority of its own, and what members and API servers show each other.

As kubeadm has it, etcd trusts another authority than the API server does. Whoever has a certificate of the cluster's
authority, a kubelet for example, is held to what the API server lets him do, and must not get behind it.
Files are kubeadm's: `etcd/ca.crt`, `etcd/server.crt`, `etcd/peer.crt`, `apiserver-etcd-client.crt`, with their keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from netemu.lab.authority import YEAR, Authority, pem, pem_key
from netemu.lab.config import LabConfig, write_file
from netemu.lab.pki import Issued, issue_missing

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence


def ensure(pki: Path, hosts: Sequence[str], lifetime: float = YEAR, now: Callable[[], float] = time.time) -> None:
    """Make the authority, and what it signs for members at these names and addresses, unless it is there and good."""
    if not (pki / "etcd/ca.crt").exists():
        fresh = Authority.create("etcd-ca")
        write_file(pki / "etcd/ca.key", pem_key(fresh.key), mode=0o600)
        write_file(pki / "etcd/ca.crt", pem(fresh.certificate))
    issue_missing("", authority(pki, lifetime), issued(pki, hosts), now)


def authority(pki: Path, lifetime: float) -> Authority:
    """Etcd's own, which is there; what it signs is good for so many seconds."""
    return Authority.load((pki / "etcd/ca.crt").read_bytes(), (pki / "etcd/ca.key").read_bytes(), lifetime=lifetime)


def issued(pki: Path, hosts: Sequence[str]) -> list[Issued]:
    """What that authority signs."""
    everywhere = ("localhost", "127.0.0.1", *hosts)
    return [
        # A member's gateway is a client of the member itself, and shows the server's certificate.
        Issued(pki / "etcd/server.crt", "etcd-server", hosts=everywhere, peer=True),
        Issued(pki / "etcd/peer.crt", "etcd-peer", hosts=everywhere, peer=True),
        Issued(pki / "apiserver-etcd-client.crt", "kube-apiserver-etcd-client"),
    ]


def hosts_of(config: LabConfig) -> list[str]:
    """The names and addresses of a lab's members."""
    return [host for node in config.control_planes for host in (node.name, *node.addresses)]


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


def renewed(pki: Path, tls: ssl.SSLContext) -> dict[Path, Callable[[], None]]:
    """What an API server does about a new certificate, by file. Members read theirs at every handshake."""
    certificate = pki / "apiserver-etcd-client.crt"
    return {certificate: partial(tls.load_cert_chain, certificate, certificate.with_suffix(".key"))}
