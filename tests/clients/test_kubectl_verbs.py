"""What kubectl prints and how it exits, verb by verb, where no controller or kubelet is needed for it."""

from __future__ import annotations

import shlex

import pytest

from netemu.model.resources import EVENTS
from tests.clients.apiserver import Kubectl
from tests.clients.manifests import APP, NODE

CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: c
data:
  a: b
"""


async def talk(kubectl: Kubectl, script: str) -> None:
    """A script: `$ ` begins a command of kubectl; what it prints follows, and `[N]` if it exits with N instead of 0."""
    for part in script.strip().removeprefix("$ ").split("\n$ "):
        command, *expected = part.strip().splitlines()
        answer = await kubectl.run(*shlex.split(command))
        said = [line.rstrip() for line in (answer.out + answer.err).splitlines() if line.strip()]
        assert said + ([f"[{answer.code}]"] if answer.code else []) == expected, command


async def test_labels_and_annotations_are_changed_only_on_purpose(kubectl: Kubectl) -> None:
    await talk(
        kubectl,
        """
$ create configmap c
configmap/c created
$ label configmap c a=1
configmap/c labeled
$ label configmap c a=2
error: 'a' already has a value (1), and --overwrite is false
[1]
$ label configmap c a=2 --overwrite
configmap/c labeled
$ label configmap c a=2 --overwrite
configmap/c not labeled
$ label configmap c a-
configmap/c unlabeled
$ label configmap c b=x --dry-run=server
configmap/c labeled (server dry run)
$ get configmap c -o jsonpath={.metadata.labels}
$ annotate configmap c n=1
configmap/c annotated
$ annotate configmap c n=2
error: --overwrite is false but found the following declared annotation(s): 'n' already has a value (1)
[1]
$ annotate configmap c n=2 --overwrite
configmap/c annotated
$ get configmap c -o jsonpath={.metadata.annotations}
{"n":"2"}
""",
    )


async def test_patches_of_three_kinds_and_their_refusals(kubectl: Kubectl) -> None:
    await talk(
        kubectl,
        """
$ create configmap c --from-literal=a=1
configmap/c created
$ patch configmap c -p '{"data":{"b":"2"}}'
configmap/c patched
$ patch configmap c --type=merge -p '{"data":{"a":null}}'
configmap/c patched
$ patch configmap c --type=json -p '[{"op":"add","path":"/data/c","value":"3"}]'
configmap/c patched
$ patch configmap c -p '{"data":{"b":"2"}}'
configmap/c patched (no change)
$ get configmap c -o jsonpath={.data}
{"b":"2","c":"3"}
$ patch configmap c --type=json -p '[{"op":"test","path":"/data/c","value":"4"}]'
The request is invalid: the server rejected our request due to an error in our request: testing value /data/c failed
[1]
$ patch configmap none -p '{}'
Error from server (NotFound): configmaps "none" not found
[1]
""",
    )


async def test_waiting_for_what_is_or_is_not(kubectl: Kubectl) -> None:
    await talk(
        kubectl,
        """
$ create configmap c --from-literal=a=1
configmap/c created
$ wait --for=create configmap/c --timeout=5s
configmap/c condition met
$ wait --for=jsonpath={.data.a}=1 configmap/c --timeout=5s
configmap/c condition met
$ wait --for=jsonpath={.data.a}=2 configmap/c --timeout=1s
error: timed out waiting for the condition on configmaps/c
[1]
$ wait --for=delete configmap/none --timeout=5s
$ wait --for=condition=Ready pod/none --timeout=1s
Error from server (NotFound): pods "none" not found
[1]
""",
    )


async def test_nodes_are_cordoned_and_tainted(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=NODE)
    await talk(
        kubectl,
        """
$ cordon node-1
node/node-1 cordoned
$ cordon node-1
node/node-1 already cordoned
$ get node node-1 --no-headers -o custom-columns=A:.spec.unschedulable,B:.spec.taints[*].key
true   <none>
$ uncordon node-1
node/node-1 uncordoned
$ taint node node-1 a=b:NoSchedule
node/node-1 tainted
$ taint node node-1 a=c:NoSchedule
error: node node-1 already has a taint(s) with same effect(s) and --overwrite is false
[1]
$ taint node node-1 a=c:NoSchedule --overwrite
node/node-1 modified
$ get node node-1 -o jsonpath={.spec.taints}
[{"effect":"NoSchedule","key":"a","value":"c"}]
$ taint node node-1 a-
node/node-1 untainted
$ taint node node-1 a-
error: taint "a" not found
[1]
""",
    )


async def test_lists_are_sorted_and_shown_in_columns_of_ones_own(kubectl: Kubectl) -> None:
    for name, size in (("b", 1), ("a", 3), ("c", 2)):
        await kubectl("create", "configmap", name, f"--from-literal=size={size}")
        await kubectl("label", "configmap", name, f"size=s{size}")
    await talk(
        kubectl,
        """
$ get configmaps --sort-by=.data.size -o name
configmap/b
configmap/c
configmap/a
$ get configmaps --sort-by=.data.size --chunk-size=1 --no-headers -o custom-columns=N:.metadata.name,S:.data.size
b     1
c     2
a     3
$ get configmaps -o custom-columns=NAME:.metadata.name,NONE:.data.none
NAME   NONE
a      <none>
b      <none>
c      <none>
$ get configmaps -l 'size notin (s1,s2)' -o 'go-template={{range .items}}{{.metadata.name}} {{.data.size}}{{end}}'
a 3
$ get configmaps --field-selector=metadata.name=c -o jsonpath={.items[*].metadata.name}
c
$ get configmaps --field-selector=data.size=1
Error from server (BadRequest): Unable to find "/v1, Resource=configmaps" that match label selector "", field selector \
"data.size=1": field label not supported: data.size
[1]
$ get configmaps none --ignore-not-found
$ get configmaps none
Error from server (NotFound): configmaps "none" not found
[1]
$ get nonsense
error: the server doesn't have a resource type "nonsense"
[1]
""".replace("\\\n", ""),
    )


async def test_a_rollout_is_paused_and_its_template_set(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await talk(
        kubectl,
        """
$ rollout pause deployment/web
deployment.apps/web paused
$ rollout pause deployment/web
error: deployments.apps "web" is already paused
[1]
$ rollout restart deployment/web
error: deployments.apps "web" can't restart paused deployment (run rollout resume first)
[1]
$ set env deployment/web A=2 B=3
deployment.apps/web env updated
$ set env deployment/web --list
# Deployment web, container server
A=2
B=3
$ set resources deployment/web --limits=cpu=100m
deployment.apps/web resource requirements updated
$ set serviceaccount deployment/web robot
deployment.apps/web serviceaccount updated
$ set selector service/web app=other
service/web selector updated
$ rollout resume deployment/web
deployment.apps/web resumed
$ rollout undo deployment/web --to-revision=9
error: unable to find specified revision 9 in history
[1]
$ scale deployment/web --replicas=3 --current-replicas=9
error: Expected replicas to be 9, was 2
[1]
$ get deployment web -o jsonpath={.metadata.generation}{.spec.template.spec.serviceAccountName}
6robot
""",
    )


async def test_objects_are_replaced_by_force_and_deleted_with_care(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    first = (await kubectl("get", "service", "web", "-o", "jsonpath={.metadata.uid}")).out
    forced = (await kubectl("replace", "--force", "-f", "-", stdin=APP)).out
    second = (await kubectl("get", "service", "web", "-o", "jsonpath={.metadata.uid}")).out

    assert forced.splitlines()[-2:] == ["deployment.apps/web replaced", "service/web replaced"]
    assert first != second
    await talk(
        kubectl,
        """
$ create service clusterip web --tcp=80
error: failed to create ClusterIP service: services "web" already exists
[1]
$ delete service web --dry-run=server
service "web" deleted (server dry run)
$ delete service web none
service "web" deleted
Error from server (NotFound): services "none" not found
[1]
$ delete service none --ignore-not-found
$ delete configmap --all
No resources found
""",
    )


async def test_what_was_applied_last_is_kept(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=CONFIG)

    shown = (await kubectl("apply", "view-last-applied", "configmap/c")).out

    assert "data:\n  a: b\nkind: ConfigMap" in shown
    with_empties = CONFIG.replace("name: c", "name: c\n  annotations: {}\n  labels: {}")
    assert (await kubectl("diff", "-f", "-", stdin=with_empties)).out == ""


async def test_events_are_told_of_an_object(kubectl: Kubectl) -> None:
    for number, name in enumerate(("one", "two")):
        where = {"kind": "Pod", "name": name, "namespace": "default", "apiVersion": "v1"}
        event = {"metadata": {"name": f"{name}.1"}, "involvedObject": where, "reason": "Tested", "type": "Warning"}
        stamp = {"lastTimestamp": f"2026-01-01T00:00:0{number}Z", "firstTimestamp": "2026-01-01T00:00:00Z"}
        await kubectl.client.create(EVENTS, {**event, **stamp, "message": f"of {name}", "count": 2}, "default")

    told = (await kubectl("events", "--for=pod/two", "--types=Warning")).rows
    every = (await kubectl("get", "events", "--sort-by=.lastTimestamp", "-o", "name")).out

    assert [row[-5:] for row in told[1:]] == [["Warning", "Tested", "Pod/two", "of", "two"]]
    assert every == "event/one.1\nevent/two.1\n"


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (("get", "po", ""), ["one"]),
        (("get", "pods", "-n", "kube-p"), ["kube-public"]),
        (("describe", "deployment", "w"), ["web"]),
        (("rollout", "status", "deployment/"), ["deployment/web"]),
        (("cordon", ""), ["node-1"]),
        (("get", "endpointsl"), ["endpointslices.discovery.k8s.io"]),
    ],
)
async def test_names_are_completed(kubectl: Kubectl, words: tuple[str, ...], completions: list[str]) -> None:
    await kubectl("create", "-f", "-", stdin=f"{APP}---{NODE}")
    await kubectl("run", "one", "--image=nginx")

    said = (await kubectl("__complete", *words)).out.splitlines()

    assert said[:-1] == completions


async def test_every_kind_is_described(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=f"{APP}---{CONFIG}")
    for words in (
        "secret generic s --from-literal=k=value", "serviceaccount robot", "role r --verb=get --resource=pods",
        "rolebinding rb --role=r --user=ann", "clusterrole cr --verb=get --non-resource-url=/x",
        "ingress i --rule=a.example/*=web:80", "namespace shop",
    ):  # fmt: skip
        await kubectl("create", *words.split())
    expected = {
        "deployment/web": "Replicas:               2 desired | 0 updated | 0 total | 0 available | 0 unavailable",
        "service/web": "Internal Traffic Policy:  Cluster",
        "endpointslice/kubernetes": "  https  6443  TCP",
        "configmap/c": "a:\n----\nb",
        "secret/s": "k:  5 bytes",
        "serviceaccount/robot": "Mountable secrets:   <none>",
        "role/r": "  pods       []                 []              [get]",
        "rolebinding/rb": "  User  ann   ",
        "clusterrole/cr": "             [/x]               []              [get]",
        "ingress/i": "              /   web:80 (<none>)",
        "namespace/shop": "Status:       Active",
    }

    for what, line in expected.items():
        assert line in (await kubectl("describe", what)).out, what
