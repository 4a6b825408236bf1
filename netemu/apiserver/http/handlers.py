"""The verbs on resources: get, list, watch, create, update, patch, delete and deletecollection over HTTP.

Each handler reads query and body, asks the registry, and puts the answer in the form that the client accepts. What an
object means, whether it is valid and how it is stored is the registry's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from netemu.apiserver.http.bodies import Bodies, FieldValidation
from netemu.apiserver.http.discovery import subresource_verbs
from netemu.apiserver.http.negotiation import APPLY, decode_body, decode_patch, form_of, media_type
from netemu.apiserver.http.responses import add_warning, json_response
from netemu.apiserver.http.routing import Target, dry_run, flag, number
from netemu.apiserver.http.watching import Watches, encoder, timeout_of
from netemu.apiserver.ingress_class import warnings_on_create
from netemu.apiserver.merge.field_managers import check_patch_options, manager_of
from netemu.apiserver.merge.patch import patch_types
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.strategy import to_create
from netemu.apiserver.subresources import SCALES
from netemu.apiserver.tables.table import INCLUDES, partial_metadata, table
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, FieldError, Invalid, MethodNotAllowed, NotFound
from netemu.model.resources import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    ENDPOINTS,
    EVENTS,
    EVENTS_V1,
    LEASES,
    LIMITRANGES,
    ROLEBINDINGS,
    ROLES,
    RUNTIMECLASSES,
    SERVICES,
    Resource,
)

# Upstream answers the deletion of these with the object, and of all others with a Status.
_DELETED_AS_OBJECT = frozenset(
    {
        "CSIDriver", "CSINode", "PersistentVolume", "PersistentVolumeClaim", "Pod", "PodTemplate", "ResourceQuota",
        "Service", "ServiceAccount", "StorageClass", "VolumeAttachment", "VolumeAttributesClass",
    }
)  # fmt: skip


_CREATED_BY_PUT = frozenset(
    {
        CLUSTERROLEBINDINGS, CLUSTERROLES, ENDPOINTS, EVENTS, EVENTS_V1, LEASES, LIMITRANGES, ROLEBINDINGS, ROLES,
        RUNTIMECLASSES, SERVICES,
    }
)  # fmt: skip
"""Upstream: `AllowCreateOnUpdate` of each resource's strategy."""


class ResourceHandlers:
    """One coroutine per verb, each from a request and what its URL names to an answer."""

    def __init__(self, registry: Registry, schema: Schema, watches: Watches) -> None:
        self._registry = registry
        self._bodies = Bodies(schema)
        self._watches = watches

    async def handle(self, verb: str, request: web.Request, target: Target) -> web.StreamResponse:
        """Answer a request. Raises ApiError."""
        if target.subresource and target.subresource not in target.resource.subresources:
            raise NotFound("the server could not find the requested resource")
        handler = getattr(self, f"_{verb}", None)
        if handler is None or not _allowed(verb, target):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        response: web.StreamResponse = await handler(request, target)
        if (warning := _deprecation(target.resource)) and not response.prepared:
            add_warning(response, warning)
        return response

    async def would_create(self, request: web.Request, verb: str, target: Target) -> bool:
        """Whether an apply, or a PUT, is of something that is not there yet, which takes leave to create it."""
        may = verb == "patch" and media_type(_content_type(request)) == APPLY
        may |= verb == "update" and target.resource in _CREATED_BY_PUT
        if target.subresource or not may:
            return False
        try:
            await self._registry.get(target.resource, target.name, target.namespace)
        except NotFound:
            return True
        return False

    async def _get(self, request: web.Request, target: Target) -> web.Response:
        form_of(request.headers.get("Accept", ""))
        obj = await self._registry.get(
            target.resource,
            target.name,
            target.namespace,
            subresource=target.subresource,
            resource_version=request.query.get("resourceVersion", ""),
        )
        return _object_response(request, target, obj)

    async def _list(self, request: web.Request, target: Target) -> web.Response:
        query, resource = request.query, target.resource
        form = form_of(request.headers.get("Accept", ""))
        _check_list(query)
        page = await self._registry.list(
            resource,
            target.namespace,
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            resource_version=query.get("resourceVersion", ""),
            resource_version_match=query.get("resourceVersionMatch", ""),
            limit=number(query, "limit"),
            continue_=query.get("continue", ""),
        )
        metadata: dict[str, Any] = {"resourceVersion": page.resource_version}
        if page.continue_:
            metadata["continue"] = page.continue_
            if page.remaining is not None:
                metadata["remainingItemCount"] = page.remaining
        if form == "table":
            return json_response(table(resource, page.items, metadata, query.get("includeObject", "")))
        if form == "metadata":
            return json_response(
                {
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                    "items": [partial_metadata(item) for item in page.items],
                }
            )
        return json_response(_list_of(resource, page.items, metadata))

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query, resource = request.query, target.resource
        form, include = form_of(request.headers.get("Accept", "")), query.get("includeObject", "")
        if include not in INCLUDES:
            raise BadRequest(f'unrecognized includeObject value: "{include}"')
        initial = flag(query, "sendInitialEvents") if "sendInitialEvents" in query else None
        _check_watch(query, initial)
        selector = query.get("fieldSelector", "")
        if target.name:
            selector = ",".join(filter(None, (selector, f"metadata.name={target.name}")))
        events = self._registry.watch(
            resource,
            target.namespace,
            label_selector=query.get("labelSelector", ""),
            field_selector=selector,
            resource_version=query.get("resourceVersion", ""),
            bookmarks=flag(query, "allowWatchBookmarks"),
            send_initial_events=initial,
            timeout=timeout_of(number(query, "timeoutSeconds")),
        )
        return await self._watches.serve(request, events, encoder(form, resource, include))

    async def _create(self, request: web.Request, target: Target) -> web.Response:
        form_of(request.headers.get("Accept", ""))
        validation = FieldValidation.of(request.query)
        obj = self._bodies.read(target, await request.read(), _content_type(request), validation)
        trial = dry_run(request.query.getall("dryRun", []))
        if target.subresource:
            made = await self._registry.create_subresource(
                target.resource, target.name, target.subresource, obj, target.namespace, dry_run=trial
            )
        else:
            manager = manager_of(request)
            made = await self._registry.create(target.resource, obj, target.namespace, manager=manager, dry_run=trial)
        warnings = [*validation.warnings, *warnings_on_create(made)]
        return _object_response(request, target, made, 201, warnings)

    async def _update(self, request: web.Request, target: Target) -> web.Response:
        form_of(request.headers.get("Accept", ""))
        validation = FieldValidation.of(request.query)
        obj = self._bodies.read(target, await request.read(), _content_type(request), validation)
        trial, who = dry_run(request.query.getall("dryRun", [])), manager_of(request)
        resource, name, namespace, code = target.resource, target.name, target.namespace, 200
        try:
            answer = await self._registry.update(
                resource, name, obj, namespace, subresource=target.subresource, manager=who, dry_run=trial
            )
        except NotFound:
            if target.subresource or resource not in _CREATED_BY_PUT:
                raise
            new, code = to_create(resource, name, obj), 201
            answer = await self._registry.create(resource, new, namespace, manager=who, dry_run=trial)
        return _object_response(request, target, answer, code, validation.warnings)

    async def _patch(self, request: web.Request, target: Target) -> web.Response:
        form_of(request.headers.get("Accept", ""))
        validation = FieldValidation.of(request.query)
        patch, media = decode_patch(await request.read(), _content_type(request), patch_types(target.resource))
        check_patch_options(request, apply=media == APPLY)
        if media == APPLY:
            return await self._apply(request, target, patch)
        self._bodies.check_patch(target, patch, media, validation)
        options = {"subresource": target.subresource, "content_type": media, "manager": manager_of(request)}
        if isinstance(patch, list) and not target.subresource:
            before = await self._registry.get(target.resource, target.name, target.namespace)
            self._bodies.check_json_patch(target, before, patch, validation)
        trial = dry_run(request.query.getall("dryRun", []))
        patched = await self._registry.patch(
            target.resource, target.name, patch, target.namespace, **options, dry_run=trial
        )
        return _object_response(request, target, patched, warnings=validation.warnings)

    async def _apply(self, request: web.Request, target: Target, config: Obj) -> web.Response:
        obj, new = await self._registry.apply(
            target.resource,
            target.name,
            config,
            target.namespace,
            manager=manager_of(request),
            subresource=target.subresource,
            force=flag(request.query, "force"),
            dry_run=dry_run(request.query.getall("dryRun", [])),
        )
        return _object_response(request, target, obj, 201 if new else 200, warnings_on_create(obj) if new else ())

    async def _delete(self, request: web.Request, target: Target) -> web.Response:
        options, trial = await _delete_options(request)
        obj, gone = await self._registry.delete(
            target.resource, target.name, target.namespace, options=options, dry_run=trial
        )
        if not gone or (target.resource.kind in _DELETED_AS_OBJECT and not target.resource.custom):
            return _object_response(request, target, obj)
        return json_response(_deleted_status(target.resource, obj))

    async def _deletecollection(self, request: web.Request, target: Target) -> web.Response:
        options, trial = await _delete_options(request)
        query = request.query
        left = await self._registry.delete_collection(
            target.resource,
            target.namespace,
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            options=options,
            dry_run=trial,
        )
        return json_response(_list_of(target.resource, left.items, {"resourceVersion": left.resource_version}))


def _deprecation(resource: Resource) -> str:
    """What clients of a version that is deprecated are told."""
    version = resource.custom.version if resource.custom else None
    if version is None or not version.deprecated:
        return ""
    return version.deprecation_warning or f"{resource.api_version} {resource.kind} is deprecated"


def _allowed(verb: str, target: Target) -> bool:
    """Whether the resource (or subresource) has the verb, and the URL its form."""
    resource = target.resource
    if target.subresource:
        return verb in subresource_verbs(target.subresource)
    # An object of a namespaced resource can only be reached through its namespace.
    inside = bool(target.namespace) or not resource.namespaced
    return verb in resource.verbs and (inside or (verb in ("list", "watch") and not target.name))


def _content_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "")


def _object_response(
    request: web.Request, target: Target, obj: Obj, code: int = 200, warnings: Iterable[str] = ()
) -> web.Response:
    """One object in the form that the client accepts; a Status is always itself."""
    form, kind = form_of(request.headers.get("Accept", "")), obj.get("kind", "")
    answer: Any = obj
    if form == "table" and kind != "Status":
        version = {"resourceVersion": obj.get("metadata", {}).get("resourceVersion", "")}
        shape = SCALES if target.subresource == "scale" else target.resource
        answer = table(shape, [obj], version, request.query.get("includeObject", ""))
    elif form == "metadata" and kind != "Status":
        answer = partial_metadata(obj)
    return json_response(answer, code, warnings=warnings)


def _list_of(resource: Resource, items: list[Obj], metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": resource.list_kind,
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": items,
    }


def _deleted_status(resource: Resource, obj: Obj) -> dict[str, Any]:
    meta = obj["metadata"]
    details = {"name": meta["name"], "kind": resource.plural, "uid": meta.get("uid", "")}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def _delete_options(request: web.Request) -> tuple[dict[str, Any], bool]:
    """DeleteOptions out of query and body, the body first, and whether the deletion is a trial."""
    query, options = request.query, dict[str, Any]()
    for name in ("propagationPolicy", "orphanDependents"):
        if name in query:
            options[name] = flag(query, name) if name == "orphanDependents" else query[name]
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = number(query, "gracePeriodSeconds")
    if raw := await request.read():
        body = decode_body(raw, _content_type(request), kind="DeleteOptions", api_version="v1")
        if not isinstance(body, dict):
            raise BadRequest("the body of the request is not an object of kind DeleteOptions")
        options |= body
    return options, dry_run(query.getall("dryRun", []))


def _check_list(query: Mapping[str, str]) -> None:
    """Parameters that a list cannot have (apimachinery `internalversion/validation`). Raises Invalid."""
    if "sendInitialEvents" in query:
        raise _forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
    if query.get("continue") and query.get("resourceVersionMatch"):
        raise _forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")


def _check_watch(query: Mapping[str, str], initial: bool | None) -> None:
    """`sendInitialEvents` and `resourceVersionMatch` need each other on a watch. Raises Invalid."""
    match = query.get("resourceVersionMatch", "")
    if initial is not None and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise _forbidden("resourceVersionMatch", why)
    if match and initial is None:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise _forbidden("resourceVersionMatch", why)
    if initial and not flag(query, "allowWatchBookmarks"):
        why = "sendInitialEvents requires setting allowWatchBookmarks to true"
        raise _forbidden("allowWatchBookmarks", why)


def _forbidden(field: str, why: str) -> Invalid:
    problem = FieldError(field, "FieldValueForbidden", f"Forbidden: {why}")
    return Invalid.of_fields("ListOptions", "", [problem], "meta.k8s.io")
