"""kubectl apply --server-side, and whose fields are whose after other commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netemu.model.resources import DEPLOYMENTS
from tests.clients.apiserver import Kubectl, find_kubectl
from tests.clients.manifests import APP

CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: c, labels: {{tier: {tier}}}}}
data: {data}
"""
ME = ("apply", "--server-side", "-f", "-")
OTHER = (*ME, "--field-manager=other")


def config(data: str, tier: str = "front") -> str:
    return CONFIG.format(data=data, tier=tier)


async def managers(kubectl: Kubectl, what: str) -> dict[str, Any]:
    """What `get --show-managed-fields` tells, by manager, operation and subresource."""
    answer = await kubectl("get", what, "-o", "json", "--show-managed-fields")
    entries = json.loads(answer.out)["metadata"].get("managedFields", [])
    return {
        "/".join(filter(None, (entry["manager"], entry["operation"], entry.get("subresource")))): entry["fieldsV1"]
        for entry in entries
    }


async def version(kubectl: Kubectl, what: str) -> str:
    return (await kubectl("get", what, "-o", "jsonpath={.metadata.resourceVersion}")).out


@pytest.mark.parametrize("minor", range(27, 34))
async def test_applies_create_change_and_conflict(kubectl: Kubectl, minor: int) -> None:
    kubectl = kubectl.as_program(find_kubectl(minor))
    assert (await kubectl(*ME, stdin=APP)).out.splitlines() == [
        "deployment.apps/web serverside-applied",
        "service/web serverside-applied",
    ]
    before = await version(kubectl, "deployment/web")
    await kubectl(*ME, stdin=APP)
    assert await version(kubectl, "deployment/web") == before

    refused = await kubectl.run(*OTHER, stdin=APP.replace("replicas: 2", "replicas: 3"))
    assert refused.code == 1
    assert 'error: Apply failed with 1 conflict: conflict with "kubectl": .spec.replicas' in refused.err
    assert "--force-conflicts" in refused.err

    await kubectl(*OTHER, "--force-conflicts", stdin=APP.replace("replicas: 2", "replicas: 3"))
    found = await managers(kubectl, "deployment/web")
    assert "f:replicas" not in found["kubectl/Apply"]["f:spec"]
    assert "f:replicas" in found["other/Apply"]["f:spec"]
    await kubectl(*ME, stdin=APP.replace("replicas: 2", ""))
    assert (await kubectl.client.get(DEPLOYMENTS, "web", "default"))["spec"]["replicas"] == 3


@pytest.mark.parametrize("minor", [27, 30, 33])
async def test_an_object_of_client_side_apply_is_taken_over(kubectl: Kubectl, minor: int) -> None:
    kubectl = kubectl.as_program(find_kubectl(minor))
    await kubectl("apply", "-f", "-", stdin=config("{a: '1', b: '2'}"))
    await kubectl(*ME, stdin=config("{a: '3'}"))

    answer = json.loads((await kubectl("get", "cm/c", "-o", "json")).out)
    assert answer["data"] == {"a": "3"}
    assert json.loads(answer["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])[
        "data"
    ] == {"a": "3"}
    assert set(await managers(kubectl, "cm/c")) == {"kubectl/Apply", "kubectl-last-applied/Apply"}


async def test_what_is_left_out_goes_unless_somebody_else_wants_it(kubectl: Kubectl) -> None:
    await kubectl(*ME, stdin=config("{a: '1', b: '2'}"))
    await kubectl(*OTHER, stdin=config("{b: '2'}"))
    await kubectl(*ME, stdin=config("{c: '3'}"))

    assert json.loads((await kubectl("get", "cm/c", "-o", "json")).out)["data"] == {"b": "2", "c": "3"}


async def test_several_conflicts_are_told_by_manager(kubectl: Kubectl) -> None:
    await kubectl(*ME, stdin=config("{a: '1', b: '2'}"))
    await kubectl("label", "cm/c", "tier=back", "--overwrite")
    answer = await kubectl.run(*OTHER, stdin=config("{a: '9', b: '9'}", tier="middle"))

    assert answer.err.startswith("error: Apply failed with 3 conflicts: conflicts with ")
    for line in ('conflicts with "kubectl":', "- .data.a", "- .data.b", '"kubectl-label" using v1:'):
        assert line in answer.err
    assert "- .metadata.labels.tier" in answer.err


async def test_a_dry_run_changes_nothing(kubectl: Kubectl) -> None:
    await kubectl(*ME, stdin=config("{a: '1'}"))
    answer = await kubectl(*ME, "--dry-run=server", stdin=config("{a: '2'}"))

    assert answer.out == "configmap/c serverside-applied (server dry run)\n"
    assert (await kubectl("get", "cm/c", "-o", "jsonpath={.data.a}")).out == "1"


async def test_a_difference_is_shown(kubectl: Kubectl) -> None:
    await kubectl(*ME, stdin=config("{a: '1'}"))
    same = await kubectl.run("diff", "--server-side", "-f", "-", stdin=config("{a: '1'}"))
    other = await kubectl.run("diff", "--server-side", "-f", "-", stdin=config("{a: '2'}"))

    assert (same.code, same.out) == (0, "")
    assert other.code == 1
    assert {'-  a: "1"', '+  a: "2"'} <= set(other.out.splitlines())


async def test_a_field_that_the_kind_does_not_have_is_told(kubectl: Kubectl) -> None:
    answer = await kubectl.run(*ME, "--validate=false", stdin=APP.replace("replicas: 2", "replicaz: 2"))

    assert answer.code == 1
    assert (
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): "
        ".spec.replicaz: field not declared in schema"
    ) in answer.err


async def test_every_command_owns_what_it_changed(kubectl: Kubectl, tmp_path: Path) -> None:
    await kubectl("create", "-f", "-", stdin=APP)
    await kubectl("scale", "deployment/web", "--replicas=5")
    await kubectl("label", "deployment/web", "extra=yes")
    await kubectl("annotate", "deployment/web", "note=x")
    await kubectl("set", "image", "deployment/web", "server=nginx:2")
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/tier: front/tier: back/' \"$1\"\n")
    editor.chmod(0o755)
    await kubectl("edit", "deployment/web", env={"KUBE_EDITOR": str(editor)})
    await kubectl("patch", "deployment/web", "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":5}}')
    found = await managers(kubectl, "deployment/web")
    container: dict[str, Any] = {"f:containers": {'k:{"name":"server"}': {"f:image": {}}}}

    assert found.pop("kubectl-create/Update")["f:spec"]["f:template"]
    assert found == {
        # `scale` names no manager: it is the program of the user agent.
        f"{Path(kubectl.program).name}/Update/scale": {"f:spec": {"f:replicas": {}}},
        "kubectl-label/Update": {"f:metadata": {"f:labels": {"f:extra": {}}}},
        "kubectl-annotate/Update": {"f:metadata": {"f:annotations": {".": {}, "f:note": {}}}},
        "kubectl-set/Update": {"f:spec": {"f:template": {"f:spec": container}}},
        "kubectl-edit/Update": {"f:metadata": {"f:labels": {"f:tier": {}}}},
        "kubectl-patch/Update/status": {"f:status": {"f:replicas": {}}},
    }


async def test_entries_can_be_stripped(kubectl: Kubectl) -> None:
    await kubectl(*ME, stdin=config("{a: '1'}"))
    await kubectl("patch", "cm/c", "--type=merge", "-p", '{"metadata":{"managedFields":[]}}')
    assert set(await managers(kubectl, "cm/c")) == {"kubectl/Apply"}

    await kubectl("patch", "cm/c", "--type=merge", "-p", '{"metadata":{"managedFields":[{}]}}')
    assert await managers(kubectl, "cm/c") == {}
    refused = await kubectl.run(*ME, stdin=config("{a: '2'}"))
    assert 'conflict with "before-first-apply" using v1: .data.a' in refused.err


async def test_entries_are_hidden_unless_asked_for(kubectl: Kubectl) -> None:
    await kubectl(*ME, stdin=config("{a: '1'}"))

    assert "managedFields" not in (await kubectl("get", "cm/c", "-o", "yaml")).out


async def test_status_is_applied_through_its_subresource_alone(kubectl: Kubectl) -> None:
    await kubectl(*ME, stdin=APP)
    status = '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":9},"status":%s}'
    await kubectl(*ME, "--field-manager=c", "--subresource=status", stdin=status % '{"readyReplicas":1,"replicas":2}')
    await kubectl(*ME, "--field-manager=d", "--force-conflicts", stdin=status % '{"readyReplicas":7}')
    deployment = await kubectl.client.get(DEPLOYMENTS, "web", "default")
    found = await managers(kubectl, "deployment/web")

    assert deployment["status"] == {"readyReplicas": 1, "replicas": 2}
    assert deployment["spec"]["replicas"] == 9
    assert found["c/Apply/status"] == {"f:status": {"f:readyReplicas": {}, "f:replicas": {}}}
    assert found["d/Apply"] == {"f:spec": {"f:replicas": {}}}
