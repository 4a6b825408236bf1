"""The interface between a component and an API server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from netemu.model.resources import Resource

Obj = dict[str, Any]
"""A Kubernetes object as plain JSON values. Treat what you are given as read-only: it may be shared."""

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class ObjectList:
    """The answer to a list: the objects and the revision at which the list was true."""

    items: list[Obj]
    resource_version: str


class WatchEvent(NamedTuple):
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK (object with only metadata.resourceVersion)."""

    type: str
    object: Obj


class Client(Protocol):
    """Requests to an API server. Every failure answer raises a subclass of ApiError.

    `namespace=""` means all namespaces for list and watch, and none for cluster-scoped resources.
    """

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Obj:
        """One object. Raises NotFound."""
        ...

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> ObjectList:
        """All matching objects; `resource_version` as in the API: "" latest, "0" any, N not older than N."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after `resource_version`, ending when the server closes. Raises Expired where history is gone."""
        ...

    async def create(self, resource: Resource, obj: Mapping[str, Any], namespace: str = "") -> Obj:
        """A new object as stored. Raises AlreadyExists, Invalid."""
        ...

    async def update(self, resource: Resource, obj: Mapping[str, Any], *, subresource: str = "") -> Obj:
        """Replace the object that `obj.metadata` names; its resourceVersion, if set, is a precondition (Conflict)."""
        ...

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
        """The patched object. `metadata.resourceVersion` inside a merge patch is a precondition (Conflict)."""
        ...

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
        """Ask for deletion. Raises NotFound; Conflict if `uid` is given and differs."""
        ...

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: Mapping[str, Any], namespace: str = ""
    ) -> Obj:
        """POST to a subresource, for example `pods/NAME/binding`."""
        ...


@runtime_checkable
class Paged(Protocol):
    """A client that can list in pieces; one that holds the objects itself gains nothing by it."""

    def pages(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = "", limit: int
    ) -> AsyncGenerator[ObjectList, None]:
        """A list, `limit` objects at a time or more, as the server likes. Raises Expired where it forgot the rest."""
        ...
