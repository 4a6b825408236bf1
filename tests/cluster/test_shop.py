"""A dozen services: every one of them answers by name from every Pod, and from outside through the load balancer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from netemu.lab.paths import LabPaths
from netemu.model.resources import PODS, SERVICES
from netemu.observe.probe.prober import Destination, Place, probe
from netemu.runtime import sandboxes
from tests.cluster.labs import ROOT, api, netemu, run


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """topologies/shop.yaml, up; its name."""
    lab = "t-shop"
    netemu("up", str(ROOT / "topologies/shop.yaml"), "--name", lab)
    yield lab
    run("down", lab)


def test_every_pod_is_ready_and_every_node_has_some(shop: str) -> None:
    pods, _ = api(shop).list(PODS, "default")

    ready = [p for p in pods for c in p["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "True"]
    assert len(pods) == len(ready) == 12
    assert {pod["spec"]["nodeName"] for pod in pods} == {"worker-1", "worker-2"}


async def test_every_service_answers_by_name_from_every_pod(shop: str) -> None:
    services = [s for s in api(shop).list(SERVICES, "default")[0] if s["metadata"]["name"] != "kubernetes"]
    targets = [Destination(s["metadata"]["name"], port["port"]) for s in services for port in s["spec"]["ports"]]
    places = [
        Place(found.config.netns, f"{found.directory}/resolv.conf", f"{found.directory}/hosts")
        for found in sandboxes.load_all(LabPaths(shop).pods)
        if found.config.pod_namespace == "default"
    ]

    async def from_place(place: Place) -> list[Destination]:
        return [target for target in targets if not (await probe(place, target)).answered]

    unanswered = await asyncio.gather(*map(from_place, places))

    assert (len(places), len(targets)) == (12, 12)
    assert unanswered == [[]] * 12


def test_the_load_balancers_address_leads_to_the_front_end_from_outside(shop: str) -> None:
    service = api(shop).get(SERVICES, "frontend-external", "default")
    address = service["status"]["loadBalancer"]["ingress"][0]["ip"]

    answer = netemu("exec", "--lab", shop, "client/visitor", "--", "curl", "-sf", "-m", "3", f"http://{address}/")

    assert '"pod":"frontend-' in answer
