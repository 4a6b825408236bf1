"""Who asks, and whether they may.

Over TLS a client shows a certificate that the lab's CA signed: the common name is the user, the organisations are its
groups, as upstream's x509 authenticator reads them. A certificate of another CA fails the handshake; who shows nothing
is `system:anonymous`. Over a plain listener, which only tests and trusted loopback callers have, everybody is
`system:unsecured` in `system:masters`, as on the insecure port that kube-apiserver had. Authorisation is handed to the
server (`authorization.ClusterAuthorizer` in a lab); the one here allows whoever is known.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"
"""The group whose members may do everything."""


@dataclass(frozen=True, slots=True)
class User:
    """A client: its name and the groups it is in."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What else its credentials tell, by key."""

    def info(self) -> dict[str, Any]:
        """As `UserInfo` of authentication.k8s.io."""
        info: dict[str, Any] = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            info["uid"] = self.uid
        return info | ({"extra": {key: list(values) for key, values in self.extra}} if self.extra else {})


UNSECURED = User("system:unsecured", (MASTERS, AUTHENTICATED))
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


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
    fields: str = ""
    """The field selector of a list or watch."""


class Authorizer(Protocol):
    """Decides who may do what."""

    def why(self, user: User, wanted: Attributes) -> str:
        """Why a user may do something, in a few words; empty if they may not."""
        ...

    def refusal(self, user: User, wanted: Attributes) -> str:
        """Why a user may not do what `why` does not allow; empty where there is no other reason than that."""
        ...

    def rules(self, user: User, namespace: str) -> dict[str, Any]:
        """What a user may do in a namespace, as the `status` of a SelfSubjectRulesReview."""
        ...


class AllowAuthenticated:
    """Whoever is known may do anything."""

    def why(self, user: User, wanted: Attributes) -> str:
        """See Authorizer."""
        return "known" if AUTHENTICATED in user.groups else ""

    def refusal(self, user: User, wanted: Attributes) -> str:
        """See Authorizer."""
        return ""

    def rules(self, user: User, namespace: str) -> dict[str, Any]:
        """See Authorizer."""
        if not self.why(user, Attributes("*")):
            return {"incomplete": False, "resourceRules": [], "nonResourceRules": []}
        return {
            "incomplete": False,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }


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


def forbidden_message(user: User, wanted: Attributes, reason: str = "") -> str:
    """Upstream's text of a 403, with the authorizer's reason if it has one."""
    because = f": {reason}" if reason else ""
    if not wanted.resource:
        return f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"{because}'
    about = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    named = f'{about} "{wanted.name}"' if wanted.name else about
    resource = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    where = f' in the namespace "{wanted.namespace}"' if wanted.namespace else " at the cluster scope"
    what = f'cannot {wanted.verb} resource "{resource}" in API group "{wanted.group}"{where}'
    return f'{named} is forbidden: User "{user.name}" {what}{because}'


def server_tls(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """The server's TLS context: presents `certificate`, takes (but does not demand) certificates of `client_ca`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    # Optional, so that health checks work without one and others get a 401 that says so.
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
