"""What kubectl changes: generators with protobuf bodies, apply, patches, scale, rollouts, deletion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netemu.model.resources import DEPLOYMENTS, REPLICASETS, SECRETS
from tests.clients.apiserver import Kubectl, find_kubectl
from tests.clients.manifests import APP, UNKNOWN_FIELD, UNKNOWN_KIND_BETWEEN, UNSERVED_KIND


@pytest.mark.parametrize(
    ("arguments", "created"),
    [
        pytest.param(["deployment", "web", "--image=nginx", "--replicas=3"], "deployment.apps/web", id="deployment"),
        pytest.param(["namespace", "shop"], "namespace/shop", id="namespace"),
        pytest.param(["configmap", "c", "--from-literal=k=v"], "configmap/c", id="configmap"),
        pytest.param(["secret", "generic", "s", "--from-literal=k=v"], "secret/s", id="secret"),
        pytest.param(["serviceaccount", "sa"], "serviceaccount/sa", id="serviceaccount"),
        pytest.param(["service", "clusterip", "s", "--tcp=80:8080"], "service/s", id="clusterip"),
        pytest.param(["service", "nodeport", "s", "--tcp=80", "--node-port=30080"], "service/s", id="nodeport"),
        pytest.param(["ingress", "i", "--rule=a.example/*=web:80"], "ingress.networking.k8s.io/i", id="ingress"),
        pytest.param(["pdb", "b", "--selector=a=b", "--min-available=50%"], "poddisruptionbudget.policy/b", id="pdb"),
        pytest.param(["service", "externalname", "s", "--external-name=a.example"], "service/s", id="externalname"),
    ],
)
async def test_generators_create(kubectl: Kubectl, arguments: list[str], created: str) -> None:
    assert (await kubectl("create", *arguments)).out == f"{created} created\n"


async def test_a_generated_deployment_keeps_what_was_asked_for(kubectl: Kubectl) -> None:
    await kubectl("create", "deployment", "web", "--image=nginx", "--replicas=0", "--port=8080")

    spec = (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["spec"]

    assert spec["replicas"] == 0
    assert spec["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]


async def test_a_generated_secret_arrives_as_base64(kubectl: Kubectl) -> None:
    await kubectl("create", "secret", "generic", "s", "--from-literal=user=admin")

    assert (await kubectl.client.get(SECRETS, "s", "default"))["data"] == {"user": "YWRtaW4="}


async def test_apply_twice_changes_nothing(kubectl: Kubectl) -> None:
    first = (await kubectl("apply", "-f", "-", stdin=APP)).out
    again = (await kubectl("apply", "-f", "-", stdin=APP)).out

    assert first == "deployment.apps/web created\nservice/web created\n"
    assert again == "deployment.apps/web unchanged\nservice/web unchanged\n"


async def test_apply_merges_lists_by_key(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await kubectl("apply", "-f", "-", stdin=APP.replace("name: A, value", "name: B, value"))

    container = (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["spec"]["template"]["spec"]["containers"][0]

    assert container["env"] == [{"name": "B", "value": "1"}]
    assert container["image"] == "nginx"


async def test_diff_and_server_dry_run_change_nothing(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    changed = APP.replace("replicas: 2", "replicas: 7")

    diff = await kubectl.run("diff", "-f", "-", stdin=changed)
    dry = (await kubectl("apply", "--dry-run=server", "-f", "-", stdin=changed)).out

    assert (diff.code, "+  replicas: 7" in diff.out) == (1, True)
    assert "deployment.apps/web configured (server dry run)" in dry
    assert (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["spec"]["replicas"] == 2


async def test_an_unknown_field_is_refused_by_its_path(kubectl: Kubectl) -> None:
    answer = await kubectl.run("apply", "-f", "-", stdin=UNKNOWN_FIELD)

    assert answer.code == 1
    assert 'strict decoding error: unknown field "spec.selectorr"' in answer.err


async def test_an_unknown_field_only_warns_on_request(kubectl: Kubectl) -> None:
    answer = await kubectl("create", "--validate=warn", "-f", "-", stdin=UNKNOWN_FIELD)

    assert 'Warning: unknown field "spec.selectorr"' in answer.err


async def test_an_unknown_kind_does_not_block_its_neighbours(kubectl: Kubectl) -> None:
    answer = await kubectl.run("apply", "-f", "-", stdin=UNKNOWN_KIND_BETWEEN)

    assert answer.out == "configmap/before created\nconfigmap/after created\n"
    assert 'no matches for kind "Gadget" in version "example.com/v1"' in answer.err


async def test_an_unserved_kind_of_a_served_group_is_named(kubectl: Kubectl) -> None:
    answer = await kubectl.run("apply", "-f", "-", stdin=UNSERVED_KIND)

    assert 'no matches for kind "PodTemplate" in version "v1"' in answer.err


async def test_an_invalid_object_is_refused_with_the_field(kubectl: Kubectl) -> None:
    answer = await kubectl.run("apply", "-f", "-", stdin=APP.replace("containerPort: 80", "containerPort: 99999"))

    assert 'The Deployment "web" is invalid' in answer.err
    assert "spec.template.spec.containers[0].ports[0].containerPort" in answer.err


async def test_a_value_of_the_wrong_type_is_refused(kubectl: Kubectl) -> None:
    answer = await kubectl.run("create", "-f", "-", stdin=APP.replace("replicas: 2", "replicas: many"))

    assert "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32" in answer.err


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        pytest.param("strategic", '{"metadata":{"labels":{"tier":"back"}}}', id="strategic merge patch"),
        pytest.param("merge", '{"metadata":{"labels":{"tier":"back"}}}', id="merge patch"),
        pytest.param("json", '[{"op":"replace","path":"/metadata/labels/tier","value":"back"}]', id="JSON patch"),
    ],
)
async def test_each_kind_of_patch_changes_a_label(kubectl: Kubectl, kind: str, patch: str) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await kubectl("patch", "deployment", "web", f"--type={kind}", "-p", patch)

    assert (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["metadata"]["labels"] == {"tier": "back"}


async def test_label_annotate_and_set_image(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await kubectl("label", "deployment/web", "a=b", "tier-")
    await kubectl("annotate", "deployment/web", "note=x")
    await kubectl("set", "image", "deployment/web", "server=nginx:2")

    found = await kubectl.client.get(DEPLOYMENTS, "web", "default")

    assert (found["metadata"]["labels"], found["metadata"]["annotations"]["note"]) == ({"a": "b"}, "x")
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2"


async def test_edit_saves_what_the_editor_wrote(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await kubectl("edit", "deployment", "web", env={"EDITOR": "sed -i s/replicas:.2/replicas:\\ 6/"})

    assert (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["spec"]["replicas"] == 6


async def test_replace_keeps_the_cluster_address(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    address = (await kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")).out
    await kubectl("replace", "-f", "-", stdin=APP)

    assert (await kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")).out == address


async def test_expose_and_run_create(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    exposed = (await kubectl("expose", "deployment", "web", "--name=other", "--port=81", "--target-port=80")).out
    run = (await kubectl("run", "one", "--image=nginx", "--port=80")).out

    assert (exposed, run) == ("service/other exposed\n", "pod/one created\n")


@pytest.mark.parametrize("precondition", [(), ("--current-replicas=2",)], ids=["by patch", "by put"])
async def test_scale_sets_the_replicas(kubectl: Kubectl, precondition: tuple[str, ...]) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await kubectl("scale", "deployment/web", "--replicas=5", *precondition)

    assert (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["spec"]["replicas"] == 5


async def _as_the_controller(kubectl: Kubectl, revision: int) -> None:
    """Report the Deployment as rolled out, with a ReplicaSet of that revision, as its controller would."""
    deployment = await kubectl.client.get(DEPLOYMENTS, "web", "default")
    meta, mark = deployment["metadata"], {"deployment.kubernetes.io/revision": str(revision)}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": meta["uid"], "controller": True}
    labels = {"app": "web", "pod-template-hash": str(revision)}
    template = deployment["spec"]["template"]
    await kubectl.client.create(
        REPLICASETS,
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": f"web-{revision}", "labels": labels, "annotations": mark, "ownerReferences": [owner]},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {**template, "metadata": {"labels": labels}},
            },
        },
        "default",
    )
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
    await kubectl.client.patch(DEPLOYMENTS, "web", {"metadata": {"annotations": mark}}, "default")
    status = {**counts, "observedGeneration": meta["generation"]}
    await kubectl.client.patch(DEPLOYMENTS, "web", {"status": status}, "default", subresource="status")


async def test_rollouts_are_followed_listed_restarted_and_undone(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await _as_the_controller(kubectl, 1)
    status = (await kubectl("rollout", "status", "deployment/web", "--timeout=10s")).out
    await kubectl("set", "image", "deployment/web", "server=nginx:broken")
    await _as_the_controller(kubectl, 2)
    history = (await kubectl("rollout", "history", "deployment/web")).rows
    await kubectl("rollout", "undo", "deployment/web")
    await kubectl("rollout", "restart", "deployment/web")

    template = (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["spec"]["template"]

    assert 'deployment "web" successfully rolled out' in status
    assert [row[0] for row in history if row and row[0].isdigit()] == ["1", "2"]
    assert template["spec"]["containers"][0]["image"] == "nginx"
    assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]


async def test_delete_waits_until_it_is_gone(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    deleted = (await kubectl("delete", "deployment,service", "web", "--wait", "--timeout=10s")).out

    assert deleted == 'deployment.apps "web" deleted\nservice "web" deleted\n'
    assert (await kubectl.run("get", "deployment", "web")).code == 1


async def test_delete_by_label_leaves_others(kubectl: Kubectl) -> None:
    for name in ("one", "two"):
        await kubectl("create", "configmap", name)
        await kubectl("label", "configmap", name, f"which={name}")
    await kubectl("delete", "configmap", "-l", "which=one")

    assert (await kubectl("get", "configmaps", "-o", "name")).out == "configmap/two\n"


async def test_a_conflicting_replace_is_refused(kubectl: Kubectl) -> None:
    await kubectl("create", "configmap", "c")
    stale = json.loads((await kubectl("get", "configmap", "c", "-o", "json")).out)
    await kubectl("label", "configmap", "c", "a=b")

    answer = await kubectl.run("replace", "-f", "-", stdin=json.dumps(stale))

    assert "please apply your changes to the latest version and try again" in answer.err


@pytest.mark.parametrize("minor", [27, 28, 29, 30, 31, 33])
async def test_other_versions_of_kubectl_create_apply_explain_and_tell_who_asks(kubectl: Kubectl, minor: int) -> None:
    program = find_kubectl(minor)
    if Path(program).name != f"kubectl.1.{minor}":
        pytest.skip(f"no kubectl 1.{minor}: install kubectl.1.{minor} beside kubectl")
    other = kubectl.as_program(program)
    await other("create", "namespace", "shop")
    created = (await other("apply", "-n", "shop", "-f", "-", stdin=APP)).out
    mixed = (await other.run("apply", "-f", "-", stdin=UNKNOWN_KIND_BETWEEN)).out

    assert created == "deployment.apps/web created\nservice/web created\n"
    assert mixed == "configmap/before created\nconfigmap/after created\n"
    assert "FIELD: ports <[]ServicePort>" in (await other("explain", "service.spec.ports")).out
    assert ["Username", "kubernetes-admin"] in (await other("auth", "whoami")).rows


@pytest.mark.parametrize("minor", [27, 30, 32, 33])
async def test_autoscale_is_refused_with_the_reason(kubectl: Kubectl, minor: int) -> None:
    await kubectl("create", "deployment", "web", "--image=nginx")

    answer = await kubectl.as_program(find_kubectl(minor)).run("autoscale", "deployment", "web", "--max=3")

    why = "horizontalpodautoscalers.autoscaling are not served, as there are no metrics to scale by"
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"Error from server (NotFound): {why}: set the number of replicas with kubectl scale\n"
