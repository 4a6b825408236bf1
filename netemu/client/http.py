"""A client over HTTP, for any Kubernetes API server."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

import aiohttp
import msgspec

from netemu.client.base import MERGE_PATCH, Obj, ObjectList, WatchEvent
from netemu.client.kubeconfig import Credentials
from netemu.model.errors import ApiError, ServiceUnavailable
from netemu.model.resources import Resource

_WATCH_SECONDS = 3000
"""How long one watch lasts before it is renewed; kube-apiserver cuts between 30 and 60 minutes itself."""


_QUIET_SECONDS, _PROBE_SECONDS, _GONE_SECONDS = 15, 5, 30
"""After how long a quiet connection is probed, how often, and when the other end is taken as gone; client-go takes 45
seconds for that (http2's ReadIdleTimeout and PingTimeout)."""


class _ListMeta(msgspec.Struct, rename="camel", frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    """What must be in a list for it to be one."""

    metadata: _ListMeta = _ListMeta()
    items: list[dict[str, Any]] | None = None


class _Event(msgspec.Struct):
    type: str
    object: dict[str, Any]


class HttpClient:
    """Implements `Client`. Use as an async context manager; one connection pool per instance.

    A server that cannot be reached, or talks nonsense, raises ServiceUnavailable, so callers handle one error tree.
    """

    def __init__(self, credentials: Credentials, *, user_agent: str = "netemu") -> None:
        self._base = credentials.server
        # On one machine it takes longer to make answers small than to hand them over.
        headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        if credentials.token:
            headers["Authorization"] = f"Bearer {credentials.token}"
        self._headers = headers
        self._ssl = credentials.ssl_context()
        self._session: aiohttp.ClientSession | None = None

    def use(self, credentials: Credentials) -> None:
        """Show another certificate from now on. Requests under way, and watches, go on as who they began as."""
        # A context of its own: connections that lie idle were opened with the one before.
        self._ssl = credentials.ssl_context()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Obj:
        """See Client."""
        return await self._object("GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> ObjectList:
        """See Client."""
        query = _query(labelSelector=label_selector, fieldSelector=field_selector, resourceVersion=resource_version)
        return (await self._page(resource, namespace, query))[0]

    async def pages(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = "", limit: int
    ) -> AsyncGenerator[ObjectList, None]:
        """See Paged."""
        query = _query(labelSelector=label_selector, fieldSelector=field_selector, limit=str(limit))
        while True:
            page, rest = await self._page(resource, namespace, query)
            yield page
            if not rest or not page.items:
                return
            query = {**query, "continue": rest}

    async def _page(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> tuple[ObjectList, str]:
        """A list or a piece of one, and where the next piece begins (empty: nowhere)."""
        body = await self._object("GET", resource.path(namespace), query=query)
        try:
            found = msgspec.convert(body, _List)
        except msgspec.ValidationError as error:
            raise ServiceUnavailable(f"{self._base}: no list of {resource}: {error}") from error
        items = found.items or []
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return ObjectList(items, found.metadata.resource_version), found.metadata.continue_

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncGenerator[WatchEvent, None]:
        """See Client."""
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=str(_WATCH_SECONDS),
        )
        async with aclosing(self._stream(resource.path(namespace), query)) as lines:
            async for line in lines:
                event = self._event(line)
                if event.type == "ERROR":
                    raise ApiError.of(event.object)
                yield event

    async def create(self, resource: Resource, obj: Mapping[str, Any], namespace: str = "") -> Obj:
        """See Client."""
        return await self._object("POST", resource.path(namespace), body=obj)

    async def update(self, resource: Resource, obj: Mapping[str, Any], *, subresource: str = "") -> Obj:
        """See Client."""
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace", ""), meta["name"], subresource)
        return await self._object("PUT", path, body=obj)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "",
        *,
        subresource: str = "",
        content_type: str = MERGE_PATCH,
    ) -> Obj:
        """See Client."""
        path = resource.path(namespace, name, subresource)
        return await self._object("PATCH", path, body=patch, content_type=content_type)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
        uid: str | None = None,
    ) -> None:
        """See Client."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        await self.request("DELETE", resource.path(namespace, name), body=options)

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: Mapping[str, Any], namespace: str = ""
    ) -> Obj:
        """See Client."""
        return await self._object("POST", resource.path(namespace, name, subresource), body=body)

    def _event(self, line: bytes) -> WatchEvent:
        """A line of a watch. Raises ServiceUnavailable for half a line and for what is no event."""
        try:
            event = msgspec.json.decode(line, type=_Event)
        except msgspec.DecodeError as error:
            raise ServiceUnavailable(f"{self._base}: a watch says what is no event: {error}") from error
        return WatchEvent(event.type, event.object)

    async def _object(self, method: str, path: str, **options: Any) -> Obj:
        answer = await self.request(method, path, **options)
        if not isinstance(answer, dict):
            raise ServiceUnavailable(f"{self._base}{path}: the answer is not a JSON object")
        return answer

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Any:
        """One request with a JSON answer (text for other content types). Raises ApiError."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content_type} if data is not None else None
        try:
            async with self._pool().request(
                method, self._base + path, params=query, data=data, headers=headers, ssl=self._ssl or False
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServiceUnavailable(f"{self._base}: {error}") from error
        if response.status >= 400:
            raise _failure(response.status, raw)
        if response.content_type != "application/json":
            return raw.decode(errors="replace")
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise ServiceUnavailable(f"{self._base}{path}: the answer is not JSON: {error}") from error

    async def _stream(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """The lines of a watch, until either side closes."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        try:
            async with self._pool().get(
                self._base + path, params=query, timeout=timeout, ssl=self._ssl or False
            ) as response:
                if response.status >= 400:
                    raise _failure(response.status, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
                    for line in lines:
                        if line:
                            yield line
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ServiceUnavailable(f"{self._base}: {error}") from error

    def _pool(self) -> aiohttp.ClientSession:
        # Opened on first use: a session belongs to the loop that is running then.
        if self._session is None:
            # One connection per watch is normal for Kubernetes clients, so the pool must not be bounded.
            connector = aiohttp.TCPConnector(limit=0, socket_factory=_socket)
            timeout = aiohttp.ClientTimeout(total=30)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self._session


def _socket(address: Any) -> socket.socket:
    """A socket that notices when the other end is gone: who watches says nothing and may hear nothing for long."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_SECONDS * 1000)
    return sock


def _query(**values: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}


def _failure(code: int, raw: bytes) -> ApiError:
    try:
        status = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        status = {}
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"code": code, "message": raw.decode(errors="replace")[:200] or f"HTTP {code}"}
    return ApiError.of({"code": code, **status})
