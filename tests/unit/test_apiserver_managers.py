"""Managers and applies over HTTP: who a request says it is, and what an apply must and must not say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.apiserver_http import CONFIGMAP, CONFIGMAPS_URL, Http, serving

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
ITEM = f"{CONFIGMAPS_URL}/c"
SCALE = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    },
}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with serving(tmp_path) as ready:
        yield ready


def names(obj: Any) -> list[tuple[str, str]]:
    return [(entry["manager"], entry["operation"]) for entry in obj["metadata"].get("managedFields", [])]


@pytest.mark.parametrize(
    ("query", "content_type", "status", "message"),
    [
        ("", APPLY, 422, "fieldManager: Required value: is required for apply patch"),
        ("?fieldManager=me&force=true", MERGE, 422, "force: Forbidden: may not be specified for non-apply patch"),
        (f"?fieldManager={'x' * 129}", APPLY, 422, "fieldManager: Too long: may not be more than 128 bytes"),
        ("?fieldManager=a%0Ab", APPLY, 422, "should only contain printable characters"),
    ],
)
async def test_options_of_an_apply(http: Http, query: str, content_type: str, status: int, message: str) -> None:
    reply = await http("PATCH", ITEM + query, CONFIGMAP, content_type=content_type)

    assert reply.status == status
    assert message in reply.body["message"]


async def test_the_user_agent_is_the_manager_unless_a_parameter_says_who(http: Http) -> None:
    made = await http("POST", CONFIGMAPS_URL, CONFIGMAP)
    named = await http("PATCH", f"{ITEM}?fieldManager=me", {"data": {"x": "y"}}, content_type=MERGE)

    assert names(made.body) == [("Python", "Update")]
    assert names(named.body) == [("Python", "Update"), ("me", "Update")]


async def test_an_apply_that_changes_nothing_is_no_write(http: Http) -> None:
    first = await http("PATCH", f"{ITEM}?fieldManager=me", CONFIGMAP, content_type=APPLY)
    again = await http("PATCH", f"{ITEM}?fieldManager=me", CONFIGMAP, content_type=APPLY)

    assert (first.status, again.status) == (201, 200)
    assert again.body == first.body


async def test_a_revision_in_a_configuration_is_a_precondition(http: Http) -> None:
    await http("POST", CONFIGMAPS_URL, CONFIGMAP)
    config = {**CONFIGMAP, "metadata": {"name": "c", "resourceVersion": "1"}}
    reply = await http("PATCH", f"{ITEM}?fieldManager=me", config, content_type=APPLY)

    assert (reply.status, reply.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in reply.body["message"]


async def test_two_first_applies_at_once_are_both_kept(http: Http) -> None:
    configs = [{**CONFIGMAP, "data": {name: "1"}} for name in ("a", "b", "c", "d")]
    requests = [
        http("PATCH", f"{ITEM}?fieldManager={next(iter(config['data']))}", config, content_type=APPLY)
        for config in configs
    ]
    replies = await asyncio.gather(*requests)
    left = (await http("GET", ITEM)).body

    assert sorted(reply.status for reply in replies) == [200, 200, 200, 201]
    assert left["data"] == {"a": "1", "b": "1", "c": "1", "d": "1"}
    assert sorted(names(left)) == [(name, "Apply") for name in "abcd"]


async def test_a_scale_can_be_applied(http: Http) -> None:
    await http("POST", "/apis/apps/v1/namespaces/default/deployments", DEPLOYMENT)
    url = "/apis/apps/v1/namespaces/default/deployments/web"
    reply = await http("PATCH", f"{url}/scale?fieldManager=me&force=true", SCALE, content_type=APPLY)
    entries = (await http("GET", url)).body["metadata"]["managedFields"]

    assert (reply.status, reply.body["spec"]) == (200, {"replicas": 4})
    assert entries[0] | {"time": ""} == {
        "manager": "me",
        "operation": "Apply",
        "apiVersion": "apps/v1",
        "time": "",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}}},
        "subresource": "scale",
    }


async def test_entries_survive_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as http:
        await http("PATCH", f"{ITEM}?fieldManager=me", CONFIGMAP, content_type=APPLY)
        await http("PATCH", f"{ITEM}?fieldManager=you", {"data": {"x": "y"}}, content_type=MERGE)
        before = (await http("GET", ITEM)).body
    async with serving(tmp_path) as http:
        assert (await http("GET", ITEM)).body == before
