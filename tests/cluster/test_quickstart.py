"""The lab of the README, by the README's commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from netemu.model.errors import NetemuError
from netemu.model.resources import ENDPOINTSLICES, NODES, PODS, SERVICES
from tests.cluster.labs import api, create, eventually, host_network, netemu, netemu_json, run


def web_pods(lab: str) -> dict[str, str]:
    """Name to address of the Pods behind Service web."""
    pods, _ = api(lab).list(PODS, "shop", labelSelector="app=web")
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}


def curl(lab: str, source: str, url: str, *options: str) -> str:
    return netemu("exec", "--lab", lab, "-n", "shop", source, "--", "curl", "-sS", "--max-time", "3", *options, url)


def test_nodes_are_ready_in_their_order(quickstart: str) -> None:
    nodes, _ = api(quickstart).list(NODES)

    assert {"control-plane", "worker-1", "worker-2"} == {node["metadata"]["name"] for node in nodes}
    assert all(c["status"] == "True" for n in nodes for c in n["status"]["conditions"] if c["type"] == "Ready")


def test_a_name_leads_through_the_rules_to_a_pod(quickstart: str) -> None:
    answer = curl(quickstart, "client", "http://web/hostname")

    assert answer in web_pods(quickstart)


def test_the_rules_name_the_service_as_upstream_does(quickstart: str) -> None:
    rules = netemu("exec", "--lab", quickstart, "node/worker-1", "--", "iptables-save", "-t", "nat")

    assert '--comment "shop/web:http cluster IP"' in rules
    assert sum("-j DNAT --to-destination" in line and "shop/web:http" in line for line in rules.splitlines()) == 3


def test_connections_spread_over_the_endpoints_with_the_clients_own_address(quickstart: str) -> None:
    result = netemu_json("probe", "--lab", quickstart, "-n", "shop", "client", "web:80", "--count", "120")

    client = api(quickstart).get(PODS, "client", "shop")["status"]["podIP"]
    assert result["servers"].keys() == web_pods(quickstart).keys()
    assert min(result["servers"].values()) > 15
    assert result["sources"] == {client: 120}
    assert (result["evenness"]["servers"], result["evenness"]["degrees"]) == (3, 2)


def test_probing_during_a_command_has_its_events_and_its_losses(quickstart: str) -> None:
    probing = (
        "probe",
        "--lab",
        quickstart,
        "-n",
        "shop",
        "client",
        "web:80",
        "--rate",
        "20",
        "--margin",
        "0.2",
        "--during",
    )

    told = netemu_json(*probing, 'test -r "$KUBECONFIG"')
    failed = run(*probing, "echo told; exit 3")

    assert (told["exits"], told["result"]["answered"]) == (0, told["result"]["count"])
    assert [event["what"] for event in told["timeline"]["events"]] == ["the command begins", "it has ended"]
    assert sum(bucket["lost"] for bucket in told["timeline"]["buckets"]) == 0
    assert (failed.returncode, failed.stderr) == (1, "told\n")
    assert "it has ended with exit code 3" in failed.stdout


def test_dig_shows_the_search_path(quickstart: str) -> None:
    found = netemu_json("dig", "--lab", quickstart, "-n", "shop", "client", "web", "A")
    missing = json.loads(run("dig", "--lab", quickstart, "-n", "shop", "client", "nowhere", "A", "-o", "json").stdout)

    service = api(quickstart).get(SERVICES, "web", "shop")["spec"]["clusterIP"]
    assert [step["name"] for step in found["steps"]] == ["web.shop.svc.cluster.local."]
    assert found["result"]["addresses"] == [service]
    assert [(step["name"], step["reply"]["outcome"]) for step in missing["steps"]] == [
        ("nowhere.shop.svc.cluster.local.", "NXDOMAIN"),
        ("nowhere.svc.cluster.local.", "NXDOMAIN"),
        ("nowhere.cluster.local.", "NXDOMAIN"),
        ("nowhere.", "NXDOMAIN"),
    ]


def test_every_nodes_port_leads_to_the_service_from_outside(quickstart: str) -> None:
    nodes, _ = api(quickstart).list(NODES)
    addresses = [a["address"] for n in nodes for a in n["status"]["addresses"] if a["type"] == "InternalIP"]

    answers = {address: curl(quickstart, "client/laptop", f"http://{address}:30080/hostname") for address in addresses}

    assert len(answers) == 3
    assert set(answers.values()) <= web_pods(quickstart).keys()


def test_traffic_from_outside_is_masqueraded(quickstart: str) -> None:
    seen = Counter(
        curl(quickstart, "client/laptop", "http://172.18.0.3:30080/clientip").rpartition(":")[0] for _ in range(5)
    )

    # Upstream masquerades with the address of the interface that leads to the endpoint.
    assert "203.0.113.10" not in seen


def test_a_service_without_endpoints_is_refused_at_once(quickstart: str) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty"},
               "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}}  # fmt: skip
    create(quickstart, service, "shop")
    node_rules = ("exec", "--lab", quickstart, "node/worker-1", "--", "iptables-save", "-t", "filter")
    eventually(lambda: '"shop/empty has no endpoints"' in netemu(*node_rules), "a REJECT rule for shop/empty")

    refused = run("exec", "--lab", quickstart, "-n", "shop", "client", "--", "curl", "-sS", "http://empty")

    assert refused.returncode == 7  # curl: could not connect; no waiting for a time-out


def test_pods_resolve_the_api_server_and_reach_it(quickstart: str) -> None:
    answer = curl(quickstart, "client", "https://kubernetes.default/version", "--insecure")

    assert json.loads(answer)["minor"] == "32"


def test_a_pod_has_its_own_hostname_resolver_and_hosts_file(quickstart: str) -> None:
    script = "hostname; cat /etc/resolv.conf /etc/hosts"
    text = netemu("exec", "--lab", quickstart, "-n", "shop", "client", "--", "sh", "-c", script)

    assert text.startswith("client\n")
    assert (
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5" in text
    )
    assert "# Kubernetes-managed hosts file." in text


def test_what_a_command_in_a_pod_writes_stays_there(quickstart: str) -> None:
    netemu("exec", "--lab", quickstart, "-n", "shop", "client", "--", "sh", "-c", "echo x > /etc/netemu-was-here")

    assert subprocess.run(["test", "-e", "/etc/netemu-was-here"]).returncode == 1


def test_exit_codes_of_commands_come_through(quickstart: str) -> None:
    inside = ("exec", "--lab", quickstart, "-n", "shop", "client", "--")

    assert run(*inside, "sh", "-c", "exit 42").returncode == 42
    assert run(*inside, "no-such-command").returncode == 127


def test_options_of_exec_may_stand_on_either_side_of_the_pod(quickstart: str) -> None:
    before = netemu("exec", "-n", "shop", "--lab", quickstart, "client", "--", "hostname")
    after = netemu("exec", "client", "-n", "shop", "--lab", quickstart, "--", "hostname")

    assert before == after == "client\n"


def test_the_host_is_as_it_was_while_the_lab_runs(host_before: dict[str, str], quickstart: str) -> None:
    assert host_network() == host_before


def test_slices_list_exactly_the_pods(quickstart: str) -> None:
    slices, _ = api(quickstart).list(ENDPOINTSLICES, "shop", labelSelector="kubernetes.io/service-name=web")

    addresses = {address for s in slices for endpoint in s["endpoints"] for address in endpoint["addresses"]}
    assert addresses == set(web_pods(quickstart).values())


@pytest.mark.parametrize("command", ["list", "status", "doctor", "logs control-plane"])
def test_what_prints_a_list_has_json(quickstart: str, command: str) -> None:
    lines = netemu(*command.split(), "-o", "json")

    assert all(
        isinstance(json.loads(part), (dict, list)) for part in ([lines] if lines[1] in " \n" else lines.splitlines())
    )


@pytest.mark.parametrize(
    ("target", "text"),
    [
        pytest.param("clinet", "did you mean client?", id="misspelt Pod"),
        pytest.param("node/worker-9", "did you mean worker-", id="unknown node"),
        pytest.param("client/phone", "clients here: laptop", id="unknown client"),
        pytest.param("planet/earth", "must be POD, NAMESPACE/POD, node/NAME or client/NAME", id="unknown kind"),
    ],
)
def test_a_target_that_is_not_there_is_refused_with_what_is(quickstart: str, target: str, text: str) -> None:
    refused = run("exec", "--lab", quickstart, "-n", "shop", target, "--", "true")

    assert refused.returncode == 1
    assert text in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_status_waits_for_the_rules_of_what_was_just_written(quickstart: str) -> None:
    ports: list[dict[str, object]] = [{"name": "http", "port": 80}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "waited"}, "spec": {"ports": ports}}
    piece = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
        "metadata": {"name": "waited-1", "labels": {"kubernetes.io/service-name": "waited"}},
        "endpoints": [{"addresses": ["10.244.9.9"]}],
    }  # fmt: skip
    create(quickstart, service)
    create(quickstart, piece)

    netemu("status", quickstart, "--wait")

    for node in ("control-plane", "worker-1", "worker-2"):
        rules = netemu("exec", "--lab", quickstart, f"node/{node}", "--", "iptables-save", "-t", "nat")
        assert "--to-destination 10.244.9.9:80" in rules


def test_status_says_which_nodes_have_no_proxy_at_work(quickstart: str) -> None:
    (agent,) = [p["pid"] for p in netemu_json("status", quickstart)["processes"] if p["name"] == "node-agent"]
    os.kill(agent, signal.SIGSTOP)
    try:
        service = {"metadata": {"name": "late"}, "spec": {"ports": [{"port": 80}]}}
        create(quickstart, {"apiVersion": "v1", "kind": "Service", **service})
        done = run("status", quickstart, "--wait", "--timeout", "1")
    finally:
        os.kill(agent, signal.SIGCONT)

    assert done.returncode == 1
    assert re.search(r"  node worker-1: the node agent does not answer", done.stderr)
    assert "Traceback" not in done.stderr
    netemu("status", quickstart, "--wait")


def test_a_deployment_that_a_snapshot_brings_back_serves_again(quickstart: str, tmp_path: Path) -> None:
    file, former = str(tmp_path / "snapshot"), web_pods(quickstart)
    netemu("snapshot", "save", file, "--lab", quickstart)
    api(quickstart).request("DELETE", "/apis/apps/v1/namespaces/shop/deployments/web")
    eventually(lambda: not web_pods(quickstart), "the end of the Pods")
    # Pods of one node are written to until the restore: its kubelet has seen the newest revision of all.
    pod = {"nodeName": "worker-2", "containers": [{"name": "a", "image": "nginx"}]}
    create(quickstart, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late"}, "spec": pod})
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write_until_refused, quickstart, "/api/v1/namespaces/default/pods/late")
        netemu("snapshot", "restore", file, "--lab", quickstart)
        writing.result()

    # Until the kubelets have made the Pods anew and said so, the Service has the addresses of the snapshot.
    eventually(
        lambda: all(hostname(quickstart, address) == name for name, address in web_pods(quickstart).items()),
        "the Pods of the snapshot at the addresses that they tell",
        within=40,
    )
    eventually(lambda: rules_lead_to(quickstart, set(web_pods(quickstart).values())), "rules to them on every node")
    assert curl(quickstart, "client", "http://web/hostname") in former


def write_until_refused(lab: str, path: str) -> None:
    """Change an object over and over, until it is gone or the API server is."""
    with suppress(NetemuError, OSError):
        for number in count():
            api(lab).request("PATCH", path, {"metadata": {"annotations": {"number": str(number)}}})


def hostname(lab: str, address: str) -> str:
    """Who answers at a Pod's address, "" if nobody does."""
    asking = ("curl", "-sS", "--max-time", "2", f"http://{address}:8080/hostname")
    return run("exec", "--lab", lab, "-n", "shop", "client", "--", *asking).stdout


def rules_lead_to(lab: str, addresses: set[str]) -> bool:
    """Whether every node's rules lead to exactly these addresses for shop/web."""
    nodes = ("control-plane", "worker-1", "worker-2")
    rules = [netemu("exec", "--lab", lab, f"node/{node}", "--", "iptables-save", "-t", "nat") for node in nodes]
    return all(set(re.findall(r'"shop/web:http".*--to-destination ([\d.]+):', text)) == addresses for text in rules)
