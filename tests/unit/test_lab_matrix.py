"""Where a matrix is measured from, while Pods come and go."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from netemu.lab.matrix import find_places
from netemu.model.errors import UserError
from netemu.observe.matrix.table import Matrix
from tests.unit.predict_scene import CLIENT, pod


def test_a_pod_that_went_after_the_cluster_was_read_is_told_and_the_others_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(lab: str, name: str) -> SimpleNamespace:
        if name == "default/a1":
            raise UserError("no Pod 'a1' running in namespace default")
        return SimpleNamespace(netns=f"{lab}.{name}")

    monkeypatch.setattr("netemu.lab.matrix.find_target", find)

    places, gone = find_places("lab", Matrix((pod("a1"), pod("b1"), CLIENT), (), ()))

    assert places == {"default/b1": "lab.default/b1", "client/laptop": "lab.client/laptop"}
    assert gone == {"default/a1": "no Pod 'a1' running in namespace default"}
