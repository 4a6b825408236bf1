"""Which representation an answer has, and what a request's body says.

Answers are JSON only. A client names what it accepts in order of preference; the first range that can be served wins,
ranges for protobuf are passed over, and only a client that accepts nothing else gets 406. Bodies may be JSON, YAML or
protobuf; a body without a Content-Type is JSON, because some clients send none.
Upstream: apiserver `endpoints/handlers/negotiation`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from netemu.apiserver import json_values
from netemu.apiserver.http import protobuf
from netemu.model.errors import BadRequest, NotAcceptable, UnsupportedMediaType

Form = Literal["object", "table", "metadata"]

JSON = "application/json"
OPENAPI_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
APPLY = "application/apply-patch+yaml"
_ACCEPTED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"


@lru_cache(maxsize=256)
def form_of(accept: str) -> Form:
    """The form of an answer that `Accept` asks for. Raises NotAcceptable."""
    for media, parameters in _ranges(accept):
        if media not in (JSON, "*/*", "application/*"):
            continue
        wanted = parameters.get("as", "")
        if not wanted:
            return "object"
        if parameters.get("g") != "meta.k8s.io" or parameters.get("v") not in ("v1", "v1beta1"):
            continue
        if wanted == "Table":
            return "table"
        if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return "metadata"
    raise NotAcceptable("only the following media types are accepted: application/json")


@lru_cache(maxsize=256)
def discovery_version(accept: str) -> str:
    """`v2` or `v2beta1` where aggregated discovery is asked for first, else the empty string."""
    for media, parameters in _ranges(accept):
        if media not in (JSON, "*/*", "application/*"):
            continue
        if not parameters.get("as"):
            return ""
        if parameters["as"] == "APIGroupDiscoveryList" and parameters.get("g") == "apidiscovery.k8s.io":
            version = parameters.get("v", "")
            if version in ("v2", "v2beta1"):
                return version
    return ""


def openapi_type(accept: str) -> str:
    """The Content-Type of an OpenAPI v2 document that `Accept` asks for. Raises NotAcceptable.

    Upstream: kube-openapi `handler`.
    """
    for media, _ in _ranges(accept):
        if media in (JSON, "*/*", "application/*"):
            return JSON
        if media in (OPENAPI_PROTOBUF, OPENAPI_PROTOBUF.replace("v2.v1.0", "v2@v1.0")):  # the second by its first name
            return OPENAPI_PROTOBUF
    raise NotAcceptable(f"only the following media types are accepted: {JSON}, {OPENAPI_PROTOBUF}")


def _ranges(accept: str) -> list[tuple[str, dict[str, str]]]:
    """The media ranges in the client's order; clients of Kubernetes order them and send no weights."""
    ranges = []
    for text in (accept or "*/*").split(","):
        media, *rest = (part.strip() for part in text.split(";"))
        ranges.append((media.lower(), dict(part.split("=", 1) for part in rest if "=" in part)))
    return ranges


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters; JSON where there is none."""
    return content_type.partition(";")[0].strip().lower() or JSON


def decode_body(raw: bytes, content_type: str, *, api_version: str = "", kind: str = "") -> Any:
    """What a request's body says, as JSON values. Raises BadRequest, UnsupportedMediaType."""
    media = media_type(content_type)
    if media == JSON:
        return json_values.decode(raw)
    if media in ("application/yaml", "application/x-yaml", "text/yaml"):
        return _yaml(raw)
    if media == "application/vnd.kubernetes.protobuf":
        return json_values.copied(protobuf.decode(raw, api_version, kind))
    raise UnsupportedMediaType(
        f'the body of the request was in an unknown format - accepted media types include: {_ACCEPTED}; not "{media}"'
    )


def decode_patch(raw: bytes, content_type: str, supported: tuple[str, ...] = (*PATCH_TYPES, APPLY)) -> tuple[Any, str]:
    """A patch and which of the four kinds it is. Raises BadRequest, UnsupportedMediaType for one not `supported`."""
    media = media_type(content_type)
    if media not in supported:
        accepted = ", ".join(supported)
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {accepted}"
        )
    if media == APPLY:
        config = _yaml_or_json(raw)
        if not isinstance(config, dict):
            raise BadRequest("error decoding YAML: the configuration that is applied must be an object")
        return config, media
    patch = json_values.decode(raw)
    expected = list if media == PATCH_TYPES[0] else dict
    if not isinstance(patch, expected):
        raise BadRequest(f"error decoding patch: {media} must be a JSON {'array' if expected is list else 'object'}")
    return patch, media


def _yaml_or_json(raw: bytes) -> Any:
    """YAML; clients that say so mostly send JSON, which is decoded much faster."""
    if raw.lstrip()[:1] == b"{":
        try:
            return json_values.decode(raw)
        except BadRequest:
            pass
    return _yaml(raw)


def _yaml(raw: bytes) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Loading recurses in C, without a limit of its own: too deep a document would end the process.
        depth = 0
        for event in yaml.parse(raw, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > json_values.MAX_DEPTH:
                raise BadRequest("the body of the request is not valid YAML: exceeded max depth")
        value = yaml.load(raw, Loader=loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise BadRequest(f"the body of the request is not valid YAML: {' '.join(str(error).split())}") from error
    if _values_in(value, len(raw)) > len(raw):
        raise BadRequest("the body of the request is not valid YAML: document contains excessive aliasing")
    return json_values.copied(value, "the body of the request")


def _values_in(value: Any, limit: int) -> int:
    """How large a value is, in values and characters, counted up to `limit`: a few aliases can make it endless."""
    count, todo = 0, [value]
    while todo and count <= limit:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, (list, set, tuple)):
            todo += value
        count += len(value) if isinstance(value, (str, bytes)) else 1
    return count
