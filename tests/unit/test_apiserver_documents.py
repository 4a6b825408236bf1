"""Discovery and OpenAPI documents, and the paths they name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from netemu.apiserver.http.discovery import Discovery
from netemu.apiserver.http.openapi import OpenApi, v2_document
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

    assert references - set(schemas) - {"io.k8s.apimachinery.pkg.apis.meta.v1.Patch"} == set()
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


def test_the_v2_document_names_the_validated_patch() -> None:
    raw = v2_document()

    assert b"/api/v1/namespaces/{name}" in raw
    assert b"fieldValidation" in raw


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
