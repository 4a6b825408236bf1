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
from urllib.parse import urlsplit

import msgspec

from netemu.model.errors import UserError
from netemu.model.hosts import bracketed

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
        """The TLS context of the client side; None for plain http. Raises UserError for what TLS cannot use."""
        if not self.server.startswith("https"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
        except (ssl.SSLError, ValueError) as error:
            raise UserError(f"certificate-authority: expected certificates in PEM: {error}") from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_certificate:
            # The ssl module reads client certificates from files only.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(self.client_certificate + "\n" + self.client_key)
                file.flush()
                try:
                    context.load_cert_chain(file.name, password="")  # none: it would be asked for at the terminal
                except ssl.SSLError as error:
                    what = "expected a certificate and the key that belongs to it, in PEM"
                    raise UserError(f"client-certificate, client-key: {what}: {error}") from error
        return context

    def check(self) -> None:
        """Raises UserError for what no connection can be made with, naming the field of a kubeconfig."""
        if not _is_http(self.server):
            raise UserError(f"server: {self.server!r}: expected https://HOST:PORT or http://HOST:PORT")
        if bool(self.client_certificate) != bool(self.client_key):
            there, missing = ("certificate", "key") if self.client_certificate else ("key", "certificate")
            raise UserError(f"client-{missing}: expected beside client-{there}, there is none")
        self.ssl_context()


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:  # the port, or brackets that do not close
        return False


_WITHOUT_SUPPORT = {
    "user": ("exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"),
    "cluster": ("proxy-url", "tls-server-name"),
}
"""Fields that change who asks, or whom. To pass over them would be to ask as somebody else."""


def load_kubeconfig(path: str | Path, context: str = "") -> Credentials:
    """Read the current (or named) context of a kubeconfig. Raises UserError naming the field that is wrong or
    missing."""
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
    try:
        found = _credentials(config, path.parent, context)
        found.check()
    except UserError as error:
        raise UserError(f"kubeconfig {path}: {error}") from error
    return found


def _credentials(config: dict[str, Any], directory: Path, context: str) -> Credentials:
    if not (context or config.get("current-context")):
        raise UserError("no current-context; expected the name of one of its contexts")
    current = _entry(config, "contexts", context or config["current-context"], "context")
    cluster = _Fields(*_entry(config, "clusters", current[1].get("cluster", ""), "cluster"), directory)
    named = current[1].get("user")
    user = _Fields(*(_entry(config, "users", named, "user") if named else ("", {})), directory)
    for section, fields in (("user", user), ("cluster", cluster)):
        if there := [key for key in _WITHOUT_SUPPORT[section] if fields.values.get(key)]:
            known = "token, tokenFile, client-certificate" if section == "user" else "server, certificate-authority"
            raise UserError(f"{fields.where}.{there[0]}: not supported here; known are {known}")
    certificate, ca = user.pem("client-certificate"), cluster.pem("certificate-authority")
    insecure = bool(cluster.values.get("insecure-skip-tls-verify"))
    server = cluster.text("server")
    if not server:
        raise UserError(f"{cluster.where}.server: missing; expected https://HOST:PORT")
    if "://" not in server:  # client-go's DefaultServerURL
        server = f"{'https' if ca or certificate or insecure else 'http'}://{server}"
    return Credentials(
        server=server.rstrip("/"),
        ca=ca,
        client_certificate=certificate,
        client_key=user.pem("client-key"),
        token=user.text("token") or user.file("tokenFile").strip(),
        insecure=insecure,
    )


def _entry(config: dict[str, Any], section: str, name: str, inner: str) -> tuple[str, dict[str, Any]]:
    """Where the entry of that name stands in a section, and what is in it."""
    items = config.get(section) or []
    if not isinstance(items, list):
        raise UserError(f"{section}: expected a list of entries with name and {inner}")
    for index, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get(inner) or {}, dict):
            raise UserError(f"{section}[{index}]: expected a mapping with name and {inner}, which is a mapping too")
        if item.get("name") == name:
            return f"{section}[{index}].{inner}", item.get(inner) or {}
    raise UserError(f"no {inner} named {name!r} in {section}")


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of one entry. All raise UserError, naming the field."""

    where: str
    values: dict[str, Any]
    directory: Path
    """Where relative paths begin."""

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{self.where}.{key}: expected text, got {value!r}")
        return value or ""

    def file(self, key: str) -> str:
        if not (name := self.text(key)):
            return ""
        try:
            return (self.directory / name).read_text()
        except OSError as error:
            raise UserError(f"{self.where}.{key}: {self.directory / name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{self.where}.{key}: {self.directory / name}: not text: {error}") from error

    def pem(self, key: str) -> str:
        if not (data := self.text(f"{key}-data")):
            return self.file(key)
        try:
            return base64.b64decode("".join(data.split()), validate=True).decode()
        except ValueError as error:
            raise UserError(f"{self.where}.{key}-data: expected base64 of a text in PEM: {error}") from error


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def in_cluster() -> Credentials:
    """What a Pod is given: environment and service account files. Raises UserError outside of one."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (_SERVICE_ACCOUNT / "token").exists():
        raise UserError("not in a cluster: no KUBERNETES_SERVICE_HOST or service account token; give a kubeconfig")
    ca = _SERVICE_ACCOUNT / "ca.crt"
    return Credentials(
        server=f"https://{bracketed(host)}:{port}",
        ca=ca.read_text() if ca.exists() else "",
        token=(_SERVICE_ACCOUNT / "token").read_text().strip(),
    )
