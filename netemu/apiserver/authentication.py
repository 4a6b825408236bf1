"""Who asks, and whether they may.

Over TLS a client shows a certificate that the lab's CA signed: the common name is the user, the organisations are its
groups, as upstream's x509 authenticator reads them. A certificate of another CA fails the handshake. Over a plain
listener, which only tests and trusted loopback callers have, everybody is `system:unsecured` in `system:masters`, as on
the insecure port that kube-apiserver had. Authorisation is a function handed to the server; the one here allows
whoever is known.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AUTHENTICATED = "system:authenticated"


@dataclass(frozen=True, slots=True)
class User:
    """A client: its name and the groups it is in."""

    name: str
    groups: tuple[str, ...] = ()


UNSECURED = User("system:unsecured", ("system:masters", AUTHENTICATED))


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request wants to do. `path` is set where the URL is not that of a resource."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


Authorize = Callable[[User, Attributes], bool]


def allow_authenticated(user: User, attributes: Attributes) -> bool:
    """Whoever is known may do anything."""
    return True


def user_of(certificate: Mapping[str, Any] | None) -> User | None:
    """The user of a verified client certificate in the form of `SSLSocket.getpeercert`; None without a name."""
    name, groups = "", []
    for attributes in (certificate or {}).get("subject", ()):
        for key, value in attributes:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, (*groups, AUTHENTICATED)) if name else None


def forbidden_message(user: User, wanted: Attributes) -> str:
    """Upstream's text of a 403, without the `X is forbidden: ` in front."""
    if wanted.path:
        return f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
    resource = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    where = f' in the namespace "{wanted.namespace}"' if wanted.namespace else " at the cluster scope"
    return f'User "{user.name}" cannot {wanted.verb} resource "{resource}" in API group "{wanted.group}"{where}'


def server_tls(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """The server's TLS context: presents `certificate`, takes (but does not demand) certificates of `client_ca`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    # Optional, so that health checks work without one and others get a 401 that says so.
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
