"""Every verb on the kinds that are stored and acted on by others, over HTTP, as the conformance tests call them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from netemu.client.base import Obj
from netemu.model.resources import (
    INGRESSCLASSES,
    INGRESSES,
    IPADDRESSES,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    SERVICECIDRS,
    Resource,
)
from tests.unit.apiserver_http import Http, serving
from tests.unit.test_apiserver_validation import VALID

MERGE = "application/merge-patch+json"
NAMES = {IPADDRESSES: ("192.0.2.1", "192.0.2.2")}
CIDRS = ("192.0.2.0/25", "192.0.2.128/25")


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with serving(tmp_path) as running:
        yield running


def objects(resource: Resource) -> list[Obj]:
    """Two objects with a label."""
    made = []
    for number, name in enumerate(NAMES.get(resource, ("one", "two"))):
        obj = {key: value for key, value in VALID[resource.kind].items() if key != "metadata"}
        if resource is SERVICECIDRS:
            obj = {"spec": {"cidrs": [CIDRS[number]]}}
        made.append({"metadata": {"name": name, "labels": {"test": "verbs"}}, **obj})
    return made


@pytest.mark.parametrize(
    "resource",
    [INGRESSCLASSES, INGRESSES, IPADDRESSES, NETWORKPOLICIES, PODDISRUPTIONBUDGETS, SERVICECIDRS],
    ids=lambda resource: resource.kind,
)
async def test_all_verbs(http: Http, resource: Resource) -> None:
    url = resource.path("default")
    first, second = [(await http("POST", url, obj)).body for obj in objects(resource)]
    one = f"{url}/{first['metadata']['name']}"
    listed = (await http("GET", f"{url}?labelSelector=test%3Dverbs")).body

    labelled = await http("PATCH", one, {"metadata": {"labels": {"patched": "yes"}}}, content_type=MERGE)
    annotated = {**labelled.body["metadata"], "annotations": {"a": "b"}}
    updated = await http("PUT", one, {**labelled.body, "metadata": annotated})
    with_status = "status" in resource.subresources
    status = await http("GET", f"{one}/status")
    everywhere = (await http("GET", f"{resource.path()}?labelSelector=test%3Dverbs")).body
    gone = await http("DELETE", f"{url}?labelSelector=test%3Dverbs")
    since = f"{url}?watch=true&resourceVersion={second['metadata']['resourceVersion']}"
    async with http.session.get(since) as stream:
        events = [msgspec.json.decode(await stream.content.readline())["type"] for _ in range(4)]

    assert [item["metadata"]["name"] for item in listed["items"]] == [o["metadata"]["name"] for o in (first, second)]
    assert (first["kind"], listed["kind"]) == (resource.kind, f"{resource.kind}List")
    assert (labelled.status, updated.status, status.status) == (200, 200, 200 if with_status else 404)
    assert updated.body["metadata"]["annotations"] == {"a": "b"}
    assert (len(everywhere["items"]), gone.status) == (2, 200)
    assert (await http("GET", f"{url}?labelSelector=test%3Dverbs")).body["items"] == []
    assert events == ["MODIFIED", "MODIFIED", "DELETED", "DELETED"]
