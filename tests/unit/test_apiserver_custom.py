"""Custom resources in the registry: defined, served, kept as their schema has them, and gone with their definition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from netemu.apiserver.keys import key_of
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.model.errors import AlreadyExists, BadRequest, Conflict, Invalid, NotFound, UnsupportedMediaType
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS, NAMESPACES
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import NAMESPACE, serving
from tests.unit.custom_kit import conditions, define, definition, redefine, until, version, widget

pytestmark = pytest.mark.looptime

STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    store = MemoryStore()
    async with serving(store) as running:
        await running.create(NAMESPACES, NAMESPACE)
        yield running
    await store.close()


# --- definitions ------------------------------------------------------------------------------------------------------


async def test_a_definition_is_established_with_its_names(registry: Registry) -> None:
    await define(registry, definition(shortNames=["wd"], categories=["all"]))

    status = (registry.find(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com") or {})["status"]
    assert conditions(registry) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }
    assert status["storedVersions"] == ["v1"]
    assert status["acceptedNames"] == {
        "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
        "shortNames": ["wd"], "categories": ["all"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param({"kind": "Widget", "plural": "others"}, "ListKindConflict", id="kind"),
        pytest.param({"kind": "Other", "plural": "others", "singular": "widget"}, "SingularConflict", id="singular"),
        pytest.param({"kind": "Other", "plural": "others", "shortNames": ["wd"]}, "ShortNamesConflict", id="short"),
    ],
)
async def test_a_name_that_another_definition_has_is_waited_for(
    registry: Registry, names: dict[str, Any], reason: str
) -> None:
    await define(registry, definition(shortNames=["wd"]))

    await registry.create(CUSTOMRESOURCEDEFINITIONS, definition(**names))
    await until(lambda: conditions(registry, "others.example.com"))
    found = conditions(registry, "others.example.com")
    await registry.delete(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com")

    assert found == {"NamesAccepted": ("False", reason), "Established": ("False", "NotAccepted")}
    assert await until(lambda: registry.served.by_path("example.com", "v1", "others"))


async def test_names_of_what_is_built_in_are_taken(registry: Registry) -> None:
    crd = definition("roles", "MyRole", group="rbac.authorization.k8s.io")
    crd["metadata"]["annotations"] = {"api-approved.kubernetes.io": "unapproved, a test"}

    await registry.create(CUSTOMRESOURCEDEFINITIONS, crd)
    await until(lambda: conditions(registry, "roles.rbac.authorization.k8s.io"))

    assert conditions(registry, "roles.rbac.authorization.k8s.io") == {
        "NamesAccepted": ("False", "PluralConflict"),
        "Established": ("False", "NotAccepted"),
        "KubernetesAPIApprovalPolicyConformant": ("False", "UnapprovedAnnotation"),
    }


async def test_the_end_of_a_definition_waits_for_its_objects_and_ends_their_watches(registry: Registry) -> None:
    widgets = await define(registry)
    held = widget("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await registry.create(widgets, held, "shop")
    await registry.create(widgets, widget("free"), "shop")
    told = asyncio.create_task(_until_the_end(registry, widgets))
    await asyncio.sleep(0)

    await registry.delete(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com")
    await until(lambda: registry.find(widgets, "free", "shop") is None)
    waiting = conditions(registry)["Terminating"]
    await registry.patch(widgets, "held", {"metadata": {"finalizers": None}}, "shop")
    await until(lambda: registry.find(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com") is None)

    assert waiting == ("True", "InstanceDeletionInProgress")
    assert await told == ["ADDED", "ADDED", "DELETED", "MODIFIED", "DELETED"]
    assert registry.served.by_path("example.com", "v1", "widgets") is None


async def _until_the_end(registry: Registry, resource: Any) -> list[str]:
    return [event.type async for event in registry.watch(resource)]


async def test_a_definition_that_was_never_established_takes_nothing_with_it(registry: Registry) -> None:
    widgets = await define(registry)
    await registry.create(widgets, widget(), "shop")
    await registry.create(CUSTOMRESOURCEDEFINITIONS, definition("others", "Other", singular="widget"))
    await until(lambda: conditions(registry, "others.example.com"))

    await registry.delete(CUSTOMRESOURCEDEFINITIONS, "others.example.com")
    await until(lambda: registry.find(CUSTOMRESOURCEDEFINITIONS, "others.example.com") is None)

    assert registry.find(widgets, "w", "shop")


async def test_definitions_and_their_objects_are_there_after_a_restart() -> None:
    store = MemoryStore()
    async with serving(store) as before:
        await before.create(NAMESPACES, NAMESPACE)
        await before.create(await define(before), widget(), "shop")
    async with serving(store) as after:
        widgets = after.served.by_kind("example.com/v1", "Widget")
        assert widgets
        assert (await after.get(widgets, "w", "shop"))["spec"] == {"size": 1, "color": "red"}
    keys = [item.key for item in (await store.list("/registry/")).items if "example.com" in item.key]
    await store.close()

    assert keys == [
        "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com",
        "/registry/example.com/widgets/shop/w",
    ]


async def test_a_version_that_was_once_stored_must_stay_and_scope_and_kind_too(registry: Registry) -> None:
    await define(registry)
    moved = definition("widgets", "Widget", version("v1", storage=False), version("v2"))
    await redefine(registry, moved)
    moved["spec"]["versions"] = moved["spec"]["versions"][1:]
    moved["spec"]["scope"] = "Cluster"
    moved["spec"]["names"]["kind"] = "Gadget"

    with pytest.raises(Invalid) as refused:
        await redefine(registry, moved)

    wrong = {cause["field"] for cause in refused.value.details["causes"]}
    assert wrong == {"spec.scope", "spec.names.kind", "status.storedVersions[0]"}


# --- objects ----------------------------------------------------------------------------------------------------------


async def test_an_object_is_pruned_defaulted_and_has_no_null(registry: Registry) -> None:
    widgets = await define(registry)
    spec: dict[str, Any] = {
        "bogus": 1,
        "color": None,
        "ports": [{"name": "a", "bogus": 2}],
        "free": {"any": {"thing": None}},
    }

    made = await registry.create(widgets, widget(**spec), "shop")

    ports = [{"name": "a", "number": 80}]
    assert made["spec"] == {"size": 1, "color": "red", "ports": ports, "free": {"any": {"thing": None}}}
    assert made["apiVersion"] == "example.com/v1"


async def test_unknown_fields_are_named_with_their_place(registry: Registry) -> None:
    widgets = await define(registry)
    obj = widget(bogus=1, ports=[{"name": "a", "bogus": 2}], free={"x": 1})
    obj["metadata"]["bogus"] = 3

    found = Schema.load().unknown_fields(widgets, obj)

    assert found == [f'unknown field "{path}"' for path in ("metadata.bogus", "spec.bogus", "spec.ports[0].bogus")]


async def test_metadata_is_kubernetes_own(registry: Registry) -> None:
    widgets = await define(registry)

    with pytest.raises(BadRequest, match=r"cannot unmarshal array into Go struct field ObjectMeta\.metadata\.labels"):
        await registry.create(widgets, {"metadata": {"name": "w", "labels": []}, "spec": {"size": 1}}, "shop")
    with pytest.raises(Invalid, match=r"metadata\.name: Invalid value"):
        await registry.create(widgets, widget("Not_A_Name"), "shop")


async def test_generation_counts_changes_of_the_spec_and_status_has_its_own_way(registry: Registry) -> None:
    widgets = await define(registry)
    await registry.create(widgets, {**widget(), "status": {"size": 7}}, "shop")

    first = await registry.patch(widgets, "w", {"spec": {"size": 2}, "status": {"size": 8}}, "shop")
    second = await registry.patch(
        widgets, "w", {"spec": {"size": 3}, "status": {"size": 9}}, "shop", subresource="status"
    )
    third = await registry.patch(widgets, "w", {"metadata": {"labels": {"a": "b"}}}, "shop")

    assert [obj["metadata"]["generation"] for obj in (first, second, third)] == [2, 2, 2]
    assert "status" not in first
    assert third["spec"]["size"] == 2
    assert third["status"] == {"size": 9}


async def test_without_a_status_subresource_status_is_a_part_like_any_other(registry: Registry) -> None:
    widgets = await define(registry, definition("widgets", "Widget", version(subresources={})))
    await registry.create(widgets, {**widget(), "status": {"size": 7}}, "shop")

    changed = await registry.patch(widgets, "w", {"status": {"size": 8}}, "shop")

    assert changed["status"] == {"size": 8}
    assert changed["metadata"]["generation"] == 2
    with pytest.raises(NotFound):
        await registry.patch(widgets, "w", {"status": {"size": 9}}, "shop", subresource="status")


async def test_scale_goes_by_the_paths_of_the_definition(registry: Registry) -> None:
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    widgets = await define(
        registry, definition("widgets", "Widget", version(subresources={"status": {}, "scale": scale}))
    )
    await registry.create(widgets, widget(size=3), "shop")
    await registry.patch(widgets, "w", {"status": {"size": 2}}, "shop", subresource="status")

    seen = await registry.get(widgets, "w", "shop", subresource="scale")
    await registry.patch(widgets, "w", {"spec": {"replicas": 5}}, "shop", subresource="scale")

    assert (seen["spec"], seen["status"]) == ({"replicas": 3}, {"replicas": 2})
    assert (registry.find(widgets, "w", "shop") or {})["spec"]["size"] == 5


async def test_versions_differ_in_nothing_but_their_schema_and_name(registry: Registry) -> None:
    older = version("v1beta1", {"type": "object", "properties": {"size": {"type": "integer"}}}, storage=False)
    widgets = await define(registry, definition("widgets", "Widget", version(), older))
    beta = registry.served.by_path("example.com", "v1beta1", "widgets")
    assert beta

    made = await registry.create(beta, {**widget(), "apiVersion": "example.com/v1beta1"}, "shop")
    shown = await registry.get(widgets, "w", "shop")
    listed = await registry.list(beta, "shop")

    assert (made["apiVersion"], made["spec"]) == ("example.com/v1beta1", {"size": 1})
    assert (shown["apiVersion"], shown["spec"]) == ("example.com/v1", {"size": 1, "color": "red"})
    assert listed.items[0]["apiVersion"] == "example.com/v1beta1"
    assert (registry.find(widgets, "w", "shop") or {})["apiVersion"] == "example.com/v1"


async def test_a_changed_schema_holds_for_objects_that_are_there_already(registry: Registry) -> None:
    widgets = await define(registry)
    await registry.create(widgets, widget(), "shop")
    properties = {"size": {"type": "integer"}, "shape": {"type": "string", "default": "round"}}

    spec = {"type": "object", "properties": properties}
    await redefine(registry, definition("widgets", "Widget", version(spec=spec)))
    now = registry.served.by_path("example.com", "v1", "widgets")

    assert now
    assert (await registry.get(now, "w", "shop"))["spec"] == {"size": 1, "shape": "round"}


async def test_an_update_is_not_held_against_what_it_leaves_alone(registry: Registry) -> None:
    widgets = await define(registry)
    await registry.create(widgets, widget(size=5), "shop")
    stricter = version(spec={"type": "object", "properties": {"size": {"type": "integer", "maximum": 3}}})
    await redefine(registry, definition("widgets", "Widget", stricter))
    now = registry.served.by_path("example.com", "v1", "widgets")
    assert now

    labelled = await registry.patch(now, "w", {"metadata": {"labels": {"a": "b"}}}, "shop")

    assert labelled["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Invalid, match=r"spec\.size in body should be less than or equal to 3"):
        await registry.patch(now, "w", {"spec": {"size": 6}}, "shop")


async def test_strategic_merge_is_refused_and_the_other_patches_are_not(registry: Registry) -> None:
    widgets = await define(registry)
    await registry.create(widgets, widget(), "shop")

    with pytest.raises(UnsupportedMediaType, match="application/apply-patch"):
        await registry.patch(widgets, "w", {"spec": {"size": 2}}, "shop", content_type=STRATEGIC)
    operations = [{"op": "replace", "path": "/spec/size", "value": 2}]
    patched = await registry.patch(widgets, "w", operations, "shop", content_type="application/json-patch+json")

    assert patched["spec"]["size"] == 2


async def test_appliers_share_a_list_that_is_a_map(registry: Registry) -> None:
    widgets = await define(registry)
    head = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    await registry.apply(widgets, "w", {**head, "spec": {"size": 1, "ports": [{"name": "a"}]}}, "shop", manager="one")

    both, new = await registry.apply(
        widgets, "w", {**head, "spec": {"ports": [{"name": "b", "number": 81}]}}, "shop", manager="two"
    )
    with pytest.raises(Conflict, match=r'conflict with "two": .spec.ports\[name="b"\].number'):
        await registry.apply(
            widgets, "w", {**head, "spec": {"size": 1, "ports": [{"name": "b", "number": 82}]}}, "shop", manager="one"
        )

    assert not new
    assert both["spec"]["ports"] == [{"name": "a", "number": 80}, {"name": "b", "number": 81}]


async def test_fields_can_be_selected_that_the_definition_names(registry: Registry) -> None:
    fields = [{"jsonPath": ".spec.color"}]
    widgets = await define(registry, definition("widgets", "Widget", version(selectableFields=fields)))
    for name, color in (("r", "red"), ("b", "blue")):
        await registry.create(widgets, widget(name, color=color), "shop")

    found = await registry.list(widgets, "shop", field_selector="spec.color=blue")

    assert [obj["metadata"]["name"] for obj in found.items] == ["b"]
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.size"):
        await registry.list(widgets, "shop", field_selector="spec.size=1")


async def test_an_object_is_created_once(registry: Registry) -> None:
    widgets = await define(registry)
    await registry.create(widgets, widget(), "shop")

    with pytest.raises(AlreadyExists, match=r'widgets.example.com "w" already exists'):
        await registry.create(widgets, widget(), "shop")


async def test_who_replaces_says_what_they_have_seen(registry: Registry) -> None:
    widgets = await define(registry)
    made = await registry.create(widgets, widget(), "shop")

    with pytest.raises(Invalid, match="must be specified for an update"):
        await registry.update(widgets, "w", widget(size=2), "shop")
    replaced = await registry.update(widgets, "w", {**made, "spec": {"size": 2}}, "shop")

    assert replaced["spec"] == {"size": 2, "color": "red"}


async def test_a_kind_may_be_of_the_whole_cluster(registry: Registry) -> None:
    crd = definition()
    crd["spec"]["scope"] = "Cluster"
    widgets = await define(registry, crd)

    made = await registry.create(widgets, widget())

    assert "namespace" not in made["metadata"]
    assert registry.find(widgets, "w")


async def test_what_is_wrong_with_a_status_is_told_from_the_status(registry: Registry) -> None:
    widgets = await define(registry)
    await registry.create(widgets, widget(), "shop")

    with pytest.raises(Invalid) as refused:
        await registry.patch(widgets, "w", {"status": {"size": "big"}}, "shop", subresource="status")

    (cause,) = refused.value.details["causes"]
    assert (cause["field"], cause["message"]) == (
        "status.size",
        'Invalid value: "string": size in body must be of type integer: "string"',
    )


# --- several servers, and a store that was away -----------------------------------------------------------------------


async def test_every_server_on_a_store_serves_what_one_of_them_defined() -> None:
    store = MemoryStore()
    async with serving(store) as one, serving(store) as other:
        await one.create(NAMESPACES, NAMESPACE)
        widgets = await define(one)
        await until(lambda: other.served.by_path("example.com", "v1", "widgets"))
        await other.create(widgets, widget(), "shop")
        await until(lambda: one.find(widgets, "w", "shop"))

        await other.delete(CUSTOMRESOURCEDEFINITIONS, "widgets.example.com")
        await until(lambda: not any(one.served.by_path("example.com", "v1", "widgets") for one in (one, other)))

        assert not list(one.objects(widgets))
    await store.close()


async def test_a_definition_that_went_while_the_store_was_away_is_served_no_longer() -> None:
    store = MemoryStore()
    async with serving(store) as registry:
        await registry.create(NAMESPACES, NAMESPACE)
        await define(registry)
        for obj in (definition("others", "Other"), definition("more", "More")):
            await define(registry, obj)

        store.cut()
        await store.delete(key_of(CUSTOMRESOURCEDEFINITIONS, "", "widgets.example.com"))
        await store.compact(await store.delete(key_of(CUSTOMRESOURCEDEFINITIONS, "", "others.example.com")))
        await until(lambda: registry.served.by_path("example.com", "v1", "widgets") is None)

        assert registry.served.by_path("example.com", "v1", "others") is None
        assert registry.served.by_path("example.com", "v1", "more")
    await store.close()
