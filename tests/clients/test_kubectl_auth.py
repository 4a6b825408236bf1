"""Who may do what, as kubectl sees it on a running lab: roles, tokens, and Pods that ask the API server themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from netemu.lab.paths import LabPaths
from tests.clients.labs import LabKubectl
from tests.cluster.labs import eventually, run
from tests.unit.authorization_facts import Fact, facts

NAMESPACE = "guarded"
ROW = re.compile(r"^(\S*) +\[(.*?)\] +\[(.*?)\] +\[(.*?)\]$")
"""Of `can-i --list`: resource, paths, names, verbs."""
ASKER = """
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  runtimeClassName: process
  serviceAccountName: reader
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: netemu.dev/any, command: [sleep, infinity]}]
"""


@dataclass(frozen=True, slots=True)
class Guarded:
    """kubectl as the administrator, and as whoever holds a token."""

    admin: LabKubectl
    token: str

    def as_reader(self, *arguments: str) -> tuple[int, str]:
        """As the ServiceAccount `reader`, with nothing but its token: exit code and all that was said."""
        paths = LabPaths(self.admin.lab)
        server = self.admin("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
        authority = str(paths.pki / "ca.crt")
        options = ("--kubeconfig=/dev/null", f"--server={server}", f"--certificate-authority={authority}")
        done = self.admin.run(*options, f"--token={self.token}", *arguments)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def guarded(lab: LabKubectl) -> Iterator[Guarded]:
    """A namespace in which the account `reader` has the role `view`, a token of it, and a Pod that runs as it."""
    lab("create", "namespace", NAMESPACE)
    inside = lab.within(NAMESPACE)
    inside("create", "serviceaccount", "reader")
    inside("create", "rolebinding", "reader", "--clusterrole=view", f"--serviceaccount={NAMESPACE}:reader")
    for role in ("view", "edit", "admin"):
        inside("create", "rolebinding", role, f"--clusterrole={role}", f"--user=a-{role}")
    inside("create", "secret", "generic", "key", "--from-literal=a=b")
    inside("apply", "-f", "-", stdin=ASKER)
    inside("wait", "--for=condition=Ready", "pod/asker", "--timeout=20s")
    yield Guarded(inside, inside("create", "token", "reader").strip())
    lab("delete", "namespace", NAMESPACE, "--wait=false")


def test_a_token_is_its_account(guarded: Guarded) -> None:
    code, said = guarded.as_reader("auth", "whoami", "-o", "json")

    assert code == 0
    assert json.loads(said)["status"]["userInfo"]["username"] == f"system:serviceaccount:{NAMESPACE}:reader"


def test_a_viewer_reads_what_is_no_secret(guarded: Guarded) -> None:
    read, _ = guarded.as_reader("get", "pods,services,configmaps")
    code, said = guarded.as_reader("get", "secrets")

    user = f"system:serviceaccount:{NAMESPACE}:reader"
    where = f'in API group "" in the namespace "{NAMESPACE}"'
    assert read == 0
    assert (code, said) == (
        1,
        f'Error from server (Forbidden): secrets is forbidden: User "{user}" cannot list resource "secrets" {where}\n',
    )


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (("get", "pods"), "yes"),
        (("get", "pods/log"), "yes"),
        (("delete", "pods"), "no"),
        (("get", "secrets"), "no"),
        (("list", "pods", "-n", "default"), "no"),
        (("get", "/version"), "yes"),
        (("get", "/metrics"), "no"),
    ],
)
def test_can_i(guarded: Guarded, question: tuple[str, ...], answer: str) -> None:
    code, said = guarded.as_reader("auth", "can-i", *question)
    asked_for = guarded.admin.run(
        "auth", "can-i", *question, f"--as=system:serviceaccount:{NAMESPACE}:reader"
    )  # fmt: skip

    assert (code, said.split()[-1]) == (0 if answer == "yes" else 1, answer)
    assert asked_for.stdout.strip() == answer


def test_can_i_lists_what_one_may_and_nothing_else(guarded: Guarded) -> None:
    code, said = guarded.as_reader("auth", "can-i", "--list")

    resources: set[Fact] = set()
    paths: set[str] = set()
    for resource, urls, names, verbs in (ROW.findall(line)[0] for line in said.splitlines()[1:]):
        assert names == ""
        resources |= {Fact(verb, resource) for verb in verbs.split() if resource}
        paths |= set(urls.split())
    assert code == 0
    assert resources == {*facts("view"), *facts("authenticated")}
    assert {"/version", "/openapi/*", "/openid/v1/jwks"} <= paths
    assert "/metrics" not in paths


@pytest.mark.parametrize(
    ("role", "arguments", "allowed"),
    [
        ("view", ("get", "secrets"), False),
        ("edit", ("get", "secrets"), True),
        ("view", ("logs", "asker"), True),
        ("view", ("exec", "asker", "--", "true"), False),
        ("edit", ("exec", "asker", "--", "true"), True),
        ("view", ("create", "token", "reader"), False),
        ("edit", ("create", "token", "reader"), True),
        ("view", ("label", "pod", "asker", "a=b", "--dry-run=server"), False),
        ("edit", ("label", "pod", "asker", "a=b", "--dry-run=server"), True),
        ("edit", ("create", "role", "r", "--verb=get", "--resource=pods", "--dry-run=server"), False),
        ("admin", ("create", "role", "r", "--verb=get", "--resource=pods", "--dry-run=server"), True),
        ("admin", ("get", "nodes"), False),
        ("admin", ("get", "pods", "-n", "kube-system"), False),
    ],
)
def test_roles_hold_for_what_is_really_done(
    guarded: Guarded, role: str, arguments: tuple[str, ...], allowed: bool
) -> None:
    done = guarded.admin.run(f"--as=a-{role}", *arguments)

    assert (done.returncode == 0) is allowed, done.stderr
    assert ("forbidden" in done.stderr.lower()) is not allowed


def test_a_token_ends_with_its_account(guarded: Guarded) -> None:
    guarded.admin("create", "serviceaccount", "brief")
    brief = Guarded(guarded.admin, guarded.admin("create", "token", "brief", "--duration=10m").strip())
    before, _ = brief.as_reader("auth", "whoami")
    guarded.admin("delete", "serviceaccount", "brief")
    after, said = brief.as_reader("auth", "whoami")

    assert (before, after) == (0, 1)
    assert "Unauthorized" in said


def test_nobody_grants_what_they_do_not_hold(guarded: Guarded) -> None:
    guarded.admin("create", "rolebinding", "ann", "--clusterrole=admin", "--user=ann")
    fine = guarded.admin.run("create", "rolebinding", "bob", "--clusterrole=view", "--user=bob", "--as=ann")
    refused = guarded.admin.run("create", "rolebinding", "eve", "--clusterrole=cluster-admin", "--user=eve", "--as=ann")

    assert fine.returncode == 0
    assert 'user "ann" (groups=["system:authenticated"]) is attempting to grant RBAC permissions' in refused.stderr


def test_a_pod_asks_the_api_server_with_what_it_finds_in_itself(guarded: Guarded) -> None:
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    url = f"https://kubernetes.default/api/v1/namespaces/{NAMESPACE}"
    bearer = f'--cacert {place}/ca.crt -H "Authorization: Bearer $(cat {place}/token)"'
    curl = f'curl -s -o /dev/null -w "%{{http_code}} " {bearer}'
    script = f"cat {place}/namespace; echo; {curl} {url}/pods; {curl} {url}/secrets"

    def asked() -> list[str]:
        return run(
            "exec", "--lab", guarded.admin.lab, "-n", NAMESPACE, "asker", "--", "sh", "-c", script
        ).stdout.split()

    eventually(lambda: asked() == [NAMESPACE, "200", "403"], "what a Pod may ask")


def as_kubelet(admin: LabKubectl, node: str, *arguments: str) -> tuple[int, str]:
    """As the kubelet of a node: exit code and all that was said."""
    config = LabPaths(admin.lab).component_kubeconfig(f"kubelet-{node}")
    done = admin.run("--kubeconfig", str(config), *arguments)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"), "system:node:worker-1"),
        (("get", "node", "worker-1", "-o", "name"), "node/worker-1"),
        (("get", "pods", "--field-selector=spec.nodeName=worker-1", "-o", "name"), ""),
    ],
)
def test_each_kubelet_is_its_own_user(lab: LabKubectl, arguments: tuple[str, ...], said: str) -> None:
    assert as_kubelet(lab, "worker-1", *arguments) == (0, f"{said}\n" if said.startswith("node/") else said)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("get", "secrets", "-A"), 'User "system:node:worker-1" cannot list resource "secrets"'),
        (("get", "pods", "-A"), 'User "system:node:worker-1" cannot list resource "pods"'),
        (("label", "node", "worker-2", "a=b"), 'User "system:node:worker-1" cannot get resource "nodes"'),
        (("label", "node", "worker-1", "node-role.kubernetes.io/x=y"), "is not allowed to modify labels"),
        (("taint", "node", "worker-1", "a=b:NoSchedule"), "is not allowed to modify taints"),
        (("create", "token", "default"), 'cannot create resource "serviceaccounts/token"'),
        (("delete", "node", "worker-1"), 'cannot delete resource "nodes"'),
    ],
)
def test_a_kubelet_may_not_do_what_is_not_its_own(lab: LabKubectl, arguments: tuple[str, ...], why: str) -> None:
    code, said = as_kubelet(lab, "worker-1", *arguments)

    assert (code, why in said) == (1, True), said


def test_nothing_that_a_lab_does_by_itself_is_refused(lab: LabKubectl) -> None:
    """The audit log tells every component by its own name, and no request of theirs that was forbidden."""
    events = [json.loads(line) for line in LabPaths(lab.lab).audit.read_text().splitlines()]
    agents = [e for e in events if e["userAgent"].startswith(("kubelet", "kube-proxy", "netemu"))]

    users = {event["user"]["username"] for event in agents}
    nodes = {f"system:node:{name}" for name in ("control-plane", "worker-1", "worker-2")}
    assert users - {"system:serviceaccount:kube-system:coredns"} == {"system:kube-proxy", "netemu:node-agent", *nodes}
    assert [e for e in agents if e.get("responseStatus", {}).get("code") in (401, 403)] == []


def test_the_audit_log_tells_who_was_let_in_as_whom_and_why(guarded: Guarded) -> None:
    guarded.admin("get", "pod", "asker", "--as=a-view")
    guarded.admin.run("get", "secret", "key", "--as=a-view")
    guarded.admin("exec", "asker", "--", "true")

    def told(resource: str, subresource: str = "", **person: str) -> Any:
        *lines, _ = LabPaths(guarded.admin.lab).audit.read_text().split("\n")  # the last may still be written
        for event in reversed([json.loads(line) for line in lines]):
            about = event.get("objectRef", {})
            if (about.get("resource"), about.get("subresource", ""), about.get("namespace")) == (
                resource, subresource, NAMESPACE,
            ) and person.items() <= event.get("impersonatedUser", {}).items():  # fmt: skip
                return event
        return None

    allowed = eventually(lambda: told("pods", username="a-view"), "an event of what was allowed")
    refused = eventually(lambda: told("secrets", username="a-view"), "an event of what was refused")
    streamed = eventually(lambda: told("pods", "exec"), "an event of a stream")

    why = f'RBAC: allowed by RoleBinding "view/{NAMESPACE}" of ClusterRole "view" to User "a-view"'
    decision, reason = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
    assert allowed["annotations"] == {decision: "allow", reason: why}
    assert (allowed["user"]["username"], allowed["verb"], allowed["objectRef"]["name"]) == (
        "kubernetes-admin", "get", "asker",
    )  # fmt: skip
    assert refused["annotations"] == {decision: "forbid", reason: ""}
    assert (refused["responseStatus"]["code"], refused["responseStatus"]["reason"]) == (403, "Forbidden")
    assert streamed["verb"] in ("get", "create")
    assert streamed["user"]["groups"] == ["system:masters", "system:authenticated"]
