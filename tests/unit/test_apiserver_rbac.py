"""Who may do what: rules, bindings, nodes, and the roles that every cluster has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from netemu.apiserver.admission import REQUESTER, Admission
from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import ANONYMOUS, AUTHENTICATED, Attributes, User
from netemu.apiserver.auth.authorization import ClusterAuthorizer
from netemu.apiserver.auth.escalation import EscalationGuard
from netemu.apiserver.auth.node_restriction import NodeRestriction
from netemu.apiserver.auth.rbac import Grants, Rule
from netemu.apiserver.auth.rbac_policy import default_policy, dns_policy
from netemu.apiserver.bootstrap import bootstrap, ensure_policy
from netemu.apiserver.http.handlers_reviews import SELF_ACCESS_REVIEWS, answer
from netemu.apiserver.http.routing import Target, attributes, parse_path, verb_of
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.rules import Rules
from netemu.apiserver.schema.kinds import Schema
from netemu.model.errors import Forbidden, Invalid
from netemu.model.resources import CLUSTERROLEBINDINGS, CLUSTERROLES, PODS, ROLEBINDINGS, ROLES, Resource, by_path
from netemu.store.sqlite import SqliteStore

READ_PODS = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}


def asked(request: str) -> Attributes:
    """`VERB GROUP/RESOURCE[/SUBRESOURCE] [NAMESPACE [NAME]]` (core group: nothing before the slash), `VERB =PATH`."""
    verb, what, *where = request.split(" ")
    if what.startswith("="):
        return Attributes(verb, path=what[1:])
    group, resource, *sub = what.split("/")
    namespace, name = (*where, "", "")[:2]
    return Attributes(verb, group, "v1", resource, sub[0] if sub else "", namespace, name)


@pytest.mark.parametrize(
    ("rule", "request_", "covered"),
    [
        (READ_PODS, "get /pods shop", True),
        (READ_PODS, "delete /pods shop", False),
        (READ_PODS, "get /pods/log shop one", False),
        (READ_PODS, "get /services shop", False),
        (READ_PODS, "get apps/pods shop", False),
        (READ_PODS, "get =/pods", False),
        ({**READ_PODS, "resources": ["pods/log"]}, "get /pods/log shop one", True),
        ({**READ_PODS, "resources": ["pods/log"]}, "get /pods shop one", False),
        ({**READ_PODS, "resources": ["*/scale"]}, "get /pods/scale shop one", True),
        ({**READ_PODS, "resources": ["*/scale"]}, "get /pods/log shop one", False),
        ({**READ_PODS, "resources": ["*"]}, "get /pods/log shop one", True),
        ({**READ_PODS, "apiGroups": ["*"]}, "get apps/pods shop", True),
        ({**READ_PODS, "verbs": ["*"]}, "delete /pods shop", True),
        ({**READ_PODS, "resourceNames": ["one"]}, "get /pods shop one", True),
        ({**READ_PODS, "resourceNames": ["one"]}, "get /pods shop two", False),
        ({**READ_PODS, "resourceNames": ["one"]}, "list /pods shop", False),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, "get =/api/v1", True),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, "get =/api", False),
        ({"verbs": ["get"], "nonResourceURLs": ["/api"]}, "get =/api", True),
        ({"verbs": ["get"], "nonResourceURLs": ["*"]}, "get =/metrics", True),
        ({"verbs": ["get"], "nonResourceURLs": ["*"]}, "get /pods shop", False),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, "get =/metrics", False),
    ],
)
def test_what_a_rule_covers(rule: dict[str, Any], request_: str, covered: bool) -> None:
    assert Rule.of(rule).covers(asked(request_)) is covered


def binding(kind: str, ref: str, namespace: str, *subjects: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": "b"} | ({"namespace": namespace} if namespace else {})
    role_kind, name = ref.split("/")
    return {"kind": kind, "metadata": metadata, "roleRef": {"kind": role_kind, "name": name}, "subjects": subjects}


ANN, DEVS = {"kind": "User", "name": "ann"}, {"kind": "Group", "name": "devs"}
BOT = {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"}


@pytest.mark.parametrize(
    ("user", "request_", "allowed"),
    [
        (User("ann"), "get /pods shop", True),
        (User("ann"), "get /pods other", False),
        (User("ann"), "list /pods", False),
        (User("bob"), "get /pods shop", False),
        (User("bob", ("devs",)), "get /services other", True),
        (User("bob", ("devs",)), "list /services", True),
        (User("devs"), "list /services", False),
        (User("system:serviceaccount:ci:bot"), "get /pods shop", True),
        (User("system:serviceaccount:shop:bot"), "get /pods shop", False),
        (User("bot"), "get /pods shop", False),
    ],
)
def test_bindings_give_roles_to_their_subjects_where_they_are(user: User, request_: str, allowed: bool) -> None:
    grants = Grants.of(
        [{"metadata": {"name": "reader", "namespace": "shop"}, "rules": [READ_PODS]}],
        [{"metadata": {"name": "services"}, "rules": [{**READ_PODS, "resources": ["services"]}]}],
        [
            binding("RoleBinding", "Role/reader", "shop", ANN, BOT),
            binding("RoleBinding", "Role/reader", "other", ANN),  # there is no such Role there
        ],
        [binding("ClusterRoleBinding", "ClusterRole/services", "", DEVS)],
    )

    assert bool(grants.allowing(user, asked(request_))) is allowed


def test_the_reason_names_binding_role_and_subject() -> None:
    role = {"metadata": {"name": "reader", "namespace": "shop"}, "rules": [READ_PODS]}
    grants = Grants.of([role], [], [binding("RoleBinding", "Role/reader", "shop", ANN)], [])

    why = grants.allowing(User("ann"), asked("get /pods shop"))

    assert why == 'RBAC: allowed by RoleBinding "b/shop" of Role "reader" to User "ann"'


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[LocalClient, ClusterAuthorizer]]:
    store = await SqliteStore.open(folder / "store.db")
    admission = Admission()
    rules = admission.around(Rules.upstream())
    registry = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]), rules=rules)
    await registry.start()
    client, authorizer = LocalClient(registry), ClusterAuthorizer(registry)
    admission.begin(EscalationGuard(registry, authorizer), NodeRestriction(registry))
    try:
        await bootstrap(client, api_address="172.18.0.2", api_port=6443)
        await ensure_policy(client, dns_policy("kube-system", "dns-faults"))
        yield client, authorizer
    finally:
        await registry.close()
        await store.close()


ADMIN = User("root", ("system:masters", AUTHENTICATED))
ANYBODY = User("ann", (AUTHENTICATED,))
DNS = User("system:serviceaccount:kube-system:coredns", ("system:serviceaccounts", AUTHENTICATED))
SCHEDULER, PROXY = User("system:kube-scheduler"), User("system:kube-proxy")
VIEWER, EDITOR, MANAGER = (User(name, (AUTHENTICATED,)) for name in ("viewer", "editor", "manager"))


async def test_the_roles_of_every_cluster(tmp_path: Path) -> None:
    table: list[tuple[User, str, bool]] = [
        (ADMIN, "delete /secrets shop key", True),
        (ADMIN, "get =/metrics", True),
        (ANYBODY, "get =/api", True),
        (ANYBODY, "get =/openapi/v2", True),
        (ANYBODY, "get =/metrics", False),
        (ANYBODY, "create authorization.k8s.io/selfsubjectaccessreviews", True),
        (ANYBODY, "create authorization.k8s.io/subjectaccessreviews", False),
        (ANYBODY, "get /pods shop", False),
        (ANONYMOUS, "get =/version", True),
        (ANONYMOUS, "get =/healthz", True),
        (ANONYMOUS, "get =/version", True),
        (ANONYMOUS, "get =/healthz/etcd", False),
        (ANONYMOUS, "get =/api", False),
        (ANONYMOUS, "create authentication.k8s.io/selfsubjectreviews", False),
        (DNS, "watch discovery.k8s.io/endpointslices", True),
        (DNS, "list /namespaces", True),
        (DNS, "watch /configmaps kube-system dns-faults", True),
        (DNS, "watch /configmaps kube-system", False),
        (DNS, "get /secrets kube-system", False),
        (DNS, "create /events kube-system", True),
        (SCHEDULER, "create /pods/binding shop one", True),
        (SCHEDULER, "create /pods shop", False),
        (PROXY, "watch /services", True),
        (PROXY, "update /services shop", False),
        (VIEWER, "list /pods shop", True),
        (VIEWER, "get /pods/log shop one", True),
        (VIEWER, "get /secrets shop key", False),
        (VIEWER, "delete /pods shop one", False),
        (VIEWER, "list /pods other", False),
        (VIEWER, "get /namespaces shop shop", True),
        (EDITOR, "get /secrets shop key", True),
        (EDITOR, "create /pods/exec shop one", True),
        (EDITOR, "list /pods shop", True),
        (EDITOR, "create rbac.authorization.k8s.io/roles shop", False),
        (MANAGER, "create rbac.authorization.k8s.io/roles shop", True),
        (MANAGER, "update /secrets shop key", True),
        (MANAGER, "list /nodes", False),
    ]
    async with cluster(tmp_path) as (client, authorizer):
        await client.create(by_path("", "v1", "namespaces") or PODS, {"metadata": {"name": "shop"}})
        for role, user in (("view", VIEWER), ("edit", EDITOR), ("admin", MANAGER)):
            subject = {"kind": "User", "name": user.name}
            bound = {**binding("RoleBinding", f"ClusterRole/{role}", "shop", subject), "metadata": {"name": role}}
            await client.create(ROLEBINDINGS, bound, "shop")
        wrong = [row for row in table if bool(authorizer.why(row[0], asked(row[1]))) is not row[2]]

    assert wrong == []


async def test_a_deleted_binding_takes_its_role_away_at_once(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (client, authorizer):
        before = authorizer.why(ANYBODY, asked("get =/api"))
        await client.delete(CLUSTERROLEBINDINGS, "system:discovery")
        after = authorizer.why(ANYBODY, asked("get =/api"))

    assert before == (
        'RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" '
        'to Group "system:authenticated"'
    )
    assert after == ""


NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))


async def test_a_node_reaches_its_own_pods_and_what_they_name_and_is_told_why_no_others(tmp_path: Path) -> None:
    stranger = "no relationship found between node 'n1' and this object"
    table: list[tuple[str, str | None]] = [
        ("get /nodes  n1", None),
        ("get /nodes  n2", "node 'n1' cannot read 'n2', only its own Node object"),
        ("patch /nodes/status  n1", None),
        ("patch /nodes/status  n2", ""),
        ("create /nodes", None),
        ("list /nodes", "node 'n1' cannot read all nodes, only its own Node object"),
        ("update coordination.k8s.io/leases kube-node-lease n1", None),
        (
            "update coordination.k8s.io/leases kube-node-lease n2",
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "update coordination.k8s.io/leases default n1",
            'can only access leases in the "kube-node-lease" system namespace',
        ),
        (
            "list coordination.k8s.io/leases kube-node-lease",
            "can only get, create, update, patch, or delete a node lease",
        ),
        ("get /pods default mine", None),
        ("get /pods default theirs", stranger),
        ("patch /pods/status default mine", None),
        ("patch /pods/status default theirs", ""),
        ("delete /pods default mine", None),
        ("list /pods", "can only list/watch pods with spec.nodeName field selector"),
        ("get /secrets default key", None),
        ("get /secrets default pull", None),
        ("get /secrets default other", stranger),
        ("list /secrets default", "No Object name found"),
        ("list /secrets", "can only read namespaced object of this type"),
        ("update /secrets default key", "can only read resources of this type"),
        ("get /secrets kube-system key", stranger),
        ("get /configmaps default settings", None),
        ("create /serviceaccounts/token default default", None),
        ("create /serviceaccounts/token default other", stranger),
        ("delete /serviceaccounts default default", "can only create tokens for individual service accounts"),
        ("list /services", None),
        ("create /services default", ""),
        ("create /events default", None),
        ("create authentication.k8s.io/tokenreviews", None),
        ("get rbac.authorization.k8s.io/roles default", ""),
    ]
    mine = {
        "nodeName": "n1",
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"name": "c", "image": "nginx", "envFrom": [{"configMapRef": {"name": "settings"}}]}],
        "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "key"}}]}}],
    }
    theirs = {"nodeName": "n2", "containers": [{"name": "c", "image": "nginx"}]}
    async with cluster(tmp_path) as (client, authorizer):
        for name, spec in (("mine", mine), ("theirs", theirs)):
            await client.create(PODS, {"metadata": {"name": name}, "spec": spec}, "default")
        found = []
        for what, _ in table:
            allowed = authorizer.why(NODE, asked(what))
            found.append((what, None if allowed else authorizer.refusal(NODE, asked(what))))
        own = Attributes("watch", "", "v1", "pods", fields="spec.nodeName=n1")
        others = Attributes("watch", "", "v1", "pods", fields="spec.nodeName=n2")

        assert found == table
        assert (authorizer.why(NODE, own), authorizer.why(NODE, others)) == ("node", "")
        assert authorizer.rules(NODE, "default")["incomplete"]


async def test_a_review_tells_a_node_why_it_may_not(tmp_path: Path) -> None:
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "a", "name": "key"}}}
    users = NODE, User("ann", (AUTHENTICATED,))
    async with cluster(tmp_path) as (_, authorizer):
        node, ann = (answer(Target(SELF_ACCESS_REVIEWS), review, user, authorizer)["status"] for user in users)

    assert node == {"allowed": False, "reason": "no relationship found between node 'n1' and this object"}
    assert ann == {"allowed": False}


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/api/v1/namespaces/shop", {}, Attributes("get", "", "v1", "namespaces", "", "shop", "shop")),
        (
            "/api/v1/namespaces/shop/secrets",
            {"fieldSelector": "metadata.name=key", "watch": "1"},
            Attributes("watch", "", "v1", "secrets", "", "shop", "key", fields="metadata.name=key"),
        ),
        (
            "/api/v1/secrets",
            {"fieldSelector": "metadata.name!=key"},
            Attributes("list", "", "v1", "secrets", fields="metadata.name!=key"),
        ),
    ],
)
def test_what_a_request_asks_for(path: str, query: dict[str, str], expected: Attributes) -> None:
    target = parse_path(path, by_path)
    assert target is not None

    assert attributes(verb_of("GET", target, query), target, query) == expected


def test_edit_holds_all_of_view_and_admin_all_of_edit() -> None:
    rules = {obj["metadata"]["name"]: obj["rules"] for resource, obj in default_policy() if resource is CLUSTERROLES}

    assert all(rule in rules["edit"] for rule in rules["view"])
    assert all(rule in rules["admin"] for rule in rules["edit"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rules": [{"verbs": []}]}, "rules[0].verbs"),
        ({"rules": [{"verbs": ["get"], "resources": ["pods"]}]}, "rules[0].apiGroups"),
        ({"rules": [{"verbs": ["get"], "apiGroups": [""]}]}, "rules[0].resources"),
        ({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}, "rules[0].nonResourceURLs"),
    ],
)
async def test_a_wrong_role_is_refused(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    async with cluster(tmp_path) as (client, _):
        with pytest.raises(Invalid) as refused:
            await client.create(ROLES, {"metadata": {"name": "r"}, **change}, "default")

    assert field in str(refused.value)


async def test_a_binding_keeps_its_role(tmp_path: Path) -> None:
    bound = {**binding("RoleBinding", "ClusterRole/view", "default", ANN)}
    async with cluster(tmp_path) as (client, _):
        made = await client.create(ROLEBINDINGS, bound, "default")
        with pytest.raises(Invalid) as refused:
            await client.patch(ROLEBINDINGS, "b", {"roleRef": {"name": "edit"}}, "default")

    group = "rbac.authorization.k8s.io"
    assert (made["roleRef"]["apiGroup"], made["subjects"][0]["apiGroup"]) == (group, group)
    assert "cannot change roleRef" in str(refused.value)


@pytest.mark.parametrize(
    ("resource", "granted", "allowed"),
    [
        (ROLES, {"rules": [READ_PODS]}, True),
        (ROLES, {"rules": [{**READ_PODS, "resources": ["nodes"]}]}, False),
        (ROLES, {"rules": [{**READ_PODS, "verbs": ["*"]}]}, False),
        (ROLEBINDINGS, binding("RoleBinding", "ClusterRole/view", "default", ANN), True),
        (ROLEBINDINGS, binding("RoleBinding", "ClusterRole/cluster-admin", "default", ANN), False),
    ],
)
async def test_nobody_gives_away_what_they_do_not_have(
    tmp_path: Path, resource: Resource, granted: dict[str, Any], allowed: bool
) -> None:
    async with cluster(tmp_path) as (client, _):
        manager = binding("RoleBinding", "ClusterRole/admin", "default", {"kind": "User", "name": "manager"})
        await client.create(ROLEBINDINGS, {**manager, "metadata": {"name": "manager"}}, "default")
        REQUESTER.set(MANAGER)
        said = ""
        try:
            await client.create(resource, {**granted, "metadata": {"name": "new"}}, "default")
        except Forbidden as refused:
            said = refused.message
        finally:
            REQUESTER.set(None)

    assert ("is attempting to grant RBAC permissions not currently held" in said) is not allowed
