"""Lists: order, selectors, revisions, pages."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.apiserver.registry import Registry
from netemu.model.errors import (
    BadRequest,
    Expired,
    Invalid,
)
from netemu.model.resources import (
    CONFIGMAPS,
    EVENTS,
    EVENTS_V1,
    NAMESPACES,
    PODS,
)
from tests.unit.apiserver_kit import CONFIG, POD, named, registry, store

__all__ = ["registry", "store"]


async def test_lists_are_in_the_order_of_keys_and_tell_the_newest_revision(registry: Registry) -> None:
    await registry.create(NAMESPACES, {"metadata": {"name": "a"}})
    for space, name in (("shop", "b"), ("shop", "a"), ("a", "z")):
        await registry.create(CONFIGMAPS, named(CONFIG, name), space)

    found = await registry.list(CONFIGMAPS)

    keys = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found.items]
    assert keys == [("a", "z"), ("shop", "a"), ("shop", "b")]
    assert found.resource_version == str(registry.revision) == "5"


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        pytest.param({"label_selector": "app=web"}, ["p1", "p2"], id="a label"),
        pytest.param({"label_selector": "app notin (web)"}, ["p3"], id="not a label"),
        pytest.param({"field_selector": "metadata.name=p2"}, ["p2"], id="a name"),
        pytest.param({"field_selector": "spec.nodeName="}, ["p2", "p3"], id="no node yet"),
        pytest.param({"field_selector": "spec.nodeName=n1,status.phase!=Failed"}, ["p1"], id="node and phase"),
        pytest.param({"field_selector": "spec.hostNetwork=false"}, ["p1", "p2", "p3"], id="a flag that is absent"),
        pytest.param({"namespace": "other"}, [], id="another namespace"),
    ],
)
async def test_lists_are_narrowed_by_selectors(registry: Registry, selector: dict[str, Any], names: list[str]) -> None:
    for name, app in (("p1", "web"), ("p2", "web"), ("p3", "db")):
        await registry.create(PODS, named(POD, name, labels={"app": app}), "shop")
    await registry.create_subresource(PODS, "p1", "binding", {"target": {"name": "n1"}}, "shop")

    found = await registry.list(PODS, **selector)

    assert [item["metadata"]["name"] for item in found.items] == names


async def test_events_are_selected_by_what_they_are_about_in_both_shapes(registry: Registry) -> None:
    for name in ("p", "q"):
        event = {"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": name, "namespace": "shop"}}
        await registry.create(EVENTS, {**event, "reason": "r", "type": "Normal"}, "shop")

    core = await registry.list(EVENTS, field_selector="involvedObject.name=p,type=Normal")
    new = await registry.list(EVENTS_V1, field_selector="regarding.name=q")

    assert [item["metadata"]["name"] for item in core.items + new.items] == ["p", "q"]


@pytest.mark.parametrize(
    "selector",
    [
        {"field_selector": "spec.image=x"},
        {"field_selector": "spec.nodeName"},
        {"label_selector": "a in b"},
        {"resource_version": "x"},
        {"continue_": "nonsense"},
    ],
    ids=str,
)
async def test_a_list_that_cannot_be_understood_is_a_bad_request(registry: Registry, selector: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await registry.list(PODS, **selector)


async def test_a_list_of_the_future_is_expired(registry: Registry) -> None:
    with pytest.raises(Expired, match="too large resource version"):
        await registry.list(PODS, resource_version="999")


async def test_an_exact_revision_is_served_as_long_as_nothing_changed(registry: Registry) -> None:
    await registry.create(PODS, POD, "shop")
    seen = (await registry.list(PODS)).resource_version
    await registry.create(CONFIGMAPS, CONFIG, "shop")

    exact = await registry.list(PODS, resource_version=seen, resource_version_match="Exact")
    await registry.create(PODS, named(POD, "q"), "shop")

    assert (exact.resource_version, len(exact.items)) == (seen, 1)
    with pytest.raises(Expired):
        await registry.list(PODS, resource_version=seen, resource_version_match="Exact")


@pytest.mark.parametrize(
    "query",
    [
        {"resource_version_match": "Exact"},
        {"resource_version_match": "Exact", "resource_version": "0"},
        {"resource_version_match": "Nearly", "resource_version": "1"},
    ],
    ids=str,
)
async def test_a_match_rule_that_makes_no_sense_is_invalid(registry: Registry, query: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="resourceVersionMatch"):
        await registry.list(PODS, **query)


async def test_pages_show_one_moment_whatever_happens_between_them(registry: Registry) -> None:
    for n in range(5):
        await registry.create(CONFIGMAPS, named(CONFIG, f"c{n}"), "shop")

    first = await registry.list(CONFIGMAPS, limit=2)
    await registry.delete(CONFIGMAPS, "c3", "shop")
    second = await registry.list(CONFIGMAPS, limit=2, continue_=first.continue_)
    third = await registry.list(CONFIGMAPS, limit=2, continue_=second.continue_)

    names = [[item["metadata"]["name"] for item in page.items] for page in (first, second, third)]
    assert names == [["c0", "c1"], ["c2", "c3"], ["c4"]]
    assert [(page.remaining, bool(page.continue_)) for page in (first, second, third)] == [
        (3, True),
        (1, True),
        (None, False),
    ]
    assert {page.resource_version for page in (first, second, third)} == {first.resource_version}


async def test_a_page_of_a_list_that_is_no_longer_kept_is_expired(registry: Registry) -> None:
    for n in range(3):
        await registry.create(CONFIGMAPS, named(CONFIG, f"c{n}"), "shop")
    first = await registry.list(CONFIGMAPS, limit=1)
    for _ in range(100):
        await registry.list(CONFIGMAPS, limit=1)

    with pytest.raises(Expired, match="too old to display a consistent list"):
        await registry.list(CONFIGMAPS, limit=1, continue_=first.continue_)
