"""Every default role, every verb, every resource: allowed exactly where upstream's policy says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import ANONYMOUS, AUTHENTICATED, MASTERS, Attributes, User
from netemu.apiserver.auth.authorization import ClusterAuthorizer
from netemu.apiserver.auth.rbac_policy import dns_policy
from netemu.apiserver.bootstrap import bootstrap, ensure_policy
from netemu.apiserver.http.handlers_reviews import REVIEWS
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.model.resources import CLUSTERROLEBINDINGS, NAMESPACES, RESOURCES, ROLEBINDINGS, Resource
from netemu.testing.store import MemoryStore
from tests.unit.authorization_facts import PATHS, ROLES, facts

VERBS = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate", "bind",
    "escalate", "approve", "sign", "proxy", "use",
)  # fmt: skip
VIRTUAL = (
    ("", "users", ""), ("", "groups", ""), ("certificates.k8s.io", "signers", ""), ("", "nodes", "stats"),
    ("certificates.k8s.io", "certificatesigningrequests", "nodeclient"),
    ("certificates.k8s.io", "certificatesigningrequests", "selfnodeclient"),
    ("", "persistentvolumes", ""), ("", "bindings", ""), ("batch", "jobs", ""), ("apps", "statefulsets", "scale"),
    ("example.com", "anything", ""), ("example.com", "anything", "status"),
)  # fmt: skip
"""What rules speak of and no URL of this server serves."""
SCOPES = ("shop", "other", "kube-system", "")


@dataclass(frozen=True, slots=True)
class Subject:
    """A user, what they hold everywhere, and what in one namespace."""

    user: User
    everywhere: tuple[str, ...] = ()
    within: tuple[tuple[str, str], ...] = ()
    """(namespace, role)"""

    def held(self, namespace: str) -> Iterator[str]:
        yield from self.everywhere
        yield from (role for where, role in self.within if where == namespace)


def known(name: str, *groups: str) -> User:
    return User(name, (*groups, AUTHENTICATED))


ALL = ("authenticated",)
COREDNS = known("system:serviceaccount:kube-system:coredns", "system:serviceaccounts")
SUBJECTS = {
    "anonymous": Subject(ANONYMOUS),
    "somebody": Subject(known("somebody"), ALL),
    "a service account": Subject(known("system:serviceaccount:shop:default", "system:serviceaccounts"), ALL),
    "masters": Subject(known("root", MASTERS), ("cluster-admin",)),
    "coredns": Subject(COREDNS, (*ALL, "system:coredns")),
    "kube-proxy": Subject(known("system:kube-proxy"), (*ALL, "system:kube-proxy")),
    "kube-scheduler": Subject(
        known("system:kube-scheduler"), (*ALL, "system:kube-scheduler"), (("kube-system", "leader-locking"),)
    ),
    "kube-controller-manager": Subject(
        known("system:kube-controller-manager"), (*ALL, "system:kube-controller-manager"),
        (("kube-system", "leader-locking"),),
    ),
    **{
        f"{role} in shop": Subject(known(f"local-{role}"), ALL, (("shop", role),))
        for role in ("view", "edit", "admin")
    },
    **{
        f"{role} everywhere": Subject(known(f"global-{role}"), (*ALL, role))
        for role in (
            "view", "edit", "admin", "cluster-admin", "system:node", "system:auth-delegator",
            "system:kubelet-api-admin", "system:node-problem-detector", "system:node-bootstrapper",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        )
    },
}  # fmt: skip


def everything() -> Iterator[tuple[str, str, str]]:
    """(group, resource, subresource) of all that is served, and more."""
    resources: dict[tuple[str, str, str], None] = {}
    each: Resource
    for each in (*RESOURCES, *REVIEWS):
        resources.update({(each.group, each.plural, sub): None for sub in ("", *each.subresources)})
    yield from resources
    yield from VIRTUAL


@pytest.fixture
async def authorizer() -> AsyncIterator[ClusterAuthorizer]:
    """Of a new cluster, with the subjects' bindings."""
    store = MemoryStore()
    registry = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    client = LocalClient(registry)
    await bootstrap(client, api_address="172.18.0.2", api_port=6443)
    await ensure_policy(client, dns_policy("kube-system", "dns-faults"))
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    for role in {role for subject in SUBJECTS.values() for _, role in subject.within} - {"leader-locking"}:
        await client.create(ROLEBINDINGS, binding(role, f"local-{role}"), "shop")
    for name in SUBJECTS:
        if name.endswith(" everywhere"):
            role = name.removesuffix(" everywhere")
            await client.create(CLUSTERROLEBINDINGS, binding(role, f"global-{role}"))
    yield ClusterAuthorizer(registry)
    await registry.close()
    await store.close()


def binding(role: str, user: str) -> dict[str, object]:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    return {"metadata": {"name": user}, "roleRef": ref, "subjects": [{"kind": "User", "name": user}]}


async def test_everybody_may_do_what_upstream_lets_them_and_nothing_else(authorizer: ClusterAuthorizer) -> None:
    table = {role: set(facts(role)) for role in ROLES}
    wrong, asked = [], 0
    for name, subject in SUBJECTS.items():
        for namespace in SCOPES:
            held = set().union(*(table[role] for role in subject.held(namespace)))
            for group, resource, sub in everything():
                what = f"{resource}.{group}" if group else resource
                what += f"/{sub}" if sub else ""
                for verb in VERBS:
                    right = bool(held & {(verb, what), (verb, "*"), ("*", what), ("*", "*")})
                    wanted = Attributes(verb, group, "v1", resource, sub, namespace, "x" if verb != "list" else "")
                    asked += 1
                    # Whether coredns may follow the faults of netemu's own is netemu's matter.
                    if bool(authorizer.why(subject.user, wanted)) is not right and not faults_of_dns(subject, wanted):
                        wrong.append(f"{name}: {verb} {what} in {namespace or 'all'}: should be {right}")

    assert wrong == []
    assert asked > 50_000


def faults_of_dns(subject: Subject, wanted: Attributes) -> bool:
    return subject.user == COREDNS and wanted.namespace == "kube-system" and wanted.resource in ("events", "configmaps")


@pytest.mark.parametrize("who", ["anonymous", "somebody", "a service account", "monitoring"])
async def test_paths_that_are_no_resources(authorizer: ClusterAuthorizer, who: str) -> None:
    user = known("monitor", "system:monitoring") if who == "monitoring" else SUBJECTS[who].user
    roles = {
        "anonymous": ("anonymous",),
        "somebody": ("anonymous", "authenticated"),
        "a service account": ("anonymous", "authenticated", "serviceaccount"),
        "monitoring": ("anonymous", "authenticated", "system:monitoring"),
    }[who]
    allowed = set(" ".join(PATHS[role] for role in roles).split())
    paths = {*" ".join(PATHS.values()).split(), "/", "/logs", "/debug/pprof", "/metrics/cadvisor", "/openidx"}

    assert {path for path in paths if authorizer.why(user, Attributes("get", path=path))} == allowed
    assert not any(authorizer.why(user, Attributes("post", path=path)) for path in paths)


@pytest.mark.parametrize("verb", ["get", "list", "watch"])
async def test_who_reads_secrets(authorizer: ClusterAuthorizer, verb: str) -> None:
    """Of all that there is to read, the first that one would want."""
    secrets = Attributes(verb, "", "v1", "secrets", "", "kube-system", "key")

    readers = {name for name, subject in SUBJECTS.items() if authorizer.why(subject.user, secrets)}
    # An unbound role: a real kubelet is not held to it but to the Node authorizer.
    expected = {"masters", "cluster-admin everywhere", "edit everywhere", "admin everywhere", "system:node everywhere"}
    assert readers == expected | {"kube-controller-manager"}
