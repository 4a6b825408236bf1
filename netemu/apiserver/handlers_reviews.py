"""Resources that are questions: who am I, and may I. They are answered at once and stored nowhere.

`kubectl auth whoami` and `kubectl auth can-i` POST them, the second with the authorisation function as the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netemu.apiserver.authentication import Attributes, Authorize, User
from netemu.client.base import Obj
from netemu.model.errors import BadRequest
from netemu.model.resources import Resource

_CREATE = ("create",)
SELF_REVIEWS = Resource("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", False, verbs=_CREATE)
SELF_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, verbs=_CREATE
)
SELF_RULES_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False, verbs=_CREATE
)
REVIEWS = (SELF_REVIEWS, SELF_ACCESS_REVIEWS, SELF_RULES_REVIEWS)


def answer(resource: Resource, review: Mapping[str, Any], user: User, authorize: Authorize) -> Obj:
    """The review with its `status` filled in. Raises BadRequest."""
    spec = review.get("spec") or {}
    if resource == SELF_REVIEWS:
        status: dict[str, Any] = {"userInfo": {"username": user.name, "groups": list(user.groups)}}
    elif resource == SELF_ACCESS_REVIEWS:
        status = {"allowed": authorize(user, _attributes(spec))}
    else:
        status = _rules(user, authorize)
    metadata = {"creationTimestamp": None, **(review.get("metadata") or {})}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata, "spec": spec,
            "status": status}  # fmt: skip


def _attributes(spec: Mapping[str, Any]) -> Attributes:
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (asked is None) == (path is None):
        raise BadRequest("spec: exactly one of resourceAttributes and nonResourceAttributes must be set")
    if path is not None:
        return Attributes(verb=path.get("verb", ""), path=path.get("path", ""))
    names = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(**{name: (asked or {}).get(name, "") for name in names})


def _rules(user: User, authorize: Authorize) -> dict[str, Any]:
    """Everything or nothing: there are no finer rules than the authorisation function tells."""
    if not authorize(user, Attributes(verb="*", group="*", resource="*")):
        return {"incomplete": True, "resourceRules": [], "nonResourceRules": []}
    return {
        "incomplete": False,
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
