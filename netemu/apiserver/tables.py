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

from netemu.apiserver.tables_format import UNKNOWN
from netemu.apiserver.tables_kinds import cells, column_definitions
from netemu.apiserver.tables_pods import pod_conditions
from netemu.client.base import Obj
from netemu.model.errors import BadRequest

INCLUDES = ("", "None", "Metadata", "Object")


def table(
    kind: str,
    objects: Iterable[Obj],
    metadata: Mapping[str, Any],
    include: str = "",
    *,
    columns: bool = True,
    now: datetime | None = None,
) -> Obj:
    """A `meta.k8s.io/v1` Table of objects of one kind. `include` is the query's `includeObject`. Raises BadRequest."""
    if include not in INCLUDES:
        raise BadRequest(f'unrecognized includeObject value: "{include}"; must be None, Metadata or Object')
    now = now or datetime.now(UTC)
    rows = []
    for obj in objects:
        row: Obj = {"cells": _cells(kind, obj, now)}
        if kind == "Pod" and (conditions := pod_conditions(obj)):
            row["conditions"] = conditions
        row["object"] = obj if include == "Object" else None if include == "None" else partial_metadata(obj)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": column_definitions(kind) if columns else [],
        "rows": rows,
    }


def _cells(kind: str, obj: Obj, now: datetime) -> list[Any]:
    try:
        return cells(kind)(obj, now)
    except (AttributeError, KeyError, TypeError, ValueError):
        # Lists may hold nulls, and fields be absent, that printing relies on; such an object must not hide others.
        name = obj["metadata"].get("name", "")
        return [name if column["name"] == "Name" else UNKNOWN for column in column_definitions(kind)]


def partial_metadata(obj: Obj) -> Obj:
    """An object reduced to its metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
