"""Discovery and OpenAPI documents, and the paths they name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from netemu.apiserver.http.discovery import Discovery
from netemu.apiserver.http.openapi import OpenApi
from netemu.apiserver.http.openapi_v2 import structural_v2
from netemu.apiserver.http.routing import Target, parse_path, verb_of
from netemu.apiserver.schema.kinds import Schema
from netemu.model.resources import DEPLOYMENTS, NAMESPACES, NODES, PODS, RESOURCES, by_path
from netemu.model.served import Served


@pytest.fixture(scope="module")
def documents() -> OpenApi:
    return OpenApi(Schema.load(), Served())


def document(documents: OpenApi, path: str) -> dict[str, Any]:
    raw = documents.document(path)
    assert raw is not None
    made: dict[str, Any] = msgspec.json.decode(raw)
    return made


def test_both_forms_of_discovery_name_the_same_resources() -> None:
    discovery = Discovery(Served())
    aggregated = {
        (group["metadata"].get("name", ""), version["version"], resource["resource"])
        for core in (True, False)
        for group in discovery.aggregated("v2", core=core)["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }
    legacy = set()
    for resource in RESOURCES:
        listed = discovery.api_resource_list(resource.group, resource.version)
        assert listed is not None
        legacy |= {(resource.group, resource.version, r["name"]) for r in listed["resources"] if "/" not in r["name"]}

    assert aggregated == legacy == {(r.group, r.version, r.plural) for r in RESOURCES}


def test_scale_and_binding_are_of_other_kinds() -> None:
    listed = Discovery(Served()).api_resource_list("apps", "v1")
    assert listed is not None
    scale = next(entry for entry in listed["resources"] if entry["name"] == "deployments/scale")

    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")


def test_drain_finds_the_eviction_of_policy_v1() -> None:
    listed = Discovery(Served()).api_resource_list("", "v1")
    assert listed is not None
    eviction = next(entry for entry in listed["resources"] if entry["name"] == "pods/eviction")

    assert (eviction["group"], eviction["version"], eviction["kind"]) == ("policy", "v1", "Eviction")
    assert eviction["verbs"] == ["create"]


def test_unknown_groups_have_no_documents() -> None:
    discovery = Discovery(Served())

    assert discovery.api_group("nowhere.example") is None
    assert discovery.api_resource_list("apps", "v9") is None


def test_references_lead_to_schemas_of_the_same_document(documents: OpenApi) -> None:
    made = document(documents, "apis/apps/v1")
    schemas = made["components"]["schemas"]
    references = {text.split('"')[0] for text in msgspec.json.encode(made).decode().split('"#/components/schemas/')[1:]}

    assert references - set(schemas) == set()
    assert "$defs" not in str(schemas["io.k8s.api.apps.v1.Deployment"])


def test_patch_operations_say_what_kubectl_looks_for(documents: OpenApi) -> None:
    paths = document(documents, "apis/apps/v1")["paths"]
    patch = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]

    assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}


def test_schemas_keep_merge_keys_and_lose_made_up_enums(documents: OpenApi) -> None:
    schemas = document(documents, "api/v1")["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]

    assert (containers["x-kubernetes-patch-merge-key"], containers["type"]) == ("name", "array")
    assert "enum" not in schemas["io.k8s.api.core.v1.Pod"]["properties"]["kind"]


def test_a_kind_that_was_a_beta_is_documented_as_what_is_served(documents: OpenApi) -> None:
    document = documents.document("apis/networking.k8s.io/v1") or b""

    kind = msgspec.json.decode(document)["components"]["schemas"]["io.k8s.api.networking.v1.ServiceCIDR"]
    assert kind["x-kubernetes-group-version-kind"] == [
        {"group": "networking.k8s.io", "kind": "ServiceCIDR", "version": "v1"}
    ]
    assert b"networking.v1beta1" not in document


def test_the_index_leads_to_every_document(documents: OpenApi) -> None:
    paths = documents.index()["paths"]

    assert set(paths) == {resource.root.strip("/") for resource in RESOURCES}
    assert paths["api/v1"]["serverRelativeURL"] == f"/openapi/v3/api/v1?hash={documents.hash('api/v1')}"


def test_the_v2_document_has_every_kind_and_leads_nowhere_else(documents: OpenApi) -> None:
    raw = documents.v2_document(protobuf=False)
    made = msgspec.json.decode(raw)
    definitions, references = made["definitions"], {part.split(b'"')[0] for part in raw.split(b'"#/definitions/')[1:]}
    named = [
        (one["group"], one["version"], one["kind"])
        for definition in definitions.values()
        for one in definition.get("x-kubernetes-group-version-kind", ())
    ]

    assert {name.decode() for name in references} <= set(definitions)
    assert b"#/components" not in raw
    assert {(one.group, one.version, one.kind) for one in RESOURCES} <= set(named)
    port = definitions["io.k8s.api.core.v1.ServicePort"]["properties"]["targetPort"]
    assert port["$ref"] == "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString"
    assert port["description"].startswith("Number or name of the port")


def test_operations_of_v2_have_bodies_among_their_parameters(documents: OpenApi) -> None:
    paths = msgspec.json.decode(documents.v2_document(protobuf=False))["paths"]
    item = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    put, patch = item["put"], item["patch"]

    assert [one["name"] for one in put["parameters"]] == ["body", "dryRun", "fieldManager", "fieldValidation"]
    assert put["parameters"][0]["schema"] == {"$ref": "#/definitions/io.k8s.api.apps.v1.Deployment"}
    assert put["responses"]["200"]["schema"] == put["parameters"][0]["schema"]
    assert "application/strategic-merge-patch+json" in patch["consumes"]
    assert item["parameters"][0] == {"name": "namespace", "in": "path", "required": True, "type": "string"}


@pytest.mark.parametrize(
    ("v3", "v2"),
    [
        ({"type": "object", "nullable": True, "properties": {"a": {"type": "string"}}}, {}),
        ({"type": "string", "anyOf": [{"minLength": 1}], "not": {"maxLength": 2}}, {"type": "string"}),
        ({"type": "array", "items": {"type": "string", "nullable": True}}, {"type": "array", "items": {}}),
        (
            {
                "type": "object",
                "required": ["a", "b"],
                "properties": {"a": {"type": "string", "nullable": True}, "b": {"type": "integer"}},
            },
            {"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"type": "integer"}}},
        ),
        (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "string"}}},
            {"x-kubernetes-preserve-unknown-fields": True},
        ),
    ],
)
def test_schemas_of_custom_resources_lose_what_v2_cannot_say(v3: dict[str, Any], v2: dict[str, Any]) -> None:
    assert structural_v2(v3) == v2


def test_the_v2_document_as_protobuf_has_the_same_definitions(documents: OpenApi) -> None:
    """Field numbers of gnostic's messages; what kubectl reads in it, tests with kubectl show."""
    document = _fields(documents.v2_document(protobuf=True))
    as_json = msgspec.json.decode(documents.v2_document(protobuf=False))
    definitions = dict(_entry(entry) for entry in _fields(document[9][0])[1])
    of_port = dict(_entry(entry) for entry in _fields(_fields(definitions["io.k8s.api.core.v1.ServicePort"])[25][0])[1])

    assert document[1] == [b"2.0"]
    assert list(definitions) == list(as_json["definitions"])
    assert [_entry(entry)[0] for entry in _fields(document[8][0])[2]] == list(as_json["paths"])
    assert _fields(_fields(of_port["port"])[22][0])[1] == [b"integer"]
    assert _fields(of_port["port"])[2] == [b"int32"]


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a protobuf message, by number."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        assert tag & 7 in (0, 2)
        length, at = _varint(message, at)
        if tag & 7 == 2:
            found.setdefault(tag >> 3, []).append(message[at : at + length])
            at += length
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number, at, shift = number | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _entry(message: bytes) -> tuple[str, bytes]:
    fields = _fields(message)
    return fields[1][0].decode(), fields.get(2, [b""])[0]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target(PODS)),
        ("/api/v1/namespaces/shop/pods", Target(PODS, "shop")),
        ("/api/v1/namespaces/shop/pods/web/status", Target(PODS, "shop", "web", "status")),
        ("/apis/apps/v1/namespaces/shop/deployments/web", Target(DEPLOYMENTS, "shop", "web")),
        ("/api/v1/namespaces", Target(NAMESPACES)),
        ("/api/v1/namespaces/shop", Target(NAMESPACES, "", "shop")),
        ("/api/v1/namespaces/shop/finalize", Target(NAMESPACES, "", "shop", "finalize")),
        ("/api/v1/nodes/node%2D1", Target(NODES, "", "node-1")),
        ("/api/v1/namespaces/shop/nodes/node-1", None),
        ("/api/v1/gadgets", None),
        ("/api/v1", None),
        ("/apis/apps/v1", None),
        ("/version", None),
        ("/api/v1/namespaces/shop/pods/web/proxy/a//b/", Target(PODS, "shop", "web", "proxy")),
    ],
)
def test_paths_name_resources(path: str, target: Target | None) -> None:
    assert parse_path(path, by_path) == target


@pytest.mark.parametrize(
    ("method", "target", "query", "verb"),
    [
        ("GET", Target(PODS), {}, "list"),
        ("GET", Target(PODS), {"watch": "1"}, "watch"),
        ("GET", Target(PODS), {"watch": "false"}, "list"),
        ("GET", Target(PODS, "a", "b"), {}, "get"),
        ("POST", Target(PODS, "a"), {}, "create"),
        ("POST", Target(PODS, "a", "b"), {}, ""),
        ("POST", Target(PODS, "a", "b", "binding"), {}, "create"),
        ("DELETE", Target(PODS, "a"), {}, "deletecollection"),
        ("DELETE", Target(PODS, "a", "b"), {}, "delete"),
        ("PUT", Target(PODS, "a"), {}, ""),
    ],
)
def test_methods_mean_verbs(method: str, target: Target, query: dict[str, str], verb: str) -> None:
    assert verb_of(method, target, query) == verb
