"""The lab's own certificate authority, and kubeconfigs signed by it.

Who is who follows upstream (`kubeadm`): a client certificate's CN is the user, each O a group; `system:masters` may do
everything.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from netemu.client.kubeconfig import load_kubeconfig
from netemu.client.rotation import validity
from netemu.lab.authority import Authority, new_key, pem, pem_key
from netemu.lab.config import API_PORT, LabConfig, write_file
from netemu.lab.paths import LabPaths
from netemu.model.hosts import bracketed

if TYPE_CHECKING:
    import ssl

HTTPS = 443
NODE_AGENT = "netemu:node-agent"
"""What the node agent is where it is neither kubelet nor kube-proxy: load balancer and resolver outside."""


def users(config: LabConfig) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Component to its user name and groups, by upstream's names; `kubelet-NAME` for each node."""
    nodes = {f"kubelet-{node.name}": (f"system:node:{node.name}", ("system:nodes",)) for node in config.nodes}
    return {
        "node-agent": (NODE_AGENT, ()),
        "kube-proxy": ("system:kube-proxy", ()),
        **nodes,
        "admin": ("kubernetes-admin", ("system:masters",)),
    }


@dataclass(frozen=True, slots=True)
class Issued:
    """Something that the authority signs: a certificate with its key beside it, or a kubeconfig that holds both."""

    path: Path
    name: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Of a server: its names and addresses."""
    server: str = ""
    """Of a kubeconfig: the URL in it."""
    peer: bool = False
    """A server that is a client of others of its kind, and shows them the same."""
    renews_itself: bool = False
    """Kubelets ask for their next certificates themselves."""

    @property
    def certificate(self) -> str:
        """The certificate that is there, as PEM; empty if there is none."""
        if not self.path.exists():
            return ""
        return load_kubeconfig(self.path).client_certificate if self.server else self.path.read_text()

    def issue(self, lab: str, authority: Authority) -> None:
        """Have it signed, with a new key, and put it in the place of what is there."""
        certificate, key = authority.issue(self.name, self.groups, self.hosts, peer=self.peer)
        if self.server:
            text = kubeconfig(lab, self.server, pem(authority.certificate), self.name, certificate, key)
            write_file(self.path, text, mode=0o600)
        else:
            # Who looks for new certificates must find the key that belongs to it.
            write_file(self.path.with_suffix(".key"), key, mode=0o600)
            write_file(self.path, certificate)


def issued(config: LabConfig) -> list[Issued]:
    """Everything that the authority of a lab signs by itself; kubeadm's names."""
    paths = LabPaths(config.name)
    pki, url = paths.pki, f"https://127.0.0.1:{config.api_port}"
    found = [
        Issued(pki / "apiserver.crt", "kube-apiserver", hosts=_server_hosts(config)),
        Issued(pki / "apiserver-kubelet-client.crt", "kube-apiserver-kubelet-client", ("system:masters",)),
    ]
    for node in config.nodes:
        user, hosts = f"system:node:{node.name}", (node.name, *node.addresses)
        found.append(Issued(pki / f"kubelet-{node.name}.crt", user, ("system:nodes",), hosts, renews_itself=True))
    for client in config.clients:
        if HTTPS in client.ports:
            found.append(Issued(pki / f"client-{client.name}.crt", client.names[0], hosts=client.names))
    for component, (user, groups) in users(config).items():
        # The administrator's comes last: its presence says that everything is there.
        path = paths.kubeconfig if component == "admin" else paths.component_kubeconfig(component)
        itself = component.startswith("kubelet-")
        found.append(Issued(path, user, groups, server=url, renews_itself=itself))
    return found


def ensure_pki(config: LabConfig, now: Callable[[], float] = time.time) -> None:
    """Make the authority of a lab and what it signs, unless it is there and has not ended."""
    pki = LabPaths(config.name).pki
    if not (pki / "ca.crt").exists():
        fresh = Authority.create(f"netemu-{config.name}")
        write_file(pki / "ca.key", pem_key(fresh.key), mode=0o600)
        write_file(pki / "ca.crt", pem(fresh.certificate))
    issue_missing(config.name, authority(config), issued(config), now)


def issue_missing(lab: str, signer: Authority, wanted: Iterable[Issued], now: Callable[[], float]) -> None:
    """Have signed what is not there, or has ended."""
    for each in wanted:
        certificate = each.certificate
        if not certificate or validity(certificate)[1] <= now():
            each.issue(lab, signer)


def _server_hosts(config: LabConfig) -> tuple[str, ...]:
    service = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{config.dns_domain}",
    )
    nodes = [host for node in config.control_planes for host in (node.name, *node.addresses)]
    return ("localhost", *service, "127.0.0.1", *nodes, config.api_service_ip)


def kubeconfig(lab: str, server: str, ca: bytes, user: str, certificate: bytes, key: bytes) -> bytes:
    """A kubeconfig with everything inline. JSON is YAML; kubectl and every client library read it."""

    def b64(data: bytes) -> str:
        return base64.b64encode(data).decode()

    name = f"netemu-{lab}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": b64(ca)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "users": [
            {"name": user, "user": {"client-certificate-data": b64(certificate), "client-key-data": b64(key)}}
        ],
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"


def cluster_info(config: LabConfig) -> dict[str, Any]:
    """The ConfigMap by which somebody who joins finds the cluster: a kubeconfig without a user."""
    node, ca = config.control_planes[0].addresses[0], (LabPaths(config.name).pki / "ca.crt").read_bytes()
    host = bracketed(node)
    cluster = {"server": f"https://{host}:{API_PORT}", "certificate-authority-data": base64.b64encode(ca).decode()}
    text = msgspec.json.encode(
        {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}], "contexts": [],
         "current-context": "", "preferences": {}, "users": []}
    ).decode()  # fmt: skip
    return {"metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"kubeconfig": text}}


def authority(config: LabConfig) -> Authority:
    """The lab's own, which is there."""
    pki = LabPaths(config.name).pki
    ca, key = (pki / "ca.crt").read_bytes(), (pki / "ca.key").read_bytes()
    return Authority.load(ca, key, lifetime=config.certificate_validity)


def renewed(lab: str, serving: ssl.SSLContext, to_kubelets: ssl.SSLContext) -> dict[Path, Callable[[], None]]:
    """What an API server does about new certificates, by file: for its listeners and its connections to kubelets."""
    pki = LabPaths(lab).pki
    contexts = {pki / "apiserver.crt": serving, pki / "apiserver-kubelet-client.crt": to_kubelets}
    return {path: partial(tls.load_cert_chain, path, path.with_suffix(".key")) for path, tls in contexts.items()}


def server_certificate(lab: str) -> tuple[Path, Path, Path]:
    """Paths of the server's certificate, its key, and the authority's certificate."""
    pki = LabPaths(lab).pki
    return pki / "apiserver.crt", pki / "apiserver.key", pki / "ca.crt"


def serving(config: LabConfig) -> dict[str, Path]:
    """The certificates that the API server shows, by what they are called in metrics."""
    brought = {"brought": Path(config.certificate.cert)} if config.certificate else {}
    return {"own": LabPaths(config.name).pki / "apiserver.crt", **brought}


def kubelet_certificate(lab: str, node: str) -> tuple[Path, Path, Path]:
    """Paths of the certificate with which the kubelet of a node serves, its key, and the authority's certificate."""
    pki = LabPaths(lab).pki
    return pki / f"kubelet-{node}.crt", pki / f"kubelet-{node}.key", pki / "ca.crt"


def service_account_key(lab: str) -> Path:
    """Path of the key that signs the tokens of service accounts; made for a lab that has none yet."""
    path = LabPaths(lab).pki / "sa.key"
    if not path.exists():
        write_file(path, new_key(), mode=0o600)
    return path


def kubelet_client_tls(lab: str) -> ssl.SSLContext:
    """How the API server connects to kubelets: checks theirs, shows its own."""
    import ssl

    pki = LabPaths(lab).pki
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key")
    return context


def client_certificate(lab: str, client: str) -> tuple[Path, Path]:
    """Paths of the certificate and key with which a client outside answers HTTPS."""
    pki = LabPaths(lab).pki
    return pki / f"client-{client}.crt", pki / f"client-{client}.key"
