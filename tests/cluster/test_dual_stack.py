"""A lab of both IP families, by the commands of topologies/dual-stack.yaml; and one of IPv6 alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.model.resources import ENDPOINTSLICES, NODES, PODS, SERVICES
from tests.clients.apiserver import find_kubectl
from tests.clients.labs import LabKubectl
from tests.cluster.labs import ROOT, api, eventually, host_network, netemu, netemu_json, run

LAB = "t-dual"
MODES = ("iptables", "nftables")
NODE_ADDRESSES = ("fc00:f853:ccd:e793::2", "fc00:f853:ccd:e793::3", "fc00:f853:ccd:e793::4")
OWN = """
apiVersion: v1
kind: Service
metadata: {name: own}
spec:
  ipFamilyPolicy: POLICY
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"""


@pytest.fixture(scope="module")
def lab(host_before: dict[str, str]) -> Iterator[str]:
    """topologies/dual-stack.yaml, up; its name."""
    try:
        netemu("up", str(ROOT / "topologies/dual-stack.yaml"), "--name", LAB)
        yield LAB
    finally:
        run("down", LAB)


@pytest.fixture(scope="module", params=MODES)
def mode(lab: str, request: pytest.FixtureRequest) -> str:
    """All nodes in one mode of kube-proxy after the other."""
    netemu("proxy-mode", "--lab", lab, "all", request.param)
    return str(request.param)


@pytest.fixture
def kubectl(lab: str, tmp_path: Path) -> LabKubectl:
    return LabKubectl(lab, find_kubectl(), tmp_path / "cache")


def web_pods() -> dict[str, dict[str, Any]]:
    """Name to status of the Pods behind both Services."""
    pods, _ = api(LAB).list(PODS, "default", labelSelector="app=web")
    return {pod["metadata"]["name"]: pod["status"] for pod in pods}


def ipv6_of(service: str) -> str:
    ips: list[str] = api(LAB).get(SERVICES, service, "default")["spec"]["clusterIPs"]
    return next(ip for ip in ips if ":" in ip)


def ingress(service: str) -> list[str]:
    balancer = api(LAB).get(SERVICES, service, "default")["status"]["loadBalancer"]
    return [item["ip"] for item in balancer.get("ingress") or ()]


def curl(source: str, url: str, *options: str) -> str:
    return netemu("exec", "--lab", LAB, source, "--", "curl", "-sS", "--max-time", "3", *options, url)


def slices(service: str) -> dict[str, set[str]]:
    """Family to addresses in the Service's EndpointSlices."""
    found, _ = api(LAB).list(ENDPOINTSLICES, "default", labelSelector=f"kubernetes.io/service-name={service}")
    return {s["addressType"]: {a for e in s["endpoints"] for a in e["addresses"]} for s in found}


# --- what the API shows ------------------------------------------------------------------------------------------


def test_nodes_have_an_address_and_a_pod_network_of_each_family(lab: str) -> None:
    node = api(lab).get(NODES, "worker-1")

    addresses = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
    assert addresses == ["172.18.0.3", "fc00:f853:ccd:e793::3"]
    assert node["spec"]["podCIDRs"] == ["10.244.1.0/24", "fd00:10:244:1::/64"]


def test_pods_have_two_addresses_which_their_hosts_file_names(lab: str) -> None:
    status = api(lab).get(PODS, "client", "default")["status"]
    hosts = netemu("exec", "--lab", lab, "client", "--", "cat", "/etc/hosts", "/etc/resolv.conf")

    four, six = (each["ip"] for each in status["podIPs"])
    assert four == status["podIP"]
    assert six.startswith("fd00:10:244:")
    assert [":" in each["ip"] for each in status["hostIPs"]] == [False, True]
    assert f"{four}\tclient\n{six}\tclient\n" in hosts
    assert "nameserver 10.96.0.10\noptions" in hosts


def test_a_service_has_a_slice_of_each_of_its_families(lab: str) -> None:
    pods = web_pods().values()
    four, six = ({status["podIPs"][index]["ip"] for status in pods} for index in (0, 1))

    assert slices("web") == {"IPv4": four, "IPv6": six}
    assert slices("web6") == {"IPv6": six}
    assert api(lab).get(SERVICES, "kubernetes", "default")["spec"]["ipFamilies"] == ["IPv4"]


def test_kubectl_shows_both_families(kubectl: LabKubectl) -> None:
    lines = {line.split()[0]: line.split() for line in kubectl("get", "services", "-o", "wide").splitlines()}

    assert lines["web"][3] == ",".join(ingress("web"))
    assert lines["web6"][2] == ipv6_of("web6")
    assert "10.96.0.0/16,fd00:10:96::/112" in kubectl("get", "servicecidrs")


# --- packets -----------------------------------------------------------------------------------------------------


def test_a_name_has_an_address_of_each_family(lab: str) -> None:
    found = netemu_json("dig", "--lab", lab, "client", "web")
    six = netemu_json("dig", "--lab", lab, "client", "web6")

    assert found["result"]["addresses"] == api(lab).get(SERVICES, "web", "default")["spec"]["clusterIPs"]
    assert six["result"]["addresses"] == [ipv6_of("web6")]


@pytest.mark.parametrize("option", ["-4", "-6"])
def test_a_name_leads_to_a_pod_over_either_family(mode: str, option: str) -> None:
    assert curl("client", "http://web/hostname", option) in web_pods()


@pytest.mark.parametrize("service", ["web", "web6"])
def test_connections_to_a_cluster_ip_spread_with_the_clients_own_address(mode: str, service: str) -> None:
    client = api(LAB).get(PODS, "client", "default")["status"]["podIPs"][1]["ip"]
    result = netemu_json("probe", "--lab", LAB, "client", f"[{ipv6_of(service)}]:80", "--count", "90")

    assert result["servers"].keys() == web_pods().keys()
    assert result["sources"] == {client: 90}


def test_pods_of_other_nodes_are_reached_untranslated(lab: str) -> None:
    client = api(lab).get(PODS, "client", "default")["status"]["podIPs"][1]["ip"]

    for name, status in web_pods().items():
        result = netemu_json("probe", "--lab", lab, "client", f"[{status['podIPs'][1]['ip']}]:8080")
        assert (result["servers"], result["sources"]) == ({name: 1}, {client: 1})


def test_a_pod_reaches_itself_through_its_own_service(mode: str) -> None:
    name = next(iter(web_pods()))
    result = netemu_json("probe", "--lab", LAB, name, f"[{ipv6_of('web')}]:80", "--count", "60")

    assert result["answered"] == 60
    assert result["servers"][name] > 0
    assert len(result["sources"]) == 2  # its own address, and to itself the gateway's: masqueraded


@pytest.mark.parametrize("node", NODE_ADDRESSES)
def test_every_nodes_port_leads_to_the_service_from_outside(mode: str, node: str) -> None:
    result = netemu_json("probe", "--lab", LAB, "client/laptop", f"[{node}]:30080", "--count", "10")

    assert result["answered"] == 10
    assert "2001:db8:113::10" not in result["sources"]


def test_load_balancers_addresses_of_both_families_lead_there_from_outside(mode: str) -> None:
    four, six = ingress("web")

    assert curl("client/laptop", f"http://{four}/hostname") in web_pods()
    assert curl("client/laptop", f"http://[{six}]/hostname") in web_pods()


def test_cluster_dns_answers_over_ipv6(mode: str) -> None:
    asked = ("dig", "+short", "+time=3", "@fd00:10:96::a", "web.default.svc.cluster.local", "AAAA")

    assert netemu("exec", "--lab", LAB, "client", "--", *asked).strip() == ipv6_of("web")


# --- changes -----------------------------------------------------------------------------------------------------


def test_the_second_family_comes_and_goes_with_the_policy(kubectl: LabKubectl) -> None:
    kubectl("apply", "-f", "-", stdin=OWN.replace("POLICY", "PreferDualStack"))
    eventually(lambda: set(slices("own")) == {"IPv4", "IPv6"}, "slices of both families")
    six = ipv6_of("own")
    eventually(lambda: run("probe", "--lab", LAB, "client", f"[{six}]:80").returncode == 0, "an answer over IPv6")

    kubectl("apply", "-f", "-", stdin=OWN.replace("POLICY", "SingleStack"))

    eventually(lambda: set(slices("own")) == {"IPv4"}, "slices of one family")
    service = kubectl.get("service", "own")["spec"]
    assert (len(service["clusterIPs"]), service["ipFamilies"]) == (1, ["IPv4"])
    assert curl("client", "http://own/hostname") in web_pods()
    eventually(lambda: run("probe", "--lab", LAB, "client", f"[{six}]:80").returncode == 1, "no answer over IPv6")
    kubectl("delete", "service", "own")


def test_a_load_balancer_keeps_its_address_when_it_gets_another(kubectl: LabKubectl) -> None:
    four, six = ingress("web")

    kubectl("patch", "service", "web", "-p", '{"spec": {"ipFamilyPolicy": "SingleStack"}}')
    eventually(lambda: ingress("web") == [four], "one address")
    kubectl("patch", "service", "web", "-p", '{"spec": {"ipFamilyPolicy": "RequireDualStack"}}')

    assert eventually(lambda: len(ingress("web")) == 2 and ingress("web"), "two addresses") == [four, six]


def test_a_local_policy_leads_only_to_nodes_with_endpoints_and_keeps_the_clients_address(kubectl: LabKubectl) -> None:
    balanced = OWN.replace("POLICY", "PreferDualStack\n  type: LoadBalancer\n  externalTrafficPolicy: Local")
    kubectl("apply", "-f", "-", stdin=balanced)
    four, six = eventually(lambda: len(ingress("own")) == 2 and ingress("own"), "two addresses")
    router = ("nsenter", f"--net=/run/netns/{LAB}.underlay", "ip", "-6", "route", "show")
    # No web Pod is on the control plane's node: its taint keeps them away.
    eventually(lambda: subprocess.run([*router, six], capture_output=True).stdout, "a route of its own")

    for address, client in ((four, "203.0.113.10"), (f"[{six}]", "2001:db8:113::10")):
        result = netemu_json("probe", "--lab", LAB, "client/laptop", f"{address}:80", "--count", "30")
        assert (result["answered"], result["sources"]) == (30, {client: 30})

    kubectl("delete", "service", "own")
    eventually(lambda: not subprocess.run([*router, six], capture_output=True).stdout, "the route to be gone")


def test_the_host_is_as_it_was(host_before: dict[str, str], lab: str) -> None:
    assert host_network() == host_before


@pytest.fixture
def six(tmp_path: Path) -> Iterator[str]:
    """The same lab with IPv6 alone; its name."""
    text, file = (ROOT / "topologies/dual-stack.yaml").read_text(), tmp_path / "six.yaml"
    file.write_text(text.replace("ipFamily: dual", "ipFamily: ipv6").replace("RequireDualStack", "SingleStack"))
    try:
        netemu("up", str(file), "--name", "t-six")
        yield "t-six"
    finally:
        run("down", "t-six")


def test_a_lab_of_ipv6_alone(six: str) -> None:
    found = netemu_json("probe", "--lab", six, "client", "web:80", "--count", "10")
    outside = netemu_json("probe", "--lab", six, "client/laptop", "[fc00:f853:ccd:e793::3]:30080")
    version = netemu("exec", "--lab", six, "client", "--", "curl", "-skm", "3", "https://kubernetes.default/version")

    assert (found["answered"], outside["answered"]) == (10, 1)
    assert json.loads(version)["major"] == "1"
