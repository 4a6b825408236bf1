"""Role-based access control: what Roles allow, and whom bindings give them to.

A request is allowed if any rule of any role bound to its user or to one of their groups covers it; nothing denies. A
ClusterRoleBinding gives its role everywhere, a RoleBinding in its own namespace only. `Grants` is every binding with
its rules resolved, by subject, so that a decision looks only at what names the user or their groups: a few
microseconds, however many bindings there are.
Upstream: `plugin/pkg/auth/authorizer/rbac` and `pkg/apis/rbac/v1/evaluation_helpers.go` of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from netemu.apiserver.auth.authentication import Attributes, User
from netemu.client.base import Obj

GROUP = "rbac.authorization.k8s.io"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """A PolicyRule: either resources of API groups, or paths that are no resources."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    """Empty for every name."""
    paths: tuple[str, ...] = ()

    @staticmethod
    def of(rule: Mapping[str, Any]) -> Rule:
        """The rule of an object's JSON."""
        return Rule(
            frozenset(rule.get("verbs") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("resources") or ()),
            frozenset(rule.get("resourceNames") or ()),
            tuple(rule.get("nonResourceURLs") or ()),
        )

    def covers(self, wanted: Attributes) -> bool:
        """Whether it allows a request."""
        if wanted.verb not in self.verbs and _ANY not in self.verbs:
            return False
        if wanted.path:
            return any(_path_matches(pattern, wanted.path) for pattern in self.paths)
        return (
            (wanted.group in self.groups or _ANY in self.groups)
            and self._has_resource(wanted)
            and (not self.names or wanted.name in self.names)
        )

    def _has_resource(self, wanted: Attributes) -> bool:
        if _ANY in self.resources:
            return True
        if not wanted.subresource:
            return wanted.resource in self.resources
        # A rule for `pods` says nothing of `pods/log`.
        whole, any_parent = f"{wanted.resource}/{wanted.subresource}", f"*/{wanted.subresource}"
        return whole in self.resources or any_parent in self.resources

    def shown(self) -> dict[str, Any]:
        """As SelfSubjectRulesReview tells it."""
        if self.paths:
            return {"verbs": sorted(self.verbs), "nonResourceURLs": list(self.paths)}
        shown = {"verbs": sorted(self.verbs), "apiGroups": sorted(self.groups), "resources": sorted(self.resources)}
        return shown | ({"resourceNames": sorted(self.names)} if self.names else {})

    def parts(self) -> Iterator[Attributes]:
        """The single requests that it stands for: who may make all of them has all of the rule."""
        for verb in self.verbs:
            for path in self.paths:
                yield Attributes(verb, path=path)
            for group in self.groups:
                for resource in self.resources:
                    plural, _, subresource = resource.partition("/")
                    for name in self.names or ("",):
                        yield Attributes(verb, group, "", plural, subresource, "", name)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern == path or (pattern.endswith(_ANY) and path.startswith(pattern[:-1]))


@dataclass(frozen=True, slots=True)
class Grant:
    """The rules that one binding gives to its subjects."""

    namespace: str
    """Where it holds; empty for everywhere."""
    rules: tuple[Rule, ...]
    why: str
    """`ClusterRoleBinding "x" of ClusterRole "y"`."""


class Grants:
    """All grants of a cluster, by subject."""

    def __init__(self) -> None:
        self._of: dict[str, list[Grant]] = {}

    @staticmethod
    def of(
        roles: Iterable[Obj], cluster_roles: Iterable[Obj], bindings: Iterable[Obj], cluster_bindings: Iterable[Obj]
    ) -> Grants:
        """Those of the four kinds of objects. A binding whose role is not there gives nothing."""
        rules = {("ClusterRole", "", role["metadata"]["name"]): _rules(role) for role in cluster_roles}
        for role in roles:
            rules["Role", role["metadata"]["namespace"], role["metadata"]["name"]] = _rules(role)
        grants = Grants()
        for binding in (*cluster_bindings, *bindings):
            metadata, ref = binding["metadata"], binding["roleRef"]
            namespace = metadata.get("namespace", "")
            found = rules.get((ref["kind"], namespace if ref["kind"] == "Role" else "", ref["name"]))
            if found:
                name = f"{metadata['name']}/{namespace}" if namespace else metadata["name"]
                why = f'{binding["kind"]} "{name}" of {ref["kind"]} "{ref["name"]}"'
                grants._add(binding.get("subjects") or (), Grant(namespace, found, why), namespace)
        return grants

    def _add(self, subjects: Iterable[Mapping[str, Any]], grant: Grant, namespace: str) -> None:
        for subject in subjects:
            if subject["kind"] == "ServiceAccount":
                name = f"{SERVICE_ACCOUNT_PREFIX}{subject.get('namespace') or namespace}:{subject['name']}"
                self._of.setdefault(_key("User", name), []).append(grant)
            else:
                self._of.setdefault(_key(subject["kind"], subject["name"]), []).append(grant)

    def allowing(self, user: User, wanted: Attributes) -> str:
        """Why a request is allowed, in upstream's words; empty if it is not."""
        for subject, grant in self._held(user, "" if wanted.path else wanted.namespace):
            for rule in grant.rules:
                if rule.covers(wanted):
                    return f"RBAC: allowed by {grant.why} to {subject}"
        return ""

    def rules(self, user: User, namespace: str) -> list[Rule]:
        """Everything that a user may do in a namespace."""
        return list(dict.fromkeys(rule for _, grant in self._held(user, namespace) for rule in grant.rules))

    def _held(self, user: User, namespace: str) -> Iterator[tuple[str, Grant]]:
        for subject in (_key("User", user.name), *(_key("Group", group) for group in user.groups)):
            for grant in self._of.get(subject, ()):
                if grant.namespace in ("", namespace):
                    yield subject, grant


def _key(kind: str, name: str) -> str:
    return f'{kind} "{name}"'


def _rules(role: Obj) -> tuple[Rule, ...]:
    return tuple(Rule.of(rule) for rule in role.get("rules") or ())
