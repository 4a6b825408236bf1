"""From a request to its user: a client certificate, else a bearer token, else nobody; then whom they ask to be.

`kubectl --as` sends whom to be (`Impersonate-User`, `-Group`, `-Uid`, `-Extra-KEY`), and the real user must hold the
verb `impersonate` for each of these. Upstream: apiserver `endpoints/filters/{authentication,impersonation}.go`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote

from aiohttp import web

from netemu.apiserver.auth.authentication import (
    ANONYMOUS,
    AUTHENTICATED,
    UNSECURED,
    Attributes,
    Authorizer,
    User,
    forbidden_message,
    user_of,
)
from netemu.apiserver.auth.bootstrap_tokens import BootstrapTokens
from netemu.apiserver.auth.service_accounts import ServiceAccountTokens
from netemu.model.errors import BadRequest, Forbidden, Unauthorized

_USER, _GROUP, _UID, _EXTRA = "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-"
_ACCOUNT = "system:serviceaccount:"


ASKER, ACTING = web.RequestKey("asker", User), web.RequestKey("acting", User)
"""Where a request keeps its user, and whom that user acts as."""
ALLOWED_BY = web.RequestKey("allowed-by", str)
"""Where it keeps why it was let in; empty if it was not."""
REFUSED_FOR = web.RequestKey("refused-for", str)
"""Where it keeps the authorizer's reason for refusing it."""


@lru_cache(maxsize=1024)
def _end_of(text: str) -> int:
    """`notAfter` of a certificate, in seconds since 1970; every request of a connection asks."""
    return ssl.cert_time_to_seconds(text)


class Authenticator:
    """Finds the user of each request."""

    def __init__(
        self,
        authorizer: Authorizer,
        tokens: ServiceAccountTokens | None,
        bootstrap: BootstrapTokens,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._authorizer, self._tokens, self._bootstrap, self._now = authorizer, tokens, bootstrap, now

    def user(self, request: web.Request) -> User:
        """Who asks, or whom they may ask as. Raises Unauthorized for a bad token, Forbidden, BadRequest."""
        user = request[ASKER] = self._shown(request)
        if _USER in request.headers:
            acting: User = self._impersonated(request, user)
            request[ACTING] = acting
            return acting
        if any(name.lower().startswith("impersonate-") for name in request.headers):
            raise BadRequest("requested impersonation without impersonating a user")
        return user

    def _shown(self, request: web.Request) -> User:
        transport = request.transport
        if transport is None:  # the client is gone; nobody reads the answer
            return ANONYMOUS
        if transport.get_extra_info("ssl_object") is None:
            return UNSECURED
        certificate = transport.get_extra_info("peercert")
        user = user_of(certificate)
        if user is not None:
            # It was good when the connection began, which may be long ago.
            if self._now() >= _end_of(certificate["notAfter"]):
                raise Unauthorized("Unauthorized")
            return user
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return ANONYMOUS
        if joining := self._bootstrap.user(token.strip()):
            return joining
        if self._tokens is None:
            raise Unauthorized("Unauthorized")
        return self._tokens.user(token.strip())

    def _impersonated(self, request: web.Request, user: User) -> User:
        name, groups = request.headers[_USER], request.headers.getall(_GROUP, [])
        if name.startswith(_ACCOUNT) and name.count(":") == 3:
            namespace, account = name.removeprefix(_ACCOUNT).split(":")
            self._check(user, Attributes("impersonate", "", "v1", "serviceaccounts", "", namespace, account))
            groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        else:
            self._check(user, Attributes("impersonate", resource="users", name=name))
        for group in groups:
            self._check(user, Attributes("impersonate", resource="groups", name=group))
        group, version, uid = "authentication.k8s.io", "v1", request.headers.get(_UID, "")
        if uid:
            self._check(user, Attributes("impersonate", group, version, "uids", name=uid))
        extra: dict[str, list[str]] = {}
        for header, value in request.headers.items():
            if header.lower().startswith(_EXTRA.lower()):
                key = unquote(header[len(_EXTRA) :].lower())
                self._check(user, Attributes("impersonate", group, version, "userextras", key, name=value))
                extra.setdefault(key, []).append(value)
        known = ANONYMOUS.groups if name == ANONYMOUS.name else (AUTHENTICATED,)
        return User(
            name,
            tuple(dict.fromkeys([*groups, *known])),
            uid,
            tuple((key, tuple(values)) for key, values in extra.items()),
        )

    def _check(self, user: User, wanted: Attributes) -> None:
        if not self._authorizer.why(user, wanted):
            raise Forbidden(forbidden_message(user, wanted, self._authorizer.refusal(user, wanted)))
