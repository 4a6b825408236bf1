"""Where the API server is and who we are: a kubeconfig file, or the files a Pod finds in itself.

Format: `k8s.io/client-go/tools/clientcmd/api/v1`; certificates as paths or inline base64.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from netemu.model.errors import UserError

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A server's URL and what proves each side to the other. PEM texts; empty means none."""

    server: str
    ca: str = ""
    client_certificate: str = ""
    client_key: str = ""
    token: str = ""
    insecure: bool = False

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context of the client side; None for plain http."""
        if not self.server.startswith("https"):
            return None
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_certificate:
            # The ssl module reads client certificates from files only.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(self.client_certificate + "\n" + self.client_key)
                file.flush()
                context.load_cert_chain(file.name)
        return context


def load_kubeconfig(path: str | Path, context: str = "") -> Credentials:
    """Read the current (or named) context of a kubeconfig. Raises UserError naming what is missing."""
    path = Path(path)
    try:
        # A JSON kubeconfig is valid YAML; ours are JSON, so that components start without a YAML parser.
        text = path.read_text()
        config: Any = msgspec.json.decode(text) if text.lstrip().startswith("{") else _yaml(text)
    except OSError as error:
        raise UserError(f"kubeconfig {path}: {error.strerror}") from error
    except Exception as error:
        raise UserError(f"kubeconfig {path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise UserError(f"kubeconfig {path}: expected a mapping with clusters, users and contexts")

    def entry(section: str, name: str, inner: str) -> dict[str, Any]:
        for item in config.get(section) or ():
            if item.get("name") == name:
                return item.get(inner) or {}
        raise UserError(f"kubeconfig {path}: no {inner} named {name!r} in {section}")

    current = entry("contexts", context or config.get("current-context", ""), "context")
    cluster = entry("clusters", current.get("cluster", ""), "cluster")
    user = entry("users", current.get("user", ""), "user") if current.get("user") else {}

    def pem(holder: dict[str, Any], key: str) -> str:
        if data := holder.get(f"{key}-data"):
            return base64.b64decode(data).decode()
        return (path.parent / holder[key]).read_text() if holder.get(key) else ""

    try:
        token = user.get("token") or (Path(user["tokenFile"]).read_text().strip() if user.get("tokenFile") else "")
        return Credentials(
            server=cluster["server"].rstrip("/"),
            ca=pem(cluster, "certificate-authority"),
            client_certificate=pem(user, "client-certificate"),
            client_key=pem(user, "client-key"),
            token=token,
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
        )
    except OSError as error:
        raise UserError(f"kubeconfig {path}: {error.filename}: {error.strerror}") from error


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def in_cluster() -> Credentials:
    """What a Pod is given: environment and service account files. Raises UserError outside of one."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (_SERVICE_ACCOUNT / "token").exists():
        raise UserError("not in a cluster: no KUBERNETES_SERVICE_HOST or service account token; give a kubeconfig")
    host = f"[{host}]" if ":" in host else host
    ca = _SERVICE_ACCOUNT / "ca.crt"
    return Credentials(
        server=f"https://{host}:{port}",
        ca=ca.read_text() if ca.exists() else "",
        token=(_SERVICE_ACCOUNT / "token").read_text().strip(),
    )
