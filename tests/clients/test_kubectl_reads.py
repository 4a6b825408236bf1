"""What kubectl shows: versions, discovery, tables, documents, descriptions."""

from __future__ import annotations

import json

import pytest

from netemu.model.resources import NODES, PODDISRUPTIONBUDGETS, PODS
from tests.clients.apiserver import Kubectl, find_kubectl
from tests.clients.manifests import APP, NODE


async def test_the_server_says_that_it_is_kubernetes_1_32(kubectl: Kubectl) -> None:
    answer = json.loads((await kubectl("version", "-o", "json")).out)

    assert (answer["serverVersion"]["major"], answer["serverVersion"]["minor"]) == ("1", "32")


async def test_api_resources_lists_short_names_and_scopes(kubectl: Kubectl) -> None:
    rows = (await kubectl("api-resources")).rows

    assert ["deployments", "deploy", "apps/v1", "true", "Deployment"] in rows
    assert ["nodes", "no", "v1", "false", "Node"] in rows


async def test_services_are_printed_with_upstreams_columns(kubectl: Kubectl) -> None:
    rows = (await kubectl("get", "services", "-A", "-o", "wide")).rows

    assert rows[0] == ["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert rows[1][:6] == ["default", "kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP"]


async def test_get_all_covers_the_usual_kinds(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)
    await kubectl("run", "one", "--image=nginx")

    names = {row[0] for row in (await kubectl("get", "all")).rows if row}

    assert names >= {"pod/one", "service/web", "service/kubernetes", "deployment.apps/web"}


async def test_objects_print_as_yaml_json_name_and_jsonpath(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP)

    yaml = (await kubectl("get", "deployment", "web", "-o", "yaml")).out
    image = (await kubectl("get", "deploy/web", "-o", "jsonpath={.spec.template.spec.containers[0].image}")).out
    name = (await kubectl("get", "deploy", "-l", "tier=front", "-o", "name")).out

    assert "kind: Deployment" in yaml
    assert (image, name) == ("nginx", "deployment.apps/web\n")


async def test_field_and_label_selectors_narrow_a_list(kubectl: Kubectl) -> None:
    for name in ("one", "two"):
        await kubectl("run", name, "--image=nginx", f"--labels=which={name}")

    by_label = (await kubectl("get", "pods", "-l", "which in (two,three)", "-o", "name")).out
    by_field = (await kubectl("get", "pods", "--field-selector=metadata.name!=two", "-o", "name")).out

    assert (by_label, by_field) == ("pod/two\n", "pod/one\n")


async def test_a_list_comes_in_pages(kubectl: Kubectl) -> None:
    rows = (await kubectl("get", "namespaces", "--chunk-size=1")).rows

    assert [row[0] for row in rows] == ["NAME", "default", "kube-node-lease", "kube-public", "kube-system"]


async def test_explain_reads_the_openapi_document(kubectl: Kubectl) -> None:
    answer = await kubectl("explain", "pod.spec.dnsPolicy")

    assert "FIELD: dnsPolicy <string>" in answer.out
    assert "ClusterFirstWithHostNet" in answer.out


@pytest.mark.parametrize("minor", [27, 32, 33])
async def test_explain_reads_openapi_v2_too(kubectl: Kubectl, minor: int) -> None:
    kubectl = kubectl.as_program(find_kubectl(minor))

    ports = (await kubectl("explain", "service.spec.ports", "--output=plaintext-openapiv2")).out
    every = (await kubectl("explain", "deployment", "--recursive", "--output=plaintext-openapiv2")).out

    assert "targetPort\t<string>" in ports
    assert "The port that will be exposed by this service." in ports
    assert "port\t<integer> -required-" in ports
    assert "matchLabels\t<map[string]string>" in every


async def test_explain_shows_no_made_up_enums(kubectl: Kubectl) -> None:
    assert "enum" not in (await kubectl("explain", "pod.apiVersion")).out


async def test_describe_pod_shows_status_and_events(kubectl: Kubectl) -> None:
    await kubectl("run", "one", "--image=nginx")
    pod = json.loads((await kubectl("get", "pod", "one", "-o", "json")).out)
    about = {"kind": "Pod", "namespace": "default", "name": "one", "uid": pod["metadata"]["uid"], "apiVersion": "v1"}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "one.1", "namespace": "default"},
        "involvedObject": about,
        "reason": "FailedScheduling",
        "message": "0/0 nodes are available",
        "type": "Warning",
        "source": {"component": "default-scheduler"},
        "firstTimestamp": pod["metadata"]["creationTimestamp"],
        "lastTimestamp": pod["metadata"]["creationTimestamp"],
        "count": 1,
    }
    await kubectl("create", "-f", "-", stdin=json.dumps(event))

    described = (await kubectl("describe", "pod", "one")).out

    assert "Status:           Pending" in described
    assert "0/0 nodes are available" in described


async def test_describe_works_for_services_nodes_and_deployments(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=APP + "---" + NODE)

    assert "TargetPort:               80/TCP" in (await kubectl("describe", "service", "web")).out
    assert "Roles:              control-plane" in (await kubectl("describe", "node", "node-1")).out
    assert "2 desired" in (await kubectl("describe", "deployment", "web")).out


async def test_a_pods_status_word_follows_its_containers(kubectl: Kubectl) -> None:
    await kubectl("run", "one", "--image=nginx")
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"name": "one", "image": "nginx", "imageID": "", "ready": False, "restartCount": 4, "state": waiting}
    status = {
        "phase": "Running",
        "containerStatuses": [container],
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}],
    }
    await kubectl.client.patch(PODS, "one", {"status": status}, "default", subresource="status")

    row = (await kubectl("get", "pod", "one", "-o", "wide")).rows[1]

    assert row[:4] == ["one", "0/1", "CrashLoopBackOff", "4"]
    assert row[5] == "10.244.1.2"


async def test_nodes_show_readiness_roles_and_cordon(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=NODE)
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    await kubectl.client.patch(NODES, "node-1", {"status": {"conditions": [ready]}}, subresource="status")
    await kubectl("cordon", "node-1")
    await kubectl("taint", "node", "node-1", "key=value:NoSchedule")

    row = (await kubectl("get", "nodes")).rows[1]
    taints = (await kubectl("get", "node", "node-1", "-o", "jsonpath={.spec.taints}")).out

    assert row[:3] == ["node-1", "Ready,SchedulingDisabled", "control-plane"]
    assert {"effect": "NoSchedule", "key": "key", "value": "value"} in json.loads(taints)


async def test_who_am_i_and_may_i(kubectl: Kubectl) -> None:
    whoami = (await kubectl("auth", "whoami", "-o", "json")).out
    allowed = (await kubectl("auth", "can-i", "delete", "pods")).out

    user = json.loads(whoami)["status"]["userInfo"]
    assert user["username"] == "kubernetes-admin"
    assert {"system:masters", "netemu:testers", "system:authenticated"} == set(user["groups"])
    assert allowed == "yes\n"


async def test_raw_paths_are_served(kubectl: Kubectl) -> None:
    healthy = (await kubectl("get", "--raw", "/readyz?verbose")).out
    missing = await kubectl.run("get", "--raw", "/apis/nowhere.example/v1/things")

    assert healthy.endswith("readyz check passed\n")
    assert (missing.code, "could not find the requested resource" in missing.err) == (1, True)


async def test_a_missing_object_is_named(kubectl: Kubectl) -> None:
    answer = await kubectl.run("get", "deployment", "nope")

    assert answer.err == 'Error from server (NotFound): deployments.apps "nope" not found\n'


async def test_a_disruption_budget_is_printed_described_and_explained(kubectl: Kubectl) -> None:
    await kubectl("create", "pdb", "web", "--selector=app=web", "--max-unavailable=1")
    status = {"status": {"disruptionsAllowed": 2, "currentHealthy": 4, "desiredHealthy": 2, "expectedPods": 4}}
    await kubectl.client.patch(PODDISRUPTIONBUDGETS, "web", status, "default", subresource="status")
    described = (await kubectl("describe", "pdb", "web")).out

    assert (await kubectl("get", "pdb")).rows[1][:-1] == ["web", "N/A", "1", "2"]
    assert "Allowed disruptions:  2" in described
    assert "Selector:         app=web" in described
    assert "unhealthyPodEvictionPolicy" in (await kubectl("explain", "pdb.spec")).out
    assert "policy/v1" in (await kubectl("api-versions")).out
