"""Label and field selectors."""

from __future__ import annotations

import pytest

from netemu.model.errors import BadRequest
from netemu.model.selectors import FieldSelector, LabelSelector


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        pytest.param("", True, id="nothing selects everything"),
        pytest.param("app=web", True, id="equal"),
        pytest.param("app==web,tier!=db", True, id="comma is and; absent key is not equal"),
        pytest.param("app!=web", False, id="not equal"),
        pytest.param("app in (api, web)", True, id="in"),
        pytest.param("app notin (api,web)", False, id="not in"),
        pytest.param("zone notin (a)", True, id="not in holds for an absent key"),
        pytest.param("app", True, id="exists"),
        pytest.param("!app", False, id="does not exist"),
        pytest.param("!service.kubernetes.io/headless,!x", True, id="as kube-proxy sends it"),
    ],
)
def test_label_selector(text: str, selected: bool) -> None:
    assert selected == LabelSelector.parse(text).matches({"app": "web"})


def test_text_survives_a_round_trip() -> None:
    selector = LabelSelector.parse("a=b,c in (d,e),!f,g,h notin (i)")

    assert selector == LabelSelector.parse(str(selector))


@pytest.mark.parametrize("text", ["a=b=c", "in (x)", "a in x", "a b"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        LabelSelector.parse(text)


def test_field_selector_treats_missing_as_empty() -> None:
    pod = {"metadata": {"name": "x"}, "spec": {}}

    assert FieldSelector.parse("metadata.name=x,spec.nodeName=,status.phase!=Failed").matches(pod)


def test_unsupported_field_is_named() -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.colour"):
        FieldSelector.parse("spec.colour=red", supported=["metadata.name"])
