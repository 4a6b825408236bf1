"""Resources that are questions: who am I, and who may do what. They are answered at once and stored nowhere.

`kubectl auth whoami` and `kubectl auth can-i` POST them, and so do servers that leave their decisions to the cluster.
Upstream: `pkg/registry/authorization`, `pkg/registry/authentication`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from netemu.apiserver.auth.authentication import Attributes, Authorizer, User
from netemu.apiserver.auth.service_accounts import ServiceAccountTokens
from netemu.apiserver.http.routing import Target
from netemu.client.base import Obj
from netemu.model.errors import BadRequest
from netemu.model.resources import SUBJECTACCESSREVIEWS, Resource

_CREATE = ("create",)
_AUTHORIZATION = "authorization.k8s.io"


def _review(group: str, kind: str, *, namespaced: bool = False) -> Resource:
    return Resource(group, "v1", kind, f"{kind.lower()}s", namespaced, verbs=_CREATE)


SELF_REVIEWS = _review("authentication.k8s.io", "SelfSubjectReview")
SELF_REVIEWS_BETA = replace(SELF_REVIEWS, version="v1beta1")
"""The same under the only name that kubectl 1.27 asks for."""
LOCAL_ACCESS_REVIEWS = _review(_AUTHORIZATION, "LocalSubjectAccessReview", namespaced=True)
SELF_ACCESS_REVIEWS = _review(_AUTHORIZATION, "SelfSubjectAccessReview")
SELF_RULES_REVIEWS = _review(_AUTHORIZATION, "SelfSubjectRulesReview")
TOKEN_REVIEWS = _review("authentication.k8s.io", "TokenReview")
REVIEWS = (
    SELF_REVIEWS, SELF_REVIEWS_BETA, TOKEN_REVIEWS, LOCAL_ACCESS_REVIEWS, SELF_ACCESS_REVIEWS, SELF_RULES_REVIEWS,
    SUBJECTACCESSREVIEWS,
)  # fmt: skip


def answer(
    target: Target,
    review: Mapping[str, Any],
    user: User,
    authorizer: Authorizer,
    tokens: ServiceAccountTokens | None = None,
    others: Callable[[str], User | None] = lambda _: None,
) -> Obj:
    """The review with its `status` filled in; `others` knows tokens of nobody's account. Raises BadRequest."""
    resource, spec = target.resource, review.get("spec") or {}
    if resource in (SELF_REVIEWS, SELF_REVIEWS_BETA):
        status: dict[str, Any] = {"userInfo": user.info()}
    elif resource == TOKEN_REVIEWS:
        status = tokens.review(spec, others) if tokens else {"user": {}, "error": "no tokens are issued here"}
    elif resource == SELF_RULES_REVIEWS:
        if not spec.get("namespace"):
            raise BadRequest("no namespace on request")
        status = authorizer.rules(user, spec["namespace"])
    else:
        asked = _attributes(spec)
        if resource == LOCAL_ACCESS_REVIEWS:
            _check_local(spec, asked, target.namespace)
        subject = user if resource == SELF_ACCESS_REVIEWS else _subject(spec)
        why = authorizer.why(subject, asked)
        reason = why or authorizer.refusal(subject, asked)
        status = {"allowed": bool(why)} | ({"reason": reason} if reason else {})
    metadata = {"creationTimestamp": None, **(review.get("metadata") or {})}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata, "spec": spec,
            "status": status}  # fmt: skip


def _subject(spec: Mapping[str, Any]) -> User:
    if not spec.get("user") and not spec.get("groups"):
        raise BadRequest("spec: at least one of user or group must be specified")
    extra = tuple((key, tuple(values)) for key, values in (spec.get("extra") or {}).items())
    return User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)


def _attributes(spec: Mapping[str, Any]) -> Attributes:
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (asked is None) == (path is None):
        raise BadRequest("spec: exactly one of resourceAttributes and nonResourceAttributes must be set")
    if path is not None:
        return Attributes(verb=path.get("verb", ""), path=path.get("path", ""))
    names = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(**{name: (asked or {}).get(name, "") for name in names})


def _check_local(spec: Mapping[str, Any], asked: Attributes, namespace: str) -> None:
    if spec.get("nonResourceAttributes"):
        raise BadRequest("spec.nonResourceAttributes: disallowed on this kind of request")
    if asked.namespace != namespace:
        raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
