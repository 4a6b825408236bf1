"""The lab's own certificate authority, and kubeconfigs signed by it.

Who is who follows upstream (`kubeadm`): a client certificate's CN is the user, each O a group; `system:masters` may do
everything.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from netemu.lab.authority import Authority, new_key, pem, pem_key
from netemu.lab.config import LabConfig, write_file
from netemu.lab.paths import LabPaths

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


def ensure_pki(config: LabConfig) -> None:
    """Make the authority, the server's certificate and every kubeconfig, unless they are there."""
    paths = LabPaths(config.name)
    if paths.kubeconfig.exists():
        return
    authority = Authority.create(f"netemu-{config.name}")
    ca = pem(authority.certificate)
    write_file(paths.pki / "ca.crt", ca)
    write_file(paths.pki / "ca.key", pem_key(authority.key), mode=0o600)
    certificate, key = authority.issue("kube-apiserver", hosts=_server_hosts(config))
    write_file(paths.pki / "apiserver.crt", certificate)
    write_file(paths.pki / "apiserver.key", key, mode=0o600)
    _issue_for_kubelets(config, authority)
    for client in config.clients:
        if HTTPS in client.ports:
            certificate, key = authority.issue(client.names[0], hosts=client.names)
            write_file(paths.pki / f"client-{client.name}.crt", certificate)
            write_file(paths.pki / f"client-{client.name}.key", key, mode=0o600)
    server = f"https://127.0.0.1:{config.api_port}"
    for component, (user, groups) in users(config).items():
        certificate, key = authority.issue(user, groups)
        text = kubeconfig(config.name, server, ca, user, certificate, key)
        # The administrator's comes last: its presence says that everything is there.
        path = paths.kubeconfig if component == "admin" else paths.component_kubeconfig(component)
        write_file(path, text, mode=0o600)


def _issue_for_kubelets(config: LabConfig, authority: Authority) -> None:
    """What each kubelet serves with, and what the API server shows them; kubeadm's names."""
    pki = LabPaths(config.name).pki
    pairs = {
        f"kubelet-{node.name}": authority.issue(
            f"system:node:{node.name}", ("system:nodes",), (node.name, *node.addresses)
        )
        for node in config.nodes
    }
    pairs["apiserver-kubelet-client"] = authority.issue("kube-apiserver-kubelet-client", ("system:masters",))
    for name, (certificate, key) in pairs.items():
        write_file(pki / f"{name}.crt", certificate)
        write_file(pki / f"{name}.key", key, mode=0o600)


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


def authority(lab: str) -> Authority:
    """The lab's own."""
    pki = LabPaths(lab).pki
    return Authority.load((pki / "ca.crt").read_bytes(), (pki / "ca.key").read_bytes())


def server_certificate(lab: str) -> tuple[Path, Path, Path]:
    """Paths of the server's certificate, its key, and the authority's certificate."""
    pki = LabPaths(lab).pki
    return pki / "apiserver.crt", pki / "apiserver.key", pki / "ca.crt"


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
