"""Custom resources over HTTP: discovery, documents, answers, and who may use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from netemu.apiserver.auth.authentication import Attributes, User
from netemu.apiserver.auth.authorization import ClusterAuthorizer
from netemu.apiserver.registry import Registry
from netemu.model.resources import NAMESPACES, ROLEBINDINGS, ROLES
from netemu.testing.store import MemoryStore
from tests.unit import apiserver_kit
from tests.unit.apiserver_http import Http, serving
from tests.unit.custom_kit import define, definition, version, widget

CRDS_URL = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD_URL = f"{CRDS_URL}/widgets.example.com"
GROUP_URL, DOCUMENTS_URL = "/apis/example.com/v1", "/openapi/v3"
URL = f"{GROUP_URL}/namespaces/default/widgets"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
DEFINITION = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with serving(tmp_path, MemoryStore()) as running:
        yield running


async def _define(http: Http, *versions: Any, **names: Any) -> None:
    crd = definition("widgets", "Widget", *versions, **names)
    assert (await http("POST", CRDS_URL, DEFINITION | crd)).status == 201
    async with asyncio.timeout(10):
        while (await http("GET", GROUP_URL)).status != 200:  # noqa: ASYNC110  (as any client waits)
            await asyncio.sleep(0.005)


async def test_what_is_defined_is_discovered_in_every_form_and_gone_with_its_definition(http: Http) -> None:
    await _define(http, version("v1beta1", storage=False), version("v1"), shortNames=["wd"], categories=["all"])

    legacy = (await http("GET", GROUP_URL)).body["resources"]
    group = (await http("GET", "/apis/example.com")).body
    found = []
    for form in ("v2", "v2beta1"):
        accept = f"application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList"
        groups = {
            item["metadata"].get("name"): item for item in (await http("GET", "/apis", accept=accept)).body["items"]
        }
        found.append(groups["example.com"]["versions"])
    await http("DELETE", CRD_URL)
    async with asyncio.timeout(10):
        while (await http("GET", GROUP_URL)).status != 404:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    assert [entry["name"] for entry in legacy] == ["widgets", "widgets/status"]
    assert (legacy[0]["shortNames"], legacy[0]["categories"], legacy[0]["singularName"]) == (["wd"], ["all"], "widget")
    assert group["preferredVersion"]["version"] == "v1"
    for versions in found:
        assert [one["version"] for one in versions] == ["v1", "v1beta1"]
        assert versions[0]["resources"][0]["responseKind"]["kind"] == "Widget"
    assert "example.com" not in str((await http("GET", "/apis")).body)


async def test_the_document_of_a_group_follows_its_schema_under_another_hash(http: Http) -> None:
    await _define(http)
    before = (await http("GET", DOCUMENTS_URL)).body["paths"]["apis/example.com/v1"]["serverRelativeURL"]
    first = (await http("GET", before)).body
    text = {"type": "object", "properties": {"note": {"type": "string", "description": "A note."}}}
    await http("PATCH", CRD_URL, {"spec": {"versions": [version(spec=text)]}}, content_type=MERGE)

    after = (await http("GET", DOCUMENTS_URL)).body["paths"]["apis/example.com/v1"]["serverRelativeURL"]
    second = (await http("GET", after)).body

    kind = first["components"]["schemas"]["com.example.v1.Widget"]
    patch = first["paths"][f"{GROUP_URL}/namespaces/{{namespace}}/widgets/{{name}}"]["patch"]
    assert kind["properties"]["spec"]["properties"]["size"] == {"type": "integer", "minimum": 1}
    assert kind["x-kubernetes-group-version-kind"] == [{"group": "example.com", "version": "v1", "kind": "Widget"}]
    assert STRATEGIC not in patch["requestBody"]["content"]
    assert before != after
    assert second["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"] == text


async def test_answers_have_the_kind_of_the_definition(http: Http) -> None:
    columns = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    await _define(http, version(additionalPrinterColumns=columns))

    made = await http("POST", URL, widget())
    listed = await http("GET", URL)
    table = await http("GET", URL, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    deleted = await http("DELETE", f"{URL}/w")

    assert (made.status, made.body["kind"], made.body["apiVersion"]) == (201, "Widget", "example.com/v1")
    assert (listed.body["kind"], len(listed.body["items"])) == ("WidgetList", 1)
    assert [column["name"] for column in table.body["columnDefinitions"]] == ["Name", "Size"]
    assert table.body["rows"][0]["cells"] == ["w", 1]
    assert (deleted.body["kind"], deleted.body["details"]["kind"]) == ("Status", "widgets")


async def test_unknown_fields_are_refused_warned_of_or_ignored(http: Http) -> None:
    await _define(http)
    typo = widget(colour="red")

    strict = await http("POST", f"{URL}?fieldValidation=Strict", typo)
    warned = await http("POST", f"{URL}?fieldValidation=Warn", typo)
    ignored = await http("POST", f"{URL}?fieldValidation=Ignore", {**typo, "metadata": {"name": "other"}})

    why = 'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.colour"'
    assert (strict.status, strict.body["message"]) == (400, why)
    assert (warned.status, warned.headers["Warning"]) == (201, r'299 - "unknown field \"spec.colour\""')
    assert (ignored.status, "Warning" in ignored.headers) == (201, False)
    assert "colour" not in ignored.body["spec"]


async def test_a_strategic_merge_patch_is_of_no_media_type_that_is_taken(http: Http) -> None:
    await _define(http)
    await http("POST", URL, widget())

    reply = await http("PATCH", f"{URL}/w", {"spec": {"size": 2}}, content_type=STRATEGIC)

    assert (reply.status, reply.body["reason"]) == (415, "UnsupportedMediaType")
    assert "application/apply-patch+yaml" in reply.body["message"]


async def test_a_version_that_is_deprecated_says_so(http: Http) -> None:
    await _define(http, version("v1"), version("v1alpha1", storage=False, deprecated=True))

    reply = await http("GET", "/apis/example.com/v1alpha1/widgets")

    assert reply.headers["Warning"] == '299 - "example.com/v1alpha1 Widget is deprecated"'


async def test_unknown_fields_of_a_definition_are_found_deep_inside_its_schema(http: Http) -> None:
    spec = {"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string", "maxLenght": 3}}}}
    crd = DEFINITION | definition("widgets", "Widget", version(spec=spec))

    reply = await http("POST", f"{CRDS_URL}?fieldValidation=Strict", crd)

    where = "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.l.items.maxLenght"
    assert (reply.status, f'unknown field "{where}"' in reply.body["message"]) == (400, True)


async def test_nothing_is_created_while_its_definition_ends(http: Http) -> None:
    await _define(http)
    held = widget()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await http("POST", URL, held)
    await http("DELETE", CRD_URL)

    refused = await http("POST", URL, widget("late"))
    released = await http("PATCH", f"{URL}/w", {"metadata": {"finalizers": None}}, content_type=MERGE)

    assert (refused.status, released.status) == (405, 200)


async def test_roles_grant_custom_resources_by_their_names() -> None:
    store, ann = MemoryStore(), User("ann", ("system:authenticated",))
    async with apiserver_kit.serving(store) as registry:
        await registry.create(NAMESPACES, apiserver_kit.NAMESPACE)
        await define(registry)
        await _grant(registry, {"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]})
        authorizer = ClusterAuthorizer(registry)
        asked = [
            Attributes(verb, "example.com", "v1", "widgets", part, "shop", "w")
            for verb, part in (("get", ""), ("update", ""), ("get", "status"))
        ]
        allowed = [bool(authorizer.why(ann, one)) for one in asked]
    await store.close()

    assert allowed == [True, False, False]


async def _grant(registry: Registry, rule: dict[str, Any]) -> None:
    await registry.create(ROLES, {"metadata": {"name": "r"}, "rules": [rule]}, "shop")
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subjects = [{"kind": "User", "name": "ann"}]
    await registry.create(ROLEBINDINGS, {"metadata": {"name": "r"}, "roleRef": ref, "subjects": subjects}, "shop")
