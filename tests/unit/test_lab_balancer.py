"""Where the router sends what is meant for an ingress address: the decision, and what changes of the routes."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.kernel.rtnetlink import AddRoute, DelRoute
from netemu.kernel.rtnetlink_answers import Hop, Route
from netemu.lab.balancer import difference, ways
from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Service

NODES = {"a": ("172.18.0.2", "fc00::2"), "b": ("172.18.0.3", "fc00::3"), "c": ("172.18.0.4", "fc00::4")}
POOLS = ("172.18.255.0/24", "fc00::ff:0/112")


def service(**spec: Any) -> Service:
    ingress = [{"ip": "172.18.255.1"}, {"ip": "fc00::ff:1"}]
    return decode(
        {
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", **spec},
            "status": {"loadBalancer": {"ingress": ingress}},
        },
        Service,
    )


def endpoints(*nodes: str, ready: bool = True) -> dict[str, list[EndpointSlice]]:
    found = [{"addresses": ["10.244.0.5"], "nodeName": node, "conditions": {"ready": ready}} for node in nodes]
    return {"shop/web": [decode({"metadata": {"name": "web-x"}, "endpoints": found}, EndpointSlice)]}


@pytest.mark.parametrize(
    ("one", "slices", "there"),
    [
        pytest.param(service(), endpoints("b", "b"), "172.18.0.3 fc00::3", id="the node that has endpoints"),
        pytest.param(service(), endpoints("c", "a"), "172.18.0.2,172.18.0.4 fc00::2,fc00::4", id="two nodes"),
        pytest.param(service(), endpoints("a", "b", "c"), "", id="all nodes, as the pool"),
        pytest.param(service(), endpoints(), "", id="no node: the pool's way"),
        pytest.param(service(), endpoints("b", ready=False), "", id="nobody is ready"),
        pytest.param(service(), endpoints("elsewhere"), "", id="a node that is none of the lab's"),
        pytest.param(service(externalTrafficPolicy="Cluster"), endpoints("b"), "", id="any node will do"),
        pytest.param(service(type="NodePort"), endpoints("b"), "", id="no load balancer"),
    ],
)
def test_an_ingress_address_leads_to(one: Service, slices: dict[str, list[EndpointSlice]], there: str) -> None:
    found = ways([one], slices, NODES)

    assert " ".join(",".join(gateways) for gateways in found.values()) == there


def test_only_what_differs_is_asked_for() -> None:
    routes = [
        Route("172.18.255.0/24", (Hop(2, "172.18.0.2"), Hop(2, "172.18.0.3"))),
        Route("172.18.255.1/32", (Hop(2, "172.18.0.2"),)),
        Route("172.18.255.2/32", (Hop(2, "172.18.0.2"),)),
        Route("fc00::ff:9/128", (Hop(2, "fc00::2"),)),
        Route("10.0.0.1/32", (Hop(2, "172.18.0.2"),)),
        Route("default", (Hop(2, "172.18.0.2"),)),
    ]
    wanted = {"172.18.255.1": ("172.18.0.2",), "172.18.255.2": ("172.18.0.3", "172.18.0.2"), "fc00::ff:1": ("fc00::3",)}

    requests = difference(wanted, routes, POOLS)

    deleted = [request.to for request in requests if isinstance(request, DelRoute)]
    added = {r.to: [hop.via for hop in r.nexthops] for r in requests if isinstance(r, AddRoute)}
    assert deleted == ["fc00::ff:9"]
    assert added == {"172.18.255.2": ["172.18.0.3", "172.18.0.2"], "fc00::ff:1": ["fc00::3"]}
