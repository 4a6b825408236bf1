"""Manifests from the wild on a running lab: what kubectl then shows, and what packets then do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.labs import LabKubectl
from tests.cluster.labs import eventually

MANIFEST = Path(__file__).with_name("wild.yaml")

PLAIN = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain}
spec:
  selector: {matchLabels: {app: plain}}
  template:
    metadata: {labels: {app: plain}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: nginx, image: nginx}]}
"""


@pytest.fixture(scope="module")
def wild(lab: LabKubectl) -> LabKubectl:
    """The manifest applied in the namespace `wild`, and everything ready that can be."""
    lab("create", "namespace", "wild")
    inside = lab.within("wild")
    inside("apply", "-f", str(MANIFEST))
    inside("rollout", "status", "deployment/web", "--timeout=20s")
    inside("wait", "--for=condition=Ready", "pod", "-l", "app in (web, db, clock, files)", "--timeout=20s")
    inside("wait", "--for=condition=Ready", "pod", "client", "on-node", "--timeout=20s")
    inside.follows("web", "app=web", 2)
    return inside


@pytest.fixture
def plain(wild: LabKubectl) -> Iterator[LabKubectl]:
    """A Deployment of nginx that declares no ports."""
    wild("apply", "-f", "-", stdin=PLAIN)
    wild("rollout", "status", "deployment/plain", "--timeout=20s")
    yield wild
    wild("delete", "deployment,service", "plain", "--ignore-not-found", "--cascade=foreground")
    eventually(lambda: not any("plain" in name for name in wild.pod_networks()), "no networks of plain")


def pod(wild: LabKubectl, name: str) -> Any:
    return wild.get("pod", name)


# --- what applying says


def test_a_second_apply_changes_nothing(wild: LabKubectl) -> None:
    before = pod(wild, "files")["metadata"]["resourceVersion"]
    said = dict(line.split() for line in wild("apply", "-f", str(MANIFEST)).splitlines())

    # kubectl sends the order of a bare Pod's own volumes again, now that it has one more: the token's.
    assert said.pop("pod/files") in ("configured", "unchanged")
    assert set(said.values()) == {"unchanged"}
    assert pod(wild, "files")["metadata"]["resourceVersion"] == before
    assert wild.run("diff", "-f", str(MANIFEST)).returncode == 0


def test_waiting_for_what_is_so_already_returns_at_once(wild: LabKubectl) -> None:
    said = wild("wait", "--for=jsonpath={.status.readyReplicas}=2", "deployment/web", "--timeout=5s")

    assert said == "deployment.apps/web condition met\n"


# --- Services and packets


def test_a_named_target_port_leads_to_every_pod_with_the_clients_address(wild: LabKubectl) -> None:
    result = wild.probe("client", "web:80", count=60)

    assert (result["answered"], len(result["servers"])) == (60, 2)
    assert result["sources"] == {pod(wild, "client")["status"]["podIP"]: 60}


def test_the_second_port_of_a_service_leads_to_the_second_port_of_its_pods(wild: LabKubectl) -> None:
    address = f"http://{wild.field('service', 'web', path='.spec.clusterIP')}:9000/"
    answer = json.loads(wild.exec("client", "curl", "-sf", address))

    assert answer["port"] == 9090


def test_datagrams_reach_a_udp_service(wild: LabKubectl) -> None:
    result = wild.probe("client", "clock:1123", "--udp", count=5)

    assert result["servers"] == {"clock": 5}


@pytest.mark.parametrize("node", ["control-plane", "worker-1", "worker-2"])
def test_every_nodes_port_leads_in_from_outside_masqueraded(wild: LabKubectl, node: str) -> None:
    address = wild.field("node", node, path='.status.addresses[?(@.type=="InternalIP")].address')

    result = wild.probe("client/laptop", f"{address}:30180", count=10)

    gateways = {source for source in result["sources"] if source.startswith("10.244.")}
    assert result["answered"] == 10
    assert set(result["sources"]) - gateways <= {address}


def test_a_headless_services_name_is_its_pods_addresses(wild: LabKubectl) -> None:
    found = wild.resolve("client", "web-peers")

    assert set(found["addresses"]) == wild.addresses("app=web")
    assert wild.field("service", "web-peers", path=".spec.clusterIP") == "None"


def test_an_external_name_leads_to_what_it_names(wild: LabKubectl) -> None:
    result = wild.probe("client", "elsewhere:80", count=4)

    assert result["addresses"] == {wild.field("service", "web", path=".spec.clusterIP"): 4}
    assert result["answered"] == 4


def test_hostname_and_subdomain_make_a_name(wild: LabKubectl) -> None:
    full = "primary.db.wild.svc.cluster.local"

    assert wild.exec("db-0", "hostname", "-f").strip() == full
    assert wild.resolve("client", "primary.db")["addresses"] == [pod(wild, "db-0")["status"]["podIP"]]
    assert wild.probe("client", f"{full}:6379")["servers"] == {"db-0": 1}


def test_a_pod_that_reaches_itself_through_its_service_sees_its_gateway(wild: LabKubectl) -> None:
    name = wild.field("pods", "-l", "app=web", path=".items[0].metadata.name")
    own = pod(wild, name)["status"]["podIP"]

    result = wild.probe(name, "web:80", count=40)

    gateway = own.rpartition(".")[0] + ".1"
    assert result["answered"] == 40
    assert result["sources"] == {own: 40 - result["servers"][name], gateway: result["servers"][name]}


def test_a_pod_on_the_nodes_network_has_the_nodes_address(wild: LabKubectl) -> None:
    status = pod(wild, "on-node")["status"]

    assert status["podIP"] == status["hostIP"]
    assert wild.probe("client", f"{status['hostIP']}:8088")["servers"] == {"on-node": 1}
    assert f"{wild.lab}.pod.wild.on-node" not in wild.pod_networks()


def test_a_deployment_without_ports_can_be_exposed(plain: LabKubectl) -> None:
    refused = plain.run("expose", "deployment", "plain")
    plain("expose", "deployment", "plain", "--port=80")
    plain.follows("plain", "app=plain", 1)

    assert "couldn't find port via --port flag or introspection" in refused.stderr
    assert plain.probe("client", "plain:80", count=3)["answered"] == 3


# --- containers


def test_every_container_of_a_pod_answers_on_its_port_after_the_init_container(wild: LabKubectl) -> None:
    status = pod(wild, "db-0")["status"]
    answered = [wild.probe("client", f"{status['podIP']}:{port}")["answered"] for port in (6379, 9121)]

    assert answered == [1, 1]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert wild("get", "pod", "db-0", "--no-headers").split()[:3] == ["db-0", "2/2", "Running"]


def test_a_real_command_sees_its_environment_and_its_volume(wild: LabKubectl) -> None:
    address = pod(wild, "files")["status"]["podIP"]

    assert wild.exec("client", "curl", "-sf", "http://files/") == f"hello from {address}\n"
    assert wild.exec("client", "curl", "-sf", "http://files/motd") == "first line\nsecond line\n"


def test_exec_in_an_emulated_container_has_its_environment_and_its_volumes(wild: LabKubectl) -> None:
    name = wild.field("pods", "-l", "app=web", path=".items[0].metadata.name")

    said = wild.exec(name, "sh", "-c", "echo $GREETING $HOSTNAME; cat /etc/shop/motd; touch /etc/shop/x || echo no")

    assert said == f"hello {name}\nfirst line\nsecond line\nno\n"


def test_a_command_that_fails_is_restarted_ever_later(wild: LabKubectl) -> None:
    def waiting() -> Any:
        status = pod(wild, "broken")["status"]["containerStatuses"][0]
        return status if status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff" else None

    status = eventually(waiting, "CrashLoopBackOff")

    uid = wild.field("pod", "broken", path=".metadata.uid")
    assert "restarting failed container=job pod=broken_wild(" in status["state"]["waiting"]["message"]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert f"Back-off restarting failed container job in pod broken_wild({uid})" in wild("describe", "pod", "broken")


def test_an_image_that_is_always_to_be_pulled_runs(wild: LabKubectl) -> None:
    containers = [
        status
        for one in wild.get("pods", "-l", "app=web")["items"]
        for status in one["status"]["containerStatuses"]
        if one["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    ]

    assert [(c["image"], c["ready"]) for c in containers] == [("docker.io/library/nginx:1.27", True)] * 2


# --- not ready, not scheduled


def test_a_pod_whose_readiness_probe_fails_gets_no_connections(wild: LabKubectl) -> None:
    address = pod(wild, "cold")["status"]["podIP"]
    subset = wild.get("endpoints", "cold")["subsets"][0]
    slices = wild.get("endpointslices", "-l", "kubernetes.io/service-name=cold")["items"]

    conditions = slices[0]["endpoints"][0]["conditions"]
    assert ([a["ip"] for a in subset["notReadyAddresses"]], subset.get("addresses")) == ([address], None)
    assert (conditions["ready"], conditions["serving"]) == (False, False)
    assert wild.probe("client", "cold:80", count=3)["errors"] == {"refused": 3}
    assert wild("get", "pod", "cold", "--no-headers").split()[1:3] == ["0/1", "Running"]


def test_a_failing_probe_is_told_with_what_was_asked(wild: LabKubectl) -> None:
    address = pod(wild, "cold")["status"]["podIP"]
    said = f'Readiness probe failed: Get "http://{address}:8079/nowhere": dial tcp {address}:8079: connect: connection'

    assert eventually(lambda: said in wild("describe", "pod", "cold"), "the event Unhealthy")


def test_a_pod_that_fits_nowhere_stays_pending_and_says_why(wild: LabKubectl) -> None:
    text = wild.field("pod", "homeless", path='.status.conditions[?(@.type=="PodScheduled")].message')

    assert text == (
        "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
        "2 node(s) didn't match Pod's node affinity/selector. "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    events = wild("get", "events", "--field-selector=involvedObject.name=homeless,reason=FailedScheduling")
    assert text in events
    assert wild("get", "pod", "homeless", "-o", "wide", "--no-headers").split()[1:3] == ["0/1", "Pending"]


# --- what is shown


def test_describe_pod_has_its_sections_and_its_events_in_order(wild: LabKubectl) -> None:
    shown = wild("describe", "pod", "db-0")

    for line in ("Init Containers:", "Conditions:", "QoS Class: ", "Tolerations:", "Events:"):
        assert line in shown
    told = [line.split()[1] for line in shown.partition("Events:\n")[2].splitlines()[2:]]
    assert told == ["Scheduled", *["Pulled", "Created", "Started"] * 3]


def test_describe_service_names_ports_and_endpoints(wild: LabKubectl) -> None:
    lines = [line.split() for line in wild("describe", "service", "web").splitlines()]

    endpoints = [set(line[1].split(",")) for line in lines if line[0] == "Endpoints:"]
    assert [line[1:] for line in lines if line[0] == "Port:"] == [["http", "80/TCP"], ["metrics", "9000/TCP"]]
    assert endpoints == [{f"{ip}:{port}" for ip in wild.addresses("app=web")} for port in (8080, 9090)]


def test_describe_node_lists_the_pods_that_run_there(wild: LabKubectl) -> None:
    status = pod(wild, "files")
    shown = wild("describe", "node", status["spec"]["nodeName"])

    pods = shown.partition("Non-terminated Pods:")[2].partition("Allocated resources:")[0]
    for line in ("Ready            True", "PodCIDR:  ", "Kubelet Version:            v1.32.", "Lease:"):
        assert line in shown
    assert "files" in pods.split()


def test_endpoints_are_printed_as_upstream_prints_them(wild: LabKubectl) -> None:
    rows = {row[0]: row[1:-1] for row in map(str.split, wild("get", "endpoints").splitlines())}

    assert rows["db"] == [f"{pod(wild, 'db-0')['status']['podIP']}:6379"]
    assert rows["cold"] == []
    assert rows["web"][1:] == ["+", "1", "more..."]


def test_every_kind_of_a_lab_is_among_the_api_resources(wild: LabKubectl) -> None:
    names = set(wild("api-resources", "--verbs=list,watch", "-o", "name").split())

    assert {"pods", "services", "endpoints", "deployments.apps", "endpointslices.discovery.k8s.io"} <= names
