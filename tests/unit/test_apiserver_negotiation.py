"""Which form an answer takes, and how bodies are read."""

from __future__ import annotations

import pytest

from netemu.apiserver.http.negotiation import decode_body, decode_patch, discovery_version, form_of
from netemu.model.errors import ApiError, BadRequest, NotAcceptable, UnsupportedMediaType

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        pytest.param("", "object", id="nothing asked for"),
        pytest.param("*/*", "object", id="anything"),
        pytest.param("application/vnd.kubernetes.protobuf,application/json", "object", id="protobuf is passed over"),
        pytest.param(f"{TABLE},application/json", "table", id="a table first"),
        pytest.param(f"application/json,{TABLE}", "object", id="an object first"),
        pytest.param(
            "application/json;as=Table;v=v9;g=meta.k8s.io,application/json", "object", id="a table of no known version"
        ),
        pytest.param("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "metadata", id="metadata"),
    ],
)
def test_the_first_range_that_can_be_served_wins(accept: str, form: str) -> None:
    assert form_of(accept) == form


def test_only_protobuf_is_not_acceptable() -> None:
    with pytest.raises(NotAcceptable):
        form_of("application/vnd.kubernetes.protobuf")


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        (f"{AGGREGATED.format('v2')},{AGGREGATED.format('v2beta1')},application/json", "v2"),
        (f"{AGGREGATED.format('v2beta1')},application/json", "v2beta1"),
        ("application/json", ""),
        ("", ""),
    ],
)
def test_aggregated_discovery_is_given_to_those_who_ask(accept: str, version: str) -> None:
    assert discovery_version(accept) == version


@pytest.mark.parametrize(
    ("content_type", "raw"),
    [
        ("", b'{"a": 1}'),
        ("application/json; charset=utf-8", b'{"a": 1}'),
        ("application/yaml", b"a: 1\n"),
    ],
)
def test_bodies_are_json_unless_they_say_otherwise(content_type: str, raw: bytes) -> None:
    assert decode_body(raw, content_type) == {"a": 1}


@pytest.mark.parametrize(
    ("content_type", "raw", "error"),
    [
        pytest.param("text/plain", b"{}", UnsupportedMediaType, id="unknown type"),
        pytest.param("", b"{", BadRequest, id="broken JSON"),
        pytest.param("application/yaml", b"a: [", BadRequest, id="broken YAML"),
    ],
)
def test_unreadable_bodies_are_refused(content_type: str, raw: bytes, error: type[ApiError]) -> None:
    with pytest.raises(error):
        decode_body(raw, content_type)


@pytest.mark.parametrize("text", [b'{"spec":{"replicas":1}}', b"spec: {replicas: 1}", b"{spec: {replicas: 1}}"])
def test_what_is_applied_may_be_json_or_yaml(text: bytes) -> None:
    decoded = decode_patch(text, "application/apply-patch+yaml")

    assert decoded == ({"spec": {"replicas": 1}}, "application/apply-patch+yaml")


def test_what_is_applied_is_an_object() -> None:
    with pytest.raises(BadRequest, match="must be an object"):
        decode_patch(b"[1]", "application/apply-patch+yaml")


@pytest.mark.parametrize(
    ("media", "raw"), [("application/json-patch+json", b"{}"), ("application/merge-patch+json", b"[]")]
)
def test_a_patch_must_have_the_shape_of_its_type(media: str, raw: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_patch(raw, media)
