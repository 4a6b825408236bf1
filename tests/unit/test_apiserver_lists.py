"""Lists: order, selectors, revisions, pages."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from netemu.apiserver.registry import Registry
from netemu.apiserver.watchcache import HISTORY
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
    SECRETS,
)
from netemu.testing.store import MemoryStore
from tests.unit.apiserver_kit import CONFIG, POD, named, registry, serving, store

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


async def test_another_server_goes_on_with_a_list(registry: Registry, store: MemoryStore) -> None:
    """From its history: it has not made the first page, and objects have changed since."""
    for n in range(5):
        await registry.create(CONFIGMAPS, named(CONFIG, f"c{n}"), "shop")
    async with serving(store) as other:
        first = await registry.list(CONFIGMAPS, limit=2)
        whole = {item["metadata"]["name"]: item for item in (await registry.list(CONFIGMAPS)).items}
        await registry.delete(CONFIGMAPS, "c3", "shop")
        await registry.create(CONFIGMAPS, named(CONFIG, "c31"), "shop")
        await registry.patch(CONFIGMAPS, "c4", {"data": {"a": "new"}}, "shop")
        second = await other.list(CONFIGMAPS, limit=2, continue_=first.continue_)
        third = await other.list(CONFIGMAPS, continue_=second.continue_)

    assert second.items + third.items == [whole[name] for name in ("c2", "c3", "c4")]
    assert {page.resource_version for page in (first, second, third)} == {first.resource_version}


async def test_a_token_leads_nowhere_that_its_request_does_not(registry: Registry) -> None:
    await registry.create(NAMESPACES, {"metadata": {"name": "kube-system"}})
    for namespace in ("kube-system", "shop"):
        for n in range(3):
            await registry.create(CONFIGMAPS, named(CONFIG, f"c{n}"), namespace)
            await registry.create(SECRETS, {"metadata": {"name": f"s{n}"}}, namespace)
    token = (await registry.list(SECRETS, "kube-system", limit=1)).continue_

    found = [
        *(await registry.list(CONFIGMAPS, "shop", continue_=token)).items,
        *(await registry.list(SECRETS, "shop", label_selector="a=b", continue_=token)).items,
    ]

    assert {(item["kind"], item["metadata"]["namespace"]) for item in found} == {("ConfigMap", "shop")}


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        '{"id": 1, "start": 0}',
        '{"v": "meta.k8s.io/v2", "rv": 1, "start": "a"}',
        '{"v": "meta.k8s.io/v1", "rv": 0, "start": "a"}',
        '{"v": "meta.k8s.io/v1", "rv": 1, "start": ""}',
    ],
)
async def test_a_token_that_no_list_gave_is_refused(registry: Registry, token: str) -> None:
    with pytest.raises(BadRequest, match="continue key is not valid"):
        await registry.list(CONFIGMAPS, continue_=base64.urlsafe_b64encode(token.encode()).decode() or "=")


async def test_a_list_of_which_the_history_is_gone_goes_on_with_what_there_is(registry: Registry) -> None:
    for n in range(3):
        await registry.create(CONFIGMAPS, named(CONFIG, f"c{n}"), "shop")
    first = await registry.list(CONFIGMAPS, limit=1)
    for n in range(70):  # newer lists push it out of memory
        await registry.list(CONFIGMAPS, limit=1, label_selector=f"n!={n}")
    for n in range(HISTORY + 1):
        await registry.patch(CONFIGMAPS, "c2", {"data": {"a": str(n)}}, "shop")

    with pytest.raises(Expired, match="too old to display a consistent list") as told:
        await registry.list(CONFIGMAPS, limit=1, continue_=first.continue_)
    rest = await registry.list(CONFIGMAPS, continue_=told.value.status()["metadata"]["continue"])

    assert [(item["metadata"]["name"], item["data"].get("a")) for item in rest.items][1] == ("c2", str(HISTORY))
    assert int(rest.resource_version) > int(first.resource_version)
