"""Tables: what `kubectl get` prints, made by the server.

A client that accepts `as=Table` gets, in place of objects, rows of cells with the columns' definitions, so that every
client prints the same without knowing the kind. Each row carries the object's metadata (or the whole object, or
nothing, by `includeObject`), because clients need namespace and labels. In a watch, every event holds a table of one
row and only the first event has the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from netemu.apiserver.tables.custom import custom_cells, custom_columns
from netemu.apiserver.tables.format import UNKNOWN
from netemu.apiserver.tables.kinds import Cells, cells, column_definitions
from netemu.apiserver.tables.pods import pod_conditions
from netemu.client.base import Obj
from netemu.model.errors import BadRequest
from netemu.model.resources import PODS, Resource

Columns = list[dict[str, Any]]
INCLUDES = ("", "None", "Metadata", "Object")


def table(
    resource: Resource,
    objects: Iterable[Obj],
    metadata: Mapping[str, Any],
    include: str = "",
    *,
    columns: bool = True,
    now: datetime | None = None,
) -> Obj:
    """A `meta.k8s.io/v1` Table of a resource's objects. `include` is the query's `includeObject`. Raises BadRequest."""
    if include not in INCLUDES:
        raise BadRequest(f'unrecognized includeObject value: "{include}"; must be None, Metadata or Object')
    now = now or datetime.now(UTC)
    columns_of, cells_of = _columns(resource)
    rows = []
    for obj in objects:
        row: Obj = {"cells": _cells(columns_of, cells_of, obj, now)}
        if resource is PODS and (conditions := pod_conditions(obj)):
            row["conditions"] = conditions
        row["object"] = obj if include == "Object" else None if include == "None" else partial_metadata(obj)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns_of if columns else [],
        "rows": rows,
    }


def _columns(resource: Resource) -> tuple[Columns, Cells]:
    """The columns of a resource, and what makes its cells."""
    if resource.custom:
        return custom_columns(resource.custom), custom_cells(resource.custom)
    return column_definitions(resource.kind), cells(resource.kind)


def _cells(columns: Columns, cells_of: Cells, obj: Obj, now: datetime) -> list[Any]:
    try:
        return cells_of(obj, now)
    except (AttributeError, KeyError, TypeError, ValueError):
        # Lists may hold nulls, and fields be absent, that printing relies on; such an object must not hide others.
        name = obj["metadata"].get("name", "")
        return [name if column["name"] == "Name" else UNKNOWN for column in columns]


def partial_metadata(obj: Obj) -> Obj:
    """An object reduced to its metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
