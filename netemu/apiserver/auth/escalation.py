"""Nobody gives away by a role or binding what they do not have themselves.

Whoever writes a role must hold all its rules, or the verb `escalate` on it; whoever binds one, the same or the verb
`bind`. Upstream: `pkg/registry/rbac/*/policybased/storage.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from netemu.apiserver.auth.authentication import Attributes, Authorizer, User
from netemu.apiserver.auth.rbac import GROUP, Rule
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.model.errors import Forbidden, NotFound
from netemu.model.resources import CLUSTERROLES, ROLES, Resource


class EscalationGuard:
    """An admission plugin: looks at roles and bindings."""

    def __init__(self, registry: Registry, authorizer: Authorizer) -> None:
        self._registry, self._authorizer = registry, authorizer

    def __call__(self, user: User, resource: Resource, obj: Obj, old: Obj | None) -> None:
        """See `admission.Plugin`."""
        if resource.group == GROUP:
            self._check(user, resource, obj, old)

    def _check(self, user: User, resource: Resource, obj: Obj, old: Obj | None) -> None:
        registry, authorizer = self._registry, self._authorizer
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        if resource in (ROLES, CLUSTERROLES):
            if old is not None and _granted(obj) == _granted(old):
                return
            rules, verb, role, role_name = obj.get("rules") or (), "escalate", resource, name
            if obj.get("aggregationRule"):
                rules = [*rules, _EVERYTHING, _EVERY_PATH]
        else:
            if old is not None and obj.get("subjects") == old.get("subjects"):
                return
            ref = obj["roleRef"]
            role, role_name, verb = ROLES if ref["kind"] == "Role" else CLUSTERROLES, ref["name"], "bind"
            found = registry.find(role, role_name, namespace)
            if found is None and not _may(authorizer, user, verb, role, role_name, namespace):
                raise NotFound.named(role.plural, role_name, role.group)
            rules = (found or {}).get("rules") or ()
        if _may(authorizer, user, verb, role, role_name, namespace):
            return
        missing = [rule for rule in rules if not _holds(authorizer, user, rule, namespace)]
        if missing:
            shown = "\n".join(map(_shown, missing))
            groups = " ".join(f'"{group}"' for group in user.groups)
            who = f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:'
            details = {"name": name, "group": GROUP, "kind": resource.plural}
            raise Forbidden(f'{resource} "{name}" is forbidden: {who}\n{shown}', details)


_EVERYTHING = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_EVERY_PATH = {"verbs": ["*"], "nonResourceURLs": ["*"]}


def _granted(role: Obj) -> tuple[Any, Any]:
    return role.get("rules") or [], role.get("aggregationRule")


def _may(authorizer: Authorizer, user: User, verb: str, role: Resource, name: str, namespace: str) -> bool:
    return bool(authorizer.why(user, Attributes(verb, GROUP, "v1", role.plural, "", namespace, name)))


def _holds(authorizer: Authorizer, user: User, rule: Mapping[str, Any], namespace: str) -> bool:
    parts: Iterable[Attributes] = Rule.of(rule).parts()
    return all(
        authorizer.why(user, part if part.path else replace(part, namespace=namespace)) for part in parts
    )  # fmt: skip


def _shown(rule: Mapping[str, Any]) -> str:
    """As Go's policy rules print themselves in this message."""
    names = {"apiGroups": "APIGroups", "resources": "Resources", "resourceNames": "ResourceNames",
             "nonResourceURLs": "NonResourceURLs", "verbs": "Verbs"}  # fmt: skip
    parts = []
    for key, name in names.items():
        if values := rule.get(key):
            quoted = " ".join(f'"{value}"' for value in values)
            parts.append(f"{name}:[{quoted}]")
    return "{" + ", ".join(parts) + "}"
