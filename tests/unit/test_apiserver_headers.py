"""What heads of requests and answers say: which form of a document, and whether the client has it already."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netemu.testing.store import MemoryStore
from tests.unit.apiserver_http import Http, serving
from tests.unit.custom_kit import definition

PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
CRDS_URL = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with serving(tmp_path, MemoryStore()) as running:
        yield running


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json;q=0.9, */*", "application/json"),
        (PROTOBUF, PROTOBUF),
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF),
        ("text/html, " + PROTOBUF, PROTOBUF),
    ],
)
async def test_openapi_v2_comes_in_the_form_that_is_asked_for(http: Http, accept: str, content_type: str) -> None:
    answer = await http("GET", "/openapi/v2", accept=accept)

    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
    assert answer.raw.startswith(b'{"swagger":"2.0"' if content_type == "application/json" else b"\x0a\x032.0")


async def test_a_form_that_openapi_v2_does_not_have_is_refused(http: Http) -> None:
    answer = await http("GET", "/openapi/v2", accept="text/html")

    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")


async def test_a_document_that_the_client_has_is_not_sent_again(http: Http) -> None:
    for path in ("/openapi/v2", "/openapi/v3/apis/apps/v1"):
        etag = (await http("GET", path)).headers["ETag"]
        async with http.session.get(path, headers={"If-None-Match": etag}) as again:
            assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", etag)
        async with http.session.get(path, headers={"If-None-Match": '"another"'}) as other:
            assert other.status == 200


async def test_the_document_follows_what_is_defined(http: Http) -> None:
    before = await http("GET", "/openapi/v2")
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", **definition()}
    await http("POST", CRDS_URL, crd)

    async with http.session.get("/openapi/v2", headers={"If-None-Match": before.headers["ETag"]}) as after:
        definitions = (await after.json())["definitions"]

    assert definitions["com.example.v1.Widget"]["properties"]["spec"]["properties"]["size"]["type"] == "integer"
    assert "com.example.v1.Widget" not in before.body["definitions"]
