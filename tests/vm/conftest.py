"""Tests that need a kernel with IPVS, dummy links and netem; `scripts/test vm` finds or makes one."""

from __future__ import annotations

import os

import pytest

from tests.vm.needs import missing

_PATIENCE = 600.0
"""Seconds for one test: a processor that is emulated is some twenty times slower."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long time limits; and on a kernel without the features a reason, unless this is the machine meant for them."""
    here = [item for item in items if "vm" in item.path.parts]
    lacks = missing() if here and os.geteuid() == 0 and not config.option.collectonly else []
    if lacks and os.environ.get("NETEMU_IN_VM"):
        raise pytest.UsageError(f"the virtual machine's kernel has no {', '.join(lacks)}")
    for item in here:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_PATIENCE))
        if lacks:
            item.add_marker(
                pytest.mark.skip(reason=f"no {', '.join(lacks)} here: `scripts/test vm` uses a machine that has")
            )
