"""What is served outside of the resource tree: version, health, discovery, OpenAPI and metrics."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from netemu.apiserver.http.discovery import Discovery, aggregated_type
from netemu.apiserver.http.negotiation import OPENAPI_PROTOBUF, discovery_version, openapi_type
from netemu.apiserver.http.openapi import OpenApi
from netemu.apiserver.http.responses import document_response, json_response, text_response
from netemu.apiserver.schema.kinds import Schema
from netemu.model.served import Served

VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2024-12-11T17:59:15Z",
    "goVersion": "",
    "compiler": "",
    "platform": f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }",
}
"""The minor version decides which features clients expect; gitVersion is that of the OpenAPI data."""

ALWAYS_ALLOWED = frozenset({"/healthz", "/livez", "/readyz"})
"""What no role is needed for. Upstream: the default of `--authorization-always-allow-paths`."""


class MetaHandlers:
    """Answers by path; None where a path is nobody's."""

    def __init__(
        self,
        schema: Schema,
        served: Served,
        ready: Callable[[], bool],
        documents: Mapping[str, Mapping[str, Any]],
        more_metrics: Callable[[], Sequence[str]],
    ) -> None:
        """`documents` are JSON that others provide, by path, `more_metrics` lines for Prometheus."""
        self._more_metrics = more_metrics
        self._documents = documents
        self._discovery = Discovery(served)
        self._openapi = OpenApi(schema, served)
        self._ready = ready
        self.requests: Counter[tuple[str, str, str, str, str, int]] = Counter()
        """(verb, group, version, resource, subresource, code) to the number of requests answered."""

    def handle(self, request: web.Request, path: str) -> web.Response | None:
        """The answer to a GET of `path`, which has no trailing slash."""
        if document := self._documents.get(path):
            return json_response(document)
        first, *rest = path.strip("/").split("/")
        if first == "version" and not rest:
            return json_response(VERSION)
        if first in ("healthz", "livez", "readyz"):
            return self._health(request, first)
        if first == "metrics" and not rest:
            return text_response(self._metrics())
        if first == "openapi" and rest:
            return self._openapi_document(request, rest)
        if first in ("api", "apis"):
            return self._discover(request, first, rest)
        if not first:
            return json_response({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3",
                                            "/readyz", "/version"]})  # fmt: skip
        return None

    def _health(self, request: web.Request, name: str) -> web.Response:
        up = self._ready() or name == "livez"
        if "verbose" not in request.query:
            return text_response("ok" if up else "not ready", 200 if up else 500)
        mark, word = ("+", "ok") if up else ("-", "failed")
        check = f"[+]ping ok\n[{mark}]registry {word}\n{name} check {'passed' if up else 'failed'}\n"
        return text_response(check, 200 if up else 500)

    def _discover(self, request: web.Request, root: str, rest: list[str]) -> web.Response | None:
        discovery = self._discovery
        if not rest:
            if version := discovery_version(request.headers.get("Accept", "")):
                document = discovery.aggregated(version, core=root == "api")
                return json_response(document, content_type=aggregated_type(version))
            return json_response(discovery.api_versions(request.host) if root == "api" else discovery.api_group_list())
        if root == "api" and len(rest) == 1:
            answer = discovery.api_resource_list("", rest[0])
        elif root == "apis" and len(rest) == 1:
            answer = discovery.api_group(rest[0])
        elif root == "apis" and len(rest) == 2:
            answer = discovery.api_resource_list(rest[0], rest[1])
        else:
            answer = None
        return json_response(answer) if answer is not None else None

    def _openapi_document(self, request: web.Request, rest: list[str]) -> web.Response | None:
        if rest == ["v2"]:
            content_type = openapi_type(request.headers.get("Accept", ""))
            document = self._openapi.v2_document(protobuf=content_type == OPENAPI_PROTOBUF)
            return document_response(request, document, self._openapi.v2_hash, content_type)
        if rest == ["v3"]:
            return json_response(self._openapi.index())
        path = "/".join(rest[1:])
        if rest[0] != "v3" or (of_group := self._openapi.document(path)) is None:
            return None
        # The hash in the URL changes with the document, so clients may keep it for ever.
        cache = "public, immutable" if "hash" in request.query else "no-cache, private"
        return document_response(request, of_group, self._openapi.hash(path), cache=cache)

    def _metrics(self) -> str:
        lines = [
            "# HELP apiserver_request_total Counter of apiserver requests broken out for each verb, group, version, "
            "resource, subresource and HTTP response code.",
            "# TYPE apiserver_request_total counter",
        ]
        names = ("verb", "group", "version", "resource", "subresource", "code")
        for labels, count in sorted(self.requests.items()):
            text = ",".join(f'{name}="{value}"' for name, value in zip(names, labels, strict=True))
            lines.append(f"apiserver_request_total{{{text}}} {count}")
        return "\n".join([*lines, *self._more_metrics()]) + "\n"
