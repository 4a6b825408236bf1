"""When a lab is up, and what is said while it is not."""

from __future__ import annotations

from typing import Any

from netemu.lab.readiness import (
    AGENT_AWAY,
    daemons_missing,
    endpoints_missing,
    nodes_missing,
    pod_state,
    proxies_failing,
    rules_missing,
    stateful_missing,
    terminating,
    workloads_missing,
)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "web"}, "status": status}


def ready(status: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "Ready", "status": status, **more}]


def test_absent_and_unready_nodes_are_named() -> None:
    nodes = [
        {"metadata": {"name": "a"}, "status": {"conditions": ready("True")}},
        {"metadata": {"name": "b"}, "status": {"conditions": ready("False", message="no network")}},
    ]

    assert nodes_missing(nodes, ["a", "b", "c"]) == ["node b: not Ready: no network", "node c: not registered"]


def test_ready_and_succeeded_pods_are_done() -> None:
    assert workloads_missing([], [pod(conditions=ready("True")), pod(phase="Succeeded")]) == []


def test_deployment_counts_only_once_its_newest_spec_was_seen() -> None:
    deployment = {
        "metadata": {"namespace": "shop", "name": "web", "generation": 2},
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 1, "availableReplicas": 3},
    }

    assert workloads_missing([deployment], []) == ["deployment shop/web: 3 of 3 Pods available"]


def test_a_daemon_set_has_rolled_out_once_all_its_nodes_have_its_newest_pod() -> None:
    def lines(generation: int, **counts: int) -> list[str]:
        status = {"observedGeneration": 1, "desiredNumberScheduled": 3, **counts}
        return daemons_missing(
            [{"metadata": {"namespace": "a", "name": "b", "generation": generation}, "status": status}]
        )

    assert lines(1, updatedNumberScheduled=3, numberAvailable=3) == []
    assert lines(2, updatedNumberScheduled=3, numberAvailable=3) != []
    assert lines(1, updatedNumberScheduled=1, numberAvailable=3) == lines(
        1, updatedNumberScheduled=3, numberAvailable=1
    )
    assert lines(1) == ["daemonset a/b: 0 of 3 nodes have an available Pod of it"]


def test_a_stateful_set_has_rolled_out_once_all_above_its_partition_are_new() -> None:
    def lines(partition: int, **counts: int) -> list[str]:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}
        status = {"observedGeneration": 1, "replicas": 3, "availableReplicas": 3, **counts}
        meta = {"namespace": "a", "name": "b", "generation": 1}
        return stateful_missing(
            [{"metadata": meta, "spec": {"replicas": 3, "updateStrategy": strategy}, "status": status}]
        )

    assert lines(0, updatedReplicas=3) == lines(2, updatedReplicas=1) == []
    assert lines(1, updatedReplicas=1) == ["statefulset a/b: 1 of 2 Pods are of the newest template"]
    assert lines(0, updatedReplicas=3, availableReplicas=2) == ["statefulset a/b: 2 of 3 Pods available"]
    assert lines(0, updatedReplicas=3, observedGeneration=0) != []


def test_deployment_has_rolled_out_once_no_pod_of_an_older_template_is_left() -> None:
    def rollout(updated: int, replicas: int) -> list[str]:
        status = {"observedGeneration": 1, "availableReplicas": 3, "updatedReplicas": updated, "replicas": replicas}
        meta = {"namespace": "shop", "name": "web", "generation": 1}
        return workloads_missing([{"metadata": meta, "spec": {"replicas": 3}, "status": status}], [])

    assert rollout(1, 4) == ["deployment shop/web: 1 of 3 Pods are of the newest template"]
    assert rollout(3, 4) == ["deployment shop/web: 3 of 3 Pods are of the newest template"]
    assert rollout(3, 3) == []


def test_endpoints_are_awaited_until_they_are_the_ready_pods_of_the_service() -> None:
    def behind(name: str, *, is_ready: str = "True", **meta: Any) -> dict[str, Any]:
        labels = {"app": "web", "more": "x"}
        about = {"namespace": "shop", "name": name, "labels": labels, **meta}
        return {"metadata": about, "status": {"conditions": ready(is_ready)}}

    def listing(*names: str) -> dict[str, Any]:
        meta = {"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}
        return {"metadata": meta, "endpoints": [{"targetRef": {"name": name}} for name in names]}

    service = {"metadata": {"namespace": "shop", "name": "web"}, "spec": {"selector": {"app": "web"}}}
    manual = {"metadata": {"namespace": "shop", "name": "manual"}, "spec": {}}
    pods = [behind("a"), behind("b", is_ready="False"), behind("c", deletionTimestamp="2001-01-01T00:00:00Z")]

    assert endpoints_missing([service, manual], [listing("a")], pods) == []
    for slices in ([], [listing("a", "b")], [listing("a"), listing("c")]):
        assert endpoints_missing([service], slices, pods) == [
            "service shop/web: its EndpointSlices are not those of its Pods yet"
        ]
    assert terminating(pods) == ["pod shop/c: terminating"]


def test_why_a_pod_waits_is_told() -> None:
    unscheduled = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]
    waiting = [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]

    assert pod_state(pod(phase="Pending", conditions=unscheduled)) == "Pending: 0/3 nodes are available"
    assert pod_state(pod(containerStatuses=waiting)) == "container c: ErrImagePull (no such image)"


def test_rules_count_once_both_revisions_are_reached_on_every_node() -> None:
    agent = {
        "nodes": {
            "a": {"proxy": {"services": "12", "endpointSlices": "15"}},
            "b": {"proxy": {"services": "12", "endpointSlices": "9"}},
            "c": {"proxy": {"services": "12", "endpointSlices": "15", "error": "iptables: no"}},
        }
    }

    assert rules_missing(agent, ["a", "b", "c", "d"], "10", "15") == {
        "b": "rules are at revision 9, not yet 15",
        "c": "rules not programmed: iptables: no",
        "d": "rules are at revision 0, not yet 15",
    }


def test_without_a_node_agent_no_proxy_runs() -> None:
    assert rules_missing({}, ["a"], "10", "15") == {"a": AGENT_AWAY}


def test_a_reason_that_several_proxies_have_is_told_once() -> None:
    refused = {"proxy": {"refused": "iptables-restore is not installed"}}
    agent = {"nodes": {"a": refused, "b": refused, "c": {"proxy": {"refused": "", "error": "busy"}}}}

    assert proxies_failing(agent) == ["kube-proxy on a, b: iptables-restore is not installed"]
