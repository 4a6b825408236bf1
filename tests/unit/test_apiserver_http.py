"""The front end over HTTP: verbs, forms, failures, limits."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from netemu.client.http import HttpClient
from netemu.client.kubeconfig import Credentials
from netemu.model.resources import CONFIGMAPS, ENDPOINTS, NAMESPACES, RUNTIMECLASSES, SERVICECIDRS, SERVICES
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_http import (
    CONFIGMAP,
    CONFIGMAPS_URL,
    POD,
    PODS_URL,
    SERVICE,
    SERVICES_URL,
    Http,
    serving,
)
from tests.unit.test_apiserver_protobuf import DEPLOYMENT

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with serving(tmp_path) as running:
        yield running


@pytest.mark.parametrize("path", ["/version", "/version/", "/api", "/api/", "/apis", "/apis/", "/api/v1/", "/healthz"])
async def test_fixed_documents_do_not_mind_a_trailing_slash(http: Http, path: str) -> None:
    assert (await http("GET", path)).status == 200


async def test_the_content_type_of_aggregated_discovery_is_exact(http: Http) -> None:
    reply = await http("GET", "/apis", accept=f"{AGGREGATED},application/json")

    assert reply.headers["Content-Type"] == AGGREGATED
    assert reply.body["kind"] == "APIGroupDiscoveryList"


async def test_a_body_without_content_type_is_json(http: Http) -> None:
    reply = await http("POST", CONFIGMAPS_URL, CONFIGMAP)

    assert (reply.status, reply.body["data"]) == (201, {"k": "v"})


async def test_bodies_may_be_yaml(http: Http) -> None:
    text = b"metadata: {name: c}\ndata: {k: v}\n"

    assert (await http("POST", CONFIGMAPS_URL, text, content_type="application/yaml")).status == 201


async def test_bodies_may_be_protobuf(http: Http) -> None:
    path, media = "/apis/apps/v1/namespaces/default/deployments", "application/vnd.kubernetes.protobuf"
    reply = await http(
        "POST", path, base64.b64decode(DEPLOYMENT), content_type=media, accept=f"{media},application/json"
    )

    assert (reply.status, reply.body["spec"]["replicas"]) == (201, 0)


async def test_an_object_of_another_kind_is_refused(http: Http) -> None:
    reply = await http("POST", CONFIGMAPS_URL, POD)

    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("method", "path", "content_type", "accept", "status", "reason"),
    [
        pytest.param("GET", f"{PODS_URL}/none", "", "", 404, "NotFound", id="no such object"),
        pytest.param("GET", "/api/v1/gadgets", "", "", 404, "NotFound", id="no such resource"),
        pytest.param("GET", f"{PODS_URL}/none/log", "", "", 404, "NotFound", id="no such subresource"),
        pytest.param("POST", f"{PODS_URL}/none", "", "", 405, "MethodNotAllowed", id="no such verb"),
        pytest.param("POST", "/api/v1/pods", "", "", 405, "MethodNotAllowed", id="create without a namespace"),
        pytest.param(
            "GET", PODS_URL, "", "application/vnd.kubernetes.protobuf", 406, "NotAcceptable", id="protobuf only"
        ),
        pytest.param("POST", PODS_URL, "text/html", "", 415, "UnsupportedMediaType", id="unknown body"),
        pytest.param(
            "PATCH", f"{PODS_URL}/none", "application/json", "", 415, "UnsupportedMediaType", id="unknown patch"
        ),
        pytest.param(
            "GET", f"{PODS_URL}?fieldSelector=foo=bar", "", "", 400, "BadRequest", id="unknown field selector"
        ),
        pytest.param("GET", f"{PODS_URL}?limit=many", "", "", 400, "BadRequest", id="limit that is no number"),
        pytest.param(
            "POST", f"{PODS_URL}?fieldValidation=Maybe", "", "", 422, "Invalid", id="unknown field validation"
        ),
        pytest.param("POST", f"{CONFIGMAPS_URL}?dryRun=Some", "", "", 400, "BadRequest", id="unknown dry run"),
        pytest.param("GET", f"{PODS_URL}?resourceVersion=999999", "", "", 410, "Expired", id="revision of the future"),
    ],
)
async def test_refusals_are_statuses(
    http: Http, method: str, path: str, content_type: str, accept: str, status: int, reason: str
) -> None:
    body = CONFIGMAP if "configmaps" in path else POD
    reply = await http(method, path, None if method == "GET" else body, content_type=content_type, accept=accept)

    assert reply.body["kind"] == "Status"
    assert (reply.status, reply.body["code"], reply.body["reason"]) == (status, status, reason)


async def test_a_list_names_kind_and_revision(http: Http) -> None:
    body = (await http("GET", "/api/v1/namespaces")).body

    assert (body["kind"], body["apiVersion"]) == ("NamespaceList", "v1")
    assert int(body["metadata"]["resourceVersion"]) > 0
    assert len(body["items"]) == 4


async def test_pages_follow_each_other(http: Http) -> None:
    first = (await http("GET", "/api/v1/namespaces?limit=3")).body
    second = (await http("GET", f"/api/v1/namespaces?limit=3&continue={first['metadata']['continue']}")).body

    assert first["metadata"]["remainingItemCount"] == 1
    assert [item["metadata"]["name"] for item in second["items"]] == ["kube-system"]
    assert "continue" not in second["metadata"]


async def test_a_client_lists_in_pages(http: Http) -> None:
    base = str(http.session._base_url).rstrip("/")
    async with HttpClient(Credentials(server=base)) as client:
        pages = [page async for page in client.pages(NAMESPACES, limit=3)]
        whole = await client.list(NAMESPACES)

    assert [len(page.items) for page in pages] == [3, 1]
    assert [item for page in pages for item in page.items] == whole.items
    assert {page.resource_version for page in pages} == {whole.resource_version}


async def test_tables_carry_revision_and_metadata(http: Http) -> None:
    body = (await http("GET", "/api/v1/namespaces", accept=TABLE)).body

    assert body["kind"] == "Table"
    assert body["rows"][0]["object"]["metadata"]["name"] == "default"
    assert int(body["metadata"]["resourceVersion"]) > 0


async def test_a_created_object_can_be_answered_as_a_table(http: Http) -> None:
    reply = await http("POST", CONFIGMAPS_URL, CONFIGMAP, accept=TABLE)

    assert (reply.status, reply.body["rows"][0]["cells"][:2]) == (201, ["c", 1])


async def test_dry_run_stores_nothing(http: Http) -> None:
    reply = await http("POST", f"{CONFIGMAPS_URL}?dryRun=All", CONFIGMAP)

    assert (reply.status, (await http("GET", f"{CONFIGMAPS_URL}/c")).status) == (201, 404)


async def test_dry_run_of_a_deletion_stands_in_its_body(http: Http) -> None:
    await http("POST", CONFIGMAPS_URL, CONFIGMAP)
    await http("DELETE", f"{CONFIGMAPS_URL}/c", {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]})

    assert (await http("GET", f"{CONFIGMAPS_URL}/c")).status == 200


async def test_deleting_a_service_answers_with_it(http: Http) -> None:
    await http("POST", SERVICES_URL, SERVICE)

    assert (await http("DELETE", f"{SERVICES_URL}/s")).body["kind"] == "Service"


async def test_deleting_a_configmap_answers_with_a_status(http: Http) -> None:
    uid = (await http("POST", CONFIGMAPS_URL, CONFIGMAP)).body["metadata"]["uid"]
    body = (await http("DELETE", f"{CONFIGMAPS_URL}/c", {})).body

    assert (body["kind"], body["status"]) == ("Status", "Success")
    assert body["details"] == {"name": "c", "kind": "configmaps", "uid": uid}


async def test_delete_options_may_stand_in_the_query(http: Http) -> None:
    await http("POST", PODS_URL, POD)
    await http("DELETE", f"{PODS_URL}/one?gracePeriodSeconds=0")

    assert (await http("GET", f"{PODS_URL}/one")).status == 404


async def test_deletecollection_deletes_what_is_selected(http: Http) -> None:
    for name, label in (("a", "x"), ("b", "y")):
        await http("POST", CONFIGMAPS_URL, {"metadata": {"name": name, "labels": {"l": label}}})
    await http("DELETE", f"{CONFIGMAPS_URL}?labelSelector=l%3Dx")

    left = await http.client.list(CONFIGMAPS, "default")
    assert [item["metadata"]["name"] for item in left.items] == ["b"]


@pytest.mark.parametrize(
    ("directive", "status", "warned"),
    [("Strict", 400, False), ("Warn", 201, True), ("", 201, True), ("Ignore", 201, False)],
)
async def test_unknown_fields_are_refused_warned_of_or_ignored(
    http: Http, directive: str, status: int, warned: bool
) -> None:
    service = {**SERVICE, "spec": {**SERVICE["spec"], "selectorr": {}}}  # type: ignore[dict-item]
    reply = await http("POST", f"{SERVICES_URL}?fieldValidation={directive}", service)

    assert (reply.status, "Warning" in reply.headers) == (status, warned)


async def test_a_warning_is_quoted(http: Http) -> None:
    service = {**SERVICE, "spec": {**SERVICE["spec"], "selectorr": {}}}  # type: ignore[dict-item]
    reply = await http("POST", SERVICES_URL, service)

    assert reply.headers["Warning"] == r'299 - "unknown field \"spec.selectorr\""'


@pytest.mark.parametrize(
    ("media", "patch"),
    [
        (MERGE, {"dataa": {}}),
        ("application/strategic-merge-patch+json", {"dataa": {}, "$retainKeys": ["data"]}),
        ("application/json-patch+json", [{"op": "add", "path": "/dataa", "value": {}}]),
    ],
)
async def test_strict_patches_name_unknown_fields(http: Http, media: str, patch: Any) -> None:
    await http("POST", CONFIGMAPS_URL, CONFIGMAP)
    reply = await http("PATCH", f"{CONFIGMAPS_URL}/c?fieldValidation=Strict", patch, content_type=media)

    assert reply.status == 422
    assert 'unknown field "dataa"' in reply.body["message"]
    assert "retainKeys" not in reply.body["message"].partition("strict decoding error")[2]


async def test_scale_is_read_and_set_through_its_subresource(http: Http) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    await http("POST", path, base64.b64decode(DEPLOYMENT), content_type="application/vnd.kubernetes.protobuf")
    await http("PATCH", f"{path}/web/scale", {"spec": {"replicas": 4}}, content_type=MERGE)
    scale = (await http("GET", f"{path}/web/scale")).body

    assert (scale["kind"], scale["apiVersion"], scale["spec"]["replicas"]) == ("Scale", "autoscaling/v1", 4)
    assert scale["status"]["selector"] == "app=web"


async def test_binding_assigns_the_node(http: Http) -> None:
    await http("POST", PODS_URL, POD)
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "one"}, "target": {"name": "node-1"}}
    reply = await http("POST", f"{PODS_URL}/one/binding", binding)

    assert (reply.status, reply.body["kind"]) == (201, "Status")
    assert (await http("GET", f"{PODS_URL}/one")).body["spec"]["nodeName"] == "node-1"


async def test_long_selectors_are_read(http: Http) -> None:
    names = ",".join(f"name-{number}" for number in range(3000))

    assert (await http("GET", f"{PODS_URL}?labelSelector=app in ({names})")).status == 200


async def test_bodies_may_be_large_but_not_endless(http: Http) -> None:
    large = {**CONFIGMAP, "data": {"k": "x" * 900_000}, "binaryData": {"b": "QUFB" * 25_000}}
    endless = {**CONFIGMAP, "data": {"k": "x" * 4 * 2**20}}

    assert (await http("POST", f"{CONFIGMAPS_URL}?dryRun=All", large)).status == 201
    assert (await http("POST", CONFIGMAPS_URL, endless)).body["reason"] == "RequestEntityTooLarge"


async def test_requests_are_counted(http: Http) -> None:
    await http("GET", f"{PODS_URL}/none")
    text = (await http("GET", "/metrics")).raw.decode()

    assert (
        'apiserver_request_total{verb="GET",group="",version="v1",resource="pods",subresource="",code="404"} 1' in text
    )


async def test_bootstrap_makes_what_every_cluster_has(http: Http) -> None:
    namespaces = {item["metadata"]["name"] for item in (await http.client.list(NAMESPACES)).items}
    classes = {item["handler"] for item in (await http.client.list(RUNTIMECLASSES)).items}
    service = await http.client.get(SERVICES, "kubernetes", "default")
    network = await http.client.get(SERVICECIDRS, "kubernetes")

    assert network["spec"] == {"cidrs": ["10.96.0.0/16"]}
    assert [(c["type"], c["status"]) for c in network["status"]["conditions"]] == [("Ready", "True")]
    assert namespaces == {"default", "kube-system", "kube-public", "kube-node-lease"}
    assert classes == {"emulated", "process"}
    assert (service["spec"]["clusterIP"], service["spec"]["ports"][0]["targetPort"]) == ("10.96.0.1", 6443)


async def test_bootstrap_again_moves_the_address_and_nothing_else(http: Http) -> None:
    from netemu.apiserver.bootstrap import bootstrap

    before = await http.client.get(SERVICES, "kubernetes", "default")
    await bootstrap(http.client, api_address="172.18.0.9", api_port=6443)
    endpoints = await http.client.get(ENDPOINTS, "kubernetes", "default")

    assert endpoints["subsets"][0]["addresses"] == [{"ip": "172.18.0.9"}]
    assert await http.client.get(SERVICES, "kubernetes", "default") == before


async def test_a_full_store_refuses_writes_until_there_is_room_and_reads_go_on(tmp_path: Path) -> None:
    store = MemoryStore()
    async with serving(tmp_path, store) as http:
        assert (await http("POST", SERVICES_URL, SERVICE)).status == 201
        store.full = True
        refused = [
            await http("POST", CONFIGMAPS_URL, CONFIGMAP),
            await http("POST", SERVICES_URL, {**SERVICE, "metadata": {"name": "t"}}),
            await http("PATCH", f"{SERVICES_URL}/s", {"spec": {"type": "NodePort"}}, content_type=MERGE),
            await http("DELETE", f"{SERVICES_URL}/s"),
            await http("DELETE", SERVICES_URL),
        ]
        read = await http("GET", f"{SERVICES_URL}/s")
        store.full = False
        later = await http("POST", SERVICES_URL, {**SERVICE, "metadata": {"name": "t"}})

    assert {(reply.status, reply.body["kind"], reply.body["reason"]) for reply in refused} == {
        (503, "Status", "ServiceUnavailable")
    }
    assert all("full" in reply.body["message"] for reply in refused)
    assert (read.status, read.body["spec"]["type"], later.status) == (200, "ClusterIP", 201)


async def test_addresses_of_a_refused_service_are_free_again(tmp_path: Path) -> None:
    store, body = MemoryStore(), {**SERVICE, "metadata": {"name": "t"}}
    body["spec"] = {"clusterIP": "10.96.3.3", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30333}]}
    async with serving(tmp_path, store) as http:
        store.full = True
        assert (await http("POST", SERVICES_URL, body)).status == 503
        store.full = False

        assert (await http("POST", SERVICES_URL, {**body, "metadata": {"name": "u"}})).status == 201


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("resourceVersion=x", 400, 'Invalid value: "x": resourceVersion: '),
        ("resourceVersion=99999999", 410, "too large resource version"),
        ("resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided"),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422, 'forbidden for resourceVersion "0"'),
        ("resourceVersion=1&resourceVersionMatch=Roughly", 422, "Unsupported value"),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        ("continue=x&resourceVersion=3", 400, "specifying resource version is not allowed when using continue"),
        ("continue=x&resourceVersionMatch=Exact&resourceVersion=3", 422, "forbidden when continue is provided"),
        ("continue=x", 400, "continue key is not valid"),
        ("watch=1&resourceVersion=x", 400, "resourceVersion"),
        ("watch=1&timeoutSeconds=99999999999999999999", 400, "timeoutSeconds"),
        ("watch=1&resourceVersionMatch=NotOlderThan", 422, "forbidden for watch unless sendInitialEvents"),
        ("watch=1&sendInitialEvents=true", 422, "requires setting resourceVersionMatch to NotOlderThan"),
    ],
)
async def test_parameters_of_lists_and_watches_are_checked(http: Http, query: str, status: int, text: str) -> None:
    reply = await http("GET", f"{PODS_URL}?{query}")

    assert (reply.status, text in reply.body["message"]) == (status, True)


async def test_one_object_is_not_answered_older_than_asked_for(http: Http) -> None:
    revision = (await http("POST", CONFIGMAPS_URL, CONFIGMAP)).body["metadata"]["resourceVersion"]

    assert (await http("GET", f"{CONFIGMAPS_URL}/c?resourceVersion={revision}")).status == 200
    assert (await http("GET", f"{CONFIGMAPS_URL}/c?resourceVersion={int(revision) + 1}")).status == 410


async def test_a_head_request_for_a_watch_has_no_stream(http: Http) -> None:
    reply = await http("HEAD", f"{PODS_URL}?watch=true")

    assert (reply.status, reply.raw) == (200, b"")


async def test_a_warning_is_one_line_however_the_field_is_called(http: Http) -> None:
    reply = await http("POST", CONFIGMAPS_URL, {**CONFIGMAP, "a\nb\0": 1})

    assert (reply.status, reply.headers["Warning"]) == (201, '299 - "unknown field \\"a b \\""')


async def test_unknown_fields_are_not_stored(http: Http) -> None:
    service = {**SERVICE, "x": 1, "spec": {**SERVICE["spec"], "selectorr": {}}}  # type: ignore[dict-item]
    stored = (await http("POST", SERVICES_URL, service)).body

    assert "x" not in stored
    assert "selectorr" not in stored["spec"]


@pytest.mark.parametrize(
    ("media", "text"),
    [
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"metadata":' * 300 + b"1" + b"}" * 300),
        ("application/yaml", b"[" * 100_000),
        ("application/yaml", b"- " * 100_000),
        ("application/yaml", b"a: &a [*a]"),
        ("application/yaml", b"a: &a aaaaaaaaaaaaaaaaaaaa\nb: &b [" + b"*a," * 99 + b"]\nc: [" + b"*b," * 99 + b"]"),
    ],
    ids=["unclosed", "deep", "deep YAML", "deep block YAML", "cycle", "aliases of aliases"],
)
async def test_bodies_without_bounds_are_refused(http: Http, media: str, text: bytes) -> None:
    reply = await http("POST", CONFIGMAPS_URL, text, content_type=media)

    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")


async def test_namespaces_are_not_deleted_all_at_once(http: Http) -> None:
    reply = await http("DELETE", "/api/v1/namespaces")

    assert (reply.status, reply.body["reason"]) == (405, "MethodNotAllowed")
    assert (await http("GET", "/api/v1/namespaces/default")).status == 200


async def test_a_body_that_is_not_compressed_as_it_says_is_refused(http: Http) -> None:
    async with http.session.post(CONFIGMAPS_URL, data=b"{}", headers={"Content-Encoding": "gzip"}) as answer:
        body = await answer.json()

    assert (answer.status, body["kind"], body["reason"]) == (400, "Status", "BadRequest")


@pytest.mark.parametrize(
    ("body", "twice"),
    [
        (b'{"metadata":{"name":"c"},"data":{"a":"1","a":"2"}}', ["data.a"]),
        (b'{"metadata":{"name":"c","labels":{}},"data":{},"metadata":{"name":"c"}}', ["metadata"]),
        (b'{ "metadata": { "name": "c" },\n "data": { "a": "\\u003c", "b": "\\"a\\":1" } }', []),
        (
            b'{"metadata":{"name":"c","ownerReferences":[{"name":"x","name":"y","apiVersion":"v1","kind":"K","uid":"u"}]}}',
            ["metadata.ownerReferences[0].name"],
        ),
    ],
)
async def test_fields_that_come_twice_are_told(http: Http, body: bytes, twice: list[str]) -> None:
    texts = [f'duplicate field "{path}"' for path in twice]

    strict = await http("POST", f"{CONFIGMAPS_URL}?fieldValidation=Strict&dryRun=All", body)
    warned = await http("POST", f"{CONFIGMAPS_URL}?dryRun=All", body)
    ignored = await http("POST", f"{CONFIGMAPS_URL}?fieldValidation=Ignore&dryRun=All", body)

    assert ("strict decoding error: " + ", ".join(texts) in strict.body.get("message", "")) == bool(twice)
    assert [text.replace("\\", "") for text in warned.headers.getall("Warning", [])] == [
        f'299 - "{text}"' for text in texts
    ]
    assert "Warning" not in ignored.headers


@pytest.mark.parametrize(
    ("query", "agent", "lines"),
    [("", "curl/8.1", True), ("?pretty=true", "", True), ("?pretty=0", "curl/8.1", False), ("", "kubectl", False)],
)
async def test_people_are_answered_on_several_lines(http: Http, query: str, agent: str, lines: bool) -> None:
    for path in ("/version", "/api/v1/namespaces/default", "/api/v1/namespaces/none"):
        async with http.session.get(f"{path}{query}", headers={"User-Agent": agent}) as answer:
            assert (b"\n  " in await answer.read()) == lines, path
