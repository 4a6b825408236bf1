"""The client of components that live in the API server's process: the registry without HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from netemu.apiserver.auth.authentication import UNSECURED, Authorizer
from netemu.apiserver.http.handlers_reviews import answer
from netemu.apiserver.http.routing import Target
from netemu.apiserver.registry import Registry
from netemu.client.base import MERGE_PATCH, Obj, ObjectList, WatchEvent
from netemu.model.resources import SUBJECTACCESSREVIEWS, Resource


class LocalClient:
    """Implements `Client`. Objects that come out are the registry's own and must not be changed."""

    def __init__(self, registry: Registry, manager: str = "netemu", authorizer: Authorizer | None = None) -> None:
        """`manager` is who owns the fields that it writes, as over HTTP the user agent is. `authorizer` answers
        SubjectAccessReviews."""
        self._registry, self._manager, self._authorizer = registry, manager, authorizer

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Obj:
        """See Client."""
        return await self._registry.get(resource, name, namespace)

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
        return await self._registry.list(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=resource_version,
        )

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncGenerator[WatchEvent, None]:
        """See Client."""
        # An async generator of a subclass of WatchEvent; generators are not covariant in what they yield.
        stream: Any = self._registry.watch(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=resource_version,
            bookmarks=True,
        )
        return stream  # type: ignore[no-any-return]

    async def create(self, resource: Resource, obj: Mapping[str, Any], namespace: str = "") -> Obj:
        """See Client."""
        if self._authorizer and resource == SUBJECTACCESSREVIEWS:
            return answer(Target(resource), obj, UNSECURED, self._authorizer)
        return await self._registry.create(resource, obj, namespace, manager=self._manager)

    async def update(self, resource: Resource, obj: Mapping[str, Any], *, subresource: str = "") -> Obj:
        """See Client."""
        metadata = obj["metadata"]
        return await self._registry.update(
            resource,
            metadata["name"],
            obj,
            metadata.get("namespace", ""),
            subresource=subresource,
            manager=self._manager,
        )

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
        return await self._registry.patch(
            resource,
            name,
            patch,
            namespace,
            subresource=subresource,
            content_type=content_type,
            manager=self._manager,
        )

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
        options: dict[str, Any] = {}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if propagation_policy is not None:
            options["propagationPolicy"] = propagation_policy
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        await self._registry.delete(resource, name, namespace, options=options)

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: Mapping[str, Any], namespace: str = ""
    ) -> Obj:
        """See Client."""
        return await self._registry.create_subresource(resource, name, subresource, body, namespace)
