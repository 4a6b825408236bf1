"""The three patch types."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.apiserver.merge.json_patch import json_patch
from netemu.apiserver.merge.patch import apply_patch, merge_patch
from netemu.apiserver.schema.kinds import Schema
from netemu.client.base import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, Obj
from netemu.model import resources as r
from netemu.model.errors import ApiError, BadRequest, Invalid, UnsupportedMediaType

SCHEMA = Schema.load()


def strategic(obj: Obj, patch: Any, resource: r.Resource = r.PODS) -> Obj:
    before = copy.deepcopy(obj)
    patched = apply_patch(SCHEMA, resource, obj, patch, STRATEGIC_MERGE_PATCH)
    assert obj == before
    return patched


def pod(**spec: Any) -> Obj:
    return {"spec": spec}


def named(*names: str, **fields: Any) -> list[Obj]:
    return [{"name": name, **fields} for name in names]


# --- merge patch, RFC 7386 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # The table of RFC 7386, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_the_table_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("abc", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=10,
)
json_objects = st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4)


@given(json_objects, json_objects)
@settings(max_examples=100, deadline=None)
def test_merge_patching_twice_changes_nothing_more(target: Obj, patch: Obj) -> None:
    once = merge_patch(target, patch)

    assert merge_patch(once, patch) == once


@given(json_objects)
@settings(max_examples=50, deadline=None)
def test_the_empty_merge_patch_changes_nothing(target: Obj) -> None:
    assert merge_patch(target, {}) == target


@given(json_objects, json_objects)
@settings(max_examples=100, deadline=None)
def test_a_merge_patch_leaves_other_keys_alone_and_removes_those_set_to_null(target: Obj, patch: Obj) -> None:
    result = merge_patch(target, patch)

    assert {key: value for key, value in result.items() if key not in patch} == {
        key: value for key, value in target.items() if key not in patch
    }
    assert not [key for key, value in patch.items() if value is None and key in result]


# --- JSON patch -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "replace", "path": "/a", "value": 2}], {"a": 2, "l": [1]}),
        ([{"op": "add", "path": "/l/-", "value": 2}], {"a": 1, "l": [1, 2]}),
        ([{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/a"}], {"l": [1]}),
        ([{"op": "move", "from": "/a", "path": "/b"}], {"b": 1, "l": [1]}),
    ],
)
def test_json_patch_operations(operations: list[Obj], result: Obj) -> None:
    assert apply_patch(SCHEMA, r.PODS, {"a": 1, "l": [1]}, operations, JSON_PATCH) == result


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        pytest.param([{"op": "test", "path": "/a", "value": 2}], Invalid, id="failed test"),
        pytest.param([{"op": "remove", "path": "/x"}], Invalid, id="nothing there"),
        pytest.param([{"op": "replace", "path": "/x/y", "value": 1}], Invalid, id="no such parent"),
        pytest.param([{"op": "frobnicate", "path": "/a"}], BadRequest, id="unknown operation"),
        pytest.param([{"op": "add", "path": "/a"}], BadRequest, id="value missing"),
        pytest.param({"op": "add"}, BadRequest, id="no list"),
        pytest.param([{"op": "test", "path": "/a", "value": 1}] * 10_001, BadRequest, id="too many operations"),
    ],
)
def test_json_patch_that_cannot_be_done(operations: Any, error: type[ApiError]) -> None:
    obj = {"a": 1}

    with pytest.raises(error):
        apply_patch(SCHEMA, r.PODS, obj, operations, JSON_PATCH)

    assert obj == {"a": 1}


# --- strategic merge patch ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        pytest.param(
            pod(containers=[{"name": "a", "image": "x:1", "args": ["1"]}, {"name": "b"}]),
            pod(containers=[{"name": "a", "image": "x:2"}]),
            pod(containers=[{"name": "a", "image": "x:2", "args": ["1"]}, {"name": "b"}]),
            id="list elements merge by their key",
        ),
        pytest.param(
            pod(containers=named("a")),
            pod(containers=named("b")),
            pod(containers=named("a", "b")),
            id="new elements come last",
        ),
        pytest.param(
            pod(containers=named("a", "b")),
            pod(containers=[{"name": "a", "$patch": "delete"}]),
            pod(containers=named("b")),
            id="$patch delete removes an element",
        ),
        pytest.param(
            pod(containers=named("a", "b")),
            pod(containers=[{"$patch": "replace"}, {"name": "c"}]),
            pod(containers=named("c")),
            id="$patch replace in a list replaces the list",
        ),
        pytest.param(
            pod(securityContext={"runAsUser": 1, "fsGroup": 2}),
            pod(securityContext={"$patch": "replace", "runAsUser": 3}),
            pod(securityContext={"runAsUser": 3}),
            id="$patch replace in a map replaces the map",
        ),
        pytest.param(
            pod(securityContext={"runAsUser": 1}),
            pod(securityContext={"$patch": "delete"}),
            pod(securityContext={}),
            id="$patch delete empties a map",
        ),
        pytest.param(
            pod(containers=[{"name": "a", "args": ["1", "2"]}]),
            pod(containers=[{"name": "a", "args": ["3"]}]),
            pod(containers=[{"name": "a", "args": ["3"]}]),
            id="lists without a merge strategy are replaced",
        ),
        pytest.param(
            pod(tolerations=[{"key": "a"}]), pod(tolerations=[{"key": "b"}]), pod(tolerations=[{"key": "b"}]),
            id="tolerations are replaced",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None, "c": "3"}}},
            {"metadata": {"labels": {"b": "2", "c": "3"}}},
            id="null removes a key",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["x/a"]}},
            {"metadata": {"finalizers": ["x/b", "x/a"]}},
            {"metadata": {"finalizers": ["x/a", "x/b"]}},
            id="a list of values is a set",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["x/a", "x/b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/b"], "$setElementOrder/finalizers": ["x/a"]}},
            {"metadata": {"finalizers": ["x/a"]}},
            id="values leave a set",
        ),
        pytest.param(
            pod(volumes=[{"name": "v", "emptyDir": {}}]),
            pod(volumes=[{"name": "v", "$retainKeys": ["configMap", "name"], "configMap": {}, "emptyDir": None}]),
            pod(volumes=[{"name": "v", "configMap": {}}]),
            id="$retainKeys drops the other keys",
        ),
        pytest.param(
            pod(containers=named("a", "b", "c")),
            pod(**{"$setElementOrder/containers": named("c", "a", "b"), "containers": [{"name": "b", "image": "x"}]}),
            pod(containers=[{"name": "c"}, {"name": "a"}, {"name": "b", "image": "x"}]),
            id="$setElementOrder orders the list",
        ),
        pytest.param(
            pod(containers=named("a", "b", "c")),
            pod(**{"$setElementOrder/containers": named("c", "b")}),
            pod(containers=named("a", "c", "b")),
            id="elements that only the server has keep their place",
        ),
        pytest.param(
            pod(), pod(**{"$setElementOrder/containers": named("a")}), pod(), id="an order for a list that is not there"
        ),
        pytest.param(
            pod(containers=[{"name": "a", "image": "x"}]),
            pod(containers=[{"name": "a", "image": None}, {"name": "b", "image": None}]),
            pod(containers=named("a", "b")),
            id="nulls are never stored",
        ),
        pytest.param({}, {"spec": {"nodeName": "n"}}, {"spec": {"nodeName": "n"}}, id="what was absent is added"),
        pytest.param(
            {"unknown": [{"a": 1}]}, {"unknown": [{"b": 1}]}, {"unknown": [{"b": 1}]}, id="unknown fields are replaced"
        ),
    ],
)  # fmt: skip
def test_strategic_merge(before: Obj, patch: Obj, after: Obj) -> None:
    assert strategic(before, patch) == after


def test_the_patch_that_kubectl_apply_sends_for_a_changed_deployment() -> None:
    def deployment(spec: Obj, **strategy: Any) -> Obj:
        return {"spec": {"strategy": strategy, "template": {"spec": spec}}}

    first = {"name": "c1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
             "ports": [{"containerPort": 80, "protocol": "TCP"}]}  # fmt: skip
    before = deployment(
        {"containers": [first, {"name": "c2"}], "volumes": [{"name": "v", "emptyDir": {}}]},
        type="RollingUpdate",
        rollingUpdate={"maxSurge": 1},
    )
    change = {
        "name": "c1", "args": ["a"],
        "$setElementOrder/env": [{"name": "B"}], "env": [{"$patch": "delete", "name": "A"}],
        "$setElementOrder/ports": [{"containerPort": 81}],
        "ports": [{"containerPort": 81}, {"$patch": "delete", "containerPort": 80}],
    }  # fmt: skip
    volume = {"$retainKeys": ["configMap", "name"], "configMap": {"name": "x"}, "emptyDir": None, "name": "v"}
    patch = deployment(
        {
            "$setElementOrder/containers": [{"name": "c1"}],
            "$setElementOrder/volumes": [{"name": "v"}],
            "containers": [change, {"$patch": "delete", "name": "c2"}],
            "volumes": [volume],
        },
        **{"$retainKeys": ["type"], "rollingUpdate": None, "type": "Recreate"},
    )

    after = strategic(before, patch, r.DEPLOYMENTS)

    wanted = {"name": "c1", "args": ["a"], "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 81}]}
    assert after == deployment(
        {"containers": [wanted], "volumes": [{"name": "v", "configMap": {"name": "x"}}]}, type="Recreate"
    )


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        (
            pod(containers=[{"ports": [{"containerPort": 80}, None], "image": "x", "tty": True}]),
            "map: map[image:x ports:[map[containerPort:80] <nil>] tty:true] does not contain declared merge key: name",
        ),
        (
            pod(containers=[{"$patch": "delete"}]),
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        ({"spec": {"$patch": "explode"}}, "unknown patch type: explode in map: map[$patch:explode]"),
        (
            pod(containers=[{"name": "a", "$patch": "explode"}]),
            "unknown patch type: explode in map: map[$patch:explode name:a]",
        ),
        (
            pod(**{"$retainKeys": ["a"], "nodeName": "n"}),
            '$retainKeys list doesn\'t contain "nodeName", which the patch sets',
        ),
        (pod(**{"$retainKeys": {"a": 1}}), "a list directive needs a list, not map[a:1]"),
        ([], "a patch of this type must be a JSON object, not list"),
    ],
)
def test_malformed_strategic_patches_are_refused_in_the_words_of_go(patch: Any, text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        strategic(pod(containers=named("a")), patch)

    assert str(refused.value) == text


def test_the_result_shares_nothing_with_the_patch() -> None:
    patch = pod(nodeSelector={"a": "b"}, containers=[{"name": "x", "args": ["1"]}])

    patched = strategic({}, patch)
    patched["spec"]["containers"][0]["args"].append("2")

    assert patch["spec"]["containers"] == [{"name": "x", "args": ["1"]}]


@pytest.mark.parametrize(
    ("resource", "content_type"),
    [
        pytest.param(r.PODS, "application/yaml", id="unknown type"),
        pytest.param(
            r.Resource("example.com", "v1", "G", "gs"), STRATEGIC_MERGE_PATCH, id="strategic without a schema"
        ),
    ],
)
def test_a_patch_type_that_is_not_served_is_unsupported(resource: r.Resource, content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        apply_patch(SCHEMA, resource, {}, {}, content_type)


def test_parameters_of_the_content_type_do_not_matter() -> None:
    assert apply_patch(SCHEMA, r.PODS, {}, {"a": 1}, f"{MERGE_PATCH}; charset=utf-8") == {"a": 1}


containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abc")},
        optional={"image": st.sampled_from(["x:1", "x:2"]), "args": st.lists(st.sampled_from("12"), max_size=2)},
    ),
    max_size=3,
    unique_by=lambda container: container["name"],
)


@given(containers, containers)
@settings(max_examples=100, deadline=None)
def test_strategic_merging_twice_changes_nothing_more(before: list[Obj], patch: list[Obj]) -> None:
    once = strategic(pod(containers=before), pod(containers=patch))

    assert strategic(once, pod(containers=patch)) == once


@given(containers, containers, st.permutations(["a", "b", "c"]))
@settings(max_examples=100, deadline=None)
def test_elements_come_in_the_order_set_and_none_is_lost(before: list[Obj], patch: list[Obj], order: list[str]) -> None:
    result = strategic(
        pod(containers=before), pod(**{"containers": patch, "$setElementOrder/containers": named(*order)})
    )

    names = [container["name"] for container in result["spec"]["containers"]]
    assert names == [name for name in order if name in {item["name"] for item in (*before, *patch)}]


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        pytest.param([{"op": "remove", "path": ""}], Invalid, id="the whole object removed"),
        pytest.param([{"op": "move", "from": "/a", "path": "/a/b"}], Invalid, id="moved into itself"),
        pytest.param([{"op": "add", "path": "/l/4", "value": 1}], Invalid, id="behind the end of a list"),
        pytest.param([{"op": "replace", "path": "/l/01", "value": 1}], Invalid, id="an index with a zero in front"),
        pytest.param([{"op": "test", "path": "/l/0", "value": True}], Invalid, id="1 is not true"),
        pytest.param([{"op": "replace", "path": "", "value": []}], BadRequest, id="a list in place of the object"),
        pytest.param([{"op": "add", "path": "/a~2", "value": 1}], BadRequest, id="no pointer"),
        pytest.param([{"op": [], "path": "/a"}], BadRequest, id="no operation"),
        pytest.param([{"op": "copy", "path": "/l/-", "from": "/l"}] * 64, Invalid, id="copies without end"),
        pytest.param([{"op": "copy", "path": "/a/x", "from": "/a"}] * 5000, BadRequest, id="copies inside each other"),
        pytest.param([{"op": "add", "path": "/a" * n, "value": {}} for n in range(1, 999)], BadRequest, id="deeper"),
    ],
)
def test_a_json_patch_that_cannot_be_applied_is_refused(operations: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        json_patch({"a": {"b": "c"}, "l": [1]}, operations)


def test_a_json_patch_changes_neither_the_object_nor_itself() -> None:
    before: Obj = {"l": [1, {"x": {}}]}
    patch: list[Any] = [
        {"op": "add", "path": "/l/1/x/y", "value": {}},
        {"op": "copy", "from": "/l/1", "path": "/l/-"},
        {"op": "move", "from": "/l/0", "path": "/m~1n"},
        {"op": "add", "path": "/l/0/x/y/z", "value": 1},
    ]

    assert json_patch(before, patch) == {"l": [{"x": {"y": {"z": 1}}}, {"x": {"y": {}}}], "m/n": 1}
    assert (before, patch[0]["value"]) == ({"l": [1, {"x": {}}]}, {})


def test_directives_that_name_what_cannot_be_named_are_refused() -> None:
    with pytest.raises(BadRequest, match="retainKeys"):
        strategic({"metadata": {"name": "p"}}, {"metadata": {"$retainKeys": [[], {}], "finalizers": [["x"]]}})


def test_sets_may_hold_what_cannot_be_hashed() -> None:
    assert strategic({"metadata": {"finalizers": ["a"]}}, {"metadata": {"finalizers": [["x"], ["x"], "a"]}}) == {
        "metadata": {"finalizers": ["a", ["x"]]}
    }
