"""Tokens of service accounts: made on request, bound to an object, and good for as long as all of them are there.

A token names its ServiceAccount, and the Pod, Secret or Node that it is bound to, by UID; it ends with any of them. A
kubelet's token for a Pod is asked for with an odd number of seconds (3607) and lives for a year in truth, so that
clients that never read the file again work on, while kubelets renew it every hour.
Upstream: `pkg/serviceaccount/claims.go`, `pkg/registry/core/serviceaccount/storage/token.go`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from netemu.apiserver.auth.authentication import AUTHENTICATED, User
from netemu.apiserver.auth.jwt import ALGORITHM, BadToken, Keys
from netemu.apiserver.auth.node_authorizer import node_of
from netemu.apiserver.auth.node_restriction import check_token
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import BadRequest, Conflict, FieldError, Invalid, NotFound, Unauthorized
from netemu.model.resources import NODES, PODS, SECRETS, SERVICEACCOUNTS, Resource

TOKEN_REQUESTS = Resource("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")
JWKS_PATH = "/openid/v1/jwks"
CONFIGURATION_PATH = "/.well-known/openid-configuration"
_SHORTEST, _USUAL, _LONGEST = 600, 3600, 1 << 32
_RENEWED, _YEAR = 3607, 365 * 24 * 3600
_EXTRA = "authentication.kubernetes.io/"
_BOUND = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}
_REMEMBERED = 4096
"""Tokens whose signature was checked."""
_LEAVING = 60
"""Seconds that a token outlives the deletion of what it is bound to; Pods use theirs until they end."""


class ServiceAccountTokens:
    """Makes tokens and knows whose they are."""

    def __init__(
        self, registry: Registry, keys: Keys, issuer: str, url: str, *, now: Callable[[], float] = time.time
    ) -> None:
        """`issuer` is also the audience of the API server itself; `url` is where it can be reached."""
        self._registry, self._keys, self._issuer, self._url, self._now = registry, keys, issuer, url, now
        self._checked: dict[str, dict[str, Any]] = {}

    def documents(self) -> dict[str, dict[str, Any]]:
        """What others need to check tokens themselves, by path."""
        configuration = {
            "issuer": self._issuer,
            "jwks_uri": f"{self._url}{JWKS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        }
        return {JWKS_PATH: self._keys.jwks(), CONFIGURATION_PATH: configuration}

    def create(self, name: str, namespace: str, request: Mapping[str, Any], asker: User | None = None) -> Obj:
        """The TokenRequest with its token. Raises NotFound, BadRequest, Invalid, Conflict, Forbidden."""
        account = self._registry.find(SERVICEACCOUNTS, name, namespace)
        if account is None:
            raise NotFound.named(SERVICEACCOUNTS.plural, name)
        spec = dict(request.get("spec") or {})
        seconds = spec.get("expirationSeconds") or _USUAL
        if not _SHORTEST <= seconds <= _LONGEST:
            limit = "less than 10 minutes" if seconds < _SHORTEST else "larger than 2^32 seconds"
            text = f"Invalid value: {seconds}: may not specify a duration {limit}"
            field = FieldError("spec.expirationSeconds", "FieldValueInvalid", text)
            raise Invalid.of_fields("TokenRequest", name, [field], TOKEN_REQUESTS.group)
        audiences = spec.get("audiences") or [self._issuer]
        bound = self._bound(spec.get("boundObjectRef"), name, namespace)
        if asker and (node := node_of(asker)):
            ref = spec.get("boundObjectRef") or {}
            check_token(node, name, ref, self._registry.find(PODS, ref.get("name", ""), namespace))
        now = int(self._now())
        renewed = seconds == _RENEWED and "pod" in bound and not spec.get("audiences")
        claims = {
            "aud": audiences,
            "exp": now + (_YEAR if renewed else seconds),
            "iat": now,
            "iss": self._issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": namespace,
                **bound,
                "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
                **({"warnafter": now + seconds} if renewed else {}),
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return {
            "kind": TOKEN_REQUESTS.kind,
            "apiVersion": TOKEN_REQUESTS.api_version,
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": _text(now)},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": self._keys.sign(claims), "expirationTimestamp": _text(now + seconds)},
        }

    def _bound(self, ref: Mapping[str, Any] | None, account: str, namespace: str) -> dict[str, Any]:
        if not ref:
            return {}
        kind, name, uid = ref.get("kind", ""), ref.get("name", ""), ref.get("uid", "")
        resource = _BOUND.get(kind)
        if resource is None:
            raise BadRequest(f"cannot bind token to object of type /{ref.get('apiVersion', '')}, Kind={kind}")
        found = self._registry.find(resource, name, namespace)
        if found is None:
            raise NotFound.named(resource.plural, name)
        if uid and uid != found["metadata"]["uid"]:
            why = f"the UID in the bound object reference ({uid}) does not match the UID in record. The object might "
            raise Conflict.named(resource.plural, name, why=f"{why}have been deleted and then recreated")
        if resource is PODS and found["spec"].get("serviceAccountName") != account:
            text = "to pod running with different serviceaccount name."
            raise BadRequest(f'cannot bind token for serviceaccount "{account}" {text}')
        bound = {kind.lower(): {"name": name, "uid": found["metadata"]["uid"]}}
        node = self._registry.find(NODES, found["spec"].get("nodeName", "")) if resource is PODS else None
        if node:
            bound["node"] = {"name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
        return bound

    def user(self, token: str, audiences: Sequence[str] = ()) -> User:
        """Whose token this is, if it is good for one of the audiences (default: this server). Raises Unauthorized."""
        claims = self._claims(token)
        now = self._now()
        if claims.get("iss") != self._issuer or not claims.get("nbf", 0) <= now + 1 or now >= claims.get("exp", 0):
            raise Unauthorized("Unauthorized")
        if not set(claims.get("aud") or ()) & set(audiences or (self._issuer,)):
            raise Unauthorized("Unauthorized")
        private = claims["kubernetes.io"]
        account, namespace = private["serviceaccount"], private["namespace"]
        self._check(SERVICEACCOUNTS, account, namespace, now)
        for part, resource in (("pod", PODS), ("secret", SECRETS)):
            if part in private:
                self._check(resource, private[part], namespace, now)
        extra = [(f"{_EXTRA}credential-id", (f"JTI={claims['jti']}",))]
        for part in ("node", "pod"):
            if part in private:
                extra += [(f"{_EXTRA}{part}-{key}", (private[part][key],)) for key in ("name", "uid")]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(claims["sub"], groups, account["uid"], tuple(extra))

    def review(self, spec: Mapping[str, Any], others: Callable[[str], User | None] = lambda _: None) -> dict[str, Any]:
        """The status of a TokenReview; `others` knows tokens that are for this server and of no ServiceAccount."""
        audiences = spec.get("audiences") or [self._issuer]
        if self._issuer in audiences and (known := others(spec.get("token") or "")):
            return {"authenticated": True, "user": known.info(), "audiences": [self._issuer]}
        try:
            user = self.user(spec.get("token") or "", audiences)
        except Unauthorized:
            return {"user": {}, "error": "invalid bearer token"}
        held = self._claims(spec["token"])["aud"]
        return {"authenticated": True, "user": user.info(), "audiences": [one for one in audiences if one in held]}

    def _claims(self, token: str) -> dict[str, Any]:
        """What a token of this server says; its signature is checked once."""
        claims = self._checked.get(token)
        if claims is None:
            try:
                claims = self._keys.read(token)
            except BadToken:
                raise Unauthorized("Unauthorized") from None
            if len(self._checked) >= _REMEMBERED:
                self._checked.clear()
            self._checked[token] = claims
        return claims

    def _check(self, resource: Resource, ref: Mapping[str, str], namespace: str, now: float) -> None:
        found = self._registry.find(resource, ref["name"], namespace)
        if found is None or found["metadata"]["uid"] != ref["uid"]:
            raise Unauthorized("Unauthorized")
        ends = found["metadata"].get("deletionTimestamp")
        if ends and now > times.parse(ends).timestamp() + _LEAVING:
            raise Unauthorized("Unauthorized")


def _text(seconds: int) -> str:
    return times.time_text(datetime.fromtimestamp(seconds, UTC))
