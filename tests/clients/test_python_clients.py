"""Python's Kubernetes clients on a running lab: the official one, kr8s and lightkube, each with its own habits.

What they send that kubectl does not: legacy discovery with trailing slashes (kr8s), bodies without a Content-Type
(kubernetes), text frames on WebSockets and port forwarding without a subprotocol, watches from no revision.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from netemu.lab.paths import LabPaths
from tests.clients.labs import LabKubectl
from tests.cluster.labs import eventually

pytestmark = [  # they leave their sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WHERE = "not installed: `scripts/test clients` does it"
PODS = {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}],
        "terminationGracePeriodSeconds": 0}  # fmt: skip
GATES = Path(__file__).with_name("gates.yaml")
FILE = """
apiVersion: v1
kind: Service
metadata: {name: from-yaml}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: from-yaml}
"""


def pod(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": PODS}


def deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": PODS}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


@pytest.fixture
def config(lab: LabKubectl) -> Iterator[str]:
    """The administrator's kubeconfig; afterwards no Pod is left."""
    yield str(LabPaths(lab.lab).kubeconfig)
    lab("delete", "deployments,pods", "--all", "--now")
    eventually(lambda: not lab.pod_networks(), "the end of all Pods")


# --- kubernetes


@pytest.fixture
def core(config: str) -> Iterator[Any]:
    """The official client's core/v1."""
    kubernetes = pytest.importorskip("kubernetes", reason=WHERE)
    with kubernetes.config.new_client_from_config(config) as client:
        yield kubernetes.client.CoreV1Api(client)


def test_the_official_client_reads_writes_and_watches(core: Any, tmp_path: Path) -> None:
    from kubernetes import client, utils, watch

    apps, file = client.AppsV1Api(core.api_client), tmp_path / "file.yaml"
    file.write_text(FILE)
    assert client.VersionApi(core.api_client).get_code().minor == "32"
    core.create_namespaced_pod("default", pod("official"))
    for event in watch.Watch().stream(core.list_namespaced_pod, "default", timeout_seconds=50):
        if event["object"].metadata.name == "official" and event["object"].status.phase == "Running":
            break
    apps.create_namespaced_deployment("default", deployment("official"))
    image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}}
    patched = apps.patch_namespaced_deployment("official", "default", image)
    json_patch = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    scaled = apps.patch_namespaced_deployment_scale("official", "default", {"spec": {"replicas": 2}})
    made = utils.create_from_yaml(core.api_client, str(file))

    assert [one.image for one in patched.spec.template.spec.containers] == ["nginx:2"]
    assert patched.spec.template.spec.containers[0].ports[0].container_port == 80
    assert apps.patch_namespaced_deployment("official", "default", json_patch).metadata.labels == {"a": "b"}
    assert scaled.spec.replicas == 2
    assert [one.kind for (one,) in made] == ["Service", "ConfigMap"]
    assert core.delete_namespaced_service("from-yaml", "default").metadata.name == "from-yaml"
    assert core.delete_namespaced_pod("official", "default").kind == "Pod"
    apps.delete_namespaced_deployment("official", "default")
    core.delete_namespaced_config_map("from-yaml", "default")
    with pytest.raises(client.exceptions.ApiException) as refused:
        core.read_namespaced_config_map("from-yaml", "default")
    assert (refused.value.status, "not found" in refused.value.body) == (404, True)


def test_the_official_client_applies(core: Any) -> None:
    from kubernetes import dynamic

    typed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "typed"}, "data": {"a": "1"}}
    applied = core.patch_namespaced_config_map(
        "typed", "default", typed, field_manager="tests", _content_type="application/apply-patch+yaml"
    )
    config_maps = dynamic.DynamicClient(core.api_client).resources.get(api_version="v1", kind="ConfigMap")
    other = {**typed, "metadata": {"name": "dynamic"}}
    config_maps.server_side_apply(other, namespace="default", field_manager="tests")
    names = {item.metadata.name for item in config_maps.get(namespace="default").items}

    assert applied.data == {"a": "1"}
    assert applied.metadata.managed_fields[0].operation == "Apply"
    assert names >= {"typed", "dynamic"}


def test_the_official_client_streams(core: Any, lab: LabKubectl) -> None:
    from kubernetes import stream

    core.create_namespaced_pod("default", pod("streams"))
    lab("wait", "--for=condition=Ready", "pod/streams", "--timeout=50s")
    options = {"stdout": True, "stderr": True, "tty": False}
    execute = core.connect_get_namespaced_pod_exec
    once = stream.stream(execute, "streams", "default", command=["echo", "hi"], stdin=False, **options)
    shell = stream.stream(
        execute, "streams", "default", command=["sh"], stdin=True, _preload_content=False, **options
    )  # fmt: skip
    shell.write_stdin("echo one\n")
    said = shell.readline_stdout(timeout=30)
    shell.write_stdin("exit 3\n")
    shell.run_forever(timeout=30)
    forwarded = stream.portforward(core.connect_get_namespaced_pod_portforward, "streams", "default", ports="80")
    connection = forwarded.socket(80)
    connection.setblocking(True)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = connection.recv(4096)
    connection.close()

    assert (once, said, shell.returncode) == ("hi\n", "one", 3)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert core.read_namespaced_pod_log("streams", "default") == "listening on 80/TCP (echo)\n"
    core.delete_namespaced_pod("streams", "default")


# --- kr8s


def test_kr8s(config: str) -> None:
    kr8s = pytest.importorskip("kr8s", reason=WHERE)
    import urllib.request

    from kr8s.objects import Deployment, Pod

    api = kr8s.api(kubeconfig=config)
    one, several = Pod(pod("kr8s"), api=api), Deployment(deployment("kr8s"), api=api)
    one.create()
    one.wait("condition=Ready", timeout=50)
    one.label({"k": "v"})
    one.patch({"metadata": {"annotations": {"x": "y"}}})
    several.create()
    several.scale(2)
    with one.portforward(80) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        status = answer.status

    assert (api.version()["minor"], one.labels, one.annotations["x"], status) == ("32", {"k": "v"}, "y", 200)
    assert several.replicas == 2
    assert "kr8s" in [found.name for found in api.get("pods", namespace="default")]
    assert next(found.name for kind, found in api.watch("deployments", namespace="default")) == "kr8s"
    assert (list(one.logs()), one.exec(["echo", "hi"]).stdout) == (["listening on 80/TCP (echo)"], b"hi\n")
    several.delete()
    one.delete()
    several.wait("delete", timeout=50)


# --- lightkube


def test_lightkube(config: str) -> None:
    lightkube = pytest.importorskip("lightkube", reason=WHERE)
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import ConfigMap, Pod

    client = lightkube.Client(config=lightkube.KubeConfig.from_file(config), field_manager="tests")
    client.create(Pod.from_dict(pod("light")))
    client.create(Deployment.from_dict(deployment("light")))
    client.wait(Pod, "light", for_conditions=["Ready"], namespace="default")
    labelled = client.patch(Pod, "light", {"metadata": {"labels": {"a": "b"}}}, namespace="default")
    meta = ObjectMeta(name="light", namespace="default")
    applied = client.apply(ConfigMap(metadata=meta, data={"a": "1"}))
    scale = Deployment.Scale.from_dict({"metadata": {"name": "light", "namespace": "default"}, "spec": {"replicas": 2}})
    ran = client.exec(
        "light", namespace="default", command=["sh", "-c", "echo hi; exit 7"], stdout=True, raise_on_error=False
    )

    assert (labelled.metadata.labels, applied.data) == ({"a": "b"}, {"a": "1"})
    assert client.replace(scale, name="light", namespace="default").spec.replicas == 2
    assert (ran.stdout, ran.exit_code) == ("hi\n", 7)
    assert "light" in [found.metadata.name for found in client.list(Pod, namespace="*", chunk_size=2)]
    assert next(found.metadata.name for _, found in client.watch(Deployment, namespace="default")) == "light"
    assert list(client.log("light", namespace="default")) == ["listening on 80/TCP (echo)\n"]
    for kind in (Pod, Deployment, ConfigMap):
        client.delete(kind, "light", namespace="default")
    with pytest.raises(lightkube.ApiError, match='configmaps "light" not found'):
        client.get(ConfigMap, "light", namespace="default")


# --- custom resources

HERE = ("edge.example.com", "v1", "default", "gates")


def gate(name: str) -> dict[str, Any]:
    spec = {"className": "nginx", "listeners": [{"name": "web", "port": 80}]}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "edge.example.com/v1", "kind": "Gate", "metadata": metadata, "spec": spec}


@pytest.fixture
def gates(lab: LabKubectl) -> Iterator[None]:
    """Nobody has defined gates, nor has anybody afterwards."""
    yield
    lab("delete", "--ignore-not-found", "crd", "gates.edge.example.com")


def test_the_official_client_defines_and_uses_a_kind(core: Any, gates: None) -> None:
    from kubernetes import client, dynamic, watch

    extensions = client.ApiextensionsV1Api(core.api_client)
    extensions.create_custom_resource_definition(yaml.safe_load(GATES.read_text()))
    for event in watch.Watch().stream(extensions.list_custom_resource_definition, timeout_seconds=50):
        if {one.type: one.status for one in event["object"].status.conditions or ()}.get("Established") == "True":
            break
    custom = client.CustomObjectsApi(core.api_client)
    made = custom.create_namespaced_custom_object(*HERE, gate("official"))
    with pytest.raises(client.ApiException) as refused:
        custom.create_namespaced_custom_object(*HERE, {**gate("bad"), "spec": {"className": "x"}})
    custom.patch_namespaced_custom_object(*HERE, "official", {"spec": {"className": "envoy"}})
    custom.patch_namespaced_custom_object_scale(*HERE, "official", {"spec": {"replicas": 4}})
    custom.patch_namespaced_custom_object_status(*HERE, "official", {"status": {"replicas": 4}})
    found = custom.list_namespaced_custom_object(*HERE)["items"][0]
    kind = dynamic.DynamicClient(core.api_client).resources.get(api_version="edge.example.com/v1", kind="Gate")

    assert made["spec"]["listeners"][0]["protocol"] == "HTTP"
    assert refused.value.status == 422
    assert (found["spec"]["className"], found["spec"]["replicas"], found["status"]) == ("envoy", 4, {"replicas": 4})
    assert kind.get(name="official", namespace="default").spec.className == "envoy"


def test_kr8s_and_lightkube_use_a_kind(config: str, lab: LabKubectl, gates: None) -> None:
    kr8s = pytest.importorskip("kr8s", reason=WHERE)
    lightkube = pytest.importorskip("lightkube", reason=WHERE)
    from kr8s.objects import new_class
    from lightkube.generic_resource import create_namespaced_resource

    lab("apply", "-f", str(GATES))
    lab("wait", "--for=condition=Established", "crd/gates.edge.example.com")
    api = kr8s.api(kubeconfig=config)
    kind = new_class("Gate", "edge.example.com/v1", namespaced=True, asyncio=False)
    made = kind(gate("kr8s"), api=api)
    made.create()
    made.patch({"spec": {"className": "envoy"}})
    client = lightkube.Client(config=lightkube.KubeConfig.from_file(config), field_manager="tests")
    typed = create_namespaced_resource("edge.example.com", "v1", "Gate", "gates")
    applied = client.apply(typed(gate("lightkube")))

    assert kind.get("kr8s", namespace="default", api=api).spec.className == "envoy"
    assert applied.spec["listeners"][0]["port"] == 80
    assert sorted(one.metadata.name for one in client.list(typed, namespace="default")) == ["kr8s", "lightkube"]
