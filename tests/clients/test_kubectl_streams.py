"""kubectl's verbs that carry streams: logs, exec, cp, attach, port-forward and the proxies, on a running lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.apiserver import find_kubectl
from tests.clients.labs import LabKubectl
from tests.cluster.labs import eventually, netemu, run

TOPOLOGY = Path(__file__).with_name("streams.yaml")

LATE = """
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  containers: [{name: main, image: nginx, envFrom: [{configMapRef: {name: missing}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: homeless}
spec:
  nodeSelector: {there: is-none}
  containers: [{name: main, image: nginx}]
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabKubectl]:
    """kubectl as the administrator of the lab in streams.yaml."""
    ready = LabKubectl("t-streams", find_kubectl(), tmp_path_factory.mktemp("streams") / "cache")
    netemu("up", str(TOPOLOGY))
    ready("apply", "-f", "-", stdin=LATE)
    ready("wait", "--for=jsonpath={.status.containerStatuses[0].state.running}", "pod/talker", "--timeout=20s")
    yield ready
    run("down", "t-streams")


# --- logs


def test_logs_show_both_outputs_of_a_container(kubectl: LabKubectl) -> None:
    assert sorted(kubectl("logs", "talker", "-c", "main").splitlines()) == ["line 1", "line 2", "line 3", "oops"]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("--limit-bytes=6",), "line 1"),
        (("--since-time=2040-01-01T00:00:00Z",), ""),
        (("--tail=0",), ""),
        (("--since=1h", "--tail=-1", "--limit-bytes=14"), "line 1\nline 2\n"),
    ],
)
def test_options_cut_a_log(kubectl: LabKubectl, options: tuple[str, ...], shown: str) -> None:
    assert kubectl("logs", "talker", "-c", "main", *options) == shown


def test_tail_and_timestamps(kubectl: LabKubectl) -> None:
    said = kubectl("logs", "talker", "-c", "first", "--tail=1", "--timestamps").split()

    assert said[1:] == ["prepared"]
    assert said[0].startswith("20")


def test_logs_of_all_containers_by_label(kubectl: LabKubectl) -> None:
    said = kubectl("logs", "-l", "app=talker", "--all-containers", "--prefix", "--tail=1").splitlines()

    assert {line.split()[0] for line in said} == {"[pod/talker/main]", "[pod/talker/first]", "[pod/talker/fails]"}


def test_the_previous_attempt(kubectl: LabKubectl) -> None:
    def ended() -> bool:
        return kubectl.run("logs", "talker", "-c", "fails", "-p").returncode == 0

    eventually(ended, "a previous attempt")
    assert kubectl("logs", "talker", "-c", "fails", "-p") == "attempt\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("talker", "-c", "none"), "container none is not valid for pod talker"),
        (("talker", "-c", "main", "-p"), 'previous terminated container "main" in pod "talker" not found'),
        (("waits",), 'container "main" in pod "waits" is waiting to start: CreateContainerConfigError'),
        (("nobody",), 'pods "nobody" not found'),
    ],
)
def test_a_log_that_is_not_there(kubectl: LabKubectl, arguments: tuple[str, ...], why: str) -> None:
    def refused() -> bool:
        done = kubectl.run("logs", *arguments)
        return done.returncode == 1 and why in done.stderr

    eventually(refused, why)


def test_a_pod_without_a_node_has_an_empty_log(kubectl: LabKubectl) -> None:
    assert kubectl("logs", "homeless") == ""


def test_a_followed_log_grows_and_ends_with_its_container(kubectl: LabKubectl) -> None:
    with kubectl.start("logs", "-f", "counter") as following:
        assert following.stdout is not None
        first = [following.stdout.readline() for _ in range(3)]

        netemu("exec", "--lab", "t-streams", "counter", "--", "touch", "/tmp/enough")
        rest = following.stdout.read()

    assert first == ["1\n", "2\n", "3\n"]
    assert rest.splitlines() == [str(number) for number in range(4, 4 + len(rest.splitlines()))]
    assert following.returncode == 0


# --- proxies


def test_the_proxies_of_pods_and_services(kubectl: LabKubectl) -> None:
    kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    eventually(lambda: kubectl.endpoints("web"), "an endpoint of web")

    for path in ("pods/web/proxy", "pods/web:80/proxy", "services/web:http/proxy", "services/web:8080/proxy"):
        said = json.loads(kubectl("get", "--raw", f"/api/v1/namespaces/default/{path}/a/b/?q=1"))
        assert (said["pod"], said["path"]) == ("web", "/a/b/?q=1")


def test_the_proxy_of_a_node_leads_to_its_kubelet(kubectl: LabKubectl) -> None:
    pods = json.loads(kubectl("get", "--raw", "/api/v1/nodes/east/proxy/pods"))["items"]

    assert "web" in {pod["metadata"]["name"] for pod in pods}


def test_a_service_without_endpoints_cannot_be_proxied(kubectl: LabKubectl) -> None:
    kubectl("create", "service", "clusterip", "empty", "--tcp=80")
    done = kubectl.run("get", "--raw", "/api/v1/namespaces/default/services/empty:80/proxy/")

    assert (done.returncode, "no endpoints available for service" in done.stderr) == (1, True)
