"""JSON values: read from bytes and copied, within bounds that everything after this relies on.

Code that walks objects recurses, so what is nested deeper than any object of Kubernetes is refused here, once, at the
place where bytes become values. Upstream refuses what its decoder cannot nest in the same way
(`sigs.k8s.io/json`, "exceeded max depth").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from netemu.model.errors import BadRequest

MAX_DEPTH = 128
"""Maps and lists inside each other. JSONSchemaProps, the deepest kind there is, seldom reaches thirty."""


def decode(raw: bytes, what: str = "the body of the request") -> Any:
    """The values that JSON text stands for. Raises BadRequest for anything else, named as `what`."""
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise BadRequest(f"{what} is not valid JSON: exceeded max depth") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{what} is not valid JSON: {error}") from error
    # Nothing can be nested deeper than there are brackets; only long texts are worth a look inside.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        raise BadRequest(f"{what} is not valid JSON: exceeded max depth")
    return value


def copied(value: Any, what: str = "the object") -> Any:
    """A deep copy as JSON has it: keys are texts, lists are lists. Raises BadRequest for what is not JSON."""
    try:
        raw = msgspec.json.encode(value)
    except RecursionError:
        raise BadRequest(f"{what} is not JSON: exceeded max depth") from None
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise BadRequest(f"{what} is not JSON: {error}") from error
    return decode(raw, what)


def duplicate(value: Any) -> Any:
    """A deep copy of what is JSON already; much faster than `copy.deepcopy`, which looks for cycles."""
    if isinstance(value, dict):
        return {key: duplicate(inner) for key, inner in value.items()}
    return [duplicate(inner) for inner in value] if isinstance(value, list) else value


def deeper_than(value: Any, depth: int) -> bool:
    """Whether more than `depth` maps and lists are inside each other."""
    level = _containers([value])
    for _ in range(depth):
        level = [inner for outer in level for inner in _containers(outer.values() if type(outer) is dict else outer)]
        if not level:
            return False
    return True


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]
