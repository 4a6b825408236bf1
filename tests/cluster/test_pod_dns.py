"""DNS as Pods have it: their files, their hostnames, and the DNS rows of Kubernetes' conformance tests, on one lab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from netemu.model.resources import EVENTS, PODS, SERVICES
from tests.cluster.labs import api, eventually, netemu, run, up

LAB = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: pod-dns}
spec:
  nodes: [{name: one}, {name: two}]
  clients:
    - name: shop
      names: [www.example.com, api.example.com]
---
apiVersion: v1
kind: Pod
metadata: {name: querier, labels: {app: querier}}
spec:
  runtimeClassName: process
  hostname: q
  subdomain: sub
  hostAliases:
    - {ip: 192.0.2.7, hostnames: [foo.local, bar.local]}
    - {ip: 192.0.2.8, hostnames: [foo.remote]}
  containers: [{name: c, image: c, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: fully, labels: {app: fully}}
spec:
  runtimeClassName: process
  hostname: f
  subdomain: named
  setHostnameAsFQDN: true
  containers: [{name: c, image: c, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: custom}
spec:
  runtimeClassName: process
  dnsPolicy: None
  dnsConfig:
    nameservers: [10.96.0.10]
    searches: [a, b, c, d, e, f, g, ., _tcp.web.default.svc.cluster.local]
    options: [{name: ndots, value: "2"}, {name: edns0}]
  containers: [{name: c, image: c, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: on-node}
spec:
  runtimeClassName: process
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  hostname: ignored
  hostAliases: [{ip: 192.0.2.7, hostnames: [foo.local]}]
  containers: [{name: c, image: c, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: named}
spec:
  clusterIP: None
  selector: {app: fully}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: c, image: web, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.7.7
  selector: {app: web}
  ports: [{name: http, port: 80}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with up("t-pod-dns", LAB, tmp_path_factory.mktemp("pod-dns")) as name:
        yield name


def inside(lab: str, pod: str, *command: str) -> str:
    return netemu("exec", "--lab", lab, pod, "--", *command)


def dig(lab: str, pod: str, name: str, *words: str) -> Any:
    return json.loads(run("dig", "--lab", lab, pod, name, *words, "-o", "json").stdout)["result"]


def address(lab: str, pod: str) -> str:
    return str(api(lab).get(PODS, pod, "default")["status"]["podIP"])


SEARCH = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
HOSTS = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
)


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ("querier", SEARCH),
        ("on-node", SEARCH),
        (
            "custom",
            "search a b c d e f g . _tcp.web.default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:2 edns0\n",
        ),
    ],
)
def test_resolver_files(lab: str, pod: str, expected: str) -> None:
    assert expected == inside(lab, pod, "cat", "/etc/resolv.conf")


def test_the_hosts_file_of_a_pod_line_by_line(lab: str) -> None:
    own = f"{address(lab, 'querier')}\tq.sub.default.svc.cluster.local\tq\n"
    aliases = "\n# Entries added by HostAliases.\n192.0.2.7\tfoo.local\tbar.local\n192.0.2.8\tfoo.remote\n"

    text = inside(lab, "querier", "cat", "/etc/hosts")

    assert text == f"# Kubernetes-managed hosts file.\n{HOSTS}{own}{aliases}"


def test_a_pod_on_its_nodes_network_has_the_nodes_names(lab: str) -> None:
    text = inside(lab, "on-node", "cat", "/etc/hosts")
    node = api(lab).get(PODS, "on-node", "default")["spec"]["nodeName"]

    assert text.startswith("# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n")
    assert text.endswith("\n\n# Entries added by HostAliases.\n192.0.2.7\tfoo.local\n")
    assert inside(lab, "on-node", "uname", "-n") == f"{node}\n"


@pytest.mark.parametrize(
    ("pod", "kernel", "full"),
    [
        ("querier", "q", "q.sub.default.svc.cluster.local"),
        ("fully", "f.named.default.svc.cluster.local", "f.named.default.svc.cluster.local"),
        ("custom", "custom", "custom"),
    ],
)
def test_hostnames(lab: str, pod: str, kernel: str, full: str) -> None:
    said = inside(lab, pod, "sh", "-c", "uname -n; cat /etc/hostname; hostname -f")

    assert said.splitlines() == [kernel, kernel, full]


def test_its_own_full_name_is_known_to_a_pod_alone_unless_a_service_makes_it_known(lab: str) -> None:
    own, other = "q.sub.default.svc.cluster.local", "f.named.default.svc.cluster.local"

    assert inside(lab, "querier", "getent", "ahostsv4", own).split()[0] == address(lab, "querier")
    assert dig(lab, "querier", own)["source"] != "dns"
    assert dig(lab, "fully", own)["status"] == "not found"
    assert dig(lab, "querier", other, "A")["addresses"] == [address(lab, "fully")]


@pytest.mark.parametrize("alias", ["foo.local", "bar.local", "foo.remote"])
def test_aliases_are_resolved(lab: str, alias: str) -> None:
    expected = "192.0.2.8" if alias == "foo.remote" else "192.0.2.7"

    assert inside(lab, "querier", "getent", "hosts", alias).split()[0] == expected


@pytest.mark.parametrize("words", [[], ["+tcp"]], ids=["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("web", "A", "10.96.7.7"),
        ("web.default", "A", "10.96.7.7"),
        ("web.default.svc", "A", "10.96.7.7"),
        ("web.default.svc.cluster.local", "A", "10.96.7.7"),
        ("kubernetes.default.svc.cluster.local.", "A", "10.96.0.1"),
        ("_http._tcp.web.default.svc", "SRV", "0 100 80 web.default.svc.cluster.local."),
        ("_http._tcp.web.default.svc.cluster.local", "SRV", "0 100 80 web.default.svc.cluster.local."),
        ("10.96.7.7", "PTR", "web.default.svc.cluster.local."),
    ],
)
def test_services_by_full_and_partial_names(lab: str, name: str, kind: str, answer: str, words: list[str]) -> None:
    found = dig(lab, "querier", name, kind, *words)

    assert [line.split("\t", 4)[-1].replace("\t", " ") for line in found["answers"]] == [answer]


def test_search_paths_may_be_many_and_have_underscores(lab: str) -> None:
    assert dig(lab, "custom", "_http", "SRV")["name"] == "_http._tcp.web.default.svc.cluster.local."
    assert inside(lab, "custom", "getent", "ahostsv4", "web.default.svc.cluster.local").split()[0] == "10.96.7.7"


def test_an_external_name_changes_and_becomes_a_cluster_ip_and_back(lab: str) -> None:
    def service(**spec: Any) -> None:
        api(lab).merge_patch(SERVICES, "changing", {"spec": spec}, "default")

    def becomes(*addresses: str) -> None:
        eventually(
            lambda: dig(lab, "querier", "changing.default.svc.cluster.local.", "A")["addresses"] == list(addresses),
            f"changing at {addresses}",
        )

    spec = {"type": "ExternalName", "externalName": "www.example.com"}
    api(lab).create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "changing"}, "spec": spec},
                    "default")  # fmt: skip
    becomes("203.0.113.10")
    found = dig(lab, "querier", "changing.default.svc.cluster.local.", "CNAME")
    assert found["answers"][0].endswith("www.example.com.")

    service(externalName="api.example.com")
    eventually(
        lambda: "api.example.com." in dig(lab, "querier", "changing.default.svc.cluster.local.", "CNAME")["answers"][0],
        "the other name",
    )

    service(type="ClusterIP", externalName=None, clusterIP="10.96.7.8", ports=[{"name": "http", "port": 80}])
    becomes("10.96.7.8")

    service(type="ExternalName", externalName="www.example.com", clusterIP=None, clusterIPs=None, ports=None)
    becomes("203.0.113.10")


def test_a_full_name_that_is_too_long_keeps_a_pod_from_starting(lab: str) -> None:
    spec = {
        "hostname": "h" * 60, "subdomain": "named", "setHostnameAsFQDN": True,
        "containers": [{"name": "c", "image": "pause"}],
    }  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "too-long"}, "spec": spec}
    api(lab).create(PODS, pod, "default")

    said = eventually(
        lambda: [e["message"] for e in api(lab).list(EVENTS, "default")[0] if e["reason"] == "FailedCreatePodSandBox"],
        "the event",
    )
    assert "is too long (64 characters is the max, 92 characters requested)" in said[0]
    assert api(lab).get(PODS, "too-long", "default")["status"]["phase"] == "Pending"
