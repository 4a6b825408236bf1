"""What an object and its managers are after applies and other writes: decisions without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.apiserver import admitted
from netemu.apiserver.merge import managed_fields
from netemu.apiserver.merge.fieldset import pruned, union
from netemu.apiserver.merge.managed_fields import Managers, applier, updater
from netemu.apiserver.merge.server_side_apply import Application, UnfitConfiguration, applied
from netemu.apiserver.merge.typed import Types
from netemu.apiserver.merge.typed_merge import merged
from netemu.apiserver.merge.typed_sets import compared, fields_of
from netemu.apiserver.schema.kinds import Schema
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, Conflict
from netemu.model.resources import CONFIGMAPS, DEPLOYMENTS, PODS, SERVICES, Resource

TYPES = Types(Schema.load())


def obj(resource: Resource, spec: Any = None, **more: Any) -> Obj:
    whole: Obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "x", **more}}
    return whole if spec is None else {**whole, "spec": spec}


def config_map(data: dict[str, str], **metadata: Any) -> Obj:
    return {**obj(CONFIGMAPS, **metadata), "data": data}


def apply(live: Obj, config: Obj, manager: str = "me", *, resource: Resource = CONFIGMAPS, force: bool = False) -> Obj:
    application = Application(resource, config, manager, force=force)
    return applied(TYPES.root(resource), application, live)


def fields(result: Obj, manager: str) -> Any:
    """The set of a manager, whatever its operation."""
    (found,) = [entry for entry in result["metadata"]["managedFields"] if entry["manager"] == manager]
    return found["fieldsV1"]


def managers(result: Obj) -> list[str]:
    return [entry["manager"] for entry in result["metadata"].get("managedFields", [])]


def ports(*numbers: int, **more: Any) -> list[Any]:
    return [{"port": number, **more} for number in numbers]


LISTS = [
    pytest.param(
        SERVICES, {"ports": ports(80, protocol="TCP")}, {"ports": ports(81)},
        {"ports": [*ports(80, protocol="TCP"), *ports(81)]}, id="elements with other keys are added",
    ),
    pytest.param(
        SERVICES, {"ports": ports(80, protocol="TCP", name="a")}, {"ports": ports(80, nodePort=30000)},
        {"ports": ports(80, protocol="TCP", name="a", nodePort=30000)}, id="a key has its default",
    ),
    pytest.param(
        SERVICES, {"selector": {"a": "b"}}, {"selector": {"c": "d"}}, {"selector": {"c": "d"}},
        id="a selector is atomic",
    ),
    pytest.param(
        PODS, {"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]},
        id="a list without a type is atomic",
    ),
    pytest.param(
        PODS, {"containers": [{"name": name} for name in "abc"]}, {"containers": [{"name": name} for name in "cxa"]},
        {"containers": [{"name": name} for name in "bcxa"]}, id="the configuration's order, others between",
    ),
    pytest.param(
        PODS, {"containers": [{"name": "a", "args": ["x"], "image": "i"}]},
        {"containers": [{"name": "a", "args": ["y"]}]},
        {"containers": [{"name": "a", "args": ["y"], "image": "i"}]}, id="inside an element",
    ),
    pytest.param(
        DEPLOYMENTS, {"replicas": 1, "paused": True}, {"replicas": 3}, {"replicas": 3, "paused": True},
        id="fields of structs",
    ),
    pytest.param(
        PODS, {"nodeSelector": {"a": "b"}, "containers": [{"name": "a"}]}, {"containers": []},
        {"nodeSelector": {"a": "b"}, "containers": [{"name": "a"}]}, id="an empty list says nothing",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "live", "config", "wanted"), LISTS)
def test_what_merging_leaves(resource: Resource, live: Any, config: Any, wanted: Any) -> None:
    result = merged(TYPES.root(resource), obj(resource, live), obj(resource, config))

    assert result == obj(resource, wanted)


def test_finalizers_are_a_set() -> None:
    live = config_map({}, finalizers=["a.io/x"])

    assert apply(live, config_map({}, finalizers=["b.io/y", "a.io/x"]), force=True)["metadata"]["finalizers"] == [
        "b.io/y",
        "a.io/x",
    ]


def test_an_apply_owns_what_it_says_and_nothing_else() -> None:
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {}}
    config = obj(PODS, {"containers": [container], "nodeSelector": {"a": "b"}}, labels={"l": "x"}, namespace="n")

    assert fields(apply({}, config, resource=PODS), "me") == {
        "f:metadata": {"f:labels": {"f:l": {}}},
        "f:spec": {
            "f:nodeSelector": {},
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:name": {},
                    "f:image": {},
                    "f:resources": {},
                    "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                }
            },
        },
    }


def test_a_create_owns_what_came_into_being_with_it() -> None:
    new = obj(
        DEPLOYMENTS,
        {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "env": []}]}},
        },
    )
    changed, _ = compared(TYPES.root(DEPLOYMENTS), {}, new)

    assert managed_fields.owned(changed) == {
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}, "f:env": {}}}},
            },
        }
    }


def test_what_is_no_longer_applied_goes() -> None:
    live = apply({}, config_map({"a": "1", "b": "2"}, labels={"l": "x"}))
    result = apply(live, config_map({"a": "1"}))

    assert result["data"] == {"a": "1"}
    assert not result["metadata"].get("labels")
    assert fields(result, "me") == {"f:data": {"f:a": {}}}


def test_what_somebody_else_applies_too_stays() -> None:
    live = apply(apply({}, config_map({"a": "1", "b": "2"})), config_map({"b": "2"}, labels={"l": "x"}), "other")
    result = apply(live, config_map({"a": "1"}))

    assert result["data"] == {"a": "1", "b": "2"}
    assert result["metadata"]["labels"] == {"l": "x"}
    assert managers(result) == ["me", "other"]


def test_what_came_by_default_into_an_element_goes_with_it() -> None:
    live = apply({}, obj(SERVICES, {"ports": ports(80, name="a") + ports(81, name="b")}), resource=SERVICES)
    live["spec"]["ports"] = [{**port, "protocol": "TCP", "targetPort": port["port"]} for port in live["spec"]["ports"]]
    result = apply(live, obj(SERVICES, {"ports": ports(81, name="b")}), resource=SERVICES)

    assert result["spec"]["ports"] == [{"port": 81, "name": "b", "protocol": "TCP", "targetPort": 81}]


CONFLICTS = [
    pytest.param(
        config_map({"a": "2"}), 'Apply failed with 1 conflict: conflict with "theirs": .data.a', [".data.a"], id="one"
    ),
    pytest.param(
        config_map({"a": "2", "b": "3"}),
        'Apply failed with 2 conflicts: conflicts with "edit" using v1:\n- .data.b\n'
        'conflicts with "theirs":\n- .data.a',
        [".data.a", ".data.b"],
        id="two managers",
    ),
]


def shared_map() -> Obj:
    live = apply({}, config_map({"a": "1"}), "theirs")
    edited = {**live, "data": {"a": "1", "b": "2"}}
    known = managed_fields.after_update(
        TYPES.root(CONFIGMAPS), managed_fields.of(live), updater("edit", "v1"), live, edited
    )
    return {**edited, "metadata": {**live["metadata"], "managedFields": managed_fields.encoded(known)}}


@pytest.mark.parametrize(("config", "message", "where"), CONFLICTS)
def test_another_value_is_a_conflict(config: Obj, message: str, where: list[str]) -> None:
    with pytest.raises(Conflict) as caught:
        apply(shared_map(), config)

    assert caught.value.message == message
    causes = caught.value.details["causes"]
    assert sorted(cause["field"] for cause in causes) == where
    assert {cause["reason"] for cause in causes} == {"FieldManagerConflict"}


def test_force_takes_fields_from_others() -> None:
    result = apply(shared_map(), config_map({"a": "2", "b": "3"}), force=True)

    assert result["data"] == {"a": "2", "b": "3"}
    assert managers(result) == ["me"]


def test_the_same_value_is_shared() -> None:
    result = apply(shared_map(), config_map({"a": "1"}))

    assert fields(result, "me") == fields(result, "theirs") == {"f:data": {"f:a": {}}}


def test_what_was_there_before_the_first_apply_belongs_to_somebody() -> None:
    with pytest.raises(Conflict, match=r'conflict with "before-first-apply" using v1: \.data\.a'):
        apply(config_map({"a": "1"}), config_map({"a": "2"}))


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def client_side(last: str) -> Obj:
    live = config_map({"a": "1", "b": "2"}, annotations={LAST_APPLIED: last})
    known = managed_fields.after_update(
        TYPES.root(CONFIGMAPS), {}, updater("kubectl-client-side-apply", "v1"), {}, live
    )
    return {**live, "metadata": {**live["metadata"], "managedFields": managed_fields.encoded(known)}}


def test_kubectl_may_change_what_it_applied_from_the_client() -> None:
    live = client_side('{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1"}}')
    result = apply(live, config_map({"a": "3"}), "kubectl")

    assert result["data"] == {"a": "3", "b": "2"}
    assert '"a":"3"' in result["metadata"]["annotations"][LAST_APPLIED]


@pytest.mark.parametrize(
    ("last", "config", "manager"),
    [
        pytest.param('{"data":{"a":"0"}}', {"a": "3"}, "kubectl", id="it was changed since"),
        pytest.param('{"data":{"a":"1"}}', {"b": "3"}, "kubectl", id="somebody else set it"),
        pytest.param('{"data":{"a":"1"}}', {"a": "3"}, "flux", id="another manager"),
        pytest.param("{", {"a": "3"}, "kubectl", id="an annotation that cannot be read"),
    ],
)
def test_other_changes_of_it_are_conflicts(last: str, config: dict[str, str], manager: str) -> None:
    with pytest.raises(Conflict):
        apply(client_side(last), config_map(config), manager)


@pytest.mark.parametrize(
    ("resource", "config", "message"),
    [
        (
            DEPLOYMENTS,
            obj(DEPLOYMENTS, {"foo": 1}),
            "(/x; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema",
        ),
        (
            PODS,
            obj(PODS, {"containers": [{"name": "c", "env": [{"name": "A"}, {"name": "A"}]}]}, namespace="n"),
            '(n/x; v1, Kind=Pod): .spec.containers[name="c"].env: duplicate entries for key [name="A"]',
        ),
        (PODS, obj(PODS, {"containers": {}}), "(/x; v1, Kind=Pod): .spec.containers: expected list, got map"),
        (PODS, obj(PODS, {"containers": [{"image": "i"}]}), "element 0: associative list with keys has an element"),
    ],
)  # fmt: skip
def test_a_configuration_that_the_kind_cannot_hold(resource: Resource, config: Obj, message: str) -> None:
    with pytest.raises(UnfitConfiguration) as caught:
        apply({}, config, resource=resource)

    assert "failed to create typed patch object (" in caught.value.message
    assert message in caught.value.message
    assert caught.value.code == 500


def test_a_configuration_is_of_the_kind_and_has_no_entries() -> None:
    with pytest.raises(BadRequest, match="invalid object type"):
        apply({}, obj(PODS))
    with pytest.raises(BadRequest, match="managedFields must be nil"):
        apply({}, config_map({}, managedFields=[{}]))


DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]), max_size=4)
IMAGE = {"image": st.sampled_from("ij")}
ITEMS = st.lists(st.sampled_from("abcd"), unique=True, max_size=4).flatmap(
    lambda names: st.tuples(*[st.fixed_dictionaries({"name": st.just(name)}, optional=IMAGE) for name in names])
)
PODS_OF = ITEMS.map(lambda items: obj(PODS, {"containers": list(items)}))


@given(PODS_OF, PODS_OF)
def test_an_apply_done_twice_changes_nothing(first: Obj, second: Obj) -> None:
    live = apply(apply({}, first, "other", resource=PODS), second, resource=PODS, force=True)
    again = apply(live, second, resource=PODS)

    assert bare(again) == bare(live)
    assert managed_fields.same(again["metadata"]["managedFields"], live["metadata"]["managedFields"])


@given(PODS_OF, PODS_OF)
def test_what_is_applied_is_there(first: Obj, second: Obj) -> None:
    result = apply(apply({}, first, "other", resource=PODS), second, resource=PODS, force=True)
    here = {item["name"]: item for item in result["spec"].get("containers") or ()}

    for item in second["spec"]["containers"]:
        assert item.items() <= here[item["name"]].items()


@given(DATA, DATA)
def test_applying_and_taking_back_restores(first: dict[str, str], more: dict[str, str]) -> None:
    live = apply({}, config_map({**first, "own": "x"}), "other")
    added = config_map({key: value for key, value in more.items() if key not in first})
    result = apply(apply(live, added), obj(CONFIGMAPS))

    assert result["data"] == live["data"]
    assert managed_fields.same(result["metadata"]["managedFields"], live["metadata"]["managedFields"])


@given(DATA, DATA)
def test_a_write_owns_just_what_differs(before: dict[str, str], after: dict[str, str]) -> None:
    root = TYPES.root(CONFIGMAPS)
    old, new = config_map({**before, "own": "x"}), config_map({**after, "own": "x"})
    known = managed_fields.after_update(root, {}, updater("first", "v1"), {}, old)
    known = managed_fields.after_update(root, known, updater("second", "v1"), old, new)
    everything = fields_of(root, new)["f:data"]
    differing = {f"f:{key}" for key, value in after.items() if before.get(key) != value}

    mine = known.get(updater("second", "v1"))
    assert set(mine.fields["f:data"] if mine else ()) == differing
    assert set(known[updater("first", "v1")].fields["f:data"]) == {".", *(everything.keys() - differing)}


def test_many_managers_become_ancient_changes() -> None:
    root, live, known = TYPES.root(CONFIGMAPS), config_map({}), Managers()
    for number in range(14):
        new = config_map({**live.get("data", {}), str(number): "x"})
        known = managed_fields.after_update(root, known, updater(f"m{number}", "v1"), live if number else {}, new)
        live = new

    assert len(known) == managed_fields.MAX_UPDATE_MANAGERS
    assert updater("ancient-changes", "v1") in known
    everything = [step for managed in known.values() for step in managed.fields.get("f:data", {}) if step != "."]
    assert len(everything) == 14


def entry(operation: str) -> Obj:
    fields_v1 = {"fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}}
    return {"manager": "x", "operation": operation, "apiVersion": "v1", **fields_v1}


@pytest.mark.parametrize(
    ("given_entries", "kept"),
    [
        (None, ["them"]),
        ([], ["them"]),
        ([{"operation": "Apply"}], ["them"]),
        ([entry("Nothing")], ["them"]),
        ([{}], []),
        ([entry("Apply")], ["x"]),
    ],
)
def test_entries_that_a_client_writes(given_entries: Any, kept: list[str]) -> None:
    live = apply({}, config_map({"a": "1"}), "them")

    assert [who.name for who in managed_fields.before(given_entries, live, "")] == kept
    assert [who.name for who in managed_fields.before(given_entries, live, "status")] == ["them"]


def test_an_object_without_entries_gets_none_by_updates() -> None:
    old, new = config_map({"a": "1"}), config_map({"a": "2"})

    assert managed_fields.after_update(TYPES.root(CONFIGMAPS), {}, updater("m", "v1"), old, new) == {}


def test_what_admission_adds_to_a_pod_belongs_to_nobody() -> None:
    mine: Obj = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    given = obj(PODS, {"containers": [mine, {"name": "d"}], "volumes": [{"name": "v"}]})
    token = {"name": "token", "mountPath": "/t"}
    containers = [{**mine, "volumeMounts": [*mine["volumeMounts"], token]}, {"name": "d", "volumeMounts": [token]}]
    volumes = [{"name": "v"}, {"name": "token"}]
    new = obj(PODS, {"serviceAccountName": "default", "containers": containers, "volumes": volumes})
    unowned = union(admitted.unowned(PODS, given), admitted.mounted(new, admitted.volume_names(given)))
    root = TYPES.root(PODS)

    everything = pruned(compared(root, {}, new).changed, unowned)
    assert everything == compared(root, {}, given).changed


def test_an_applier_has_one_entry_for_all_versions() -> None:
    entries = apply({}, config_map({"a": "1"}))["metadata"]["managedFields"]

    assert list(managed_fields.decoded(entries) or ()) == [applier("me")]


def bare(result: Obj) -> Obj:
    return managed_fields.bare(result)
