"""Subresources that lead somewhere else: `pods/log`, `exec`, `attach`, `portforward`, and the `proxy` ones.

The first four are the kubelet's to answer. The Pod says which node, the Node where its kubelet listens, and the request
goes there under the kubelet's own URLs (`/containerLogs/NAMESPACE/POD/CONTAINER`, `/exec/...`). A `proxy` subresource
passes any request on to a Pod, to one of the ready endpoints of a Service, or to a kubelet.
Upstream: `pkg/registry/core/{pod,service,node}/rest` and `pkg/kubelet/client`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from netemu.apiserver.http.pod_options import chosen_container, log_query
from netemu.apiserver.http.reach import Location, Reach
from netemu.apiserver.http.relay import pass_on, quoted, stream_from
from netemu.apiserver.http.routing import Target, flag
from netemu.apiserver.registry import Registry
from netemu.client.base import Obj
from netemu.client.upgrade import wants_upgrade
from netemu.model.errors import BadRequest, InternalError, MethodNotAllowed, NotFound, ServiceUnavailable
from netemu.model.resources import ENDPOINTS, NODES, PODS, SERVICES

CONNECTS = frozenset({"attach", "exec", "log", "portforward", "proxy"})
"""The subresources that are answered here."""
_KUBELET_PORT = 10250
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
"""Query parameters of the API to those of the kubelet."""


class ConnectHandlers:
    """Answers requests to such subresources."""

    def __init__(self, registry: Registry, reach: Reach) -> None:
        self._registry, self._reach = registry, reach

    async def handle(self, verb: str, request: web.Request, target: Target) -> web.StreamResponse:
        """Raises ApiError."""
        if target.subresource == "proxy":
            return await self._proxy(request, target)
        if not verb:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        pod = await self._registry.get(PODS, target.name, target.namespace)
        if target.subresource == "log":
            return await self._log(request, pod, target)
        if not wants_upgrade(request):
            raise BadRequest("Upgrade request required")
        where = await self._kubelet_of(pod, target)
        if target.subresource == "portforward":
            path = quoted("portForward", target.namespace, target.name)
            query = [("port", port) for ports in request.query.getall("ports", []) for port in ports.split(",")]
        else:
            container = chosen_container(pod, request.query.get("container", ""))
            path = quoted(target.subresource, target.namespace, target.name, container)
            query = _stream_query(request)
        return await pass_on(request, self._reach, where, f"{path}?{urlencode(query)}")

    async def _log(self, request: web.Request, pod: Obj, target: Target) -> web.StreamResponse:
        options = log_query(request.query, target.name)
        container = chosen_container(pod, request.query.get("container", ""))
        if not pod["spec"].get("nodeName"):  # nobody runs it yet, and there is nothing to show
            return web.Response(text="", content_type="text/plain")
        where = await self._kubelet_of(pod, target)
        path = quoted("containerLogs", target.namespace, target.name, container)
        return await stream_from(request, self._reach, where, f"{path}?{urlencode(options)}")

    async def _kubelet_of(self, pod: Obj, target: Target) -> Location:
        node = pod["spec"].get("nodeName")
        if not node:
            raise BadRequest(f"pod {target.name} does not have a host assigned")
        return await self._kubelet(node)

    async def _kubelet(self, node: str, scheme: str = "", port: str = "") -> Location:
        status = (await self._registry.get(NODES, node)).get("status") or {}
        address = _internal_address(status)
        if not address:
            raise InternalError(f"Internal error occurred: no preferred addresses found; known addresses: [] of {node}")
        own = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or _KUBELET_PORT
        if port and int(port) != own:
            return Location(scheme or "http", address, int(port))
        return Location("https", address, own, verified=True)

    async def _proxy(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Any method, OPTIONS too, of any path; a GET of none is sent to `/`, so that relative links work."""
        scheme, name, port = split_name(target)
        if target.resource == NODES:
            where = await self._kubelet(name, scheme, _number(port, target))
        elif target.resource == PODS:
            where = await self._pod_location(target, scheme, name, port)
        else:
            where = await self._service_location(target, scheme, name, port)
        prefix, path = _divided(request, target)
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        if not path and request.method in ("GET", "HEAD") and not wants_upgrade(request):
            return web.Response(status=301, headers={"Location": f"{prefix}/{query}"})
        return await pass_on(request, self._reach, where, f"{path or '/'}{query}", prefix=prefix)

    async def _pod_location(self, target: Target, scheme: str, name: str, port: str) -> Location:
        pod = await self._registry.get(PODS, name, target.namespace)
        address = (pod.get("status") or {}).get("podIP") or ""
        if not self._reach.may_proxy_to(address):
            raise BadRequest("address not allowed")
        if not port:
            declared = [p for one in pod["spec"]["containers"] for p in one.get("ports") or ()]
            port = str(declared[0]["containerPort"]) if declared else ""
        number = _number(port, target) or ("443" if scheme == "https" else "80")
        return Location(scheme or "http", address, int(number))

    async def _service_location(self, target: Target, scheme: str, name: str, port: str) -> Location:
        service = await self._registry.get(SERVICES, name, target.namespace)
        try:
            endpoints = await self._registry.get(ENDPOINTS, name, target.namespace)
        except NotFound:
            endpoints = {}
        found = service_endpoints(service, endpoints, port)
        if not found:
            raise ServiceUnavailable(f'no endpoints available for service "{target.name}"')
        address, number = random.choice(found)
        if not self._reach.may_proxy_to(address):
            raise BadRequest("address not allowed")
        return Location(scheme or "http", address, number)


def split_name(target: Target) -> tuple[str, str, str]:
    """Scheme, name and port out of `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`. Raises BadRequest."""
    scheme = port = ""
    match target.name.split(":"):
        case [name]:
            pass
        case [name, port]:
            pass
        case [scheme, name, port]:
            pass
        case _:
            name = ""
    if not name or scheme not in ("", "http", "https"):
        raise BadRequest(f'invalid {target.resource.singular} request "{target.name}"')
    return scheme, name, port


def service_endpoints(service: Obj, endpoints: Obj, port: str) -> list[tuple[str, int]]:
    """Ready addresses and ports behind a Service's port, which is given by name or number, or is the only one.

    Raises ServiceUnavailable where a number is no port of the Service.
    """
    if port.isdigit():
        named = [one.get("name", "") for one in service["spec"].get("ports") or () if one["port"] == int(port)]
        if not named:
            raise ServiceUnavailable(f'no service port {port} found for service "{service["metadata"]["name"]}"')
        port = named[0]
    return [
        (address["ip"], one["port"])
        for subset in endpoints.get("subsets") or ()
        for one in subset.get("ports") or ()
        if one.get("name", "") == port
        for address in subset.get("addresses") or ()
    ]


def _internal_address(status: Mapping[str, Any]) -> str:
    found = {one["type"]: one["address"] for one in reversed(status.get("addresses") or [])}
    return str(found.get("InternalIP") or found.get("ExternalIP") or "")


def _number(port: str, target: Target) -> str:
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise BadRequest(f'invalid {target.resource.singular} request "{target.name}"')
    return port


def _stream_query(request: web.Request) -> list[tuple[str, str]]:
    query = [("command", word) for word in request.query.getall("command", [])]
    return query + [(name, "1") for asked, name in _STREAMS.items() if flag(request.query, asked)]


def _divided(request: web.Request, target: Target) -> tuple[str, str]:
    """The URL's path up to `/proxy`, and the other server's path behind it, quoted as it came."""
    count = target.resource.path(target.namespace, target.name, "proxy").count("/") + 1
    parts = request.rel_url.raw_path.split("/", count)
    return "/".join(parts[:count]), "".join(f"/{rest}" for rest in parts[count:])


def connects(target: Target) -> bool:
    """Whether a URL names such a subresource."""
    return target.subresource in CONNECTS and target.subresource in target.resource.subresources
