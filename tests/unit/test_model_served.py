"""What is served, as CustomResourceDefinitions come and go."""

from __future__ import annotations

from netemu.model.resources import CONFIGMAPS, EVENTS, PODS, RESOURCES, Resource
from netemu.model.served import Served

WIDGETS = Resource("example.com", "v1", "Widget", "widgets")
OLDER = Resource("example.com", "v1beta1", "Widget", "widgets")


def test_built_in_resources_are_found_by_path_and_kind() -> None:
    served = Served()

    assert served.by_path("", "v1", "pods") is PODS
    assert served.by_kind("v1", "ConfigMap") is CONFIGMAPS
    assert tuple(served) == RESOURCES


def test_a_definition_adds_its_resources_and_takes_them_away() -> None:
    served = Served()
    before = served.generation

    served.define("widgets.example.com", [WIDGETS, OLDER])
    found = served.by_path("example.com", "v1beta1", "widgets"), served.by_kind("example.com/v1", "Widget")
    served.define("widgets.example.com", [])

    assert found == (OLDER, WIDGETS)
    assert served.by_path("example.com", "v1", "widgets") is None
    assert served.generation == before + 2


def test_what_was_never_defined_changes_nothing_when_it_ends() -> None:
    served = Served()
    before = served.generation

    served.define("widgets.example.com", [])

    assert served.generation == before


def test_a_definition_never_takes_the_place_of_what_is_built_in() -> None:
    served = Served()

    served.define("pods", [Resource("", "v1", "Pod", "pods", namespaced=False)])

    assert served.by_path("", "v1", "pods") is PODS
    assert served.by_kind("v1", "Pod") is PODS


def test_each_resource_is_listed_once_in_its_first_version() -> None:
    served = Served([EVENTS, Resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", verbs=("create",))])

    served.define("widgets.example.com", [WIDGETS, OLDER])

    assert served.listable() == [EVENTS, WIDGETS]
