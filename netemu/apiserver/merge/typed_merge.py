"""Merging a configuration into an object, and taking fields out of one.

`merged` keeps what only the object has and otherwise takes the configuration's word; elements of lists are matched by
their keys, and come in the configuration's order with those that only the object has in between where they were.
`without` is the opposite. Neither changes what it is given.
Upstream: structured-merge-diff `typed/merge.go`, `typed/remove.go`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netemu.apiserver.merge.fieldset import FieldSet, field_key, is_member
from netemu.apiserver.merge.typed import Form, Typed
from netemu.apiserver.merge.typed_sets import ABSENT, form_of, steps


def merged(typed: Typed, live: Any, config: Any) -> Any:
    """`live` with all that `config` sets. Raises Unfit."""
    if config is ABSENT:
        return live
    form = form_of(typed, live if config is None and live is not ABSENT else config)
    if live is ABSENT or not live or form is Form.LEAF or (config and form_of(typed, live) is not form):
        return config
    if not config:  # Nothing is said about what is inside.
        return live
    if form is Form.MAP:
        result = dict(live)
        for name, value in config.items():
            result[name] = merged(typed.field(name), live.get(name, ABSENT), value)
        return result
    return _merged_list(typed, live, config)


def _merged_list(typed: Typed, live: list[Any], config: list[Any]) -> list[Any]:
    ours, theirs = steps(typed, live), steps(typed, config)
    wanted = dict(zip(theirs, config, strict=True))
    known: dict[str, Any] = {}
    for step, item in zip(ours, live, strict=True):
        # Of elements that cannot be told apart none is the one that is meant.
        known[step] = ABSENT if step in known else item

    def element(step: str) -> Any:
        return merged(typed.element, known.get(step, ABSENT), wanted[step])

    return _interleaved(ours, live, theirs, known, element)


def _interleaved(
    ours: list[str], live: list[Any], theirs: list[str], known: dict[str, Any], element: Callable[[str], Any]
) -> list[Any]:
    """The configuration's elements in its order; what only the object has stays before what it stood before."""
    shared = [step for step in theirs if step in known]
    wanted, done = set(theirs), set[str]()
    result: list[Any] = []
    left = right = 0
    while left < len(ours) or right < len(theirs):
        if left < len(ours):
            step = ours[left]
            if step not in wanted:
                result.append(live[left])
                left += 1
                continue
            # Skip what was merged, and what the configuration wants later than the next it shares with the object.
            if step in done or (right < len(theirs) and shared and shared[0] != step):
                left += 1
                continue
        if right < len(theirs):
            step = theirs[right]
            result.append(element(step))
            done.add(step)
            right += 1
            if shared and shared[0] == step:
                shared.pop(0)
    return result


def without(typed: Typed, value: Any, fields: FieldSet) -> Any:
    """`value` less the members of `fields`; a map or list of which nothing is left is null."""
    form = form_of(typed, value)
    if not fields or not value or form is Form.LEAF:
        return None if form is Form.LEAF and fields else value
    if form is Form.MAP:
        kept = {}
        for name, inner in value.items():
            node = fields.get(field_key(name))
            if node is None:
                kept[name] = inner
            elif not is_member(node):
                kept[name] = without(typed.field(name), inner, node)
        return kept or None
    items = []
    for step, item in zip(steps(typed, value), value, strict=True):
        node = fields.get(step)
        if node is None:
            items.append(item)
        elif not is_member(node):
            items.append(without(typed.element, item, node))
    return items or None
