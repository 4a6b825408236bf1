"""Fields that a JSON document says twice, of which every decoder keeps the last: strict validation tells them.

Upstream: `sigs.k8s.io/json`, `UnmarshalStrict`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec


def duplicate_fields(raw: bytes, value: Any) -> list[str]:
    """`duplicate field "data.a"` for each field that `raw`, valid JSON, says again; `value` is what `raw` means."""
    # Most clients write JSON as we do, and then a field less is shorter. Only what differs is looked at with care.
    if len(msgspec.json.encode(value)) == len(raw.strip()):
        return []
    pairs = json.loads(raw, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    return [f'duplicate field "{path}"' for path in _told(pairs, "")]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written."""


def _told(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen = set()
        for key, inner in value:
            where = f"{path}.{key}" if path else key
            if key in seen:
                yield where
            seen.add(key)
            yield from _told(inner, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _told(inner, f"{path}[{index}]")
