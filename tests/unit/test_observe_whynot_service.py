"""Why a Service leads nowhere, as far as API objects tell."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.model.objects import Service
from netemu.model.pods import Pod
from netemu.observe.reasons import Because, Reason
from netemu.observe.story import whynot_service
from netemu.observe.story.destination import Idle, Objects
from tests.unit.objects_world import NOW, a_pod, a_service

HTTP = [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}


def behind(service: Service, *pods: Pod, family: str = "IPv4") -> Because:
    return whynot_service.no_endpoints(service, service.spec.ports[0], Objects((service,), (), pods), family)


def test_a_workload_that_is_scaled_to_nothing_is_named() -> None:
    service, idle = a_service(), Idle("deployment", "shop", "web", {"app": "web"})
    elsewhere = Idle("deployment", "other", "web", {"app": "web"})
    because = whynot_service.no_endpoints(
        service, service.spec.ports[0], Objects((service,), idle=(elsewhere, idle)), "IPv4"
    )

    assert because.text.endswith("matches no Pod; deployment web has 0 replicas")
    assert because.remedy == "`kubectl -n shop scale deployment web --replicas 1`"


def unready(name: str) -> Pod:
    return a_pod(name, "10.0.0.1", ready=False, node="n1")


@pytest.mark.parametrize(
    ("spec", "pods", "reason", "text", "remedy"),
    [
        pytest.param({"selector": None}, (), "no-endpoints", "has no selector", "create its EndpointSlices", id="none"),
        pytest.param(
            {"selector": {"app": "wep"}}, (a_pod("a", "10.0.0.1"),), "no-endpoints",
            "selector app=wep of Service shop/web matches no Pod", "app=web", id="selector with a typo",
        ),
        pytest.param(
            {}, (a_pod("a", "10.0.0.1", status={"phase": "Succeeded"}),), "no-endpoints",
            "matches no Pod that still runs", "", id="Pods that have ended",
        ),
        pytest.param({}, (unready("a"), unready("b")), "not-ready", "no Pod of Service shop/web is Ready: a is Running",
                     "kubectl describe pod", id="not Ready"),
        pytest.param(
            {}, (a_pod("a", status={"phase": "Pending"}),), "pod-pending", "have no address yet: a is on no node", "",
            id="not scheduled",
        ),
        pytest.param(
            {}, (a_pod("a", "10.0.0.1", node="n1", metadata={"deletionTimestamp": NOW}),), "terminating",
            "every Pod of Service shop/web is terminating", "", id="terminating",
        ),
        pytest.param(
            {"ports": [{"port": 80, "targetPort": "https"}]}, (a_pod("a", "10.0.0.1", node="n1", containers=HTTP),),
            "target-port", "targetPort 'https' of Service shop/web is the name of no port", "they name http",
            id="targetPort by a name that no container has",
        ),
    ],
)  # fmt: skip
def test_a_service_without_endpoints_says_why(
    spec: dict[str, Any], pods: tuple[Pod, ...], reason: str, text: str, remedy: str
) -> None:
    because = behind(a_service(**spec), *pods)

    assert because.reason == reason
    assert text in because.text
    assert remedy in because.remedy


def test_pods_without_an_address_of_the_services_family() -> None:
    assert behind(a_service(), a_pod("a", "10.0.0.1", node="n1"), family="IPv6").reason == "family"


@pytest.mark.parametrize(
    ("port", "protocol", "reason", "remedy"),
    [
        (8080, "TCP", "wrong-port", "it has 80/TCP, 53/UDP; 8080 is its targetPort"),
        (30080, "TCP", "wrong-port", "it has 80/TCP, 53/UDP; 30080 is its nodePort"),
        (81, "TCP", "wrong-port", "it has 80/TCP, 53/UDP"),
        (53, "TCP", "wrong-protocol", "it has 53/UDP: --proto udp"),
    ],
)
def test_a_port_that_the_service_does_not_have(port: int, protocol: str, reason: str, remedy: str) -> None:
    ports = [{"port": 80, "targetPort": 8080, "nodePort": 30080}, {"port": 53, "protocol": "UDP", "name": "dns"}]
    because = whynot_service.wrong_port(a_service(ports=ports), port, protocol)

    assert (because.reason, because.remedy) == (reason, remedy)


def test_nobody_listens() -> None:
    pod = a_pod("a", "10.0.0.1", containers=HTTP)

    assert whynot_service.not_listening("10.0.0.1", 80, pod, None) == Because(
        Reason.NOT_LISTENING, "Pod shop/a refused: nothing listens on port 80 there", "its containers declare 8080"
    )


def test_a_headless_service_translates_no_port() -> None:
    service = a_service(clusterIP="None", ports=[{"port": 80, "targetPort": 8080}])
    because = whynot_service.not_listening("10.0.0.1", 80, a_pod("a", "10.0.0.1"), service)

    assert (because.reason, because.remedy) == ("headless", "use the Pods' own port: 8080")
