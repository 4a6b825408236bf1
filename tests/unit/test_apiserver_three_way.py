"""The laws of kubectl apply: its three-way patches, made here as kubectl makes them, through the server's merging.

Somebody applies a configuration, others add what is theirs, the configuration changes and is applied again. Whatever
the configurations are: all of the new one is there then, what it no longer says is gone, what others added is as it
was, doing it twice changes nothing more, and applying the former one again leads back.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.apiserver.merge.patch import apply_patch
from netemu.apiserver.schema.kinds import Schema
from netemu.client.base import MERGE_PATCH, STRATEGIC_MERGE_PATCH, Obj
from netemu.model.resources import PODS

SCHEMA = Schema.load()
MINE, THEIRS = st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y"])


def named(values: dict[str, Obj]) -> list[Obj]:
    return [{"name": name, **more} for name, more in values.items()]


def pods(names: st.SearchStrategy[str]) -> st.SearchStrategy[Obj]:
    """Pods that speak of no names but these; maps, lists by key, and lists inside them.

    No field is missing: who takes back a whole map takes it from everybody, with kubectl too.
    """
    values = st.sampled_from(["1", "2"])
    texts = st.dictionaries(names, values, max_size=2)
    env = st.dictionaries(names, st.fixed_dictionaries({"value": values}), max_size=3).map(named)
    container = st.fixed_dictionaries({"image": values, "env": env})
    containers = st.dictionaries(names, container, max_size=3).map(named)
    spec = st.fixed_dictionaries({"containers": containers, "nodeSelector": texts})
    metadata = st.fixed_dictionaries({"labels": texts, "annotations": texts})
    return st.fixed_dictionaries({"metadata": metadata, "spec": spec})


def three_way(original: Any, modified: Any, current: Any, *, by_name: bool) -> Any:
    """The patch that makes `modified` of `current` where `original` was applied before."""
    patch: Obj = {key: None for key in original if key not in modified and key in current}
    for key, wanted in modified.items():
        was, now = original.get(key), current.get(key)
        if isinstance(wanted, dict) and isinstance(now, dict):
            if inner := three_way(was or {}, wanted, now, by_name=by_name):
                patch[key] = inner
        elif by_name and isinstance(wanted, list):
            elements = three_way_list(was or [], wanted, now or [])
            if elements:
                patch[key] = elements
                patch[f"$setElementOrder/{key}"] = [{"name": one["name"]} for one in wanted]
        elif wanted != now:
            patch[key] = wanted
    return patch


def three_way_list(original: list[Obj], modified: list[Obj], current: list[Obj]) -> list[Obj]:
    before, now = ({one["name"]: one for one in which} for which in (original, current))
    wanted = {one["name"]: one for one in modified}
    found = [{"$patch": "delete", "name": name} for name in before if name not in wanted and name in now]
    for name, element in wanted.items():
        inner = three_way(before.get(name, {}), element, now.get(name, {}), by_name=True)
        if inner:
            found.append({**inner, "name": name})
    return found


def together(one: Any, other: Any) -> Any:
    """Both, of which each has names of its own."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: together(one[key], value) if key in one else value for key, value in other.items()}}
    return [*one, *other] if isinstance(one, list) else one


def said(value: Any) -> Any:
    """What a configuration says, whatever the order of its lists, without what is empty."""
    if isinstance(value, list):
        return said({one["name"]: one for one in value})
    if isinstance(value, dict):
        kept = {key: said(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ({}, None)}
    return value


def patched(media: str, original: Obj, modified: Obj, current: Obj) -> Obj:
    patch = three_way(original, modified, current, by_name=media == STRATEGIC_MERGE_PATCH)
    return apply_patch(SCHEMA, PODS, current, patch, media)


@pytest.mark.parametrize("media", [STRATEGIC_MERGE_PATCH, MERGE_PATCH])
@given(pods(MINE), pods(MINE), pods(THEIRS))
@settings(max_examples=30, deadline=None)
def test_applying_again_changes_just_what_is_ones_own(media: str, original: Obj, modified: Obj, others: Obj) -> None:
    if media == MERGE_PATCH:  # which replaces lists, whosever they are
        others = {
            "metadata": others["metadata"],
            "spec": {k: v for k, v in others["spec"].items() if k != "containers"},
        }
    current = together(original, others)

    result = patched(media, original, modified, current)

    assert said(result) == said(together(modified, others))
    assert patched(media, modified, modified, result) == result
    assert said(patched(media, modified, original, result)) == said(current)


@given(pods(MINE), pods(MINE), pods(THEIRS))
@settings(max_examples=30, deadline=None)
def test_elements_come_in_the_order_of_the_configuration(original: Obj, modified: Obj, others: Obj) -> None:
    result = patched(STRATEGIC_MERGE_PATCH, original, modified, together(original, others))

    wanted = [one["name"] for one in modified["spec"].get("containers", [])]
    patch = three_way(original, modified, together(original, others), by_name=True)
    if "containers" in patch.get("spec", {}) and wanted:
        assert [one["name"] for one in result["spec"]["containers"] if one["name"] in wanted] == wanted
