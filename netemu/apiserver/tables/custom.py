"""The columns and cells of custom resources: the printer columns of their definition, or the age where there are none.

Upstream: `apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from netemu.apiserver.jsonpath import BadPath, JsonPath
from netemu.apiserver.tables.format import age
from netemu.model.custom import Custom, PrinterColumn
from netemu.model.times import parse

_AGE = PrinterColumn(
    name="Age",
    type="date",
    json_path=".metadata.creationTimestamp",
    description="CreationTimestamp is a timestamp representing the server time when this object was created.",
)


@lru_cache(maxsize=256)
def custom_columns(custom: Custom) -> list[dict[str, Any]]:
    """The `columnDefinitions` of a custom resource's table."""
    name = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
    return [name, *(_definition(column) for column in _columns(custom))]


def custom_cells(custom: Custom) -> Callable[[Mapping[str, Any], datetime], list[Any]]:
    """What makes the cells of one object."""
    columns = [(column.type, _path(column)) for column in _columns(custom)]

    def cells(obj: Mapping[str, Any], now: datetime) -> list[Any]:
        return [obj["metadata"]["name"], *(_cell(kind, path, obj, now) for kind, path in columns)]

    return cells


def _columns(custom: Custom) -> tuple[PrinterColumn, ...]:
    return custom.version.additional_printer_columns or (_AGE,)


def _definition(column: PrinterColumn) -> dict[str, Any]:
    described = column.description or f"Custom resource definition column (in JSONPath format): {column.json_path}"
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": described,
        "priority": column.priority,
    }


@lru_cache(maxsize=1024)
def _path(column: PrinterColumn) -> JsonPath | None:
    try:
        return JsonPath(column.json_path)
    except BadPath:
        return None


def _cell(kind: str, path: JsonPath | None, obj: Mapping[str, Any], now: datetime) -> Any:
    """The first value that the path leads to, as the column's type has it; null where there is none."""
    found = path.find(obj) if path else []
    value = found[0] if found else None
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if kind == "integer":
        return int(value) if number else None
    if kind == "number":
        return value if number else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    return _date(value, now) if isinstance(value, str) else None


def _date(text: str, now: datetime) -> str:
    try:
        parse(text)
    except ValueError:
        return "<invalid>"
    return age(text, now)
