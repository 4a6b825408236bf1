"""What heads of requests and answers say: forms, sizes, names; and requests that make what they meant to replace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netemu.testing.store import MemoryStore
from tests.unit.apiserver_http import CONFIGMAP, CONFIGMAPS_URL, PODS_URL, SERVICE, SERVICES_URL, Http, serving
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


async def test_every_answer_names_its_request(http: Http) -> None:
    own = (await http("GET", PODS_URL)).headers["Audit-Id"]
    missing = (await http("GET", f"{PODS_URL}/none")).headers["Audit-Id"]
    async with http.session.get(PODS_URL, headers={"Audit-ID": "mine"}) as named:
        assert named.headers["Audit-Id"] == "mine"
    async with http.session.get(PODS_URL, params={"watch": "1", "timeoutSeconds": "1"}) as watch:
        assert watch.headers["Audit-Id"]

    assert own != missing


async def test_large_answers_are_compressed_for_who_takes_that(http: Http) -> None:
    large = {**CONFIGMAP, "data": {"k": "v" * 200_000}}
    await http("POST", CONFIGMAPS_URL, large)
    answers = {}
    for offer in ("gzip", "deflate, gzip", "gzip;q=0", "identity", "br"):
        headers = {"Accept-Encoding": offer}
        async with http.session.get(CONFIGMAPS_URL, headers=headers) as answer:
            body = await answer.json()
            answers[offer] = answer.headers.get("Content-Encoding"), int(answer.headers["Content-Length"]) < 100_000
        assert body["items"][0]["data"] == large["data"]
    async with http.session.get(PODS_URL, headers={"Accept-Encoding": "gzip"}) as small:
        assert "Content-Encoding" not in small.headers

    assert answers == {
        "gzip": ("gzip", True), "deflate, gzip": ("gzip", True), "gzip;q=0": (None, False), "identity": (None, False),
        "br": (None, False),
    }  # fmt: skip


LEASE = {
    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
    "spec": {"holderIdentity": "me"},
}  # fmt: skip
LEASE_URL = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"


async def test_put_makes_what_is_not_there_where_upstream_does(http: Http) -> None:
    made = await http("PUT", LEASE_URL, {**LEASE, "metadata": {"name": "l", "resourceVersion": "7"}})
    again = await http("PUT", LEASE_URL, LEASE)
    trial = await http("PUT", f"{SERVICES_URL}/s?dryRun=All", SERVICE)
    service = await http("PUT", f"{SERVICES_URL}/s", SERVICE)
    configmap = await http("PUT", f"{CONFIGMAPS_URL}/c", CONFIGMAP)
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", **definition()}
    defined = await http("PUT", f"{CRDS_URL}/{crd['metadata']['name']}", crd)

    assert (made.status, again.status, again.body["metadata"]["uid"]) == (201, 200, made.body["metadata"]["uid"])
    assert (trial.status, service.status, bool(service.body["spec"]["clusterIP"])) == (201, 201, True)
    assert (configmap.status, configmap.body["reason"]) == (404, "NotFound")
    assert (defined.status, defined.body["reason"]) == (404, "NotFound")


async def test_put_makes_nothing_under_another_name_or_uid(http: Http) -> None:
    elsewhere = await http("PUT", LEASE_URL, {**LEASE, "metadata": {"name": "other"}})
    gone = await http("PUT", LEASE_URL, {**LEASE, "metadata": {"name": "l", "uid": "gone"}})
    status = await http("PUT", f"{SERVICES_URL}/s/status", SERVICE)

    assert (elsewhere.status, gone.status, status.status) == (400, 409, 404)
