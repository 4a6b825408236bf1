"""Sets of fields, by the laws of sets and the text of FieldsV1."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.apiserver.merge import fieldset
from netemu.apiserver.merge.fieldset import (
    FieldSet,
    difference,
    intersection,
    is_field_set,
    known,
    path_text,
    paths,
    union,
)

STEPS = ["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"']
MEMBERS = st.sets(st.lists(st.sampled_from(STEPS), min_size=1, max_size=3).map(tuple), max_size=6)


def members(fields: FieldSet) -> set[tuple[str, ...]]:
    return set(paths(fields))


@given(MEMBERS, MEMBERS)
def test_operations_are_those_of_sets(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> None:
    left, right = fieldset.of_paths(one), fieldset.of_paths(other)

    assert members(left) == one
    assert members(union(left, right)) == one | other
    assert members(difference(left, right)) == one - other
    assert members(intersection(left, right)) == one & other
    assert (members(left), members(right)) == (one, other), "operands stay as they were"


@given(MEMBERS)
def test_a_set_survives_its_text(one: set[tuple[str, ...]]) -> None:
    fields = fieldset.of_paths(one)
    read = msgspec.json.decode(msgspec.json.encode(fields))

    assert is_field_set(read)
    assert members(read) == one
    assert known(read) is known(fields)


@given(MEMBERS, MEMBERS)
def test_what_does_not_change_stays_the_same_map(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> None:
    left = fieldset.of_paths(one | other)

    assert union(left, fieldset.of_paths(other)) == left
    assert difference(left, fieldset.of_paths(other - one - other)) is left


def test_a_step_above_members_is_no_member_itself() -> None:
    assert members({"f:data": {"f:a": {}}}) == {("f:data", "f:a")}
    assert members({"f:data": {".": {}, "f:a": {}}}) == {("f:data",), ("f:data", "f:a")}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("f:spec", "f:replicas"), ".spec.replicas"),
        (
            ("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:nodePort"),
            '.spec.ports[port=80,protocol="TCP"].nodePort',
        ),
        (("f:metadata", "f:finalizers", 'v:"x.io/a"'), '.metadata.finalizers[="x.io/a"]'),
        (("f:metadata", "f:labels", "f:app.kubernetes.io/name"), ".metadata.labels.app.kubernetes.io/name"),
        (("f:items", "i:0"), ".items[0]"),
    ],
)
def test_paths_are_worded_as_in_conflicts(path: tuple[str, ...], text: str) -> None:
    assert path_text(path) == text


@pytest.mark.parametrize(
    "value", [None, [], {"x": {}}, {"f:a": 1}, {".": {"f:a": {}}}, {"k:name": {}}, {"f:a": {"y": {}}}]
)
def test_other_values_are_no_sets(value: Any) -> None:
    assert not is_field_set(value)
