"""What this machine lacks for a mode of kube-proxy."""

from __future__ import annotations

import pytest

from netemu.lab.features import MODES_NEED, findings, lacking_for_mode
from netemu.proxy.config import MODES


def test_what_a_mode_needs_is_looked_for() -> None:
    found = {finding.name for finding in findings()}

    assert set(MODES_NEED) == set(MODES)
    assert {name for needs in MODES_NEED.values() for name in needs} <= found


@pytest.mark.parametrize("mode", MODES)
def test_each_thing_that_a_mode_needs_and_is_not_here_is_a_reason(mode: str) -> None:
    found = [finding._replace(present=finding.name not in MODES_NEED[mode]) for finding in findings()]

    assert lacking_for_mode(mode, [finding._replace(present=True) for finding in found]) == ""
    assert all(name in lacking_for_mode(mode, found) for name in MODES_NEED[mode])
